"""How the page prints a score: names and their order, values with intervals, and marks on differences.

A difference is marked only if its paired 95 % interval excludes 0, never because two numbers differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report.schema import Baseline, Comparison, Place, Score
from geozero.tasks import TASKS

MODELS = {"base": "Base", "sft": "SFT", "a2grpo": "A²GRPO"}
MODES = {"direct": "direct", "tagged": "tagged", "forced": "answer forced"}
SPLITS = {"test_hard": "Hard test split", "test": "Test split", "val": "Validation split", "": "Scored records"}
WORLDS = {
    "toy": "The rendered toy world",
    "neon": "Real aerial imagery (NEON)",
    "strict": "Benchmarks, strict protocol",
    "official": "Benchmarks, official protocol",
}
TASK_TITLES = {name: task.title for name, task in TASKS.items()}
NONE = "–"
Column = tuple[str, str]  # model, mode


@dataclass(frozen=True, slots=True)
class Cell:
    """A score in a table. `change` compares it with the model before it in the same mode; `best`: surely above every
    other score of its row."""

    score: Score
    change: Comparison | None = None
    before: str = ""
    strip: Markup | None = None
    best: bool = False

    @property
    def text(self) -> str:
        return printed(self.score.value, self.score.metric)

    @property
    def interval(self) -> str:
        low, high = self.score.low, self.score.high
        return "" if low is None or high is None else f"{self._scaled(low)}–{self._scaled(high)}"

    @property
    def mark(self) -> str:
        return mark(self.change)

    @property
    def verdict(self) -> str:
        """Up, down, level (the interval of the difference holds 0) or unknown (not compared question by question)."""
        return self.mark or ("level" if self.difference else "unknown")

    @property
    def difference(self) -> str:
        return "" if self.change is None else signed(self.change)

    @property
    def tooltip(self) -> str:
        """The marked difference in words."""
        return f"{self.difference} against {self.before}" if self.mark else ""

    def _scaled(self, value: float) -> str:
        return f"{value * metric_format(self.score.metric).factor:.1f}"


def printed(value: float | None, metric: str) -> str:
    return NONE if value is None else f"{value * metric_format(metric).factor:,.1f}"


def estimated(value: float | None, interval: Sequence[float] | None, factor: float = 100.0) -> str:
    """`61.0 (55.0–66.0)`: a value and its interval, without the interval where there is none."""
    if value is None:
        return NONE
    bounds = f" ({interval[0] * factor:.1f}–{interval[1] * factor:.1f})" if interval and len(interval) == 2 else ""
    return f"{value * factor:.1f}{bounds}"


def metric_label(metric: str) -> str:
    return metric_format(metric).label


def model_label(model: str, mode: str) -> str:
    return ", ".join(part for part in (MODELS.get(model, model), MODES.get(mode, mode)) if part)


def place_label(place: Place) -> str:
    """Where a score is from, in words."""
    split = SPLITS.get(place.split, place.split) if place.split else ""
    parts = [place.source or WORLDS.get(place.world, place.world), split, TASK_TITLES.get(place.task, place.task)]
    if place.source and place.world in ("strict", "official"):
        parts.append(f"{place.world} protocol")
    return " · ".join(part for part in parts if part)


def sizes(scores: Iterable[Place]) -> str:
    """The number of records, or its range where scores differ in it."""
    known = sorted({s.n for s in scores})
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,}–{known[-1]:,}"


def main_metric(score: Score) -> str | None:
    """The metric that stands for a score's task under its protocol; None for an unknown task."""
    return TASKS[score.task].main_metric(score.protocol) if score.task in TASKS else None


def is_headline(score: Score) -> bool:
    """Whether a score's metric stands for its task; any metric does for an unknown task."""
    return main_metric(score) in (score.metric, None)


def columns_of(scores: Iterable[Score]) -> list[Column]:
    """Models and modes in the order of training, then by name."""
    return in_order({(s.model, s.mode) for s in scores})


def in_order(pairs: set[Column]) -> list[Column]:
    """(Model, mode) pairs in the order of training, then by name."""
    models, modes = ordered({m for m, _ in pairs}, MODELS), ordered({o for _, o in pairs}, MODES)
    return [(m, o) for m in models for o in modes if (m, o) in pairs]


def ordered(names: set[str], known: Iterable[str]) -> list[str]:
    """Known names in their own order, then the others by alphabet."""
    known = list(known)
    return [n for n in known if n in names] + sorted(names - set(known))


class Pairs:
    """Paired comparisons, found by the two scores they are between, whichever came first."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self._found = {(*_place(c), c.first.key, c.second.key): c for c in comparisons}

    def between(self, before: Score, after: Score) -> Comparison | None:
        """`after` minus `before`, two scores of one place and metric; None where they were not compared."""
        ends = (before.model, before.mode), (after.model, after.mode)
        if found := self._found.get((*_place(before), *ends)):
            return found
        found = self._found.get((*_place(before), *reversed(ends)))
        return found and reverse(found)

    def cell(self, score: Score, before: Score | None) -> Cell:
        """A score, compared with the one before it."""
        if before is None:
            return Cell(score)
        return Cell(score, self.between(before, score), model_label(before.model, before.mode))


def _place(p: Score | Comparison) -> tuple[object, ...]:
    return p.world, p.split, p.protocol, p.task, p.source, p.question_type, p.metric


def reverse(c: Comparison) -> Comparison:
    """The same comparison the other way round."""
    values = {"first": c.second, "second": c.first, "before": c.after, "after": c.before}
    negated = {"difference": c.difference, "low": c.high, "high": c.low}
    return c.model_copy(update=values | {name: None if v is None else -v for name, v in negated.items()})


def mark(c: Comparison | None) -> str:
    """`up` or `down` if the interval of a difference excludes 0, else nothing: no other difference is marked."""
    if c is None or c.low is None or c.high is None:
        return ""
    return "up" if c.low > 0 else "down" if c.high < 0 else ""


def signed(c: Comparison) -> str:
    """`+3.2 [+0.4, +6.1], p = 0.012`, in points."""
    if c.difference is None or c.low is None or c.high is None:
        return ""
    difference, low, high = (points(v, c.metric) for v in (c.difference, c.low, c.high))
    p_value = probability(c.p_value)
    return f"{difference} [{low}, {high}]" + (f", p {p_value}" if p_value else "")


def points(difference: float, metric: str) -> str:
    """A difference with its sign; differences of shares are shown in points."""
    return f"{difference * metric_format(metric).factor:+.1f}".replace("-", "−")


def probability(p: float | None) -> str:
    """A p-value as papers write it."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"= {p:.3f}"


def baseline_of(baselines: Iterable[Baseline], of_task: Iterable[Score], score: Score) -> Baseline | None:
    """The baseline of the same samples: of the same source, or of all where the task has but one source."""
    key = (score.task, score.metric, score.question_type)
    same = [b for b in baselines if (b.task, b.metric, b.question_type) == key]
    exact = next((b for b in same if b.source == score.source), None)
    if exact is None and len({s.source for s in of_task if s.source}) <= 1:
        exact = next(iter(same), None)
    return exact


def marks_of(baseline: Baseline | None) -> dict[str, float]:
    values = {"chance": baseline.chance, "majority": baseline.majority} if baseline else {}
    return {name: value for name, value in values.items() if value is not None}
