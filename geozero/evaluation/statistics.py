"""Uncertainty of scores: intervals, paired comparisons and their correction, pass@k, calibration.

Shares have Wilson or Clopper-Pearson intervals, everything else a studentised bootstrap; how often they hold the true
value is counted by `python -m benchmarks.coverage`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geozero.common.errors import InputError
from geozero.evaluation.metric_names import metric_format
from geozero.metrics.scores import Bools, Finish, Floats, ratio

LEVEL = 0.95
TAILS = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
RESAMPLES = 1_000
SEED = 0
MIN_MARKED = 20  # questions, or images where several ask about one: with fewer, no difference is called significant
# Wilson's interval is too narrow where an outcome came up this rarely: there, Clopper and Pearson's.
RARE = 4
# Among so few values, rare ones (a missed box among found ones) may not have come up: half of one is added.
FEW_UNITS = 30
# Up to so many units whose difference is not 0, p-values come from flipping signs; beyond, a t-test gives the same.
FLIPPED, FLIPS = 100, 9_999
# Whole differences that add up to no more than this have the exact distribution of all flips.
MAX_EXACT_SUM = 100_000
# Up to so many distinct rows, resampling draws how often each distinct row comes (one multinomial), which is exact.
FEW_DISTINCT = 512

Clusters = NDArray[np.int64]


class PairedDifference(NamedTuple):
    """Second minus first on the same n records, with its 95 % interval and two-sided p-value of this one comparison;
    `units` are the records, or the clusters of them, that are independent of each other."""

    first: float
    second: float
    difference: float
    low: float
    high: float
    p_value: float
    n: int
    units: int


class _Means(NamedTuple):
    """A metric that is the mean of its values at single records, all in [0, 1]: `values` are 0 where not counted."""

    values: Floats
    counted: Bools
    scale: float  # 100 for percentages
    binary: bool


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


def resampled_sums(units: Floats, resamples: int = RESAMPLES, seed: int = SEED) -> Floats:
    """Sums (resamples, k) of statistics (n, k) of independent units, drawn with replacement."""
    rng, n = np.random.default_rng(seed), len(units)
    distinct, counts = _distinct_rows(units)
    if len(distinct) <= FEW_DISTINCT:
        drawn = rng.multinomial(n, counts / n, size=resamples)
        return np.asarray(drawn @ distinct, dtype=np.float64)
    sums = np.empty((resamples, units.shape[1]))
    for b in range(resamples):
        weights = np.bincount(rng.integers(0, n, size=n, dtype=np.uint32), minlength=n)
        sums[b] = weights @ units
    return sums


# --- intervals --------------------------------------------------------------------------------------------


def intervals(
    statistics: Floats, finish: Finish, clusters: Clusters | None = None, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, list[float] | None]:
    """95 % interval of every metric that `finish` computes from summed statistics (n, k); {} for one record or cluster.

    Shares of independent records: Wilson (1927); Clopper and Pearson (1934) where at most `RARE` are right or wrong.
    Other means within [0, 1], and shares of clustered records: Clopper and Pearson's with the effective number of
    records (Korn and Graubard, 1998). Every other metric: the studentised bootstrap (Efron and Tibshirani, 1993).
    None where it is undefined, or nothing varies.
    """
    if len(statistics) < 2 or (clusters is not None and clusters.max() == 0):
        return {}
    found: dict[str, list[float] | None] = {}
    means = _means(statistics, finish)
    for name, mean in means.items():
        if mean is not None:
            low, high = _share(mean, clusters)
            found[name] = [mean.scale * low, mean.scale * high]
    if rest := [name for name, mean in means.items() if mean is None]:
        units = _summed(np.asarray(statistics, dtype=np.float64), clusters)
        pseudo = _pseudo_values(units, finish, rest)
        value = finish(units.sum(axis=0))
        moments = [column for name in rest for column in (pseudo[name], pseudo[name] ** 2)]
        sums = resampled_sums(np.column_stack([units, *moments]), resamples, seed)
        drawn, k = finish(sums[:, : units.shape[1]]), units.shape[1]
        for i, name in enumerate(rest):
            own = sums[:, k + 2 * i : k + 2 * i + 2]
            bounds = _studentised(float(value[name]), pseudo[name], drawn[name], own)
            found[name] = bounds and [max(bounds[0], 0.0), bounds[1]]
    return {name: found[name] for name in means}


def share_interval(values: Floats, clusters: Clusters | None = None) -> list[float] | None:
    """95 % interval of the mean of values (n,) within [0, 1], as of a metric; None for one record or cluster."""
    columns = np.column_stack([np.ones(len(values)), values])
    return intervals(columns, lambda sums: {"mean": ratio(sums[..., 1], sums[..., 0])}, clusters).get("mean")


def _means(statistics: Floats, finish: Finish) -> dict[str, _Means | None]:
    """Which metrics are means of values within [0, 1] (or percentages of such); None for the others."""
    with np.errstate(all="ignore"):
        single, whole = finish(np.asarray(statistics, dtype=np.float64)), finish(np.sum(statistics, axis=0))
    found: dict[str, _Means | None] = {}
    for name, total in whole.items():
        scale = 100.0 if metric_format(name).best == 100.0 else 1.0
        counted = np.isfinite(single[name])
        values = np.where(counted, single[name], 0.0) / scale
        within = counted.any() and values.min() >= 0 and values.max() <= 1
        if within and np.isclose(values.sum() / counted.sum(), total / scale, rtol=1e-9, atol=1e-12):
            found[name] = _Means(values, counted, scale, bool(np.isin(values, (0.0, 1.0)).all()))
        else:
            found[name] = None
    return found


def _share(mean: _Means, clusters: Clusters | None) -> tuple[float, float]:
    """The interval of a mean of values within [0, 1]."""
    from scipy import stats

    n = int(mean.counted.sum())
    if mean.binary and clusters is None:
        k = int(mean.values.sum())
        method = "exact" if min(k, n - k) <= RARE else "wilson"
        bounds = stats.binomtest(k, n).proportion_ci(LEVEL, method)
        return float(bounds.low), float(bounds.high)
    sums, sizes = _summed(np.column_stack([mean.values, mean.counted]), clusters).T
    units, share = int((sizes > 0).sum()), float(sums.sum() / n)
    off = (sums - share * sizes) / n
    variance = units / max(units - 1, 1) * float(off @ off)
    if units < FEW_UNITS and not mean.binary:
        variance += 0.5 * (max(share, 1 - share) / (units + 1)) ** 2
    effective = share * (1 - share) / variance if variance > 0 and 0 < share < 1 else float(units)
    effective *= (stats.norm.ppf(TAILS[1]) / stats.t.ppf(TAILS[1], max(units - 1, 1))) ** 2
    right, wrong = share * effective, (1 - share) * effective
    low = stats.beta.ppf(TAILS[0], right, wrong + 1) if right > 0 else 0.0
    high = stats.beta.ppf(TAILS[1], right + 1, wrong) if wrong > 0 else 1.0
    return float(low), float(high)


def _pseudo_values(units: Floats, finish: Finish, names: Sequence[str]) -> dict[str, Floats]:
    """The jackknife's pseudo-values (n,) of metrics: their mean is about the metric, their spread its error."""
    n, total = len(units), units.sum(axis=0)
    with np.errstate(all="ignore"):
        whole, without = finish(total), finish(total - units)
    return {name: n * whole[name] - (n - 1) * without[name] for name in names}


def _studentised(value: float, pseudo: Floats, drawn: Floats, sums: Floats) -> list[float] | None:
    """Bootstrap-t: quantiles of (drawn value − value) / its standard error; `sums` (resamples, 2) are those of the
    pseudo-values and of their squares in each resample."""
    n = len(pseudo)
    error = float(np.std(pseudo, ddof=1)) / np.sqrt(n)
    with np.errstate(all="ignore"):
        errors = np.sqrt(np.maximum(sums[:, 1] - sums[:, 0] ** 2 / n, 0.0) / (n * (n - 1)))
        t = (drawn - value) / np.where(errors > 1e-9 * error, errors, np.nan)
    if not np.isfinite(value) or not error > 1e-12 * max(1.0, abs(value)) or np.isfinite(t).mean() < LEVEL:
        return None
    low, high = np.nanquantile(t, TAILS)
    return [float(value - high * error), float(value - low * error)]


def _summed(statistics: Floats, clusters: Clusters | None) -> Floats:
    """Statistics (n, k) added up in each cluster."""
    if clusters is None:
        return statistics
    return np.column_stack([np.bincount(clusters, column) for column in statistics.T])


# --- two models -------------------------------------------------------------------------------------------


def paired_differences(
    first: Floats,
    second: Floats,
    finish: Finish,
    clusters: Clusters | None = None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> dict[str, PairedDifference]:
    """Compare the metrics of two models on the same n records, from statistics (n, k): row i of both is one record.

    Right or wrong answers: McNemar's exact test, and the interval of Bonett and Price (2012). Otherwise a test that
    flips the signs of differences, whole clusters together (exact for few, a paired t-test for many), and the
    studentised bootstrap. A metric whose interval is undefined is left out.

    Raises:
        InputError: the two differ in shape, or are empty.
    """
    if first.shape != second.shape or not len(first):
        raise InputError("the two lists were not scored with the same metrics", hint="score both in one run")
    first, second = (np.asarray(x, dtype=np.float64) for x in (first, second))
    units = [_summed(x, clusters) for x in (first, second)]
    n, width, count = len(first), first.shape[1], len(units[0])
    totals = [finish(x.sum(axis=0)) for x in units]
    means = [_means(x, finish) for x in (first, second)]
    result: dict[str, PairedDifference] = {}
    rest: dict[str, Floats] = {}
    for name in totals[0]:
        a, b = (m[name] for m in means)
        before, after = (float(t[name]) for t in totals)
        if a and b and a.binary and b.binary and (a.counted == b.counted).all():
            change = _summed((b.values - a.values)[:, None], clusters)[:, 0]
            low, high = (a.scale * bound for bound in _change_interval(change, int(a.counted.sum())))
            p_value = sign_test(change)
            result[name] = PairedDifference(before, after, after - before, low, high, p_value, n, count)
        elif count > 1:
            pseudo = [_pseudo_values(x, finish, [name])[name] for x in units]
            rest[name] = pseudo[1] - pseudo[0]
    if rest:
        columns = [c for change in rest.values() for c in (change, change**2)]
        sums = resampled_sums(np.column_stack([*units, *columns]), resamples, seed)
        drawn = finish(sums[:, :width]), finish(sums[:, width : 2 * width])
        for i, (name, change) in enumerate(rest.items()):
            before, after = (float(t[name]) for t in totals)
            own = sums[:, 2 * (width + i) : 2 * (width + i) + 2]
            bounds = _studentised(after - before, change, drawn[1][name] - drawn[0][name], own)
            if bounds is None and not change.any():
                bounds = [0.0, 0.0]
            if bounds is not None:
                low, high = bounds
                p_value = sign_test(change)
                result[name] = PairedDifference(before, after, after - before, low, high, p_value, n, count)
    return {name: result[name] for name in totals[0] if name in result}


def sign_test(changes: Floats) -> float:
    """Two-sided p-value of a mean change of 0, from independent units (n,).

    Changes of equal size: the exact binomial test of their signs, which is McNemar's for right and wrong answers. Whole
    changes (questions gained per image): all flips of their signs, exactly. Others: random flips, or a t-test.
    """
    from scipy import stats

    moved = changes[np.abs(changes) > 1e-9 * max(np.abs(changes).max(initial=0.0), 1e-12)]
    if not len(moved):
        return 1.0
    if np.allclose(np.abs(moved), abs(moved[0])):
        return float(stats.binomtest(int((moved > 0).sum()), len(moved)).pvalue)
    if len(moved) > FLIPPED:
        return float(stats.ttest_1samp(changes, 0.0).pvalue)
    if np.array_equal(moved, np.round(moved)) and np.abs(moved).sum() <= MAX_EXACT_SUM:
        return _all_flips(moved.astype(np.int64))
    test = stats.permutation_test(
        (moved,), np.sum, permutation_type="samples", vectorized=True, n_resamples=FLIPS, rng=SEED
    )
    p_value, lowest = float(test.pvalue), 2 / (FLIPS + 1)
    if p_value > lowest * (1 + 1e-9):
        return p_value
    # No random flip was as extreme: how much less likely one is, the t-test says; all flips together set the limit.
    # Otherwise no correction for more than 0.05 / lowest comparisons could ever be passed.
    return min(p_value, max(float(stats.ttest_1samp(changes, 0.0).pvalue), 2.0 ** (1 - len(moved))))


def _all_flips(moved: NDArray[np.int64]) -> float:
    """The share of all 2ⁿ flips of the signs of whole changes (n,) whose sum is at least as far from 0."""
    total, chances = int(np.abs(moved).sum()), np.ones(1)
    for size in np.abs(moved).tolist():  # the chances of sums from −(sizes so far) to them
        chances = 0.5 * (np.pad(chances, (0, 2 * size)) + np.pad(chances, (2 * size, 0)))
    sums = np.abs(np.arange(-total, total + 1))
    return min(1.0, float(chances[sums >= abs(int(moved.sum()))].sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number (Holm, 1979): below 0.05, no false one among them in 95 % of the cases."""
    order = np.argsort(p_values)
    factors = len(order) - np.arange(len(order))
    corrected = np.empty(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(np.asarray(p_values)[order] * factors), 1.0)
    return [float(p) for p in corrected]


def _change_interval(change: Floats, n: int) -> tuple[float, float]:
    """Of a difference between two shares of the same n records, from its changes (−1, 0, 1, or sums of them in
    clusters): the normal interval after adding one unit that got better and one that got worse."""
    from scipy import stats

    size = n / len(change)
    extended, whole = np.append(change, [size, -size]), n + 2 * size
    mean = float(extended.sum() / whole)
    off = (extended - mean * size) / whole
    half = float(stats.norm.ppf(TAILS[1]) * np.sqrt(off @ off))
    return max(-1.0, mean - half), min(1.0, mean + half)


# --- several answers --------------------------------------------------------------------------------------


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
