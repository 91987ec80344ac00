"""From a list of scores to what the page shows of them: headline figures, tables by world and split, benchmarks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report import charts
from geozero.evaluation.report.cells import (
    MODELS,
    MODES,
    NONE,
    SPLITS,
    TASK_TITLES,
    WORLDS,
    Cell,
    Column,
    Pairs,
    baseline_of,
    columns_of,
    is_headline,
    main_metric,
    marks_of,
    metric_label,
    model_label,
    ordered,
    points,
    printed,
    sizes,
)
from geozero.evaluation.report.schema import Baseline, Comparison, Reference, Score
from geozero.tasks import TASKS

REASONING, AFTER, BEFORE = "tagged", "a2grpo", ("sft", "base")
CHOOSING = "val"  # the split that chooses; a score on it is no result
TONES = {"base": "base", "sft": "before", "a2grpo": "after"}


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a table. `kind` in the table of a split: main (the task's headline metric), metric (another one) or
    detail (a part); in the table of benchmarks: guess (chance, majority), reference (a published score) or model."""

    label: str
    kind: str
    cells: Sequence[Cell | str | None]
    note: str = ""
    metric: str = ""
    n: str = ""
    chance: str = NONE
    majority: str = NONE


@dataclass(frozen=True, slots=True)
class TaskRows:
    task: str
    title: str
    rows: list[Row]
    details: list[Row]


@dataclass(frozen=True, slots=True)
class Table:
    """The scores of one split; `columns` are (model, mode) pairs as shown."""

    split: str
    title: str
    columns: list[Column]
    groups: list[TaskRows]


@dataclass(frozen=True, slots=True)
class Headline:
    """One task's figure: the score after RL beside those before it, drawn and in words."""

    title: str
    split: str
    metric: str
    n: str
    model: str
    cell: Cell
    change: str
    plot: Markup


@dataclass(frozen=True, slots=True)
class World:
    name: str
    title: str
    headlines: list[Headline]
    tables: list[Table]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One column: the questions, the metric, the number of records."""

    name: str
    task: str
    metric: str
    n: str


@dataclass(frozen=True, slots=True)
class Overview:
    title: str
    protocol: str
    benchmarks: list[Benchmark]
    rows: list[Row] = field(default_factory=list)


def worlds(
    scores: Iterable[Score], baselines: Iterable[Baseline], comparisons: Sequence[Comparison] = ()
) -> list[World]:
    """Every world apart from the others: toy first, then real imagery."""
    found, pairs = [], Pairs(comparisons)
    for name in ordered({s.world for s in scores}, WORLDS):
        own = [s for s in scores if s.world == name]
        guesses = [b for b in baselines if b.world == name]
        splits = ordered({s.split for s in own}, SPLITS)
        tables = [_table(split, [s for s in own if s.split == split], guesses, pairs) for split in splits]
        found.append(World(name, WORLDS.get(name, name), _headlines(own, guesses, splits, pairs), tables))
    return found


# --- the table of a split ---------------------------------------------------------------------------------


def _table(split: str, scores: list[Score], baselines: Iterable[Baseline], pairs: Pairs) -> Table:
    columns, groups = columns_of(scores), []
    own = [b for b in baselines if b.split == split]
    for task in ordered({s.task for s in scores}, TASK_TITLES):
        of_task = [s for s in scores if s.task == task]
        found: dict[tuple[str | None, str | None, str], list[Score]] = defaultdict(list)
        for s in of_task:
            found[s.source, s.question_type, s.metric].append(s)
        overall, main = any(s.source is None for s in of_task), main_metric(of_task[0])
        keys = sorted(
            found,
            key=lambda k: (k[:2] != (None, None), k[1] is not None, k[0] or "", k[1] or "", k[2] != main, k[2]),
        )
        rows = [_row(found[k], baseline_of(own, of_task, found[k][0]), columns, pairs, overall) for k in keys]
        whole, parts = ([row for row in rows if (row.kind == "detail") is kind] for kind in (False, True))
        # without an overall score, the parts are all there is
        groups.append(TaskRows(task, TASK_TITLES.get(task, task), whole or parts, parts if whole else []))
    return Table(split, SPLITS.get(split, split), [(MODELS.get(m, m), MODES.get(o, o)) for m, o in columns], groups)


def _row(scores: list[Score], baseline: Baseline | None, columns: list[Column], pairs: Pairs, overall: bool) -> Row:
    """A row of one metric and part; `overall`: the task has scores over all sources, so those of one are parts."""
    first = scores[0]
    whole = first.question_type is None and (first.source is None or not overall)
    main = whole and is_headline(first)
    best_possible = metric_format(first.metric).best
    highest = max([best_possible or 0.0, *(v for s in scores for v in (s.value, s.high) if v is not None)])
    by_column = {(s.model, s.mode): s for s in scores if s.value is not None}
    best = _best(list(by_column.values()), pairs) if main else None
    cells: list[Cell | None] = []
    for column in columns:
        score = by_column.get(column)
        if score is None:
            cells.append(None)
            continue
        cell = pairs.cell(score, _before(by_column, columns, column) if whole else None)
        strip = charts.strip(_estimate(score), marks_of(baseline), highest) if main and best_possible else None
        cells.append(replace(cell, strip=strip, best=score is best))
    metric = metric_label(first.metric)
    place = " · ".join(p for p in (first.source, first.question_type) if p)
    label = f"{place} · {metric}" if place and whole else place or metric
    return Row(
        label=label,
        kind="main" if main else "metric" if whole else "detail",
        cells=cells,
        note="" if whole or label == metric else metric,
        metric=metric,
        n=sizes(scores),
        chance=printed(baseline.chance if baseline else None, first.metric),
        majority=printed(baseline.majority if baseline else None, first.metric),
    )


def _before(by_column: Mapping[Column, Score], columns: list[Column], column: Column) -> Score | None:
    """The score of the last model before this one in the same mode."""
    earlier = [by_column[c] for c in columns[: columns.index(column)] if c[1] == column[1] and c in by_column]
    return earlier[-1] if earlier else None


def _best(scores: list[Score], pairs: Pairs) -> Score | None:
    """The score that is above every other one by a paired interval without 0, if there is one."""
    if len(scores) < 2:
        return None
    best = max(scores, key=lambda s: s.value or 0.0)
    found = [pairs.between(other, best) for other in scores if other is not best]
    return best if all(c is not None and c.low is not None and c.low > 0 for c in found) else None


def _estimate(score: Score, label: str = "", unit: float = 1.0) -> charts.Estimate:
    value, low, high = (None if v is None else v / unit for v in (score.value, score.low, score.high))
    return charts.Estimate(label, value or 0.0, low, high, TONES.get(score.model, "other"))


# --- headline figures -------------------------------------------------------------------------------------


def _headlines(scores: list[Score], baselines: Sequence[Baseline], splits: list[str], pairs: Pairs) -> list[Headline]:
    """One figure per task; where no score is over all sources, one per task and source."""
    found = []
    for task in ordered({s.task for s in scores}, TASK_TITLES):
        for split in splits:
            of_split = [s for s in scores if s.task == task and s.split == split and s.value is not None]
            own = [b for b in baselines if b.split == split]
            main = [s for s in of_split if is_headline(s)]
            groups = [main]
            if all(s.source is not None for s in main):
                sources = sorted({s.source or "" for s in main})
                groups = [[s for s in main if s.source == source and s.question_type is None] for source in sources]
            for rows in filter(None, map(_overall, groups)):
                found.append(_headline(rows, baseline_of(own, of_split, rows[0]), pairs))
            if main:
                break
    return found


def _headline(rows: list[Score], baseline: Baseline | None, pairs: Pairs) -> Headline:
    by_column = {(s.model, s.mode): s for s in rows}
    shown = by_column.get((AFTER, REASONING), rows[-1])
    before = next((s for m in BEFORE if (s := by_column.get((m, shown.mode))) and s is not shown), None)
    before = before or _before(by_column, list(by_column), (shown.model, shown.mode))
    change = ""
    if before is not None and before.value is not None and shown.value is not None:
        change = points(shown.value - before.value, shown.metric)
    metric = metric_format(shown.metric)
    unit = metric.best or 1.0
    marks = {name: value / unit for name, value in marks_of(baseline).items()}
    estimates = [_estimate(s, " ".join(p for p in (MODELS.get(s.model, s.model), s.mode) if p), unit) for s in rows]
    return Headline(
        title=" · ".join(p for p in (TASK_TITLES.get(shown.task, shown.task), shown.source) if p),
        split=SPLITS.get(shown.split, shown.split),
        metric=metric.label,
        n=f"{shown.n:,}",
        model=model_label(shown.model, shown.mode),
        cell=pairs.cell(shown, before),
        change=change,
        plot=charts.forest(estimates, marks, metric.factor * unit),
    )


def _overall(scores: list[Score]) -> list[Score]:
    """The scores over everything; where there are none, those of the part with most samples."""
    whole = [s for s in scores if s.source is None and s.question_type is None]
    if not whole and scores:
        largest = max(scores, key=lambda s: (s.question_type is None, s.n))
        whole = [s for s in scores if (s.source, s.question_type) == (largest.source, largest.question_type)]
    order = columns_of(whole)
    return sorted(whole, key=lambda s: order.index((s.model, s.mode)))


# --- models × benchmarks ----------------------------------------------------------------------------------


def overviews(
    scores: Iterable[Score],
    baselines: Iterable[Baseline],
    comparisons: Sequence[Comparison] = (),
    references: Sequence[Reference] = (),
) -> list[Overview]:
    """The headline metric of every benchmark and model, one table per protocol: protocols are never mixed.

    A published score stands only in the table of the rules that it was made by, under the benchmark of its name.
    """
    kept = [s for s in scores if s.source and s.question_type is None and s.value is not None and is_headline(s)]
    kept = [s for s in kept if s.split != CHOOSING]
    pairs, found = Pairs(comparisons), []
    for protocol in sorted({s.protocol for s in kept}, reverse=True):  # strict, then official
        own = [s for s in kept if s.protocol == protocol]
        splits, tasks = ordered({s.split for s in own}, SPLITS), ordered({s.task for s in own}, TASK_TITLES)
        columns: dict[tuple[str, str, str], dict[Column, Score]] = defaultdict(dict)
        for s in sorted(own, key=lambda s: (tasks.index(s.task), splits.index(s.split), s.source)):
            columns[s.split, s.source or "", s.task][s.model, s.mode] = s
        rows = [_guesses(name, baselines, columns.values()) for name in ("chance", "majority")]
        rows = [row for row in rows if any(row.cells)] + _published(references, protocol, list(columns))
        rows += _models(own, columns.values(), pairs)
        title = f"Models and benchmarks, {protocol} protocol"
        benchmarks = [_benchmark(list(column.values()), own) for column in columns.values()]
        found.append(Overview(title, protocol, benchmarks, rows))
    return found


def _models(own: Sequence[Score], columns: Iterable[Mapping[Column, Score]], pairs: Pairs) -> list[Row]:
    """One row per model and mode; a score is marked where it surely differs from the model before it in that mode."""
    sources: dict[tuple[str, str, str], set[str | None]] = defaultdict(set)
    for s in own:
        sources[s.world, s.split, s.task].add(s.source)
    models, rows = columns_of(own), []
    for model in models:
        cells: list[Cell | None] = []
        for column in columns:
            score, before = column.get(model), _before(column, models, model)
            alone = score and len(sources[score.world, score.split, score.task]) == 1
            if score and before and alone and pairs.between(before, score) is None:
                # the comparison over all sources is the one of this only source
                score, before = (s.model_copy(update={"source": None}) for s in (score, before))
            cells.append(pairs.cell(score, before) if score else None)
        rows.append(Row(model_label(*model), "model", cells))
    return rows


def _guesses(name: str, baselines: Iterable[Baseline], columns: Iterable[Mapping[Column, Score]]) -> Row:
    cells: list[str | None] = []
    for column in columns:
        s = next(iter(column.values()))
        place = (s.protocol, s.split, s.source, s.task, None, s.metric)
        same = (b for b in baselines if (b.protocol, b.split, b.source, b.task, b.question_type, b.metric) == place)
        values = (value for b in same if (value := marks_of(b).get(name)) is not None)
        cells.append(next((printed(value, s.metric) for value in values), None))
    return Row(name, "guess", cells)


def _published(references: Sequence[Reference], protocol: str, columns: Sequence[tuple[str, str, str]]) -> list[Row]:
    """Rows of published scores that were made by the rules of this protocol, of its headline metrics."""
    cells: dict[str, list[str | None]] = defaultdict(lambda: [None] * len(columns))
    citations: dict[str, dict[str, None]] = defaultdict(dict)
    for r in references:
        main = [TASKS[r.task].main_metric(name) for name in ("strict", "official")] if r.task in TASKS else []
        for i, (_, source, task) in enumerate(columns):
            same = r.rules == protocol and r.question_type is None and (r.benchmark, r.task) == (source, task)
            if same and r.published is not None and r.metric in main:
                cells[r.model][i] = f"{r.published:,.1f}"
                citations[r.model][r.source] = None
    return [Row(model, "reference", row, "; ".join(citations[model])) for model, row in cells.items()]


def _benchmark(scores: Sequence[Score], own: Sequence[Score]) -> Benchmark:
    first = scores[0]
    splits = {s.split for s in own if s.source == first.source}
    where = f", {SPLITS.get(first.split, first.split).lower()}" if len(splits) > 1 else ""
    task = TASK_TITLES.get(first.task, first.task) + where
    return Benchmark(first.source or "", task, metric_label(first.metric), sizes(scores))
