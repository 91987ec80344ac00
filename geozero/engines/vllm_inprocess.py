"""The vLLM engine, in this process; on a CPU in float32 and eager, on GPUs with vLLM's own settings."""

from __future__ import annotations

import importlib.metadata
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geozero import process
from geozero.engines.base import Completion, Request, SamplingParams, failed, first_seed
from geozero.engines.prompts import Prompt, Prompter
from geozero.errors import BadRecord

SAMPLER = "geozero.engines.vllm_sampler:SeededRows"
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: no fork, nothing left over when this one ends
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every process of a machine binds itself to the same first core
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns at every step that threads stay as they are
}


class VllmEngine:
    """Answers through `vllm.LLM`.

    Args:
        path: the checkpoint's directory.
        dtype: `float32`, `bfloat16` or `float16`.
        max_pixels: most pixels of a picture.
        max_length: most tokens of prompt and completion.
        memory: share of a GPU's memory that vLLM may take.
        devices: GPUs the model is spread over (tensor parallel).
        reason: why this engine was chosen.
    """

    name = "vllm"

    def __init__(
        self,
        path: Path,
        *,
        dtype: str,
        max_pixels: int,
        max_length: int,
        memory: float = 0.9,
        devices: int = 1,
        reason: str = "asked for",
    ) -> None:
        process.prepare()
        self.path, self.dtype, self.reason = path, dtype, reason
        on_cpu = built_for_cpu()
        for key, value in (CPU_ENVIRONMENT if on_cpu else {}).items():
            os.environ.setdefault(key, value)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        self.prompter = Prompter(path, max_pixels, max_length)
        import vllm

        if on_cpu:
            inspect_here(path)
        hardware: dict[str, Any] = (
            {"enforce_eager": True, "distributed_executor_backend": "uni"}
            if on_cpu
            else {"gpu_memory_utilization": memory, "tensor_parallel_size": devices}
        )
        self._llm: Any = vllm.LLM(
            str(path),
            dtype=dtype,
            max_model_len=self.prompter.max_length,
            use_tqdm_on_load=False,
            generation_config="vllm",  # never the checkpoint's sampling defaults
            limit_mm_per_prompt={"image": 1, "video": 0},
            # the pictures arrive fitted; these limits make vLLM's own resize leave them alone
            mm_processor_kwargs={
                "size": {"shortest_edge": self.prompter.min_pixels, "longest_edge": self.prompter.max_pixels}
            },
            logits_processors=[SAMPLER],
            async_scheduling=False,  # our sampler must see every token before it draws the next
            **hardware,
        )
        self._sampling = vllm.SamplingParams
        self._calls = 0

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """See `Engine.generate`."""
        answers: list[list[Completion]] = [[] for _ in requests]
        ready: list[tuple[int, Prompt]] = []
        for number, request in enumerate(requests):
            try:
                ready.append((number, self.prompter.prepare(request)))
            except BadRecord as bad:
                answers[number] = failed(str(bad), params.n)
        if not ready:
            return answers
        greedy = params.temperature == 0
        seeds = [None if greedy else first_seed(requests[number], params) for number, _ in ready]
        tokens = self._tokens([prompt for _, prompt in ready], seeds, params)
        for (number, prompt), seed, rows in zip(ready, seeds, tokens, strict=True):
            budget = self.prompter.budget(prompt, params.max_tokens)
            answers[number] = [self._completion(row, budget, seed, rollout) for rollout, row in enumerate(rows)]
            if greedy:
                answers[number] *= params.n
        return answers

    def _tokens(
        self, prompts: Sequence[Prompt], seeds: Sequence[int | None], params: SamplingParams
    ) -> list[list[list[int]]]:
        """Token ids of each prompt's completions: one without a seed, `params.n` from a seed on.

        Each completion is a vLLM request of its own, because vLLM gives the n completions of one request the same
        arguments; the prompt is rendered once for all of them.
        """
        from vllm.sampling_params import RequestOutputKind

        from geozero.engines.vllm_sampler import ARGUMENT

        engine, renderer = self._llm.llm_engine, self._llm.renderer
        found: list[list[list[int]]] = []
        waiting: dict[str, tuple[int, int]] = {}
        for number, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            (rendered,) = renderer.render_cmpl([{"prompt": prompt.text, "multi_modal_data": {"image": prompt.image}}])
            n = 1 if seed is None else params.n
            found.append([[] for _ in range(n)])
            for rollout in range(n):
                sampling = self._sampling(
                    temperature=0.0,  # vLLM takes the best of what our sampler leaves over
                    max_tokens=self.prompter.budget(prompt, params.max_tokens),
                    stop_token_ids=list(self.prompter.vocabulary.end),
                    extra_args=None
                    if seed is None
                    else {ARGUMENT: (seed + rollout, params.temperature, params.top_p, params.top_k)},
                    detokenize=False,
                    output_kind=RequestOutputKind.FINAL_ONLY,
                )
                name = f"{self._calls}-{number}-{rollout}"
                engine.add_request(name, rendered, sampling)
                waiting[name] = (number, rollout)
        self._calls += 1
        while engine.has_unfinished_requests():
            for output in engine.step():
                if output.finished:
                    number, rollout = waiting.pop(output.request_id)
                    found[number][rollout] = list(output.outputs[0].token_ids)
        if waiting:
            raise RuntimeError(f"vLLM lost {len(waiting)} of its requests")
        return found

    def _completion(self, row: list[int], budget: int, seed: int | None, rollout: int) -> Completion:
        end = set(self.prompter.vocabulary.end)
        length = next((i for i, token in enumerate(row) if token in end), len(row))
        return Completion(
            self.prompter.decode(row[:length]),
            "length" if length >= budget else "stop",
            length,
            None if seed is None else seed + rollout,
        )

    def describe(self) -> dict[str, Any]:
        """See `Engine.describe`."""
        versions = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
        versions[distribution() or "vllm"] = importlib.metadata.version(distribution() or "vllm")
        return {
            "engine": self.name,
            "reason": self.reason,
            "model": str(self.path),
            "dtype": self.dtype,
            "device": "cpu" if built_for_cpu() else "cuda",
            "max_pixels": self.prompter.max_pixels,
            "max_length": self.prompter.max_length,
            "versions": versions,
        }

    def close(self) -> None:
        """See `Engine.close`."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm = None
        cleanup_dist_env_and_memory()


def inspect_here(path: Path) -> None:
    """Load the model's class in this process, so that vLLM starts no process of its own to look at it.

    That process would import torchvision without what `process.prepare` does, and fail on a CPU build of torch.
    """
    from vllm.model_executor.models.registry import ModelRegistry

    for architecture in json.loads((path / "config.json").read_text()).get("architectures", []):
        known = ModelRegistry.models.get(architecture)
        if known is not None:
            ModelRegistry.register_model(architecture, known.load_model_cls())


def distribution() -> str | None:
    """The installed distribution that provides vLLM: `vllm` (GPU) or `vllm-cpu`; None where there is none."""
    for name in ("vllm", "vllm-cpu"):
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        return name
    return None


def built_for_cpu() -> bool:
    """Whether the installed vLLM runs on a CPU."""
    name = distribution()
    return name == "vllm-cpu" or (name is not None and "cpu" in importlib.metadata.version(name))
