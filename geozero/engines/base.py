"""What an engine is: requests in, completions out, in order; and the rules that all engines share."""

from __future__ import annotations

import hashlib
import signal
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from geozero.common import process

FINISHED = ("stop", "length")  # what a model's own answer ends with

EXIT_SECONDS = 1.0  # that a process which is ending by itself gets
SEED_BITS = 31  # what every library accepts as a seed, with room to add a rollout's number


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How an engine is opened; `params.Model` and `params.Sampling` explain what has the same name there.

    Attributes:
        dtype: of the weights; `auto` is bfloat16 on a GPU and float32 without one.
        max_pixels: maximum pixels of an image, within the checkpoint's own limit; larger ones are scaled down.
        min_pixels: smaller images are scaled up; None: the checkpoint's own limit.
        max_length: maximum tokens of prompt and completion, within the model's own limit.
        template: ms-swift's template (transformers engine only); None: the model type's own.
        model_type: what the checkpoint must be; None: what its config.json says.
        memory: share of a GPU's memory that vLLM may take.
        devices: GPUs that vLLM spreads the model over (tensor parallel).
        urls: OpenAI-compatible servers that hold this model (engine `server`), or model → its servers; none: a vLLM
            server is started here.
        trust_server_model: the name of a served model that is taken for this one, whatever it is; or model → name.
        concurrency: completions in progress per server; None: as many as make it answer faster.
        patience: seconds that a server may take for one completion before another one is tried.
    """

    dtype: str = "auto"
    max_pixels: int = 1024 * 1024
    min_pixels: int | None = None
    max_length: int = 4096
    template: str | None = None
    model_type: str | None = None
    memory: float = 0.9
    devices: int = 1
    urls: Sequence[str] | Mapping[str, Sequence[str]] = ()
    trust_server_model: str | Mapping[str, str] | None = None
    concurrency: int | None = None
    patience: float = 600.0


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        id: names the request; with the base seed it fixes what is sampled.
        messages: chat turns as `geozero.tasks.messages` returns them, `<image>` where the image stands.
        image: the encoded image (JPEG, PNG, …).
        seed: seed of the first completion; None: `request_seed` of the base seed and the id.
        prefix: how the answer begins; the model continues it, and a completion holds only what it adds.
    """

    id: str
    messages: list[dict[str, str]]
    image: bytes
    seed: int | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How completions are sampled. A checkpoint's own settings, penalties and the like are never read, so that a pass
    rate means the same in every engine.

    Attributes:
        n: completions per request.
        temperature: 0 is greedy; then all n completions are the same.
        top_p: nucleus; 1 keeps every token.
        top_k: keeps this many of the most likely tokens, before the nucleus; 0 keeps every token.
        max_tokens: maximum tokens of a completion, its end token included.
        seed: base seed.
    """

    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_tokens: int = 256
    seed: int = 0
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a model.

    Attributes:
        text: decoded without special tokens; empty for `error`.
        finish_reason: `stop` (the model ended), `length` (truncated), `error` (the request could not be answered), or
            what else a server says (`abort`, `content_filter`, …).
        n_tokens: tokens of the text, without the end token.
        seed: what it was sampled with; None when greedy.
        error: why this is no answer of the model: the request failed, or was not answered to its end.
    """

    text: str
    finish_reason: str
    n_tokens: int
    seed: int | None = None
    error: str | None = None

    @property
    def is_answer(self) -> bool:
        """Whether the model answered: to its own end, or to the limit that was asked for."""
        return self.finish_reason in FINISHED and self.error is None


Answered = tuple[str, list[Completion]]  # a request's id and its completions


class Engine(Protocol):
    """A loaded model that answers. One broken request costs only itself: its completions say `error`."""

    name: str
    reason: str  # why this engine was chosen

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """`params.n` completions for each request, in the requests' order."""
        ...

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Queue requests without waiting; `collect` returns the answers. Ids of pending requests must differ."""
        ...

    def collect(self, at_least: int = 1) -> list[Answered]:
        """Pending answers in the order in which they finished: at least this many, or all that remain.
        0: work for a moment and return what there is.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Engine, versions, model, dtype and limits; for provenance, not for comparing answers."""
        ...

    def close(self) -> None:
        """Free the model; the engine cannot be used afterwards."""
        ...


class ByBatch(Engine):
    """`submit` and `collect` for an engine that answers a batch as a whole, when it is collected."""

    _batches: deque[tuple[list[Request], SamplingParams]]

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        self.__dict__.setdefault("_batches", deque()).append((list(requests), params))

    def collect(self, at_least: int = 1) -> list[Answered]:
        """See `Engine.collect`; pending batches with equal parameters are joined, so that small ones fill one."""
        found: list[Answered] = []
        pending = self.__dict__.get("_batches", ())
        while pending and (not found or len(found) < at_least):
            batch, params = pending.popleft()
            while pending and pending[0][1] == params:
                batch += pending.popleft()[0]
            found += zip((request.id for request in batch), self.generate(batch, params), strict=True)
        return found


class EngineDied(RuntimeError):
    """The engine is gone or does not answer; another one may answer its pending requests."""


def ending(child: process.Child) -> str:
    """How an engine's process ended, with the last line of its output that names an error, else the last one."""
    with suppress(subprocess.TimeoutExpired):  # its own exit code says more than that of our signal
        child.popen.wait(EXIT_SECONDS)
    child.end()
    code = child.popen.returncode
    lines = [line for line in child.tail if line.strip() and "Warning" not in line]
    errors = [line for line in lines if "Error" in line]
    last = f": {(errors or lines)[-1][:300]}" if lines else ""
    if code >= 0:
        return f"ended with code {code}{last}"
    return f"was killed by {signal.Signals(-code).name if -code in set(signal.Signals) else f'signal {-code}'}{last}"


def request_seed(base: int, request_id: str) -> int:
    """Seed of a request's first completion; a stable hash, so neither order nor batching changes an answer."""
    raw = hashlib.blake2b(f"{base}\x1f{request_id}".encode(), digest_size=8).digest()
    return int.from_bytes(raw, "big") % (1 << SEED_BITS)


def rollout_seed(base: int, request_id: str, rollout: int) -> int:
    """Seed of completion number `rollout`: consecutive from `request_seed`, so that n can grow later on."""
    return request_seed(base, request_id) + rollout


def first_seed(request: Request, params: SamplingParams) -> int:
    """The seed of a request's first completion under these parameters."""
    return request_seed(params.seed, request.id) if request.seed is None else request.seed


def failed(reason: str, n: int) -> list[Completion]:
    """The n completions of a request that could not be answered."""
    return [Completion("", "error", 0, None, reason) for _ in range(n)]
