"""Rows about pairs: every two models or ways of asking on the same questions, and whether thinking helps."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import Any

from geozero import tasks
from geozero.evaluation.evaluate import chosen_clusters, clusters_of, groupings_of
from geozero.evaluation.paired_bootstrap import common, compare_scores
from geozero.evaluation.result_sets import EvalSlice

WITH, WITHOUT = "tagged", "forced"


def comparison_rows(parts: Iterable[EvalSlice]) -> Iterator[dict[str, Any]]:
    """A row a metric for every two parts of one place (world, split, task, source, protocol): second minus first on
    the questions that both answered, with 95 % interval, p-value and n; the headline also by question type."""
    for members in _places(parts).values():
        for first, second in combinations(members, 2):
            yield from compared(first, second)


def compared(first: EvalSlice, second: EvalSlice) -> Iterator[dict[str, Any]]:
    """The rows of one pair; none where fewer than two questions are common."""
    rows, others = common(first.listed, second.listed)
    if len(rows) < 2:
        return
    clusters = clusters_of(first.listed)
    kinds = {k: names[rows] for k, names in groupings_of(first.listed, first.scores).items() if k == "question_type"}
    found = compare_scores(
        first.scores.statistics[rows],
        second.scores.statistics[others],
        first.scores.finish,
        chosen_clusters(clusters, rows),
        kinds,
    )
    main = tasks.get(first.task).main_metric(first.protocol)
    place = {k: v for k, v in first.place.items() if k not in ("model", "mode")}
    names = {
        "first": {"model": first.model, "mode": first.mode},
        "second": {"model": second.model, "mode": second.mode},
    }
    for metric, values in found["metrics"].items():
        yield {**place, **names, "question_type": None, "metric": metric, "headline": metric == main, **_flat(values)}
    for kind, group in found["groups"].get("question_type", {}).items():
        if main in group:
            yield {**place, **names, "question_type": kind, "metric": main, "headline": True, **_flat(group[main])}


def reasoning_rows(parts: Iterable[EvalSlice]) -> Iterator[dict[str, Any]]:
    """Does thinking help? For each model asked to think: how much it thinks, and the headline metric with the thought
    against the answer forced at once, on the questions that were asked both ways."""
    for members in _places(parts).values():
        by_name = {(p.model, p.mode): p for p in members}
        for part in members:
            statistics = part.result["reasoning"]
            if part.mode == WITHOUT or not statistics["n_with_thought"]:
                continue
            row = {**part.place, **statistics, "metric": tasks.get(part.task).main_metric(part.protocol), "help": None}
            other = by_name.get((part.model, WITHOUT)) if part.mode == WITH else None
            if other is not None:
                row["help"] = next(
                    (r for r in compared(other, part) if r["headline"] and r["question_type"] is None), None
                )
            yield row


def detail_rows(parts: Iterable[EvalSlice]) -> Iterator[dict[str, Any]]:
    """What the score of a part is made of: groups, confusion, several answers a question, diagnoses and problems."""
    keys = ("n", "metrics", "intervals", "groups", "confusion", "self_consistency", "diagnosis", "notes", "missing")
    for part in parts:
        found = {key: part.result[key] for key in keys if part.result.get(key)}
        yield {**part.place, **found, "problems": part.result["problems"]["reasons"]}


def _places(parts: Iterable[EvalSlice]) -> dict[tuple[Any, ...], list[EvalSlice]]:
    found: dict[tuple[Any, ...], list[EvalSlice]] = defaultdict(list)
    for part in parts:
        found[part.world, part.split, part.task, part.source, part.protocol, part.boxes].append(part)
    return dict(found)


def _flat(values: dict[str, float]) -> dict[str, Any]:
    return {
        "before": values["first"],
        "after": values["second"],
        **{k: values[k] for k in ("difference", "low", "high", "p_value", "n")},
    }


def whole(parts: Sequence[EvalSlice]) -> list[EvalSlice]:
    """The parts over all sources of their place; all parts where there are none such."""
    found = [part for part in parts if part.source is None]
    return found or list(parts)
