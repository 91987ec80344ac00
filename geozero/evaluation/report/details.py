"""What stands behind a score on the page: differences, thoughts, classes, sizes, confusion, several answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from geozero.evaluation.report import charts
from geozero.evaluation.report.names import METRICS, NONE, SPLITS, TASK_TITLES, WORLDS, factor, in_order, model_label
from geozero.evaluation.report.pairs import mark, probability, scale, signed, turned
from geozero.evaluation.report.schema import Comparison, Confusion, Detail, Estimated, Group, ModelRef, Reasoning

GROUP_TITLES = {"class": "class", "question_type": "question type", "size": "object size"}
ALL = "all"  # the part of a place that is all of it
SIZE_ORDER = {"S": 0, "M": 1, "L": 2}


@dataclass(frozen=True, slots=True)
class Difference:
    """One pair in words; `mark` is up or down only where the interval excludes 0."""

    place: str
    part: str
    first: str
    second: str
    metric: str
    values: str
    difference: str
    interval: str
    p_value: str
    n: str
    mark: str


@dataclass(frozen=True, slots=True)
class Differences:
    """The pairs of one place; `n_sure` of them have an interval without 0."""

    place: str
    rows: list[Difference]
    n_sure: int


@dataclass(frozen=True, slots=True)
class Thoughts:
    """One line of the table on reasoning; `without`, `gain` and `mark` are of the answer forced at once."""

    place: str
    who: str
    n: str
    share: str
    words: str
    distinct: str
    agreement: str
    metric: str
    without: str
    gain: str
    mark: str


@dataclass(frozen=True, slots=True)
class GroupTable:
    title: str
    metrics: list[str]
    rows: list[tuple[str, str, list[str]]]  # name, n, values with their intervals


@dataclass(frozen=True, slots=True)
class Sampled:
    """Several answers to each question: pass@k, the vote, and the chart of agreement against accuracy."""

    k: str
    n: str
    passes: list[tuple[str, str]]
    vote: str
    error: str
    chart: Markup | None


@dataclass(frozen=True, slots=True)
class DetailCard:
    title: str
    who: str
    n: str
    tables: list[GroupTable] = field(default_factory=list)
    confusion: Markup | None = None
    confused: list[str] = field(default_factory=list)
    sampled: Sampled | None = None
    diagnosis: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def differences(comparisons: Sequence[Comparison]) -> list[Difference]:
    """The headline metric of every pair that shares its mode or its model, over whole places and by question type."""
    whole = {(c.world, c.split, c.task) for c in comparisons if c.source is None}
    shown = [
        c
        for c in comparisons
        if c.headline and (c.first.mode == c.second.mode or c.first.model == c.second.model)
        if c.difference is not None and (c.source is None or (c.world, c.split, c.task) not in whole)
    ]
    order = in_order({(who.model, who.mode) for c in shown for who in (c.first, c.second)})
    rank = {pair: i for i, pair in enumerate(order)}

    def at(who: ModelRef) -> int:
        return rank[who.model, who.mode]

    forward = [c if at(c.first) < at(c.second) else turned(c) for c in shown]
    forward.sort(
        key=lambda c: (c.protocol != "strict", c.world, c.split, [*TASK_TITLES, c.task].index(c.task), c.source or "")
    )
    return [_difference(c) for c in forward]


def differences_by_place(rows: Sequence[Difference]) -> list[Differences]:
    """The same rows a place each, in their order; those over everything come before those of one question type."""
    found: dict[str, list[Difference]] = {}
    for row in rows:
        found.setdefault(row.place, []).append(row)
    ordered = {where: sorted(own, key=lambda d: (d.part != ALL, d.part)) for where, own in found.items()}
    return [Differences(where, own, sum(bool(d.mark) for d in own)) for where, own in ordered.items()]


def _difference(c: Comparison) -> Difference:
    by = scale(c.metric)
    low, high = c.low or 0.0, c.high or 0.0
    values = [NONE if v is None else f"{v * by:.1f}" for v in (c.before, c.after)]
    return Difference(
        place=place(c.world, c.split, c.task, c.source),
        part=c.question_type or ALL,
        first=model_label(c.first.model, c.first.mode),
        second=model_label(c.second.model, c.second.mode),
        metric=METRICS.get(c.metric, c.metric),
        values=" → ".join(values),
        difference=f"{(c.difference or 0.0) * by:+.1f}".replace("-", "−"),
        interval=f"{low * by:+.1f} to {high * by:+.1f}".replace("-", "−"),
        p_value=probability(c.p_value).removeprefix("= "),
        n=f"{c.n:,}",
        mark=mark(c),
    )


def thoughts(rows: Sequence[Reasoning]) -> list[Thoughts]:
    """How much each model thinks, and whether that helps."""
    found = []
    for r in rows:
        without, gain = NONE, NONE
        if r.help is not None and r.help.before is not None:
            without, gain = f"{r.help.before * scale(r.help.metric):.1f}", signed(r.help)
        mean = (r.words or {}).get("mean")
        median = (r.words or {}).get("median")
        found.append(
            Thoughts(
                place=place(r.world, r.split, r.task, r.source),
                who=model_label(r.model, r.mode),
                n=f"{r.n:,}",
                share=_percent(r.share_with_thought),
                words=NONE if mean is None or median is None else f"{mean:.1f} ({median:.0f})",
                distinct=_percent((r.distinct_n or {}).get("2")),
                agreement=_percent(r.agreement),
                metric=METRICS.get(r.metric, r.metric),
                without=without,
                gain=gain or NONE,
                mark=mark(r.help),
            )
        )
    return found


def details(rows: Sequence[Detail]) -> list[DetailCard]:
    """A card for each score that has anything behind it."""
    cards = []
    for d in rows:
        tables = [_group_table(kind, groups) for kind, groups in d.groups.items() if groups]
        card = DetailCard(
            title=place(d.world, d.split, d.task, d.source),
            who=model_label(d.model, d.mode),
            n=f"{d.n:,}",
            tables=tables,
            confusion=charts.confusion(d.confusion.classes, d.confusion.columns, d.confusion.matrix)
            if d.confusion and _is_whole(d.confusion)
            else None,
            confused=_confused(d.confusion),
            sampled=_sampled(d),
            diagnosis=_diagnosis(d),
            notes=[*d.notes, *(f"{name}: {why}" for name, why in d.missing.items()), *_problems(d)],
        )
        if any((card.tables, card.confusion, card.confused, card.sampled, card.diagnosis, card.notes)):
            cards.append(card)
    return cards


def warnings(rows: Sequence[Detail]) -> list[tuple[str, str]]:
    """Where and what a reader of the scores must know before anything is unfolded; equal ones of one place once."""
    said: dict[tuple[str, str], list[str]] = {}
    for d in rows:
        for note in d.notes:
            said.setdefault((place(d.world, d.split, d.task, d.source), note), []).append(model_label(d.model, d.mode))
    return [(f"{where} ({'; '.join(w for w in names if w)})", note) for (where, note), names in said.items()]


def cards_by_place(cards: Sequence[DetailCard]) -> list[tuple[str, list[DetailCard]]]:
    """The cards of one place together, in the order of its first: models are read side by side."""
    found: dict[str, list[DetailCard]] = {}
    for card in cards:
        found.setdefault(card.title, []).append(card)
    return list(found.items())


def place(world: str, split: str, task: str, source: str | None) -> str:
    """Where a score is from, in words."""
    first = source or WORLDS.get(world, world)
    parts = [first, SPLITS.get(split, split) if split else "", TASK_TITLES.get(task, task)]
    if source and world in ("strict", "official"):
        parts.append(f"{world} protocol")
    return " · ".join(p for p in parts if p)


def _group_table(kind: str, groups: dict[str, Group]) -> GroupTable:
    metrics = list(dict.fromkeys(m for g in groups.values() for m in g.metrics))
    order = sorted(groups, key=lambda name: (SIZE_ORDER.get(name, -1) if kind == "size" else 0, name))
    rows = [(name, f"{groups[name].n:,}", [_value(groups[name], metric) for metric in metrics]) for name in order]
    return GroupTable(f"By {GROUP_TITLES.get(kind, kind)}", [METRICS.get(m, m) for m in metrics], rows)


def _value(group: Group, metric: str) -> str:
    value, by = group.metrics.get(metric), factor(metric)
    if value is None:
        return NONE
    bounds = group.intervals.get(metric)
    inside = f" ({bounds[0] * by:.1f}–{bounds[1] * by:.1f})" if bounds and len(bounds) == 2 else ""
    return f"{value * by:.1f}{inside}"


def _is_whole(c: Confusion) -> bool:
    fits = len(c.matrix) == len(c.classes) and all(len(row) == len(c.columns) for row in c.matrix)
    return bool(c.matrix) and fits


def _confused(c: Confusion | None, most: int = 5) -> list[str]:
    """The most common mistakes in words."""
    if c is None:
        return []
    if not _is_whole(c):
        return [f"{c.n_classes} classes are too many for a matrix"] if c.n_classes else []
    pairs = [
        (count, truth, answer)
        for truth, row in zip(c.classes, c.matrix, strict=True)
        for answer, count in zip(c.columns, row, strict=True)
        if truth != answer and count
    ]
    pairs.sort(key=lambda p: (-p[0], p[1], p[2]))
    return [f"{truth} taken for {answer}: {count}" for count, truth, answer in pairs[:most]]


def _sampled(d: Detail) -> Sampled | None:
    s = d.self_consistency
    if s is None:
        return None
    bins = [(b.confidence, b.accuracy, b.n) for b in s.calibration.bins]
    error = s.calibration.expected_calibration_error
    return Sampled(
        k="–".join(map(str, dict.fromkeys(s.k))),
        n=f"{s.n_questions:,}",
        passes=[(f"pass@{k}", _estimated(value)) for k, value in s.pass_at_k.items()],
        vote=_estimated(s.vote),
        error=_percent(error),
        chart=charts.calibration(bins) if bins else None,
    )


def _estimated(e: Estimated) -> str:
    if e.value is None:
        return NONE
    inside = f" ({100 * e.interval[0]:.1f}–{100 * e.interval[1]:.1f})" if e.interval and len(e.interval) == 2 else ""
    return f"{100 * e.value:.1f}{inside}"


def _diagnosis(d: Detail) -> list[tuple[str, str]]:
    """acc@0.5 of the same predictions under each coordinate convention."""
    readings = d.diagnosis.get("conventions")
    if not isinstance(readings, dict):
        return []
    rates = {k: v.get("acc@0.5") for k, v in readings.items() if isinstance(v, dict)}
    return [(str(k), _percent(v) if isinstance(v, int | float) else NONE) for k, v in rates.items()]


def _problems(d: Detail) -> list[str]:
    return [f"{count:,} records: {reason.replace('_', ' ')}" for reason, count in d.problems.items()]


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f}"
