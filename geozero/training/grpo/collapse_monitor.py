"""Collapse guards: watched metrics of A²GRPO, their bounds, and a plain reason when one is crossed [ours].

Bounds come from `params.Guards`. What crossed stands in the stage's `guards.json`, in `metrics.jsonl` as the number of
bounds that are crossed, and in the log.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.params import Bound, Guards

RECORD = "guards.json"
VIOLATIONS = "guards_crossed"  # the metric: how many bounds are crossed at a step


@dataclass(frozen=True)
class GuardedMetric:
    """A metric as the trainer logs it, the side on which it is bad, and what that means."""

    logged: str
    side: Literal["below", "above"]
    meaning: str


GUARDED_METRICS = {
    "thought_words": GuardedMetric("thought_words", "below", "words a thought: the thoughts die out"),
    "distinct": GuardedMetric("distinct", "below", "distinct word trigrams: all thoughts become one"),
    "well_formed": GuardedMetric("well_formed", "below", "well-formed completions: the answer format is lost"),
    "truncated": GuardedMetric("completions/clipped_ratio", "above", "completions cut off: they do not come to an end"),
    "answer_kl": GuardedMetric("answer_kl", "above", "nats an answer token from the reference: the answers drift away"),
    "entropy": GuardedMetric("entropy/mean", "below", "nats of entropy a token: nothing is tried any more"),
}


@dataclass(frozen=True)
class Violation:
    """One bound crossed: `value` is the mean of the window that ends at `step`."""

    step: int
    metric: str
    value: float
    limit: float
    action: Literal["warn", "stop"]

    @property
    def reason(self) -> str:
        watched = GUARDED_METRICS[self.metric]
        return f"step {self.step}: {self.value:.3g} {watched.meaning} ({watched.side} {self.limit:g})"


class CollapseStop(InputError):
    """A guard ended the training; its checkpoints are kept."""


class CollapseMonitor:
    """Judges steps as they are logged; after a resume it goes on with the window it had.

    Args:
        past: the rows of `metrics.jsonl` so far.

    Raises:
        Stopped: a guard had stopped this run, and its bound still says so.
    """

    def __init__(self, bounds: Guards, run: Path, past: Iterable[Mapping[str, Any]] = ()) -> None:
        self._bounds = bounds
        self._record = run / RECORD
        self._windows: dict[str, deque[float]] = {name: deque(maxlen=bounds.window) for name in GUARDED_METRICS}
        self._crossed: set[str] = set()
        self.crossings = [Violation(**row) for row in _read(self._record)]
        for row in past:
            self._crossed = {crossing.metric for crossing in self._judge(int(row["step"]), row)}
        for crossing in self.crossings:
            bound = self._bound(crossing.metric)
            if crossing.action == bound.action == "stop" and _beyond(crossing.metric, crossing.value, bound):
                raise self._stopped(crossing)

    def see(self, step: int, values: Mapping[str, float]) -> tuple[int, list[Violation]]:
        """How many bounds are crossed at this step, and those that were not at the last one, recorded."""
        found = self._judge(step, values)
        fresh = [crossing for crossing in found if crossing.metric not in self._crossed]
        self._crossed = {crossing.metric for crossing in found}
        if fresh:
            self.crossings += fresh
            write_json(self._record, [asdict(crossing) for crossing in self.crossings])
        return len(found), fresh

    def refuse(self, crossings: Iterable[Violation]) -> None:
        """Raises Stopped for the first that asks for it."""
        for crossing in crossings:
            if crossing.action == "stop":
                raise self._stopped(crossing)

    def _judge(self, step: int, values: Mapping[str, Any]) -> list[Violation]:
        found = []
        for name, watched in GUARDED_METRICS.items():
            bound, window = self._bound(name), self._windows[name]
            if bound.limit is None or watched.logged not in values:
                continue
            window.append(float(values[watched.logged]))
            mean = sum(window) / len(window)
            if len(window) == window.maxlen and _beyond(name, mean, bound):
                found.append(Violation(step, name, mean, bound.limit, bound.action))
        return found

    def _bound(self, name: str) -> Bound:
        bound: Bound = getattr(self._bounds, name)
        return bound

    def _stopped(self, crossing: Violation) -> CollapseStop:
        return CollapseStop(
            f"a collapse guard stopped the training at {crossing.reason}",
            str(self._record.parent),
            f"its checkpoints are kept; change the training, or set a2grpo.guards.{crossing.metric}.action to warn",
        )


def _beyond(metric: str, value: float, bound: Bound) -> bool:
    if bound.limit is None:
        return False
    return value < bound.limit if GUARDED_METRICS[metric].side == "below" else value > bound.limit


def _read(record: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(record.read_text()) if record.is_file() else []
    return rows
