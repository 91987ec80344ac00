"""`geozero evaluate`: score one list of records under one protocol and write everything a reader of the score needs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geozero import tasks
from geozero.common.atomic import write_text
from geozero.common.errors import InputError
from geozero.corpus.sample import TaskName, digest
from geozero.evaluation.paired_bootstrap import MAX_GROUPS, common, compare_scores, pair_records
from geozero.evaluation.reasoning import reasoning
from geozero.evaluation.self_consistency import self_consistency
from geozero.evaluation.statistics import LEVEL, RESAMPLES, SEED, Clusters, cluster_ids, intervals
from geozero.metrics.records import RecordList, read_records
from geozero.metrics.scores import Scores, finite
from geozero.tasks.boxes import CONVENTIONS, Convention
from geozero.tasks.text import is_well_formed

Protocol = Literal["strict", "official"]
PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)


def evaluate(
    task: str,
    protocol: str,
    records: Path | str | Sequence[Any],
    out: Path | str | None = None,
    boxes: str = "norm1000",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    against: Path | str | Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Score `records` (a JSON file or a list) and return the result; written to `out` where given.

    The result holds `task`, `protocol`, `n`, `metrics` (names and units of the golden files) and, beside them,
    `n_well_formed`, `intervals`, `groups`, `baselines`, `confusion`, `reasoning`, `diagnosis`, `problems`, `missing`,
    `notes` and where the records came from; with several answers to a question `self_consistency`, and with `against`,
    another model's answers to the same questions, `comparison` (these records minus those). `boxes` is the convention
    of predicted boxes under `strict`; `official` always reads the published one.

    Raises:
        InputError: unknown task, protocol or convention, unreadable records, records on which the published rules
            themselves stop, or an `against` with other questions.
    """
    name, rules = tasks.get(task).name, _known(protocol, PROTOCOLS, "protocol")
    listed = read_records(records)
    convention = _known(boxes, CONVENTIONS, "coordinate convention")
    for i, said in enumerate(listed.tasks):
        if said is not None and said != name:
            listed.report(i, "other_task", f"the record says {said}; scored as {name}")
    scores = score(name, rules, listed, convention)
    if not len(listed):
        scores.notes.append("the list is empty: there is nothing to score")
    result = _result(name, rules, listed, scores, convention, resamples, seed)
    result["records"] = _origin(records, listed)
    if against is not None:
        other = read_records(against)
        compared = _compared(name, rules, other, listed, scores, convention, resamples, seed)
        result["comparison"] = {"against": _origin(against, other), **compared}
    if out is not None:
        write_json(Path(out), result)
    return result


def score(task: TaskName, protocol: Protocol, records: RecordList, boxes: Convention = "norm1000") -> Scores:
    """The protocol's scores with their per-record statistics, without intervals.

    Raises:
        InputError: as `evaluate`.
    """
    rules = tasks.get(task)
    return rules.strict(records, boxes) if protocol == "strict" else rules.official(records)


def compare(
    task: str,
    protocol: str,
    first: Path | str | Sequence[Any],
    second: Path | str | Sequence[Any],
    boxes: str = "norm1000",
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Two models on the same records, paired by `id`: difference (second minus first), interval and p-value a metric.

    Raises:
        InputError: as `evaluate`, or the two lists do not hold the same ids, or hold one twice.
    """
    name, rules = tasks.get(task).name, _known(protocol, PROTOCOLS, "protocol")
    convention = _known(boxes, CONVENTIONS, "coordinate convention")
    before, after = read_records(first), read_records(second)
    scores = score(name, rules, after, convention)
    compared = _compared(name, rules, before, after, scores, convention, resamples, seed)
    return {"task": name, "protocol": rules, **compared}


def _compared(
    task: TaskName,
    protocol: Protocol,
    first: RecordList,
    second: RecordList,
    scores: Scores,
    boxes: Convention,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """`second`, whose scores are known, minus `first`, which may hold more records (a benchmark leaves some out)."""
    if set(second.ids) < set(first.ids):
        rows, others = common(first, second)
        if len(rows) < len(second):
            raise InputError("ids that stand twice, or other labels", hint="compare answers to the same questions")
    else:
        others = pair_records(first, second)
        rows = np.arange(len(first))
    before = score(task, protocol, first, boxes)
    groups = {kind: names[rows] for kind, names in groupings_of(first, before).items()}
    return compare_scores(
        before.statistics[rows],
        scores.statistics[others],
        scores.finish,
        chosen_clusters(clusters_of(first), rows),
        groups,
        resamples,
        seed,
    )


def _origin(given: Path | str | Sequence[Any], records: RecordList) -> dict[str, Any]:
    """Which records were scored, so that a score can be traced back to its bytes."""
    if not isinstance(given, Path | str):
        return {"n": len(records)}
    return {"n": len(records), "path": str(given), "blake2b": digest(Path(given).read_bytes())}


def clusters_of(records: RecordList) -> Clusters | None:
    """Records about one image stand together; without image names, those that answer one question."""
    found = cluster_ids(records.image_paths)
    if found is None and len(set(records.samples)) < len(records):
        found = cluster_ids(records.samples)
    return found


def chosen_clusters(clusters: Clusters | None, rows: NDArray[np.int64]) -> Clusters | None:
    """The clusters of some rows, counted anew from 0."""
    return None if clusters is None else np.unique(clusters[rows], return_inverse=True)[1]


def groupings_of(records: RecordList, scores: Scores) -> dict[str, NDArray[np.object_]]:
    """What records are grouped by: class or size, and the question's type; each (n,), None in no group."""
    kinds = dict(scores.groups)
    types = np.array(records.question_types, dtype=object)
    if any(value is not None for value in types):
        kinds["question_type"] = types
    return kinds


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file as a whole; nothing is left over where that fails."""
    if path.is_dir():
        raise InputError("a directory stands where a file is expected", str(path), "choose another name")
    # ASCII, for a completion may hold half a character
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def _result(
    task: TaskName, protocol: Protocol, records: RecordList, scores: Scores, boxes: str, resamples: int, seed: int
) -> dict[str, Any]:
    clusters = clusters_of(records)
    well_formed = np.array([is_well_formed(text) for text in records.texts], dtype=bool) & records.raw
    n_raw = int(records.raw.sum())
    result: dict[str, Any] = {
        "task": task,
        "protocol": protocol,
        "n": len(records),
        "metrics": scores.metrics(),
        "n_well_formed": int(well_formed.sum()),
        "well_formed_share": int(well_formed.sum()) / n_raw if n_raw else None,
        "intervals": _listed(intervals(scores.statistics, scores.finish, clusters, resamples, seed)),
        "interval_settings": {
            "level": LEVEL,
            "resamples": resamples,
            "seed": seed,
            "clustered_by": None
            if clusters is None
            else "sample"
            if cluster_ids(records.image_paths) is None
            else "image_path",
        },
        "groups": _groups(records, scores, well_formed, clusters, resamples, seed),
        "reasoning": reasoning(tasks.get(task).closed, records.texts, scores.per_record.get("pred", ())),
    }
    result |= tasks.get(task).details(records, scores, "resized28" if protocol == "official" else boxes)
    sampled = self_consistency(task, records, scores, resamples, seed)
    if sampled is not None:
        result["self_consistency"] = sampled
    for key in ("diagnosis", "missing"):
        if getattr(scores, key):
            result[key] = getattr(scores, key)
    result["problems"] = records.problem_summary()
    result["notes"] = scores.notes
    return result


def _groups(
    records: RecordList,
    scores: Scores,
    well_formed: NDArray[np.bool_],
    clusters: Clusters | None,
    resamples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Metrics, intervals, n and well-formed completions by question type, class and size."""
    result: dict[str, dict[str, Any]] = {}
    for kind, names in groupings_of(records, scores).items():
        known = sorted({name for name in names if name is not None})
        if len(known) > MAX_GROUPS:
            scores.notes.append(f"{len(known)} groups by {kind}: only the first {MAX_GROUPS} are listed")
        result[kind] = {}
        for name in known[:MAX_GROUPS]:
            chosen = names == name
            inside = None if clusters is None else np.unique(clusters[chosen], return_inverse=True)[1]
            bounds = intervals(scores.statistics[chosen], scores.finish, inside, resamples, seed)
            result[kind][name] = {
                "n": int(chosen.sum()),
                "n_well_formed": int(well_formed[chosen].sum()),
                "metrics": finite(scores.rates(chosen)),
                "intervals": _listed(bounds),
            }
    return result


def _listed(bounds: dict[str, tuple[float, float] | None]) -> dict[str, list[float] | None]:
    return {name: None if pair is None else list(pair) for name, pair in bounds.items()}


def _known(value: str, known: tuple[Any, ...], what: str) -> Any:
    if value not in known:
        raise InputError(f"unknown {what} '{value}'", hint=f"one of {', '.join(known)}")
    return value
