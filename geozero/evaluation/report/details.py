"""What stands behind a score on the page: paired differences, reasoning, groups, confusion, several answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report import charts
from geozero.evaluation.report.schema import Comparison, Confusion, Detail, GroupScore, Reasoning, Reference
from geozero.evaluation.report.tables import (
    NONE,
    TASK_TITLES,
    Group,
    Marked,
    Row,
    Table,
    estimated,
    in_order,
    mark,
    metric_label,
    model_label,
    ordered,
    place_label,
    points,
    printed,
    probability,
    reverse,
    signed,
    tone,
)

GROUP_TITLES = {"class": "class", "question_type": "question type", "size": "object size"}
ALL = "all"  # the part of a place that is all of it
SIZE_ORDER = {"S": 0, "M": 1, "L": 2}
MOST_CONFUSED = 5  # mistakes that are put in words
RULES = {"official": "official protocol", "authors": "its authors' own"}


class Sampled(NamedTuple):
    """Several answers per question: pass@k, the vote, and the chart of agreement against accuracy."""

    title: str
    facts: list[tuple[str, str]]
    chart: Markup | None


class Card(NamedTuple):
    """What stands behind one score."""

    title: str
    tables: list[Table]
    confusion: Markup | None
    confused: list[str]
    sampled: Sampled | None
    diagnosis: list[tuple[str, str]]
    notes: list[str]


# --- tables -----------------------------------------------------------------------------------------------


def differences(comparisons: Iterable[Comparison]) -> Table:
    """The headline metric of every pair that shares its mode or its model, over whole places and by question type."""
    comparisons = list(comparisons)
    whole = {(c.world, c.split, c.task) for c in comparisons if c.source is None}
    shown = [
        c
        for c in comparisons
        if c.headline and (c.first.mode == c.second.mode or c.first.model == c.second.model)
        if c.difference is not None and (c.source is None or (c.world, c.split, c.task) not in whole)
    ]
    models = in_order(model.key for c in shown for model in (c.first, c.second))
    forward = [c if models.index(c.first.key) < models.index(c.second.key) else reverse(c) for c in shown]
    tasks = ordered((c.task for c in shown), TASK_TITLES)

    def order(c: Comparison) -> tuple[object, ...]:
        place = c.protocol != "strict", c.world, c.split, tasks.index(c.task), c.source or ""
        return *place, c.question_type is not None, c.question_type or ""

    head = ("Part", "First", "Second", "Metric", "Scores", "Difference", "95\u00a0%", "p", "n")
    rows = [(place_label(c), _difference(c)) for c in sorted(forward, key=order)]
    title = "Differences on the same questions, second minus first"
    return Table(title, [(name,) for name in head], _by_place(rows), group_head="Where")


def _difference(c: Comparison) -> Row:
    names = model_label(*c.first.key), model_label(*c.second.key), metric_label(c.metric)
    scores = " → ".join(printed(v, c.metric) for v in (c.before, c.after))
    difference, low, high = (points(v or 0.0, c.metric) for v in (c.difference, c.low, c.high))
    p_value = probability(c.p_value).removeprefix("= ")
    marked = Marked(difference, mark(c), tone(c))
    return Row(c.question_type or ALL, [*names, scores, marked, f"{low} to {high}", p_value, f"{c.n:,}"])


def reasoning(rows: Iterable[Reasoning]) -> Table:
    """How much each model reasons, and whether that helps, if answers were also forced at once."""
    rows = list(rows)
    helped = any(r.help is not None for r in rows)
    head = [("Model",), ("n",), ("With a thought", "%"), ("Words", "mean (median)"), ("Distinct-2", "%")]
    head += [("Names its answer", "%")]
    head += [("Metric",), ("Without thought",), ("Gain by reasoning",)] if helped else []
    found = []
    for r in rows:
        words = r.words or {}
        mean, median = words.get("mean"), words.get("median")
        length = NONE if mean is None or median is None else f"{mean:.1f} ({median:.0f})"
        cells: list[str | Marked] = [f"{r.n:,}", _percent(r.share_with_thought), length]
        cells += [_percent((r.distinct_n or {}).get("2")), _percent(r.agreement)]
        if helped:
            without = printed(r.help.before, r.help.metric) if r.help else NONE
            cells += [metric_label(r.metric), without, Marked(signed(r.help) or NONE, mark(r.help), tone(r.help))]
        found.append((place_label(r), Row(model_label(r.model, r.mode), cells)))
    return Table("Reasoning", head, _by_place(found), group_head="Where")


def references(rows: Iterable[Reference]) -> Table:
    """Published scores as they were printed."""
    head = ("Benchmark", "Model", "Part", "Metric", "Score", "Rules", "Source")
    found = []
    for r in rows:
        source = "; ".join(filter(None, (r.source, r.note)))
        cells = [r.model, r.question_type or ALL, r.metric, str(r.published), RULES.get(r.rules, r.rules), source]
        found.append(Row(r.benchmark, cells))
    return Table("Published scores", [(name,) for name in head], [Group("", found)] if found else [])


def _by_place(rows: Iterable[tuple[str, Row]]) -> list[Group]:
    """Rows of one place together, in the order of its first."""
    found: dict[str, Group] = {}
    for place, row in rows:
        found.setdefault(place, Group(place, [])).rows.append(row)
    return list(found.values())


# --- cards ------------------------------------------------------------------------------------------------


def cards(rows: Iterable[Detail]) -> dict[str, list[Card]]:
    """The cards of a place together: one for each score that has anything behind it."""
    found: dict[str, list[Card]] = {}
    for d in rows:
        label = model_label(d.model, d.mode)
        notes = [*d.notes, *(f"{name}: {why}" for name, why in d.missing.items())]
        notes += [f"{count:,} records: {reason.replace('_', ' ')}" for reason, count in d.problems.items()]
        tables = [_group_table(kind, groups) for kind, groups in d.groups.items() if groups]
        parts = tables, *_confusion(d.confusion), _sampled(d), _diagnosis(d), notes
        if any(parts):
            title = f"{label}, n = {d.n:,}" if label else f"n = {d.n:,}"
            found.setdefault(place_label(d), []).append(Card(title, *parts))
    return found


def warnings(rows: Iterable[Detail]) -> list[tuple[str, str]]:
    """Where and what a reader of the scores must know before anything is unfolded; equal ones of one place once."""
    found: dict[tuple[str, str], list[str]] = {}
    for d in rows:
        for note in d.notes:
            found.setdefault((place_label(d), note), []).append(model_label(d.model, d.mode))
    return [(f"{where} ({'; '.join(filter(None, models))})", note) for (where, note), models in found.items()]


def _group_table(kind: str, groups: Mapping[str, GroupScore]) -> Table:
    metrics = list(dict.fromkeys(metric for group in groups.values() for metric in group.metrics))
    rows = []
    for name in sorted(groups, key=lambda name: (SIZE_ORDER.get(name, -1) if kind == "size" else 0, name)):
        group = groups[name]
        values = (estimated(group.metrics.get(m), group.intervals.get(m), metric_format(m).factor) for m in metrics)
        rows.append(Row(name, [f"{group.n:,}", *values]))
    title = f"By {GROUP_TITLES.get(kind, kind)}"
    return Table(title, [(title,), ("n",), *((metric_label(m),) for m in metrics)], [Group("", rows)])


def _confusion(c: Confusion | None) -> tuple[Markup | None, list[str]]:
    """The confusion matrix as a heat map, and its most common mistakes in words."""
    if c is None or not c.matrix:
        return None, [f"{c.n_classes} classes are too many for a matrix"] if c and c.n_classes else []
    if len(c.matrix) != len(c.classes) or any(len(row) != len(c.columns) for row in c.matrix):
        return None, []
    pairs = [
        (-count, truth, answer)
        for truth, row in zip(c.classes, c.matrix, strict=True)
        for answer, count in zip(c.columns, row, strict=True)
        if truth != answer and count
    ]
    words = [f"{truth} taken for {answer}: {-count}" for count, truth, answer in sorted(pairs)[:MOST_CONFUSED]]
    return charts.confusion(c.classes, c.columns, c.matrix), words


def _sampled(d: Detail) -> Sampled | None:
    s = d.self_consistency
    if s is None:
        return None
    bins = [(b.confidence, b.accuracy, b.n) for b in s.calibration.bins]
    facts = [(f"pass@{k}", estimated(found.value, found.interval)) for k, found in s.pass_at_k.items()]
    facts.append(("vote of the answers", estimated(s.vote.value, s.vote.interval)))
    facts.append(("expected calibration error", _percent(s.calibration.expected_calibration_error)))
    title = f"{'–'.join(map(str, dict.fromkeys(s.k)))} answers to each of {s.n_questions:,} questions"
    return Sampled(title, facts, charts.calibration(bins) if bins else None)


def _diagnosis(d: Detail) -> list[tuple[str, str]]:
    """acc@0.5 of the same predictions under each coordinate convention."""
    readings = d.diagnosis.get("conventions")
    if not isinstance(readings, dict):
        return []
    rates = {str(k): v.get("acc@0.5") for k, v in readings.items() if isinstance(v, dict)}
    return [(name, _percent(v) if isinstance(v, int | float) else NONE) for name, v in rates.items()]


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"
