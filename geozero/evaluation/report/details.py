"""Reasoning, published scores, and what stands behind a score: groups, confusion, several answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report import charts
from geozero.evaluation.report.schema import Detail, GroupScore, Reasoning, Reference
from geozero.evaluation.report.tables import (
    NONE,
    Cell,
    Column,
    Group,
    Row,
    Table,
    in_table_order,
    interval,
    joined,
    metric_label,
    model_label,
    place_label,
    points,
    printed,
    probability,
    sample_link,
)
from geozero.metrics.baselines import OTHER
from geozero.tasks.base import CUT_OFF

GROUP_TITLES = {"class": "class", "question_type": "question type", "size": "object size"}
RULES = {"official": "official protocol", "authors": "its authors' own"}
SIZE_ORDER = {"S": 0, "M": 1, "L": 2}
MOST_CONFUSED = 5  # mistakes that are put in words
MAX_CONFUSED = 40  # classes of a matrix that is drawn


class Card(NamedTuple):
    """What stands behind one score."""

    title: str
    tables: list[Table]
    confused: list[str]
    facts: list[tuple[str, str]]
    chart: Markup | None
    notes: list[str]


def reasoning(rows: Iterable[Reasoning]) -> Table:
    """How much each model reasons, whether that helps, and whether its answers depend on it."""
    rows = in_table_order(rows)
    head = [("Model",), ("n",), ("With reasoning", "%"), ("Words per thought", "mean (median)")]
    head += [("Distinct word pairs", "%"), ("Names its answer", "%"), ("Gain by reasoning", "points")]
    head += [("Answer changes", "without the thought, %"), ("Answer changes", "with another's thought, %")]
    groups: dict[str, Group] = {}
    for r in rows:
        words, gain = r.words or {}, r.help
        mean, median = words.get("mean"), words.get("median")
        length = None if mean is None else Cell(f"{mean:.1f}" + (f" ({median:.0f})" if median is not None else ""))
        cells = [Cell(f"{r.n:,}", value=r.n), _percent(r.share_with_thought), length]
        cells += [_percent((r.distinct_n or {}).get("2")), _percent(r.agreement)]
        if gain is None or gain.difference is None or gain.low is None or gain.high is None:
            cells.append(None)
        else:
            bounds = f"{points(gain.low, gain.metric)} to {points(gain.high, gain.metric)}"
            p = f", p {probability(gain.p_value)}" if gain.p_value is not None else ""
            cells.append(Cell(points(gain.difference, gain.metric), bounds + p, gain.difference))
        for name in ("without", "swapped"):
            found = r.changed.get(name)
            cells.append(None if found is None else _percent(found.value, found.interval))
        place = place_label(r)
        groups.setdefault(place, Group(place, [])).rows.append(Row(Cell(model_label(r.model, r.mode)), cells))
    kept = [i for i in range(len(head) - 1) if any(row.cells[i] for g in groups.values() for row in g.rows)]
    for group in groups.values():
        group.rows[:] = [Row(row.label, [row.cells[i] for i in kept], row.kind) for row in group.rows]
    return Table("Reasoning by test set and model", [head[0], *(head[i + 1] for i in kept)], list(groups.values()))


def references(rows: Iterable[Reference]) -> Table:
    """Published scores as they were printed."""
    head = ("Benchmark", "Model", "Part", "Metric", "Score", "Rules", "Source")
    found = [
        Row(
            Cell(r.benchmark),
            [
                *map(Cell, (r.model, r.question_type or "all", metric_label(r.metric))),
                Cell(f"{r.published:g}" if r.published is not None else NONE, value=r.published),
                *map(Cell, (RULES.get(r.rules, r.rules), "; ".join(filter(None, (r.source, r.note))))),
            ],
        )
        for r in rows
    ]
    return Table("Published scores", [(name,) for name in head], [Group("", found)] if found else [])


# --- what stands behind a score ---------------------------------------------------------------------------


def cards(rows: Iterable[Detail], models: Sequence[Column]) -> dict[str, list[Card]]:
    """The cards of a test set together: one for each model that has anything behind its score."""
    found: dict[str, list[Card]] = {}
    for d in in_table_order(rows):
        notes = [*d.notes, *(f"{name}: {why}" for name, why in d.missing.items())]
        for reason, count in d.problems.items():
            if reason != CUT_OFF or not any("cut off" in note for note in d.notes):
                notes.append(f"{count:,} record{'' if count == 1 else 's'}: {reason.replace('_', ' ')}")
        tables = [_group_table(d, kind, groups) for kind, groups in d.groups.items() if groups]
        matrix, confused = _confusion(d, models)
        facts, chart = _sampled(d)
        if tables or matrix or confused or facts or notes:
            title = joined(model_label(d.model, d.mode), f"n = {d.n:,}")
            card = Card(title, [*tables, *matrix], confused, facts, chart, notes)
            found.setdefault(place_label(d), []).append(card)
    return found


def warnings(rows: Iterable[Detail]) -> dict[str, list[tuple[str, str]]]:
    """What a reader of the scores must know before anything is unfolded: (models, note) of each place."""
    found: dict[str, dict[str, list[str]]] = {}
    models: dict[str, set[str]] = {}
    for d in in_table_order(rows):
        place, model = place_label(d), model_label(d.model, d.mode)
        models.setdefault(place, set()).add(model)
        for note in d.notes:
            found.setdefault(place, {}).setdefault(note, []).append(model)
    return {
        place: [(_together(own, len(models[place])), note) for note, own in notes.items()]
        for place, notes in found.items()
    }


def _together(models: Sequence[str], n_all: int) -> str:
    return "All models" if len(models) == n_all > 1 else "; ".join(filter(None, models))


def _group_table(d: Detail, kind: str, groups: Mapping[str, GroupScore]) -> Table:
    metrics = list(dict.fromkeys(metric for group in groups.values() for metric in group.metrics))
    rows = []
    for name in sorted(groups, key=lambda name: (SIZE_ORDER.get(name, -1) if kind == "size" else 0, name)):
        group = groups[name]
        filters = {"class": "truth", "question_type": "kind"}
        chosen = {filters[kind]: name} if kind in filters else {}
        link = sample_link(task=d.task, source=d.source, split=d.split, **chosen) if chosen else ""
        cells: list[Cell | None] = [Cell(f"{group.n:,}", value=group.n)]
        for metric in metrics:
            value, bounds = group.metrics.get(metric), group.intervals.get(metric) or (None, None)
            small = interval(bounds[0], bounds[1], metric_format(metric).factor)
            cells.append(None if value is None else Cell(printed(value, metric), small, value))
        rows.append(Row(Cell(name, link=link), cells))
    title = GROUP_TITLES.get(kind, kind)
    return Table(
        f"By {title}", [(title.capitalize(),), ("n",), *((metric_label(m),) for m in metrics)], [Group("", rows)]
    )


def _confusion(d: Detail, models: Sequence[Column]) -> tuple[list[Table], list[str]]:
    """The confusion matrix, each count an address of its samples, and the most common mistakes in words."""
    c = d.confusion
    if c is None or not c.matrix or len(c.matrix) != len(c.classes) or any(len(r) != len(c.columns) for r in c.matrix):
        return [], [f"{c.n_classes} classes are too many for a matrix"] if c and c.n_classes else []
    cells = [(t, a, n) for t, row in zip(c.classes, c.matrix, strict=True) for a, n in zip(c.columns, row, strict=True)]
    pairs = sorted((-n, t, a) for t, a, n in cells if t != a and n)
    words = [
        f"{truth} {'answered with none of the classes' if answer == OTHER else f'taken for {answer}'}: {-count}"
        for count, truth, answer in pairs[:MOST_CONFUSED]
    ]
    if len(c.classes) > MAX_CONFUSED:
        return [], words
    own = str(models.index((d.model, d.mode))) if (d.model, d.mode) in models else None
    rows = []
    for truth, counts in zip(c.classes, c.matrix, strict=True):
        total, found = sum(counts) or 1, list[Cell | None]()
        for answer, n in zip(c.columns, counts, strict=True):
            link = sample_link(task=d.task, source=d.source, truth=truth, said=answer, model=own) if n else ""
            shade = f"heat{min(4, int(5 * n / total))} {'right' if truth == answer else 'wrong'}" if n else ""
            found.append(Cell(str(n) if n else "", value=n, link=link, mark=shade))
        rows.append(Row(Cell(truth), found))
    head = [("True class",), *((name,) for name in c.columns)]
    title = "Confusion: rows are true classes, columns are answers"
    title += f"; {OTHER}: none of the classes" if OTHER in c.columns else ""
    return [Table(title, head, [Group("", rows)])], words


def _sampled(d: Detail) -> tuple[list[tuple[str, str]], Markup | None]:
    """Several answers per question; for boxes, also acc@0.5 under each coordinate convention."""
    readings = d.diagnosis.get("conventions")
    found = [
        f"{name} {printed(value.get('acc@0.5'), 'acc@0.5')}"
        for name, value in (readings.items() if isinstance(readings, dict) else ())
        if isinstance(value, dict) and isinstance(value.get("acc@0.5"), int | float)
    ]
    facts = [("acc@0.5 if boxes are read as", ", ".join(found))] if found else []
    s = d.self_consistency
    if s is None:
        return facts, None
    facts.append(("answers per question", "–".join(map(str, dict.fromkeys(s.k)))))
    facts += [(f"right in {k} answers (pass@{k})", _percent_text(p.value, p.interval)) for k, p in s.pass_at_k.items()]
    facts.append(("vote of the answers right", _percent_text(s.vote.value, s.vote.interval)))
    facts.append(("expected calibration error", _percent_text(s.calibration.expected_calibration_error)))
    if (a := s.abstention) is not None:
        risk = f"answered if at most {100 * a.risk:.0f} % may be wrong"
        facts.append((risk, _percent_text(a.answered.value, a.answered.interval)))
        facts.append(("of these wrong", _percent_text(a.wrong.value, a.wrong.interval)))
    bins = [(b.confidence, b.accuracy, b.n) for b in s.calibration.bins]
    return facts, charts.calibration(bins) if bins else None


def _percent_text(value: float | None, bounds: Sequence[float] | None = None) -> str:
    small = interval(bounds[0], bounds[1], 100) if bounds and len(bounds) == 2 else ""
    return NONE if value is None else f"{100 * value:.1f}" + (f" ({small})" if small else "")


def _percent(value: float | None, bounds: Sequence[float] | None = None) -> Cell | None:
    small = interval(bounds[0], bounds[1], 100) if bounds and len(bounds) == 2 else ""
    return None if value is None else Cell(f"{100 * value:.1f}", small, value)
