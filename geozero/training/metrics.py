"""From ms-swift's `logging.jsonl` to `metrics.jsonl`, one line per step, replayed steps left out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError
from geozero.params import Guards
from geozero.training.grpo.collapse_monitor import VIOLATIONS, CollapseMonitor

SOURCE, TARGET = "logging.jsonl", "metrics.jsonl"
STEP = "global_step/max_steps"
LEFT_OUT = ("rewards/",)  # ms-swift's per-function copies of answer_reward and thinking_reward
VALIDATION = "eval_"
GRADIENT_NORM = "grad_norm"
SUMMARY = "train_runtime"  # marks the line that sums a run up

OnMetrics = Callable[[int, Mapping[str, float]], object]


class NonFiniteStop(InputError):
    """A training step had a metric that is NaN or infinite; the checkpoints are kept."""


class MetricsForwarder:
    """Follows a run's log while it is written; after a resume it continues behind the last step it has written down.

    A step may have two rows: what the training logged, and what the validation after it did (`eval_…`).

    Args:
        guards: bounds that each row is judged by; what violates them is logged, added to the row, and may stop the
            training.
        on_metrics: called with each row once.
        log: called with a line about each guard that is violated.
        scales_loss: in float16, a step whose gradients overflow is left out and the loss scaled down: no fault.

    Raises:
        CollapseStop: a guard had stopped this run, and its bound still says so.
    """

    def __init__(
        self,
        run: Path,
        guards: Guards | None = None,
        on_metrics: OnMetrics | None = None,
        log: Callable[[str], object] = print,
        scales_loss: bool = False,
    ) -> None:
        self._source, self._target = run / SOURCE, run / TARGET
        self._on_metrics, self._log, past = on_metrics, log, read(run / TARGET)
        self._last = {True: 0, False: 0}  # step of the last row, by whether it is a validation's
        for row in past:
            self._last[_validates(row)] = max(self._last[_validates(row)], row["step"])
        self._position = 0
        self._before = self._source.stat().st_size if self._source.is_file() else 0  # what earlier starts logged
        self._may_overflow = {GRADIENT_NORM} if scales_loss else set()
        self._monitor = None if guards is None else CollapseMonitor(guards, run, past)

    def forward(self) -> None:
        """Forward the rows that came since the last call, each written to `metrics.jsonl` first.

        Raises:
            CollapseStop: a guard stops the training.
            NonFiniteStop: a training step has a metric that is NaN or infinite.
            Exception: what `on_metrics` raised.
        """
        for step, values, is_new in self._rows():
            if not is_new:
                self._stop_on_nonfinite(step, values)
                continue
            n, violations = (0, []) if self._monitor is None else self._monitor.check(step, values)
            row = {**values, VIOLATIONS: float(n)} if n else values
            with self._target.open("a") as target:
                target.write(json.dumps({"step": step, **row}) + "\n")
            if self._on_metrics is not None:
                self._on_metrics(step, row)
            for violation in violations:
                self._log(f"guard: {violation.reason}")
            if self._monitor is not None:
                self._monitor.stop_on(violations)
            self._stop_on_nonfinite(step, values)

    def check_history(self, checkpoint: Path, history: Iterable[Mapping[str, Any]]) -> None:
        """Refuse to resume from a checkpoint with a step that should have stopped the training.

        Raises:
            NonFiniteStop: its own history has such a step; steps that were since repeated do not count.
        """
        for row in history:
            if found := self._nonfinite(row):
                raise NonFiniteStop(
                    f"{checkpoint.name} was trained through step {row.get('step')}, where {found}",
                    str(checkpoint),
                    "remove it, and the same command resumes from the checkpoint before it",
                )

    def _stop_on_nonfinite(self, step: int, values: Mapping[str, Any]) -> None:
        if found := self._nonfinite(values):
            raise NonFiniteStop(
                f"the training stopped at step {step}: {found}",
                str(self._target.parent),
                "its checkpoints are kept and the same command resumes; if it happens again, lower the learning rate",
            )

    def _nonfinite(self, values: Mapping[str, Any]) -> str:
        """The metrics of a training step that are NaN or infinite, in words; "" where there are none."""
        if _validates(values):
            return ""
        found = [
            f"{name} is {value}"
            for name, value in values.items()
            if isinstance(value, float) and not math.isfinite(value)
            if name not in self._may_overflow and not name.startswith(LEFT_OUT)
        ]
        return ", ".join(found)

    def _rows(self) -> Iterator[tuple[int, dict[str, float], bool]]:
        """Step and values of each row since the last call, and whether it is new or a repeated step."""
        if not self._source.is_file() or self._source.stat().st_size <= self._position:
            return
        with self._source.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._position += len(line)
                row = parse(line)
                if row is None:
                    continue
                step, values = row
                if step > self._last[_validates(values)]:
                    self._last[_validates(values)] = step
                    yield step, values, True
                elif self._position > self._before:
                    yield step, values, False


def _validates(values: Mapping[str, Any]) -> bool:
    return any(name.startswith(VALIDATION) for name in values)


def parse(line: bytes | str) -> tuple[int, dict[str, float]] | None:
    """Step and numbers of one line of ms-swift's log; None for a summary or anything else."""
    try:
        values = json.loads(line)
        step = int(str(values[STEP]).split("/")[0])
    except (ValueError, KeyError, TypeError):
        return None
    if SUMMARY in values:
        return None
    return step, {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.startswith(LEFT_OUT)
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`, or of another such file; a line that a kill cut off is skipped."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
