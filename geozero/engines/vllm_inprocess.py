"""The vLLM engine, in this process; on a CPU in float32 and eager, on GPUs with vLLM's own settings."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import BadRecord
from geozero.engines.base import Answered, Completion, FinishReason, Request, SamplingParams, failed, first_seed
from geozero.engines.prompts import Prompter

SAMPLER = "geozero.engines.vllm_sampler:SeededRows"  # keeps tokens out of reach that could not be read back
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: no fork, nothing left over when this one ends
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every process of a machine binds itself to the same first core
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns at every step that threads stay as they are
}
FULL_BATCH = 256  # sequences that vLLM works on at once on a CPU
FLOAT_BYTES = 4
LEAST_CACHE, MOST_CACHE = 64 << 20, 1 << 30


@dataclass(slots=True)
class _Asked:
    """A request under way: the token ids of its completions once they are there."""

    id: str
    n: int
    seed: int | None = None  # of the first completion; None: greedy
    budget: int = 0  # most tokens of a completion
    waiting: bool = False
    rows: list[list[int]] = field(default_factory=list)
    fault: str = ""  # why it could not be asked


class VllmEngine:
    """Answers through `vllm.LLM`.

    Args:
        path: the checkpoint's directory.
        dtype: `float32`, `bfloat16` or `float16`.
        max_pixels: most pixels of an image.
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
            {
                "enforce_eager": True,
                "distributed_executor_backend": "uni",
                "kv_cache_memory_bytes": cache_bytes(path, self.prompter.max_length),
            }
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
            # the images arrive fitted; these limits make vLLM's own resize leave them alone
            mm_processor_kwargs={
                "size": {"shortest_edge": self.prompter.min_pixels, "longest_edge": self.prompter.max_pixels}
            },
            logits_processors=[SAMPLER],
            async_scheduling=False,  # our sampler must see every token before it draws the next
            **hardware,
        )
        self._sampling = vllm.SamplingParams
        self._names = itertools.count()
        self._running: dict[str, _Asked] = {}  # by vLLM's name for it
        self._owed: deque[_Asked] = deque()

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """See `Engine.generate`."""
        asked = [self._ask(request, params) for request in requests]
        while any(one.waiting for one in asked):
            self._step()
        return [self._completions(one) for one in asked]

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """See `Engine.submit`; what comes joins the batch that runs."""
        self._owed += [self._ask(request, params) for request in requests]

    def collect(self, at_least: int = 1) -> list[Answered]:
        """See `Engine.collect`."""
        if at_least == 0 and self._running:
            self._step()
        while sum(not one.waiting for one in self._owed) < min(at_least, len(self._owed)):
            self._step()
        done = [one for one in self._owed if not one.waiting]
        self._owed = deque(one for one in self._owed if one.waiting)
        return [(one.id, self._completions(one)) for one in done]

    def _ask(self, request: Request, params: SamplingParams) -> _Asked:
        """Give a request to vLLM."""
        from vllm.sampling_params import RequestOutputKind

        from geozero.engines.vllm_sampler import ARGUMENT

        try:
            prompt = self.prompter.prepare(request)
        except BadRecord as bad:
            return _Asked(request.id, params.n, fault=str(bad))
        seed = None if params.temperature == 0 else first_seed(request, params)
        asked = _Asked(request.id, params.n, seed, self.prompter.budget(prompt, params.max_tokens), waiting=True)
        content = {"prompt": prompt.text, "multi_modal_data": {"image": prompt.image}}
        (rendered,) = self._llm.renderer.render_cmpl([content])
        draw = None if seed is None else (seed, params.temperature, params.top_p, params.top_k)
        sampling = self._sampling(
            temperature=0.0,  # vLLM takes the best of what our sampler leaves over
            max_tokens=asked.budget,
            stop_token_ids=list(self.prompter.vocabulary.end),
            extra_args=None if draw is None else {ARGUMENT: draw},
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            skip_clone=True,  # made for this request alone
        )
        if draw is not None:
            # set afterwards, because vLLM sees a greedy request and refuses n of them; each of its completions gets
            # the next seed, which our sampler adds to its own
            sampling.n, sampling.seed = params.n, 0
        name = str(next(self._names))
        self._llm.llm_engine.add_request(name, rendered, sampling)
        self._running[name] = asked
        return asked

    def _step(self) -> None:
        engine = self._llm.llm_engine
        if not engine.has_unfinished_requests():
            raise RuntimeError(f"vLLM lost {len(self._running)} of its requests")
        for output in engine.step():
            if output.finished:
                asked = self._running.pop(output.request_id)
                found = sorted(output.outputs, key=lambda one: one.index)
                asked.rows, asked.waiting = [list(one.token_ids) for one in found], False

    def _completions(self, asked: _Asked) -> list[Completion]:
        if asked.fault:
            return failed(asked.fault, asked.n)
        found, end = [], set(self.prompter.vocabulary.end)
        for rollout, row in enumerate(asked.rows):
            length = next((i for i, token in enumerate(row) if token in end), len(row))
            reason: FinishReason = "length" if length >= asked.budget else "stop"
            seed = None if asked.seed is None else asked.seed + rollout
            found.append(Completion(self.prompter.decode(row[:length]), reason, length, seed))
        return found if len(found) == asked.n else found * asked.n

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


def cache_bytes(path: Path, max_length: int) -> int:
    """Bytes of keys and values that a CPU sets aside: as many as the longest sequences of a full batch take, within
    bounds; what does not fit at once waits.
    """
    text = json.loads((path / "config.json").read_text()).get("text_config", {})
    heads = text.get("num_key_value_heads") or text.get("num_attention_heads") or 1
    size = text.get("head_dim") or text.get("hidden_size", 0) // text.get("num_attention_heads", 1)
    token = 2 * text.get("num_hidden_layers", 0) * heads * size * FLOAT_BYTES
    return min(MOST_CACHE, max(LEAST_CACHE, token * max_length * FULL_BATCH)) if token else MOST_CACHE


def prepare_for_trainer(path: Path) -> None:
    """Let ms-swift start a vLLM for the checkpoint in this process and hand it new weights after each step.

    Nothing is to do on a GPU. On a CPU vLLM would lay the weights out anew once they are loaded, and could take no
    others; its linear layers stay torch's own here. Not to be undone: the process is the trainer's.
    """
    if not built_for_cpu():
        return
    for key, value in CPU_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    import torch
    from vllm.model_executor.layers import utils

    def plain(layer: Any, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = plain
    inspect_here(path)


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
