"""The rows of the page's files: scores, baselines, comparisons, reasoning and details of scored slices; their means."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np

from geozero.evaluation.comparison import common, compare
from geozero.evaluation.metric_names import is_count
from geozero.evaluation.result_sets import EvalSlice
from geozero.evaluation.statistics import renumbered, share_interval
from geozero.metrics.baselines import others
from geozero.tasks.text import normalise

Row = dict[str, Any]
WITH, WITHOUT, SWAPPED = "tagged", "forced", "swapped"
COUNTING = ("count_accuracy", "count_within_10_percent", "count_mae")  # over the questions whose answer is a count
DETAILS = ("n", "metrics", "intervals", "groups", "confusion", "self_consistency", "diagnosis", "notes", "missing")


def evaluation_parts(slices: Sequence[EvalSlice]) -> dict[str, list[Row]]:
    """The parts of the page that come from scored slices. Models are compared over all sources of a place, if there are
    such slices; slices whose records are gone are not compared."""
    everything = [part for part in slices if part.source is None] or slices
    slices, whole = ([part for part in parts if part.mode != SWAPPED] for parts in (slices, everything))
    first: dict[tuple[Any, ...], EvalSlice] = {}  # of every place: its records tell what guessing reaches
    for part in slices:
        if part.source is not None and part.rows:
            first.setdefault(tuple(part.place.values()), part)
    return {
        "scores": list(rows_of(slices)),
        "baselines": [row for part in first.values() for row in baseline_rows(part)],
        "comparisons": list(comparison_rows([part for part in whole if part.rows])),
        "reasoning": list(reasoning_rows(everything)),
        "details": list(detail_rows(whole)),
    }


def rows_of(slices: Iterable[EvalSlice]) -> Iterator[Row]:
    """The scores of every slice with n and 95 % interval: its metrics, of each source the same by question type, and
    where the model was to reason, `well_formed` and `thought_words`. Answers after another's thought have none."""
    for part in slices:
        if part.mode == SWAPPED:
            continue
        main, groups = part.scored.main_metric, {None: part.result}
        if part.source is not None:
            groups |= part.result["groups"].get("question_type", {})
        for question_type, group in groups.items():
            for metric, value in group["metrics"].items():
                if isinstance(value, int | float) and not is_count(metric) and not _other_cider(part, metric):
                    low, high = group["intervals"].get(metric) or (None, None)
                    names = {"question_type": question_type, "metric": metric, "headline": metric == main}
                    n = group["metrics"].get("n_counts", group["n"]) if metric in COUNTING else group["n"]
                    numbers = {"value": value, "low": low, "high": high, "n": n}
                    yield {**part.model_ref, **part.place, **names, **numbers}
        yield from _form(part)


def _other_cider(part: EvalSlice, metric: str) -> bool:
    """Whether a metric is CIDEr without the length penalty, which `strict` calls CIDEr; papers mean CIDEr-D."""
    return part.scored.protocol == "strict" and metric == "CIDEr"


def _form(part: EvalSlice) -> Iterator[Row]:
    """Well-formed completions and thought lengths, in tagged mode and where an unknown mode has thoughts."""
    reasoning = part.result["reasoning"]
    if part.mode == WITH or (not part.mode and reasoning["n_with_thought"]):
        well_formed = "well_formed", part.result["well_formed_share"], part.result["n"]
        words = "thought_words", (reasoning["words"] or {}).get("mean"), reasoning["n_with_thought"]
        for metric, value, n in (well_formed, words):
            if value is not None:
                names = {"question_type": None, "metric": metric, "headline": False}
                yield {**part.model_ref, **part.place, **names, "value": value, "n": n}


def baseline_rows(part: EvalSlice) -> Iterator[Row]:
    """Chance and majority of a slice's main metric on its very records, overall and, for closed answers, by question
    type.

    Closed answers under `strict`: an even draw and the most common answer, as `evaluate` gives them. Everything else
    [ours]: the truth of another record drawn at random, and the task's constant answer (most common label or reference,
    median box). None where labels cannot be scored as answers.
    """
    task, protocol = part.scored.task, part.scored.protocol
    row = part.place | {"metric": part.scored.main_metric}
    known = part.result.get("baselines")
    if protocol == "strict" and isinstance(known, dict):
        for question_type, group in {None: known, **known.get("by_question_type", {})}.items():
            majority = group.get("majority_by_type", group.get("majority"))
            numbers = {"n": group.get("n", 0), "chance": group.get("chance"), "majority": majority}
            yield {**row, **numbers, "question_type": question_type}
    elif protocol == "strict" or task.official_guesses:
        truths = [task.true_answers(label) for label in part.scored.records.labels]
        texts = {"chance": others([group[0] for group in truths])}
        texts["majority"] = [task.constant_answer(truths)] * len(truths)
        scored = {name: _guessed(part, answers).get(part.scored.main_metric) for name, answers in texts.items()}
        yield {**row, "question_type": None, "n": len(truths), **scored}


def _guessed(part: EvalSlice, texts: Sequence[str]) -> dict[str, Any]:
    """The metrics of the same records with other answers."""
    written = np.ones(len(texts), dtype=bool)
    records = replace(part.scored.records, texts=list(texts), raw=written, readable=written, cut=~written, problems=[])
    if part.scored.protocol == "official":
        return part.scored.task.official(records, headline_only=True).metrics()
    return replace(part.scored, records=records, boxes="pixels").scores.metrics()


def comparison_rows(slices: Iterable[EvalSlice]) -> Iterator[Row]:
    """A row per metric for every two slices of one place (world, split, task, source, protocol): second minus first on
    the questions that both answered, with 95 % interval, p-value and n; the headline also by question type."""
    for parts in _by_place(slices):
        for first, second in combinations(parts, 2):
            yield from _compared(first, second)


def _compared(first: EvalSlice, second: EvalSlice) -> Iterator[Row]:
    """The rows of one pair; none where fewer than two questions are common."""
    pairs = common(first.scored.records, second.scored.records)
    if len(pairs[0]) < 2:
        return
    found = compare(first.scored, second.scored, pairs, by=("question_type",))
    main, models = first.scored.main_metric, {"first": first.model_ref, "second": second.model_ref}
    for question_type, metrics in {None: found["metrics"], **found["groups"].get("question_type", {})}.items():
        for metric, values in metrics.items():
            if (question_type is None or metric == main) and not _other_cider(first, metric):
                names = {"question_type": question_type, "metric": metric, "headline": metric == main}
                numbers = {k: values[k] for k in ("difference", "low", "high", "p_value", "n", "units")}
                numbers = {"before": values["first"], "after": values["second"], **numbers}
                yield {**first.place, **models, **names, **numbers}


def reasoning_rows(slices: Iterable[EvalSlice]) -> Iterator[Row]:
    """For each model that was prompted to reason: how much it does, and its headline metric minus that of the answer
    forced without a thought, on the questions that were answered in both modes."""
    for parts in _by_place(slices):
        by_name = {(p.model, p.mode): p for p in parts}
        for part in parts:
            statistics = part.result["reasoning"]
            if part.mode in (WITHOUT, SWAPPED) or not statistics["n_with_thought"]:
                continue
            other = by_name.get((part.model, WITHOUT)) if part.mode == WITH else None
            rows = _compared(other, part) if other is not None else iter(())
            gain = next((r for r in rows if r["headline"] and r["question_type"] is None), None)
            modes = {"without": WITHOUT, "swapped": SWAPPED} if part.mode == WITH else {}
            compared = {name: by_name.get((part.model, mode)) for name, mode in modes.items()}
            changed = {name: _changed(part, other) for name, other in compared.items() if other and other.rows}
            row = {**part.model_ref, **part.place, **statistics, "metric": part.scored.main_metric, "help": gain}
            yield row | {"changed": changed}


def _changed(part: EvalSlice, other: EvalSlice) -> dict[str, Any] | None:
    """The share of questions to which the two give other answers, after normalisation, with its interval."""
    rows, their_rows = common(part.scored.records, other.scored.records)
    own, theirs = (p.scored.scores.per_record["pred"] for p in (part, other))
    pairs = zip(rows.tolist(), their_rows.tolist(), strict=True)
    changes = np.array([normalise(own[i]) != normalise(theirs[k]) for i, k in pairs], dtype=np.float64)
    if not len(changes):
        return None
    bounds = share_interval(changes, renumbered(part.scored.clusters, rows))
    return {"value": float(changes.mean()), "interval": bounds, "n": len(changes)}


def detail_rows(slices: Iterable[EvalSlice]) -> Iterator[Row]:
    """What stands behind the score of a slice: groups, confusion, several answers per question, diagnoses, problems."""
    for part in slices:
        found = {key: part.result[key] for key in DETAILS if part.result.get(key)}
        yield {**part.model_ref, **part.place, **found, "problems": part.result["problems"]["reasons"]}


def _by_place(slices: Iterable[EvalSlice]) -> Iterable[Sequence[EvalSlice]]:
    found: dict[tuple[Any, ...], list[EvalSlice]] = defaultdict(list)
    for part in slices:
        found[*part.place.values(), part.scored.boxes].append(part)
    return found.values()


def by_source(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows of one source each, without those over all of them: what is averaged must not count twice."""
    return (row for row in rows if row["source"] is not None)


def headline_mean(rows: Iterable[Mapping[str, Any]], **where: str) -> float:
    """Mean over tasks of the headline metric (percent) of the rows that fit: first over a task's sources, one row
    each, then over tasks; NaN where no row fits."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in headline_rows(rows):
        if all(row[k] == v for k, v in where.items()):
            found[row["task"]].append(float(row["value"]))
    means = [sum(values) / len(values) for values in found.values()]
    return 100 * sum(means) / len(means) if means else float("nan")


def headline_rows(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The main metric of every source, over all its question types."""
    return [row for row in by_source(rows) if row["headline"] and row["question_type"] is None]


def headline_scores(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """`headline_mean` by `model/mode/world/split`."""
    rows = list(rows)
    names = ("model", "mode", "world", "split")
    places = sorted({tuple(str(row[name]) for name in names) for row in rows})
    return {"/".join(place): headline_mean(rows, **dict(zip(names, place, strict=True))) for place in places}


def run_metrics(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    """The metrics of each (model, mode), under the same names for all of them: `source/task/metric`, and the means over
    tasks as `mean/world/split`."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        found[row["model"], row["mode"]].append(row)
    metrics = {}
    for model, own in found.items():
        single = (row for row in by_source(own) if row["question_type"] is None)
        metrics[model] = {f"{row['source']}/{row['task']}/{row['metric']}": row["value"] for row in single}
        means = headline_scores(own).items()
        metrics[model] |= {f"mean/{name.removeprefix('/'.join(model) + '/')}": value for name, value in means}
    return metrics
