"""What an engine is: requests in, completions out, in order; and the rules that all engines share."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "error"]

SEED_BITS = 31  # what every library accepts as a seed, with room to add a rollout's number


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model.

    Attributes:
        id: names the request; with the base seed it fixes what is sampled.
        messages: chat turns as `geozero.tasks.messages` gives them, `<image>` where the image stands.
        image: the encoded image (JPEG, PNG, …).
        seed: seed of the first completion; None: `request_seed` of the base seed and the id.
        prefix: what the answer has to begin with; the model goes on after it, a completion holds only what it adds.
    """

    id: str
    messages: list[dict[str, str]]
    image: bytes
    seed: int | None = None
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How completions are drawn. Nothing else shapes the distribution: a checkpoint's own settings, penalties and
    the like are never read, so that a pass rate means the same in every engine.

    Attributes:
        n: completions a request.
        temperature: 0 is greedy; then all n completions are one and the same.
        top_p: nucleus; 1 keeps every token.
        top_k: so many of the likeliest tokens are kept, before the nucleus; 0 keeps every token.
        max_tokens: most tokens a completion, its end token counted.
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
        text: decoded without special tokens; for `error` empty.
        finish_reason: `stop` (the model ended), `length` (cut off), `error` (the request could not be asked).
        n_tokens: tokens of the text, the end token not counted.
        seed: what it was drawn with; None when greedy.
        error: why, for `error`.
    """

    text: str
    finish_reason: FinishReason
    n_tokens: int
    seed: int | None = None
    error: str | None = None


Answered = tuple[str, list[Completion]]  # a request's id and its completions


class Engine(Protocol):
    """A loaded model that answers. One broken request costs only itself: its completions say `error`."""

    name: str
    reason: str  # why this engine was chosen

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """`params.n` completions for each request, in the requests' order."""
        ...

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """Ask without waiting; `collect` gives the answers. The ids of all that is owed must differ."""
        ...

    def collect(self, at_least: int = 1) -> list[Answered]:
        """Answers that are owed, in the order in which they were finished: at least so many, or all that are left.
        0: work on for a moment and give what there is.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """What answers: engine, versions, model, number type, limits; for lineage, not for comparing answers."""
        ...

    def close(self) -> None:
        """Free the model; the engine cannot be used afterwards."""
        ...


class ByBatch:
    """`submit` and `collect` for an engine that takes a batch as a whole: it is answered when its turn has come."""

    _batches: deque[tuple[list[Request], SamplingParams]]

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        """See `Engine.generate`."""
        raise NotImplementedError

    def submit(self, requests: Sequence[Request], params: SamplingParams) -> None:
        """See `Engine.submit`."""
        self.__dict__.setdefault("_batches", deque()).append((list(requests), params))

    def collect(self, at_least: int = 1) -> list[Answered]:
        """See `Engine.collect`; what waits and is drawn alike is one batch, so that small ones fill it together."""
        found: list[Answered] = []
        waiting = self.__dict__.get("_batches", ())
        while waiting and (not found or len(found) < at_least):
            asked, params = waiting.popleft()
            while waiting and waiting[0][1] == params:
                asked += waiting.popleft()[0]
            found += zip((request.id for request in asked), self.generate(asked, params), strict=True)
        return found


class EngineDied(RuntimeError):
    """The engine is gone or does not answer; what it was asked may be asked again of another one."""


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
    """The n completions of a request that could not be asked."""
    return [Completion("", "error", 0, None, reason) for _ in range(n)]
