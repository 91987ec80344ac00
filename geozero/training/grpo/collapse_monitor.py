"""Collapse guards [ours]: watched metrics of A²GRPO, their bounds, and a plain reason when one is violated.

Bounds come from `params.Guards`. Violations are kept in the stage's `guards.json`, in `metrics.jsonl` as their number,
and in the log.
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
VIOLATIONS = "guards_crossed"  # the metric: how many bounds are violated at a step


@dataclass(frozen=True)
class GuardedMetric:
    """A metric as the trainer logs it, the side on which it is bad, and what that means."""

    logged: str
    side: Literal["below", "above"]
    meaning: str

    def violates(self, value: float, limit: float) -> bool:
        return value < limit if self.side == "below" else value > limit


GUARDED_METRICS = {
    "thought_words": GuardedMetric("thought_words", "below", "words per thought: the thoughts die out"),
    "distinct": GuardedMetric("distinct", "below", "distinct word trigrams: all thoughts become the same"),
    "well_formed": GuardedMetric("well_formed", "below", "well-formed completions: the answer format is lost"),
    "truncated": GuardedMetric("completions/clipped_ratio", "above", "completions cut off: they do not come to an end"),
    "answer_kl": GuardedMetric("answer_kl", "above", "nats per answer token from the reference: answers drift away"),
    "entropy": GuardedMetric("entropy/mean", "below", "nats of entropy per token: nothing new is tried"),
}


@dataclass(frozen=True)
class Violation:
    """One bound violated: `value` is the mean of the window that ends at `step`."""

    step: int
    metric: str
    value: float
    limit: float
    action: Literal["warn", "stop"]

    @property
    def reason(self) -> str:
        guarded = GUARDED_METRICS[self.metric]
        return f"step {self.step}: {self.value:.3g} {guarded.meaning} ({guarded.side} {self.limit:g})"


class CollapseStop(InputError):
    """A guard stopped the training; its checkpoints are kept."""


class CollapseMonitor:
    """Judges steps as they are logged; after a resume it continues with the window it had.

    Args:
        past: the rows of `metrics.jsonl` so far.

    Raises:
        CollapseStop: a guard had stopped this run, and its bound still says so.
    """

    def __init__(self, guards: Guards, run: Path, past: Iterable[Mapping[str, Any]] = ()) -> None:
        bounds: dict[str, Bound] = {name: getattr(guards, name) for name in GUARDED_METRICS}
        self._limits = {name: bound.limit for name, bound in bounds.items() if bound.limit is not None}
        self._actions = {name: bounds[name].action for name in self._limits}
        self._windows: dict[str, deque[float]] = {name: deque(maxlen=guards.window) for name in self._limits}
        self._file = run / RECORD
        self._violated: set[str] = set()  # at the last step
        self._record = [Violation(**row) for row in json.loads(self._file.read_text())] if self._file.is_file() else []
        for row in past:
            self._violated = {violation.metric for violation in self._judge(int(row["step"]), row)}
        self.stop_on(
            violation
            for violation in self._record
            if self._actions.get(violation.metric) == "stop"
            and GUARDED_METRICS[violation.metric].violates(violation.value, self._limits[violation.metric])
        )

    def check(self, step: int, values: Mapping[str, float]) -> tuple[int, list[Violation]]:
        """How many bounds are violated at this step, and those that were not at the last one, recorded."""
        found = self._judge(step, values)
        new = [violation for violation in found if violation.metric not in self._violated]
        self._violated = {violation.metric for violation in found}
        if new:
            self._record += new
            write_json(self._file, [asdict(violation) for violation in self._record])
        return len(found), new

    def stop_on(self, violations: Iterable[Violation]) -> None:
        """Raises CollapseStop for the first whose action it is."""
        for violation in violations:
            if violation.action == "stop":
                raise CollapseStop(
                    f"a collapse guard stopped the training at {violation.reason}",
                    str(self._file.parent),
                    "its checkpoints are kept; change the training, or set "
                    f"a2grpo.guards.{violation.metric}.action to warn",
                )

    def _judge(self, step: int, values: Mapping[str, Any]) -> list[Violation]:
        found = []
        for name, limit in self._limits.items():
            guarded, window = GUARDED_METRICS[name], self._windows[name]
            if guarded.logged not in values:
                continue
            window.append(float(values[guarded.logged]))
            mean = sum(window) / len(window)
            if len(window) == window.maxlen and guarded.violates(mean, limit):
                found.append(Violation(step, name, mean, limit, self._actions[name]))
        return found
