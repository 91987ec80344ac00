"""What the page's tables are made of: names and their order, scores with intervals, marked differences, rows.

A difference is marked only if its paired 95 % interval excludes 0, never because two numbers differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report.schema import Comparison, Place, Score
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
    """A score in a table. `change` is its difference to the score of `before`, the model before it in the same mode;
    `best`: surely better than every other score of its row."""

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
        factor = metric_format(self.score.metric).factor
        return "" if low is None or high is None else f"{low * factor:.1f}–{high * factor:.1f}"

    @property
    def mark(self) -> str:
        return mark(self.change)

    @property
    def tone(self) -> str:
        return tone(self.change)

    @property
    def difference(self) -> str:
        return signed(self.change)

    @property
    def verdict(self) -> str:
        """The mark, else level (the interval of the difference holds 0) or unknown (not compared question by
        question)."""
        return self.mark or ("level" if self.difference else "unknown")


class Marked(NamedTuple):
    """A difference in words, with its `mark` and `tone`."""

    text: str
    mark: str
    tone: str


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `kind` of a score: main (the task's headline metric), metric (another one) or detail (a part); of a
    benchmark: guess (chance, majority), reference (a published score) or model."""

    label: str
    cells: Sequence[Cell | Marked | str | None]
    kind: str = ""
    note: str = ""

    @property
    def mark(self) -> str:
        """The mark of the difference in it."""
        return next((cell.mark for cell in self.cells if isinstance(cell, Marked)), "")


@dataclass(frozen=True, slots=True)
class Group:
    """Rows under one title; `details` are folded away at first."""

    title: str
    rows: list[Row]
    details: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Table:
    """Each column of `head` is a name and the small print below it. `name` is the split or protocol of its scores;
    `group_head` says what the titles of groups are."""

    title: str
    head: list[tuple[str, ...]]
    groups: list[Group]
    name: str = ""
    group_head: str = ""


# --- names ------------------------------------------------------------------------------------------------


def metric_label(metric: str) -> str:
    known = metric_format(metric)
    return f"{known.label} (lower is better)" if known.lower_is_better else known.label


def model_label(model: str, mode: str) -> str:
    return ", ".join(part for part in (MODELS.get(model, model), MODES.get(mode, mode)) if part)


def place_label(place: Place) -> str:
    """Where a score is from, in words."""
    split = SPLITS.get(place.split, place.split) if place.split else ""
    parts = [place.source or WORLDS.get(place.world, place.world), split, TASK_TITLES.get(place.task, place.task)]
    if place.source and place.world in ("strict", "official"):
        parts.append(f"{place.world} protocol")
    return joined(*parts)


def joined(*parts: str | None) -> str:
    return " · ".join(part for part in parts if part)


def in_order(pairs: Iterable[Column]) -> list[Column]:
    """(Model, mode) pairs in the order of training, then by name."""
    pairs = set(pairs)
    models, modes = ordered((m for m, _ in pairs), MODELS), ordered((o for _, o in pairs), MODES)
    return [(m, o) for m in models for o in modes if (m, o) in pairs]


def ordered(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Known names in their own order, then the others by alphabet."""
    names, known = set(names), list(known)
    return [n for n in known if n in names] + sorted(names - set(known))


# --- numbers ----------------------------------------------------------------------------------------------


def printed(value: float | None, metric: str) -> str:
    return NONE if value is None else f"{value * metric_format(metric).factor:,.1f}"


def estimated(value: float | None, interval: Sequence[float] | None, factor: float = 100.0) -> str:
    """`61.0 (55.0–66.0)`: a value and its interval, without the interval where there is none."""
    if value is None:
        return NONE
    bounds = f" ({interval[0] * factor:.1f}–{interval[1] * factor:.1f})" if interval and len(interval) == 2 else ""
    return f"{value * factor:.1f}{bounds}"


def sizes(scores: Iterable[Place]) -> str:
    """The number of records, or its range where scores differ in it."""
    known = sorted({s.n for s in scores})
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,}–{known[-1]:,}"


# --- differences ------------------------------------------------------------------------------------------


class Pairs:
    """Paired comparisons, found by the two scores they are between, whichever came first."""

    def __init__(self, comparisons: Iterable[Comparison]) -> None:
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


def tone(c: Comparison | None) -> str:
    """`better` or `worse` for a marked difference, else nothing: the colour of its arrow."""
    if c is None or not mark(c):
        return ""
    return "better" if (mark(c) == "down") is metric_format(c.metric).lower_is_better else "worse"


def signed(c: Comparison | None) -> str:
    """`+3.2 [+0.4, +6.1], p = 0.012`, in points; empty without a comparison."""
    if c is None or c.difference is None or c.low is None or c.high is None:
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
