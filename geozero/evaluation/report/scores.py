"""From a list of scores to what the page shows of them: tables by world and split, and the headline figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from geozero.evaluation.report import charts
from geozero.evaluation.report.cells import Cell, baseline_of, estimate_of, marks_of, printed, shown_cell
from geozero.evaluation.report.headlines import Headline, headlines
from geozero.evaluation.report.names import (
    METRICS,
    MODELS,
    MODES,
    SPLITS,
    TASK_TITLES,
    WORLDS,
    columns_of,
    is_headline,
    main_metric,
    ordered,
    top,
)
from geozero.evaluation.report.pairs import Pairs
from geozero.evaluation.report.schema import Baseline, Comparison, Score


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. `kind`: main (the task's headline metric), metric (another one) or detail (a part)."""

    label: str
    metric: str
    kind: str
    n: str
    chance: str
    majority: str
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class TaskRows:
    task: str
    title: str
    rows: list[Row] = field(default_factory=list)
    details: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Table:
    """The scores of one split; `columns` are (model, mode) pairs as shown."""

    split: str
    title: str
    columns: list[tuple[str, str]]
    groups: list[TaskRows]


@dataclass(frozen=True, slots=True)
class World:
    name: str
    title: str
    headlines: list[Headline]
    tables: list[Table]


def worlds(
    scores: Sequence[Score], baselines: Sequence[Baseline], comparisons: Sequence[Comparison] = ()
) -> list[World]:
    """Every world apart from the others: toy first, then real imagery."""
    found = []
    pairs = Pairs(comparisons)
    for name in ordered({s.world for s in scores}, WORLDS):
        own = [s for s in scores if s.world == name]
        guesses = [b for b in baselines if b.world == name]
        splits = ordered({s.split for s in own}, SPLITS)
        tables = [_table(split, [s for s in own if s.split == split], guesses, pairs) for split in splits]
        found.append(World(name, WORLDS.get(name, name), headlines(own, guesses, splits, pairs), tables))
    return found


def _table(split: str, scores: list[Score], baselines: Sequence[Baseline], pairs: Pairs) -> Table:
    columns = columns_of(scores)
    own = [b for b in baselines if b.split == split]
    groups = []
    for task in ordered({s.task for s in scores}, TASK_TITLES):
        group = TaskRows(task, TASK_TITLES.get(task, task))
        of_task = [s for s in scores if s.task == task]
        overall = any(s.source is None for s in of_task)
        keys = {(s.source, s.question_type, s.metric) for s in of_task}
        for source, question_type, metric in sorted(keys, key=lambda key: _row_order(main_metric(of_task[0]), *key)):
            picked = [s for s in of_task if (s.source, s.question_type, s.metric) == (source, question_type, metric)]
            row = _row(picked, baseline_of(own, of_task, picked[0]), columns, pairs, overall)
            (group.rows if row.kind != "detail" else group.details).append(row)
        if not group.rows:  # no overall score was given: the parts are all there is
            group.rows.extend(group.details)
            group.details.clear()
        groups.append(group)
    return Table(split, SPLITS.get(split, split), [(MODELS.get(m, m), MODES.get(o, o)) for m, o in columns], groups)


def _row(
    scores: list[Score], baseline: Baseline | None, columns: list[tuple[str, str]], pairs: Pairs, overall: bool
) -> Row:
    """A row of one metric and part; `overall`: the task has scores over all sources, so those of one are parts."""
    first = scores[0]
    whole = first.question_type is None and (first.source is None or not overall)
    main = whole and is_headline(first)
    marks = marks_of(baseline)
    full = top(first.metric)
    highest = max([full or 0.0, *(v for s in scores for v in (s.value, s.high) if v is not None)])
    by_column = {(s.model, s.mode): s for s in scores if s.value is not None}
    best = _best(list(by_column.values()), pairs) if main else None
    cells: list[Cell | None] = []
    for model, mode in columns:
        score = by_column.get((model, mode))
        if score is None or score.value is None:
            cells.append(None)
            continue
        drawn = charts.strip(estimate_of(score, ""), marks, highest) if main and full else None
        earlier = [by_column[c] for c in columns[: columns.index((model, mode))] if c[1] == mode and c in by_column]
        cell = shown_cell(score, earlier[-1] if earlier and whole else None, pairs)
        cells.append(replace(cell, strip=drawn, best=score is best))
    sizes = sorted({s.n for s in scores})
    metric = METRICS.get(first.metric, first.metric)
    place = " · ".join(p for p in (first.source, first.question_type) if p)
    return Row(
        label=f"{place} · {metric}" if place and whole else place or metric,
        metric=metric,
        kind="main" if main else "metric" if whole else "detail",
        n=f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}",
        chance=printed(baseline.chance if baseline else None, first.metric),
        majority=printed(baseline.majority if baseline else None, first.metric),
        cells=cells,
    )


def _best(scores: list[Score], pairs: Pairs) -> Score | None:
    """The score that is above every other one by a paired interval without 0; None where there is no such score."""
    if len(scores) < 2:
        return None
    best = max(scores, key=lambda s: s.value or 0.0)
    found = [pairs.between(other, best) for other in scores if other is not best]
    return best if all(c is not None and c.low is not None and c.low > 0 for c in found) else None


def _row_order(main: str | None, source: str | None, question_type: str | None, metric: str) -> tuple[object, ...]:
    whole = source is None and question_type is None
    return (
        not whole,
        question_type is not None,
        source or "",
        question_type or "",
        metric != main,
        metric,
    )
