"""A score as a cell of a table shows it: value, interval, its guesses, and whether it surely differs.

A difference is marked only where its paired 95 % interval excludes 0, never because two numbers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from geozero.evaluation.report import charts
from geozero.evaluation.report.names import NONE, factor, model_label
from geozero.evaluation.report.pairs import Pairs, mark, signed
from geozero.evaluation.report.schema import Baseline, Comparison, Score


@dataclass(frozen=True, slots=True)
class Cell:
    """A score as shown: `text` and `interval` in percent, where the metric is a share.

    `mark` is up or down where it surely differs from the column before it in the same mode, which `said` puts in
    words; `best`: surely above every other column.
    """

    text: str
    interval: str
    strip: Markup | None = None
    best: bool = False
    mark: str = ""
    said: str = ""


def shown_cell(score: Score, before: Score | None, pairs: Pairs) -> Cell:
    """A score as shown, marked where it surely differs from `before`."""
    kind, said = _marked(pairs.between(before, score), before) if before is not None else ("", "")
    return Cell(printed(score.value, score.metric), bounds_of(score), mark=kind, said=said)


def _marked(found: Comparison | None, before: Score) -> tuple[str, str]:
    """Up, down or nothing, and the difference in words."""
    kind = mark(found)
    return (
        kind,
        f"{signed(found)} against {model_label(before.model, before.mode)}" if kind and found is not None else "",
    )


def baseline_of(baselines: Sequence[Baseline], of_task: Sequence[Score], score: Score) -> Baseline | None:
    """The baseline of the same samples: of the same source, or of all where the task has but one source."""
    same = [
        b for b in baselines if (b.task, b.metric, b.question_type) == (score.task, score.metric, score.question_type)
    ]
    exact = next((b for b in same if b.source == score.source), None)
    if exact is None and len({s.source for s in of_task if s.source}) <= 1:
        exact = next((b for b in same), None)
    return exact


def marks_of(baseline: Baseline | None) -> dict[str, float]:
    values = {"chance": baseline.chance, "majority": baseline.majority} if baseline else {}
    return {name: value for name, value in values.items() if value is not None}


def estimate_of(score: Score, label: str, unit: float = 1.0) -> charts.Estimate:
    value, low, high = (None if v is None else v / unit for v in (score.value, score.low, score.high))
    return charts.Estimate(label, value or 0.0, low, high, _tone(score.model))


def _tone(model: str) -> str:
    return {"base": "base", "sft": "before", "a2grpo": "after"}.get(model, "other")


def printed(value: float | None, metric: str) -> str:
    return NONE if value is None else f"{value * factor(metric):,.1f}"


def bounds_of(score: Score) -> str:
    if score.low is None or score.high is None:
        return ""
    scale = factor(score.metric)
    return f"{score.low * scale:.1f}–{score.high * scale:.1f}"
