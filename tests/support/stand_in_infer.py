"""A stand-in model for `geozero infer`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geozero.engines.base import Completion, Request, SamplingParams


class StandIn:
    """Takes an engine's place: `rule(request)` gives the text, `!` stands for one that fails; it counts and stops."""

    reason = "a test"

    def __init__(self, rule: Callable[[Request], str], name: str = "transformers") -> None:
        self.rule, self.name = rule, name
        self.asked: list[Request] = []
        self.params: list[SamplingParams] = []
        self.sizes: list[int] = []
        self.stop_after: int | None = None
        self.opened: list[dict[str, Any]] = []
        self.n_closed = 0

    def open(self, name: str, model: Path | str, **given: Any) -> StandIn:
        self.opened.append({"name": name, "model": model, **given})
        return self

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        if self.stop_after is not None and len(self.asked) >= self.stop_after:
            raise ConnectionAbortedError("killed")
        self.asked += requests
        self.params.append(params)
        self.sizes.append(len(requests))
        return [[self._answer(self.rule(request))] for request in requests]

    @staticmethod
    def _answer(text: str) -> Completion:
        if text == "!":
            return Completion("", "error", 0, None, "prompt_too_long: 9 tokens")
        return Completion(text, "length" if text.endswith("…") else "stop", len(text.split()))

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name}

    def close(self) -> None:
        self.n_closed += 1


def echo(request: Request) -> str:
    """The question's number, which names it."""
    return f"I look. <answer>{request.messages[-1]['content'].split()[-1]}</answer>"
