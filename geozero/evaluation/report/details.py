"""What stands behind a score on the page: paired differences, reasoning, groups, confusion, several answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report import charts
from geozero.evaluation.report.cells import (
    NONE,
    TASK_TITLES,
    estimated,
    in_order,
    mark,
    metric_label,
    model_label,
    place_label,
    points,
    printed,
    probability,
    reverse,
    signed,
)
from geozero.evaluation.report.schema import Comparison, Confusion, Detail, Group, Reasoning

GROUP_TITLES = {"class": "class", "question_type": "question type", "size": "object size"}
T = TypeVar("T", "Line", "Card")
ALL = "all"  # the part of a place that is all of it
SIZE_ORDER = {"S": 0, "M": 1, "L": 2}
MOST_CONFUSED = 5  # mistakes that are put in words
DIFFERENCE, GAIN = 5, 8  # the cells of a line that its mark belongs to, in `differences` and in `reasoning`


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a plain table. `mark` (up or down) is that of the difference in it, if its interval excludes 0."""

    place: str
    cells: tuple[str, ...]
    mark: str = ""


@dataclass(frozen=True, slots=True)
class GroupTable:
    title: str
    metrics: list[str]
    lines: list[Line]


@dataclass(frozen=True, slots=True)
class Sampled:
    """Several answers per question: pass@k, the vote, and the chart of agreement against accuracy."""

    title: str
    facts: list[tuple[str, str]]
    chart: Markup | None


@dataclass(frozen=True, slots=True)
class Card:
    """What stands behind one score."""

    place: str
    model: str
    n: str
    tables: list[GroupTable] = field(default_factory=list)
    confusion: Markup | None = None
    confused: list[str] = field(default_factory=list)
    sampled: Sampled | None = None
    diagnosis: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any((self.tables, self.confusion, self.confused, self.sampled, self.diagnosis, self.notes))


def by_place(items: Iterable[T]) -> dict[str, list[T]]:
    """Items of one place together, in the order of its first."""
    found: dict[str, list[T]] = {}
    for item in items:
        found.setdefault(item.place, []).append(item)
    return found


def differences(comparisons: Iterable[Comparison]) -> list[Line]:
    """The headline metric of every pair that shares its mode or its model, over whole places and by question type.

    Cells: part, first, second, metric, scores, difference, interval, p-value, n.
    """
    comparisons = list(comparisons)
    whole = {(c.world, c.split, c.task) for c in comparisons if c.source is None}
    shown = [
        c
        for c in comparisons
        if c.headline and (c.first.mode == c.second.mode or c.first.model == c.second.model)
        if c.difference is not None and (c.source is None or (c.world, c.split, c.task) not in whole)
    ]
    order = in_order({model.key for c in shown for model in (c.first, c.second)})
    forward = [c if order.index(c.first.key) < order.index(c.second.key) else reverse(c) for c in shown]
    tasks = [*TASK_TITLES, *{c.task: None for c in shown}]

    def place(c: Comparison) -> tuple[object, ...]:
        return c.protocol != "strict", c.world, c.split, tasks.index(c.task), c.source or ""

    return [_difference(c) for c in sorted(forward, key=lambda c: (*place(c), _part(c) != ALL, _part(c)))]


def _difference(c: Comparison) -> Line:
    scores = " → ".join(printed(v, c.metric) for v in (c.before, c.after))
    names = (_part(c), model_label(*c.first.key), model_label(*c.second.key), metric_label(c.metric))
    difference, low, high = (points(v or 0.0, c.metric) for v in (c.difference, c.low, c.high))
    p_value = probability(c.p_value).removeprefix("= ")
    return Line(place_label(c), (*names, scores, difference, f"{low} to {high}", p_value, f"{c.n:,}"), mark(c))


def _part(c: Comparison) -> str:
    return c.question_type or ALL


def reasoning(rows: Iterable[Reasoning]) -> list[Line]:
    """How much each model reasons, and whether that helps.

    Cells: model, n, share with a thought, words, distinct-2, agreement, metric, score without the thought, gain.
    """
    lines = []
    for r in rows:
        words = r.words or {}
        mean, median = words.get("mean"), words.get("median")
        length = NONE if mean is None or median is None else f"{mean:.1f} ({median:.0f})"
        shares = [_percent(v) for v in (r.share_with_thought, (r.distinct_n or {}).get("2"), r.agreement)]
        without = printed(r.help.before, r.help.metric) if r.help else NONE
        gain = (signed(r.help) if r.help else "") or NONE
        cells = (model_label(r.model, r.mode), f"{r.n:,}", shares[0], length, *shares[1:])
        lines.append(Line(place_label(r), (*cells, metric_label(r.metric), without, gain), mark(r.help)))
    return lines


def cards(rows: Iterable[Detail]) -> list[Card]:
    """A card for each score that has anything behind it."""
    found = (
        Card(
            place_label(d),
            model_label(d.model, d.mode),
            f"{d.n:,}",
            tables=[_group_table(kind, groups) for kind, groups in d.groups.items() if groups],
            confusion=_confusion(d.confusion),
            confused=_confused(d.confusion),
            sampled=_sampled(d),
            diagnosis=_diagnosis(d),
            notes=[
                *d.notes,
                *(f"{name}: {why}" for name, why in d.missing.items()),
                *(f"{count:,} records: {reason.replace('_', ' ')}" for reason, count in d.problems.items()),
            ],
        )
        for d in rows
    )
    return [card for card in found if card]


def warnings(rows: Iterable[Detail]) -> list[tuple[str, str]]:
    """Where and what a reader of the scores must know before anything is unfolded; equal ones of one place once."""
    found: dict[tuple[str, str], list[str]] = {}
    for d in rows:
        for note in d.notes:
            found.setdefault((place_label(d), note), []).append(model_label(d.model, d.mode))
    return [(f"{where} ({'; '.join(filter(None, models))})", note) for (where, note), models in found.items()]


def _group_table(kind: str, groups: Mapping[str, Group]) -> GroupTable:
    metrics = list(dict.fromkeys(metric for group in groups.values() for metric in group.metrics))
    lines = []
    for name in sorted(groups, key=lambda name: (SIZE_ORDER.get(name, -1) if kind == "size" else 0, name)):
        group = groups[name]
        values = [estimated(group.metrics.get(m), group.intervals.get(m), metric_format(m).factor) for m in metrics]
        lines.append(Line("", (name, f"{group.n:,}", *values)))
    return GroupTable(f"By {GROUP_TITLES.get(kind, kind)}", [metric_label(m) for m in metrics], lines)


def _confusion(c: Confusion | None) -> Markup | None:
    return charts.confusion(c.classes, c.columns, c.matrix) if c and _is_whole(c) else None


def _is_whole(c: Confusion) -> bool:
    fits = len(c.matrix) == len(c.classes) and all(len(row) == len(c.columns) for row in c.matrix)
    return bool(c.matrix) and fits


def _confused(c: Confusion | None) -> list[str]:
    """The most common mistakes in words."""
    if c is None:
        return []
    if not _is_whole(c):
        return [f"{c.n_classes} classes are too many for a matrix"] if c.n_classes else []
    pairs = [
        (-count, truth, answer)
        for truth, row in zip(c.classes, c.matrix, strict=True)
        for answer, count in zip(c.columns, row, strict=True)
        if truth != answer and count
    ]
    return [f"{truth} taken for {answer}: {-count}" for count, truth, answer in sorted(pairs)[:MOST_CONFUSED]]


def _sampled(d: Detail) -> Sampled | None:
    s = d.self_consistency
    if s is None:
        return None
    bins = [(b.confidence, b.accuracy, b.n) for b in s.calibration.bins]
    k = "–".join(map(str, dict.fromkeys(s.k)))
    facts = [(f"pass@{k}", estimated(found.value, found.interval)) for k, found in s.pass_at_k.items()]
    facts.append(("vote of the answers", estimated(s.vote.value, s.vote.interval)))
    facts.append(("expected calibration error", _percent(s.calibration.expected_calibration_error)))
    chart = charts.calibration(bins) if bins else None
    return Sampled(f"{k} answers to each of {s.n_questions:,} questions", facts, chart)


def _diagnosis(d: Detail) -> list[tuple[str, str]]:
    """acc@0.5 of the same predictions under each coordinate convention."""
    readings = d.diagnosis.get("conventions")
    if not isinstance(readings, dict):
        return []
    rates = {str(k): v.get("acc@0.5") for k, v in readings.items() if isinstance(v, dict)}
    return [(name, _percent(v) if isinstance(v, int | float) else NONE) for name, v in rates.items()]


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"
