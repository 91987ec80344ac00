"""From a list of scores to what the page shows of them: headline figures, tables by world and split, benchmarks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from geozero.evaluation.metric_names import metric_format
from geozero.evaluation.report import charts
from geozero.evaluation.report.schema import Baseline, Comparison, Reference, Score
from geozero.evaluation.report.tables import (
    MODELS,
    MODES,
    SPLITS,
    TASK_TITLES,
    WORLDS,
    Cell,
    Column,
    Group,
    Pairs,
    Row,
    Table,
    in_order,
    joined,
    metric_label,
    model_label,
    ordered,
    points,
    printed,
    sizes,
    tone,
)
from geozero.tasks import TASKS

REASONING, AFTER, BEFORE = "tagged", "a2grpo", ("sft", "base")
CHOOSING = "val"  # the split that chooses; a score on it is no result
TONES = {"base": "base", "sft": "before", "a2grpo": "after"}
ByColumn = Mapping[Column, Score]


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


def worlds(
    scores: Iterable[Score], baselines: Iterable[Baseline], comparisons: Iterable[Comparison] = ()
) -> list[World]:
    """Every world apart from the others: toy first, then real imagery."""
    found, pairs = [], Pairs(comparisons)
    for name in ordered((s.world for s in scores), WORLDS):
        own = [s for s in scores if s.world == name]
        guesses = [b for b in baselines if b.world == name]
        splits = ordered((s.split for s in own), SPLITS)
        tables = [_table(split, [s for s in own if s.split == split], guesses, pairs) for split in splits]
        found.append(World(name, WORLDS.get(name, name), _headlines(own, guesses, splits, pairs), tables))
    return found


def _main_metric(score: Score) -> str | None:
    """The metric that stands for a score's task under its protocol; None for an unknown task."""
    return TASKS[score.task].main_metric(score.protocol) if score.task in TASKS else None


def _is_headline(score: Score) -> bool:
    """Whether a score's metric stands for its task; any metric does for an unknown task."""
    return _main_metric(score) in (score.metric, None)


def _by_column(scores: Iterable[Score]) -> ByColumn:
    """The scores that have a value by model and mode, in the order of training."""
    found = {(s.model, s.mode): s for s in scores if s.value is not None}
    return {column: found[column] for column in in_order(found)}


def _before(scores: ByColumn, column: Column) -> Score | None:
    """The score of the last model before this one in the same mode."""
    order = in_order({*scores, column})
    earlier = [scores[c] for c in order[: order.index(column)] if c[1] == column[1]]
    return earlier[-1] if earlier else None


def _baseline(baselines: Iterable[Baseline], of_task: Iterable[Score], score: Score) -> dict[str, float]:
    """Chance and majority on the same samples: of the same source, or of all where the task has but one source."""
    key = (score.split, score.task, score.metric, score.question_type)
    same = [b for b in baselines if (b.split, b.task, b.metric, b.question_type) == key]
    exact = [b for b in same if b.source == score.source]
    if not exact and len({s.source for s in of_task if s.source}) <= 1:
        exact = same
    values = {"chance": exact[0].chance, "majority": exact[0].majority} if exact else {}
    return {name: value for name, value in values.items() if value is not None}


def _estimate(score: Score, label: str = "", unit: float = 1.0) -> charts.Estimate:
    value, low, high = (None if v is None else v / unit for v in (score.value, score.low, score.high))
    return charts.Estimate(label, value or 0.0, low, high, TONES.get(score.model, "other"))


# --- the table of a split ---------------------------------------------------------------------------------


def _table(split: str, scores: list[Score], baselines: Iterable[Baseline], pairs: Pairs) -> Table:
    columns, groups = in_order((s.model, s.mode) for s in scores), []
    for task in ordered((s.task for s in scores), TASK_TITLES):
        of_task = [s for s in scores if s.task == task]
        found: dict[tuple[str | None, str | None, str], list[Score]] = defaultdict(list)
        for s in of_task:
            found[s.source, s.question_type, s.metric].append(s)
        overall, main = any(s.source is None for s in of_task), _main_metric(of_task[0])
        keys = sorted(found, key=lambda key: _row_order(main, *key))
        rows = [_row(found[k], _baseline(baselines, of_task, found[k][0]), columns, pairs, overall) for k in keys]
        whole, parts = ([row for row in rows if (row.kind == "detail") is kind] for kind in (False, True))
        # without an overall score, the parts are all there is
        groups.append(Group(TASK_TITLES.get(task, task), whole or parts, parts if whole else []))
    models = [(MODELS.get(model, model), MODES.get(mode, mode)) for model, mode in columns]
    head = [("Metric",), ("n",), ("Chance",), ("Majority",), *models]
    return Table(SPLITS.get(split, split), head, groups, split, "Task")


def _row_order(main: str | None, source: str | None, question_type: str | None, metric: str) -> tuple[object, ...]:
    whole = source is None and question_type is None
    return not whole, question_type is not None, source or "", question_type or "", metric != main, metric


def _row(scores: list[Score], baseline: Mapping[str, float], columns: list[Column], pairs: Pairs, overall: bool) -> Row:
    """A row of one metric and part; `overall`: the task has scores over all sources, so those of one are parts."""
    first, by_column = scores[0], _by_column(scores)
    whole = first.question_type is None and (first.source is None or not overall)
    main = whole and _is_headline(first)
    best_possible = metric_format(first.metric).best
    highest = max([best_possible or 0.0, *(v for s in scores for v in (s.value, s.high) if v is not None)])
    best = _best(by_column.values(), pairs) if main else None
    cells: list[Cell | None] = []
    for column in columns:
        score = by_column.get(column)
        if score is None:
            cells.append(None)
            continue
        cell = pairs.cell(score, _before(by_column, column) if whole else None)
        strip = charts.strip(_estimate(score), baseline, highest) if main and best_possible else None
        cells.append(replace(cell, strip=strip, best=score is best))
    metric, place = metric_label(first.metric), joined(first.source, first.question_type)
    label = joined(place, metric) if whole else place or metric
    guesses = (printed(baseline.get(name), first.metric) for name in ("chance", "majority"))
    kind = "main" if main else "metric" if whole else "detail"
    return Row(label, [sizes(scores), *guesses, *cells], kind, "" if whole or label == metric else metric)


def _best(scores: Collection[Score], pairs: Pairs) -> Score | None:
    """The score that is better than every other one by a paired interval without 0, if there is one."""
    if len(scores) < 2:
        return None
    choose = min if metric_format(next(iter(scores)).metric).lower_is_better else max
    best = choose(scores, key=lambda s: s.value or 0.0)
    return best if all(tone(pairs.between(other, best)) == "better" for other in scores if other is not best) else None


# --- headline figures -------------------------------------------------------------------------------------


def _headlines(scores: list[Score], baselines: list[Baseline], splits: list[str], pairs: Pairs) -> list[Headline]:
    """One figure per task; where no score is over all sources, one per task and source."""
    found = []
    for task in ordered((s.task for s in scores), TASK_TITLES):
        for split in splits:
            of_split = [s for s in scores if s.task == task and s.split == split and s.value is not None]
            main = [s for s in of_split if _is_headline(s)]
            groups = [main]
            if all(s.source is not None for s in main):
                sources = sorted({s.source or "" for s in main})
                groups = [[s for s in main if s.source == source and s.question_type is None] for source in sources]
            for by_column in filter(None, map(_overall, groups)):
                first = next(iter(by_column.values()))
                found.append(_headline(by_column, _baseline(baselines, of_split, first), pairs))
            if main:
                break
    return found


def _headline(scores: ByColumn, baseline: Mapping[str, float], pairs: Pairs) -> Headline:
    rows = list(scores.values())
    shown = scores.get((AFTER, REASONING), rows[-1])
    before = next((s for m in BEFORE if (s := scores.get((m, shown.mode))) and s is not shown), None)
    before = before or _before(scores, (shown.model, shown.mode))
    change = "" if before is None else points((shown.value or 0.0) - (before.value or 0.0), shown.metric)
    metric = metric_format(shown.metric)
    unit = metric.best or 1.0
    estimates = [_estimate(s, " ".join(filter(None, (MODELS.get(s.model, s.model), s.mode))), unit) for s in rows]
    marks = {name: value / unit for name, value in baseline.items()}
    return Headline(
        title=joined(TASK_TITLES.get(shown.task, shown.task), shown.source),
        split=SPLITS.get(shown.split, shown.split),
        metric=metric.label,
        n=f"{shown.n:,}",
        model=model_label(shown.model, shown.mode),
        cell=pairs.cell(shown, before),
        change=change,
        plot=charts.forest(estimates, marks, metric.factor * unit),
    )


def _overall(scores: list[Score]) -> ByColumn:
    """The scores over everything; where there are none, those of the part with most samples."""
    whole = [s for s in scores if s.source is None and s.question_type is None]
    if not whole and scores:
        largest = max(scores, key=lambda s: (s.question_type is None, s.n))
        whole = [s for s in scores if (s.source, s.question_type) == (largest.source, largest.question_type)]
    return _by_column(whole)


# --- models × benchmarks ----------------------------------------------------------------------------------


def overviews(
    scores: Iterable[Score],
    baselines: Iterable[Baseline],
    comparisons: Iterable[Comparison] = (),
    references: Iterable[Reference] = (),
) -> list[Table]:
    """The headline metric of every benchmark and model, one table per protocol: protocols are never mixed.

    A published score stands only in the table of the rules that it was made by, under the benchmark of its name.
    """
    kept = [s for s in scores if s.source and s.question_type is None and s.value is not None and _is_headline(s)]
    kept = [s for s in kept if s.split != CHOOSING]
    pairs, found = Pairs(comparisons), []
    for protocol in sorted({s.protocol for s in kept}, reverse=True):  # strict, then official
        own = [s for s in kept if s.protocol == protocol]
        splits, tasks = ordered((s.split for s in own), SPLITS), ordered((s.task for s in own), TASK_TITLES)
        columns: dict[tuple[str, str, str], list[Score]] = defaultdict(list)  # one for each split, benchmark and task
        for s in sorted(own, key=lambda s: (tasks.index(s.task), splits.index(s.split), s.source)):
            columns[s.split, s.source or "", s.task].append(s)
        models = in_order((s.model, s.mode) for s in own)
        benchmarks = [_by_column(column) for column in columns.values()]
        groups = [
            [_guesses(name, baselines, benchmarks) for name in ("chance", "majority")],
            _published(references, protocol, list(columns)),
            [_model(model, benchmarks, own, pairs) for model in models],
        ]
        groups = [[row for row in rows if any(row.cells)] for rows in groups]
        head = [("Model",), *(_benchmark(column, own) for column in columns.values())]
        title = f"Models and benchmarks, {protocol} protocol"
        found.append(Table(title, head, [Group("", rows) for rows in groups if rows], protocol))
    return found


def _model(model: Column, benchmarks: Iterable[ByColumn], own: list[Score], pairs: Pairs) -> Row:
    """One model and mode; a score is marked where it surely differs from the model before it in that mode."""
    cells: list[Cell | None] = []
    for scores in benchmarks:
        score, before = scores.get(model), _before(scores, model)
        if score and before and pairs.between(before, score) is None:
            place = (score.world, score.split, score.task)
            if len({s.source for s in own if (s.world, s.split, s.task) == place}) == 1:
                # the comparison over all sources is the one of this only source
                score, before = (s.model_copy(update={"source": None}) for s in (score, before))
        cells.append(pairs.cell(score, before) if score else None)
    return Row(model_label(*model), cells, "model")


def _guesses(name: str, baselines: Iterable[Baseline], benchmarks: Iterable[ByColumn]) -> Row:
    cells: list[str | None] = []
    for scores in benchmarks:
        s = next(iter(scores.values()))
        same = (b for b in baselines if b.protocol == s.protocol and b.source == s.source)
        value = _baseline(same, [], s).get(name)
        cells.append(None if value is None else printed(value, s.metric))
    return Row(name, cells, "guess")


def _published(references: Iterable[Reference], protocol: str, columns: Sequence[tuple[str, str, str]]) -> list[Row]:
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
    notes = {model: "; ".join(filter(None, found)) for model, found in citations.items()}
    return [Row(m, row, "reference", f"published: {notes[m]}".removesuffix(": ")) for m, row in cells.items()]


def _benchmark(scores: list[Score], own: list[Score]) -> tuple[str, ...]:
    """The head of a benchmark's column."""
    first = scores[0]
    splits = {s.split for s in own if s.source == first.source}
    where = f", {SPLITS.get(first.split, first.split).lower()}" if len(splits) > 1 else ""
    task = TASK_TITLES.get(first.task, first.task) + where
    return first.source or "", task, f"{metric_label(first.metric)}, n = {sizes(scores)}"
