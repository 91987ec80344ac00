"""Two models on the same records: what differs, how surely, overall and by group."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geozero.common.errors import InputError
from geozero.evaluation.statistics import RESAMPLES, SEED, Clusters, paired_bootstrap
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Finish, Floats

MAX_GROUPS = 500  # groups of one kind that are listed; more classes than any set of the field has


def pair_records(first: RecordList, second: RecordList) -> NDArray[np.int64]:
    """Rows (n,) of `second` in the order of `first`: record i of `first` and row i of the result have one id.

    Records without an id are numbered in file order, so their truths must agree as well.

    Raises:
        InputError: the lists do not hold the same ids, hold one twice, or ask for other truths under the same id.
    """
    orders = [{name: i for i, name in enumerate(listed.ids)} for listed in (first, second)]
    if orders[0].keys() != orders[1].keys() or any(
        len(o) != len(x) for o, x in zip(orders, (first, second), strict=True)
    ):
        odd = len(orders[0].keys() ^ orders[1].keys())
        raise InputError(f"the two lists differ in {odd} ids, or hold an id twice", hint="compare runs on one list")
    rows = np.array([orders[1][name] for name in first.ids], dtype=np.int64)
    other = [i for i, row in enumerate(rows) if not _same(first.labels[i], second.labels[row])]
    if other:
        what = f"{len(other)} records have another label in the second list"
        raise InputError(what, first.place(other[0]), "compare answers to the same questions; give every record an id")
    return rows


def common(first: RecordList, second: RecordList) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of the records that stand once in either list under one id and label, in the order of `first`."""
    places: list[dict[str, int]] = []
    for listed in (first, second):
        counts = Counter(listed.ids)
        places.append({name: i for i, name in enumerate(listed.ids) if counts[name] == 1})
    pairs = [(i, places[1][name]) for name, i in places[0].items() if name in places[1]]
    kept = [(i, row) for i, row in pairs if _same(first.labels[i], second.labels[row])]
    rows = np.array(kept, dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def compare_scores(
    first: Floats,
    second: Floats,
    finish: Finish,
    clusters: Clusters | None = None,
    groups: dict[str, NDArray[np.object_]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, Any]:
    """Second minus first from statistics (n, k) of the same n records: metrics, and the same by `groups` (n,).

    Each metric holds both values, difference, 95 % interval, two-sided p-value and n; one that is undefined in some
    resample is left out. A p-value stands for one comparison and is not corrected for how many are made.

    Raises:
        InputError: the two were not scored with the same metrics.
    """
    if first.shape != second.shape:
        raise InputError("the two lists were not scored with the same metrics", hint="score both in one run")
    result: dict[str, Any] = {"n": len(first), "metrics": {}, "groups": {}}
    if len(first) < 2:
        return result
    compared = paired_bootstrap(first, second, finish, clusters, resamples, seed)
    result["metrics"] = {metric: found.as_dict() for metric, found in compared.items()}
    for kind, names in (groups or {}).items():
        parts = result["groups"].setdefault(kind, {})
        for name in sorted({name for name in names if name is not None})[:MAX_GROUPS]:
            chosen = names == name
            if chosen.sum() < 2:
                continue
            inside = None if clusters is None else np.unique(clusters[chosen], return_inverse=True)[1]
            found = paired_bootstrap(first[chosen], second[chosen], finish, inside, resamples, seed)
            parts[name] = {metric: one.as_dict() for metric, one in found.items()}
    return result


def _same(a: Any, b: Any) -> bool:
    """Equality of two labels; NaN, which no JSON reader should give, equals itself."""
    return a is b or a == b or (a != a and b != b)
