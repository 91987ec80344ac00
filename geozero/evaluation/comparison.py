"""Two scored lists of records on the same questions: what differs, how surely, overall and by group."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geozero.common.errors import InputError
from geozero.evaluation.scored import MAX_GROUPS, ScoredRecords
from geozero.evaluation.statistics import RESAMPLES, SEED, paired_differences, renumbered
from geozero.metrics.records import RecordList

Rows = NDArray[np.int64]


def compare(
    first: ScoredRecords,
    second: ScoredRecords,
    pairs: tuple[Rows, Rows] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    by: tuple[str, ...] | None = None,
) -> dict[str, Any]:
    """`second` minus `first`: the metrics of the paired records, and the same by group (of the kinds in `by`, or all).

    `pairs` are the rows of the paired records in the first and in the second list; without them, every record of
    `second` must have its pair. Each metric holds both values, difference, 95 % interval, two-sided p-value and n; one
    that is undefined in some resample is left out. A p-value stands for one comparison and is not corrected for how
    many are made.

    Raises:
        InputError: records of `second` without their pair, or lists that were not scored with the same metrics.
    """
    rows, others = pair_records(first.records, second.records) if pairs is None else pairs
    before, after = first.scores.statistics[rows], second.scores.statistics[others]
    result: dict[str, Any] = {"n": len(before), "metrics": {}, "groups": {}}
    if len(before) < 2:
        return result

    def differences(chosen: NDArray[np.bool_]) -> dict[str, dict[str, float]]:
        clusters = renumbered(first.clusters, rows[chosen])
        found = paired_differences(before[chosen], after[chosen], first.scores.finish, clusters, resamples, seed)
        return {metric: difference._asdict() for metric, difference in found.items()}

    result["metrics"] = differences(np.ones(len(rows), dtype=bool))
    for kind, names in first.groupings().items():
        if by is None or kind in by:
            known = sorted({name for name in names[rows] if name is not None})[:MAX_GROUPS]
            groups = {name: names[rows] == name for name in known}
            result["groups"][kind] = {name: differences(chosen) for name, chosen in groups.items() if chosen.sum() >= 2}
    return result


def pair_records(first: RecordList, second: RecordList) -> tuple[Rows, Rows]:
    """Rows of the records that have one id: all of `second`, and those of `first`, which may hold more.

    Records without an id are numbered in file order, so their truths must agree as well.

    Raises:
        InputError: the lists do not hold the same ids, hold one twice, or hold other truths under the same id.
    """
    if set(second.ids) < set(first.ids):
        rows, others = common(first, second)
        if len(rows) < len(second):
            raise InputError("ids that stand twice, or other labels", hint="compare answers to the same questions")
        return rows, others
    orders = [{name: i for i, name in enumerate(listed.ids)} for listed in (first, second)]
    if orders[0].keys() != orders[1].keys() or any(
        len(order) != len(listed) for order, listed in zip(orders, (first, second), strict=True)
    ):
        n = len(orders[0].keys() ^ orders[1].keys())
        raise InputError(f"the two lists differ in {n} ids, or hold an id twice", hint="compare runs on one list")
    rows, others = np.arange(len(first)), np.array([orders[1][name] for name in first.ids], dtype=np.int64)
    different = [i for i, row in enumerate(others) if not _same(first.labels[i], second.labels[row])]
    if different:
        what = f"{len(different)} records have another label in the second list"
        hint = "compare answers to the same questions; give every record an id"
        raise InputError(what, first.place(different[0]), hint)
    return rows, others


def common(first: RecordList, second: RecordList) -> tuple[Rows, Rows]:
    """Rows of the records that occur exactly once in each list, with the same id and label, in the order of `first`."""
    places: list[dict[str, int]] = []
    for listed in (first, second):
        counts = Counter(listed.ids)
        places.append({name: i for i, name in enumerate(listed.ids) if counts[name] == 1})
    pairs = [(i, places[1][name]) for name, i in places[0].items() if name in places[1]]
    kept = [(i, row) for i, row in pairs if _same(first.labels[i], second.labels[row])]
    rows = np.array(kept, dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _same(a: Any, b: Any) -> bool:
    """Equality of two labels; NaN, which no JSON reader should give, equals itself."""
    return a is b or a == b or (a != a and b != b)
