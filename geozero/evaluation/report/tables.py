"""What the page's tables are made of: names and their order, numbers in words, cells and rows, marked differences.

A difference is called significant only if its p-value, corrected for all comparisons of the page, is below 0.05.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlencode

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report.schema import CHOOSING, Comparison, ModelPlace, Place, Score
from geozero.evaluation.statistics import MIN_MARKED
from geozero.tasks import TASKS

MODELS = {"base": "Base", "sft": "SFT", "a2grpo": "A²GRPO"}
MODES = {
    "direct": "direct",
    "tagged": "tagged",
    "forced": "answer prefilled",
    "swapped": "another's thought",
    "opened": "thought prefilled",
}
SPLITS = {"test_hard": "hard test split", "test": "test split", "": "scored records", CHOOSING: "validation split"}
WORLDS = {
    "toy": "Rendered toy world",
    "suite": "Rendered questions in several steps",
    "neon": "Real aerial imagery (NEON)",
    "strict": "",
    "official": "",
}
TASK_TITLES = {name: task.title for name, task in TASKS.items()}
NONE = "–"
SIGNIFICANT = 0.05

P = TypeVar("P", bound=ModelPlace)
Column = tuple[str, str]  # model, mode
Where = tuple[str, str, str, str, str | None]  # world, split, protocol, task, source


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: its text, small print, the number that it is sorted by, and an address within the page. `mark` is better,
    worse, guess (not clearly better than guessing) or empty; `best`: significantly better than every other score of its
    row."""

    text: str
    small: str = ""
    value: float | None = None
    mark: str = ""
    link: str = ""
    best: bool = False
    plot: Markup | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row; those of kind `detail` are folded away at first."""

    label: Cell
    cells: Sequence[Cell | None]
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    title: str
    rows: list[Row]
    folded: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Each column of `head` is a name and the small print below it."""

    title: str
    head: Sequence[tuple[str, ...]]
    groups: list[Group] = field(default_factory=list)


# --- names and numbers ------------------------------------------------------------------------------------


def metric_label(metric: str) -> str:
    return metric_format(metric).label


def model_label(model: str, mode: str) -> str:
    return ", ".join(part for part in (MODELS.get(model, model), MODES.get(mode, mode)) if part)


def place_label(p: Place) -> str:
    """A test set in words: source, task, split, protocol."""
    split = SPLITS.get(p.split, p.split) if p.split else ""
    protocol = f"{p.protocol} protocol" if p.world in ("strict", "official") else ""
    return joined(p.source or WORLDS.get(p.world, p.world), TASK_TITLES.get(p.task, p.task), split, protocol)


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


def in_table_order(rows: Iterable[P]) -> list[P]:
    """Rows in the order of the tables: worlds, splits, tasks and sources, in each of them models and modes."""
    rows = list(rows)
    known = {"world": WORLDS, "split": SPLITS, "task": TASK_TITLES, "model": MODELS, "mode": MODES}
    names = {key: ordered((getattr(row, key) for row in rows), order) for key, order in known.items()}

    def order(row: P) -> tuple[object, ...]:
        world, split, task, model, mode = (names[key].index(getattr(row, key)) for key in known)
        return row.split == CHOOSING, world, split, task, row.source or "", model, mode

    return sorted(rows, key=order)


def printed(value: float | None, metric: str) -> str:
    return NONE if value is None else f"{value * metric_format(metric).factor:,.1f}"


def interval(low: float | None, high: float | None, factor: float) -> str:
    return "" if low is None or high is None else f"{low * factor:.1f}–{high * factor:.1f}"


def points(difference: float, metric: str) -> str:
    """A difference with its sign; differences of shares are shown in points."""
    return f"{difference * metric_format(metric).factor:+.1f}".replace("-", "−")


def probability(p: float | None) -> str:
    """A p-value as papers write it."""
    return NONE if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def sample_link(**filters: str | None) -> str:
    """The address of the samples that pass these filters."""
    chosen = {name: value for name, value in filters.items() if value} | {"view": "gallery"}
    return "#" + urlencode(chosen, errors="replace")  # a lone surrogate becomes `?`


def sizes(scores: Iterable[Place]) -> str:
    """The number of records, or its range where scores differ in it."""
    known = sorted({s.n for s in scores})
    return f"{known[0]:,}" if len(known) == 1 else f"{known[0]:,}–{known[-1]:,}"


# --- differences ------------------------------------------------------------------------------------------


def where(p: Place) -> Where:
    return p.world, p.split, p.protocol, p.task, p.source


class Pairs:
    """Comparisons of whole test sets and of their question types, whichever model came first."""

    def __init__(self, comparisons: Iterable[Comparison], single: Collection[tuple[str, ...]] = ()) -> None:
        self._single = single  # worlds, splits, protocols and tasks that have but one source
        self._found: dict[tuple[object, ...], Comparison] = {}
        for c in comparisons:
            for one in (c, reverse(c)):
                self._found[(*where(one), one.question_type, one.metric, one.first.key, one.second.key)] = one

    def between(self, before: Score, after: Score) -> Comparison | None:
        """`after` minus `before`; a comparison over all sources stands for that of the only one."""
        key = after.question_type, after.metric, (before.model, before.mode), (after.model, after.mode)
        found = self._found.get((*where(after), *key))
        return found or (self._found.get((*where(after)[:4], None, *key)) if where(after)[:4] in self._single else None)


def reverse(c: Comparison) -> Comparison:
    """The same comparison the other way round."""
    values = {"first": c.second, "second": c.first, "before": c.after, "after": c.before}
    negated = {"difference": c.difference, "low": c.high, "high": c.low}
    return c.model_copy(update=values | {name: None if v is None else -v for name, v in negated.items()})


def mark(c: Comparison | None) -> str:
    """Whether the second model is significantly better or worse, else ''."""
    if c is None or c.p_corrected is None or c.p_corrected >= SIGNIFICANT or not c.difference:
        return ""
    return "better" if (c.difference > 0) is not metric_format(c.metric).lower_is_better else "worse"


def is_small(c: Comparison) -> bool:
    """Whether too few independent questions or images stand behind a comparison to call it significant."""
    return (c.n if c.units is None else c.units) < MIN_MARKED


def verdict(c: Comparison | None) -> str:
    """What a comparison says, in words."""
    if c is None or c.difference is None:
        return "not compared question by question"
    if is_small(c):
        return f"too few to tell (fewer than {MIN_MARKED})"
    if c.p_corrected is None:
        return "not tested"
    return f"significantly {found}" if (found := mark(c)) else "no significant difference"
