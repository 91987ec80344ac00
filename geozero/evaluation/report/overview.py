"""Models × benchmarks: one table a protocol and split, with guessing and published scores as rows of their own."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from geozero.evaluation.report.cells import Cell, shown_cell
from geozero.evaluation.report.names import (
    METRICS,
    SPLITS,
    TASK_TITLES,
    columns_of,
    factor,
    is_headline,
    model_label,
)
from geozero.evaluation.report.pairs import Pairs
from geozero.evaluation.report.schema import Baseline, Comparison, Reference, Score
from geozero.tasks import TASKS

CHOOSING = "val"  # the split that chooses; a score on it is no result
Column = tuple[str, str, str]  # split, source, task
Place = tuple[str, str, str]  # world, split, task


@dataclass(frozen=True, slots=True)
class Benchmark:
    """One column: what was asked, how it is measured, on how many records."""

    name: str
    task: str
    metric: str
    n: str


@dataclass(frozen=True, slots=True)
class Line:
    """One row. `kind`: guess (chance, majority), model, or reference (a published score, which has no interval)."""

    label: str
    kind: str
    cells: list[Cell | None]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Overview:
    title: str
    protocol: str
    benchmarks: list[Benchmark]
    lines: list[Line]


def overviews(
    scores: Sequence[Score],
    baselines: Sequence[Baseline],
    comparisons: Sequence[Comparison] = (),
    references: Sequence[Reference] = (),
) -> list[Overview]:
    """The headline metric of every benchmark and model; protocols are never mixed in one table.

    A published score stands only in the table of the rules that it was made by, under the benchmark of its name.
    """
    pairs = Pairs(comparisons)
    found = []
    kept = [s for s in scores if s.source and s.question_type is None and s.value is not None and is_headline(s)]
    kept = [s for s in kept if s.split != CHOOSING]
    for protocol in sorted({s.protocol for s in kept}, reverse=True):  # strict, then official
        of_protocol = [s for s in kept if s.protocol == protocol]
        alone = _alone(of_protocol)
        splits = [*(s for s in SPLITS if s), *sorted({s.split for s in of_protocol} - set(SPLITS)), ""]
        own = [s for split in splits for s in of_protocol if s.split == split]
        columns: list[Column] = list(dict.fromkeys((s.split, s.source or "", s.task) for s in own))
        columns.sort(key=lambda c: ([*TASK_TITLES, c[2]].index(c[2]), splits.index(c[0]), c[1]))
        guesses = [b for b in baselines if b.protocol == protocol]
        lines = [
            Line(name, "guess", [_guess(guesses, column, own, name) for column in columns])
            for name in ("chance", "majority")
        ]
        lines = [line for line in lines if any(line.cells)]
        lines += _published(references, protocol, columns)
        lines += _model_lines(own, columns, pairs, alone)
        benchmarks = [_benchmark(column, own) for column in columns]
        found.append(Overview(f"Models and benchmarks, {protocol} protocol", protocol, benchmarks, lines))
    return found


def _alone(scores: Sequence[Score]) -> set[Place]:
    """The places with one source: a comparison over all sources is one of that source."""
    sources: dict[Place, set[str | None]] = defaultdict(set)
    for s in scores:
        sources[s.world, s.split, s.task].add(s.source)
    return {place for place, names in sources.items() if len(names) == 1}


def _model_lines(
    scores: Sequence[Score], columns: Sequence[Column], pairs: Pairs, alone: Collection[Place]
) -> list[Line]:
    """One row a model and mode; a score is marked where it surely differs from the model before it in that mode."""
    lines = []
    names = columns_of(scores)
    for model, mode in names:
        cells: list[Cell | None] = []
        for column in columns:
            of_column = {(s.model, s.mode): s for s in scores if _column(s) == column}
            score = of_column.get((model, mode))
            earlier = [of_column[n] for n in names[: names.index((model, mode))] if n[1] == mode and n in of_column]
            before = earlier[-1] if earlier else None
            cells.append(None if score is None else shown_cell(*_compared_as(score, before, pairs, alone), pairs))
        lines.append(Line(model_label(model, mode), "model", cells))
    return lines


def _compared_as(
    score: Score, before: Score | None, pairs: Pairs, alone: Collection[Place]
) -> tuple[Score, Score | None]:
    """The two as they were compared: over all sources, where that is this one source and it was not named."""
    if before is None or pairs.between(before, score) is not None:
        return score, before
    if (score.world, score.split, score.task) not in alone:
        return score, before
    return score.model_copy(update={"source": None}), before.model_copy(update={"source": None})


def _guess(baselines: Sequence[Baseline], column: Column, scores: Sequence[Score], name: str) -> Cell | None:
    metric = next(s.metric for s in scores if _column(s) == column)
    for b in baselines:
        value = getattr(b, name)
        same = (b.split, b.source, b.task, b.question_type, b.metric) == (*column, None, metric)
        if same and value is not None:
            return Cell(f"{value * factor(metric):,.1f}", "")
    return None


def _published(references: Sequence[Reference], protocol: str, columns: Sequence[Column]) -> list[Line]:
    """Rows of published scores that were made by the rules of this protocol, of its headline metrics."""
    found: dict[str, list[Cell | None]] = {}
    said: dict[str, list[str]] = {}
    for r in references:
        main = [TASKS[r.task].main_metric(name) for name in ("strict", "official")] if r.task in TASKS else []
        for i, (_, source, task) in enumerate(columns):
            same = r.rules == protocol and r.question_type is None and (r.benchmark, r.task) == (source, task)
            if same and r.published is not None and r.metric in main:
                found.setdefault(r.model, [None] * len(columns))[i] = Cell(f"{r.published:,.1f}", "")
                said.setdefault(r.model, []).append(r.source)
    return [Line(m, "reference", cells, "; ".join(dict.fromkeys(said[m]))) for m, cells in found.items()]


def _benchmark(column: Column, scores: Sequence[Score]) -> Benchmark:
    own = [s for s in scores if _column(s) == column]
    sizes = sorted({s.n for s in own})
    n = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}"
    splits = {s.split for s in scores if s.source == column[1]}
    where = f", {SPLITS.get(column[0], column[0]).lower()}" if len(splits) > 1 else ""
    task = TASK_TITLES.get(column[2], column[2]) + where
    return Benchmark(column[1], task, METRICS.get(own[0].metric, own[0].metric), n)


def _column(score: Score) -> Column:
    return score.split, score.source or "", score.task
