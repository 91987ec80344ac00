"""Uncertainty of scores: bootstrap intervals, paired comparison of two models, pass@k, calibration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geozero.common.errors import InputError
from geozero.metrics.scores import Finish, Floats

LEVEL = 0.95
RESAMPLES = 1_000
SEED = 0
# Up to so many distinct rows, resampling draws how often each distinct row comes (one multinomial), which is exact.
FEW_DISTINCT = 512

Clusters = NDArray[np.int64]


class PairedDifference(NamedTuple):
    """Second minus first on the same n records, with its 95 % interval and two-sided bootstrap p-value."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    n: int


def cluster_ids(names: Sequence[str]) -> Clusters | None:
    """Numbers of the clusters that records with the same name form; None where every record stands alone.

    Questions about one image are not independent of each other. A record with an empty name stands alone, and so
    do all of them where the whole list has one name: that is a placeholder, and one cluster has no spread.
    """
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(name or f"\x00{i}", len(numbers)) for i, name in enumerate(names)]
    return None if len(numbers) in (1, len(ids)) else np.array(ids, dtype=np.int64)


def renumbered(clusters: Clusters | None, chosen: NDArray[Any]) -> Clusters | None:
    """The clusters of some rows (a mask or row numbers), numbered from 0 again."""
    return None if clusters is None else np.unique(clusters[chosen], return_inverse=True)[1]


def resampled_sums(
    statistics: Floats, clusters: Clusters | None = None, resamples: int = RESAMPLES, seed: int = SEED
) -> Floats:
    """Sums (resamples, k) of per-record statistics (n, k) over records, or whole clusters, drawn with replacement."""
    rng = np.random.default_rng(seed)
    units = np.asarray(statistics, dtype=np.float64)
    if clusters is not None:
        units = np.column_stack([np.bincount(clusters, column) for column in units.T])
    n = len(units)
    distinct, counts = _distinct_rows(units)
    if len(distinct) <= FEW_DISTINCT:
        drawn = rng.multinomial(n, counts / n, size=resamples)
        return np.asarray(drawn @ distinct, dtype=np.float64)
    sums = np.empty((resamples, units.shape[1]))
    for b in range(resamples):
        weights = np.bincount(rng.integers(0, n, size=n, dtype=np.uint32), minlength=n)
        sums[b] = weights @ units
    return sums


def interval(values: Floats) -> list[float] | None:
    """Percentile interval [low, high] of resampled values; None where any of them is undefined."""
    if not len(values) or not np.isfinite(values).all():
        return None
    return [float(bound) for bound in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])]


def intervals(
    statistics: Floats, finish: Finish, clusters: Clusters | None = None, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, list[float] | None]:
    """Bootstrap interval of every metric that `finish` computes from summed statistics (n, k); {} for one record."""
    if len(statistics) < 2 or (clusters is not None and clusters.max() == 0):
        return {}
    values = finish(resampled_sums(statistics, clusters, resamples, seed))
    return {name: interval(column) for name, column in values.items()}


def paired_bootstrap(
    first: Floats,
    second: Floats,
    finish: Finish,
    clusters: Clusters | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, PairedDifference]:
    """Compare the metrics of two models on the same n records, from statistics (n, k): row i of both is one record.

    The p-value is the share of resamples whose difference, shifted to no effect, is at least as large as the observed
    one (Efron and Tibshirani, 1993), with one added to both counts so that it is never 0.

    Raises:
        InputError: the two differ in shape, or are empty.
    """
    if first.shape != second.shape or not len(first):
        raise InputError("the two lists were not scored with the same metrics", hint="score both in one run")
    n, width = first.shape
    sums = resampled_sums(np.column_stack([first, second]), clusters, resamples, seed)
    before, after = finish(first.sum(axis=0)), finish(second.sum(axis=0))
    drawn_before, drawn_after = finish(sums[:, :width]), finish(sums[:, width:])
    result = {}
    for name in before:
        observed, drawn = float(after[name] - before[name]), drawn_after[name] - drawn_before[name]
        bounds = interval(drawn)
        if bounds is None:
            continue
        low, high = bounds
        extreme = int((np.abs(drawn - observed) >= abs(observed)).sum())
        p_value = (extreme + 1) / (resamples + 1)
        result[name] = PairedDifference(float(before[name]), float(after[name]), observed, low, high, p_value, n)
    return result


def pass_at_k(n: ArrayLike, correct: ArrayLike, k: int) -> Floats:
    """Unbiased estimate that at least one of k answers is right, from `correct` right ones of n (Chen et al., 2021).

    `1 − C(n − c, k) / C(n, k)` per question, shape of the inputs; NaN where fewer than k answers were drawn.

    Raises:
        InputError: k is below 1, or a count is impossible.
    """
    drawn, right = (np.asarray(x, dtype=np.float64) for x in np.broadcast_arrays(n, correct))
    if k < 1 or (right < 0).any() or (right > drawn).any():
        raise InputError("pass@k needs k ≥ 1 and 0 ≤ right answers ≤ answers", hint="check k and the counts")
    miss = np.ones(drawn.shape)
    for i in range(k):
        with np.errstate(all="ignore"):
            miss *= np.clip((drawn - right - i) / (drawn - i), 0.0, 1.0)
    return np.where(drawn >= k, 1.0 - miss, np.nan)


def calibration(confidence: ArrayLike, correct: ArrayLike, bins: int = 10) -> dict[str, Any]:
    """How well confidence predicts accuracy; confidence may be how far several answers agree.

    `confidence` in [0, 1] and `correct` 0 or 1, both (n,). Returns equal-width bins (upper edge included) with their n,
    mean confidence and accuracy, and the expected calibration error (Guo et al., 2017).

    Raises:
        InputError: lengths differ or a confidence is outside [0, 1].
    """
    given, right = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if given.shape != right.shape or not ((given >= 0) & (given <= 1)).all():
        raise InputError("calibration needs one confidence in [0, 1] for each answer", hint="check the two columns")
    bin_of = np.clip(np.ceil(given * bins).astype(np.int64) - 1, 0, bins - 1)
    rows, error = [], 0.0
    for k in range(bins):
        chosen = bin_of == k
        n = int(chosen.sum())
        if n:
            mean, accuracy = float(given[chosen].mean()), float(right[chosen].mean())
            error += n / len(given) * abs(mean - accuracy)
            rows.append({"low": k / bins, "high": (k + 1) / bins, "n": n, "confidence": mean, "accuracy": accuracy})
    return {"n": len(given), "bins": rows, "expected_calibration_error": error if rows else None}


def _distinct_rows(units: Floats) -> tuple[Floats, NDArray[np.int64]]:
    """Distinct rows and their counts; gives up (every row its own) once a sample shows that there are too many."""
    if len(units) > 4 * FEW_DISTINCT and len(np.unique(units[: 4 * FEW_DISTINCT], axis=0)) > FEW_DISTINCT:
        return units, np.ones(len(units), dtype=np.int64)
    rows, counts = np.unique(units, axis=0, return_counts=True)
    return rows, counts
