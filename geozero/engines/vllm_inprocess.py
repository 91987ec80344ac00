"""The vLLM engine, in this process: on a CPU in float32 and eager, on GPUs with vLLM's own settings; and the settings
that it shares with the vLLM server and the trainer's colocated vLLM."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import BadRecord
from geozero.engines.base import (
    Answered,
    Completion,
    Engine,
    EngineOptions,
    Request,
    SamplingParams,
    failed,
    first_seed,
)
from geozero.engines.families.base import ImageLimits
from geozero.engines.prompts import Prompter

SAMPLER = "geozero.engines.vllm_sampler:SeededRows"  # also suppresses tokens that could not be read back
CPU_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process: no fork, nothing left over when this one ends
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every process of a machine binds itself to the same first core
    "VLLM_LOGGING_LEVEL": "ERROR",  # it warns at every step that threads stay as they are
}
FULL_BATCH = 256  # sequences that vLLM processes at once on a CPU
FLOAT_BYTES = 4
LEAST_CACHE, MOST_CACHE = 64 << 20, 1 << 30


@dataclass(slots=True)
class _Pending:
    """A request in progress: the token ids of its completions once they are there."""

    id: str
    n: int
    seed: int | None = None  # of the first completion; None: greedy
    budget: int = 0  # maximum tokens of a completion
    rows: list[list[int]] | None = None
    error: str = ""  # why it could not be submitted

    @property
    def done(self) -> bool:
        return bool(self.error) or self.rows is not None


class VllmEngine(Engine):
    """Answers through `vllm.LLM`.

    Args:
        path: the checkpoint's directory.
        reason: why this engine was chosen.
        options: see `EngineOptions`; `dtype` is not `auto` here.
    """

    name = "vllm"

    def __init__(self, path: Path, *, reason: str = "requested", **options: Any) -> None:
        process.prepare()
        given = EngineOptions(**options)
        self.path, self.dtype, self.reason = path, given.dtype, reason
        for key, value in (CPU_ENVIRONMENT if built_for_cpu() else {}).items():
            os.environ.setdefault(key, value)
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        self.prompter = Prompter(path, given)
        import vllm

        if built_for_cpu():
            inspect_here(path)
        self._llm: Any = vllm.LLM(str(path), use_tqdm_on_load=False, **engine_arguments(path, self.prompter, given))
        self._sampling = vllm.SamplingParams
        self._names = itertools.count()
        self._running: dict[str, _Pending] = {}  # by vLLM's name for it
        self._submitted: deque[_Pending] = deque()

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        pending = [self._submit(request, params) for request in requests]
        while not all(one.done for one in pending):
            self._step()
        return [self._completions(one) for one in pending]

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """See `Engine.submit`; new requests join the running batch."""
        self._submitted += [self._submit(request, params) for request in requests]

    def collect(self, at_least: int = 1) -> list[Answered]:
        if at_least == 0 and self._running:
            self._step()
        while sum(one.done for one in self._submitted) < min(at_least, len(self._submitted)):
            self._step()
        done = [one for one in self._submitted if one.done]
        self._submitted = deque(one for one in self._submitted if not one.done)
        return [(one.id, self._completions(one)) for one in done]

    def _submit(self, request: Request, params: SamplingParams) -> _Pending:
        """Hand a request to vLLM."""
        from vllm.sampling_params import RequestOutputKind

        from geozero.engines.vllm_sampler import ARGUMENT

        try:
            prompt = self.prompter.prepare(request)
        except BadRecord as bad:
            return _Pending(request.id, params.n, error=str(bad))
        seed = None if params.temperature == 0 else first_seed(request, params)
        pending = _Pending(request.id, params.n, seed, self.prompter.budget(prompt, params.max_tokens))
        content = {"prompt": prompt.text, "multi_modal_data": {"image": prompt.image}}
        (rendered,) = self._llm.renderer.render_cmpl([content])
        draw = None if seed is None else (seed, params.temperature, params.top_p, params.top_k)
        sampling = self._sampling(
            temperature=0.0,  # vLLM takes the best of what our sampler leaves over
            max_tokens=pending.budget,
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
        self._running[name] = pending
        return pending

    def _step(self) -> None:
        engine = self._llm.llm_engine
        if not engine.has_unfinished_requests():
            raise RuntimeError(f"vLLM lost {len(self._running)} of its requests")
        for output in engine.step():
            if output.finished:
                outputs = sorted(output.outputs, key=lambda one: one.index)
                self._running.pop(output.request_id).rows = [list(one.token_ids) for one in outputs]

    def _completions(self, pending: _Pending) -> list[Completion]:
        if pending.rows is None:
            return failed(pending.error, pending.n)
        found = [
            self.prompter.completion(row, pending.budget, None if pending.seed is None else pending.seed + rollout)
            for rollout, row in enumerate(pending.rows)
        ]
        return found if len(found) == pending.n else found * pending.n

    def describe(self) -> dict[str, Any]:
        names = ("torch", "transformers", distribution() or "vllm")
        return {
            "engine": self.name,
            "reason": self.reason,
            "model": str(self.path),
            "dtype": self.dtype,
            "device": "cpu" if built_for_cpu() else "cuda",
            **self.prompter.describe(),
            "versions": {name: importlib.metadata.version(name) for name in names},
        }

    def close(self) -> None:
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm = None
        cleanup_dist_env_and_memory()


def engine_arguments(path: Path, prompter: Prompter, options: EngineOptions) -> dict[str, Any]:
    """Arguments of `vllm.LLM`; with dashes, those of vLLM's server."""
    arguments = {
        "dtype": options.dtype,
        "max_model_len": prompter.max_length,
        "generation_config": "vllm",  # never the checkpoint's sampling defaults
        "async_scheduling": False,  # our sampler must see every token before it draws the next
        **shared_arguments(prompter.limits),
    }
    if not built_for_cpu():
        return arguments | {"gpu_memory_utilization": options.memory, "tensor_parallel_size": options.devices}
    cache = cache_bytes(path, prompter.max_length)
    return arguments | {
        "enforce_eager": True,
        "distributed_executor_backend": "uni",
        "kv_cache_memory_bytes": cache,
    }


def shared_arguments(limits: ImageLimits | None) -> dict[str, Any]:
    """What every vLLM of ours is started with, the trainer's too: one image per request, within the limits that images
    are fitted to, and our sampler. None: a plan, made where the checkpoint is not."""
    return {
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "logits_processors": [SAMPLER],
        **({} if limits is None else {"mm_processor_kwargs": limits.processor_kwargs}),
    }


def cache_bytes(path: Path, max_length: int) -> int:
    """Bytes of the KV cache on a CPU: enough for a full batch of the longest sequences, within bounds."""
    text = json.loads((path / "config.json").read_text())
    text = text.get("text_config", text)
    heads = text.get("num_key_value_heads") or text.get("num_attention_heads") or 1
    size = text.get("head_dim") or text.get("hidden_size", 0) // text.get("num_attention_heads", 1)
    token = 2 * text.get("num_hidden_layers", 0) * heads * size * FLOAT_BYTES
    return min(MOST_CACHE, max(LEAST_CACHE, token * max_length * FULL_BATCH)) if token else MOST_CACHE


def prepare_for_trainer(path: Path) -> None:
    """Let ms-swift start a vLLM for the checkpoint in this process and give it new weights after each step.

    A GPU needs nothing. On a CPU vLLM would repack the weights after loading and could take no others, so its linear
    layers stay torch's own. It cannot be undone: the process is the trainer's.
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
