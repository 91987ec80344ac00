"""How often a 95 % interval holds the true value, and how often equal models differ: `python -m benchmarks.coverage`.

Shares of independent records are not simulated: the probability of every count is known, so the coverage is exact.
It jumps from count to count, and for some n and p none lies between 93 and 97 %; `next` is the coverage of the set of
counts without the least likely one. Simulated are shares in clusters (1 to 9 questions per image, correlated), and
means of skewed scores: IoU with misses, CIDEr-like ones without an upper bound, and a ratio of sums such as BLEU's.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from geozero.evaluation.statistics import intervals, paired_differences
from geozero.metrics.scores import Floats, ratio

SIZES = (20, 50, 200, 2_000)
SHARES = (0.05, 0.5, 0.95, 0.99)
BAND = (0.93, 0.97)
CORRELATION = 0.3  # between the answers about one image
HIT_IOU = (8.0, 2.0)  # Beta distribution of the IoU of a found object
LIKELY = 1e-9  # counts that are less probable do not matter


class Coverage(NamedTuple):
    """`next`: what the coverage would be without the least likely count that it holds; NaN where it was simulated."""

    kind: str
    n: int
    parameter: float
    coverage: float
    width: float
    next: float = float("nan")


def mean(sums: Floats) -> dict[str, Floats]:
    """A metric that is the mean of the second statistic where the first is 1."""
    return {"mean": ratio(sums[..., 1], sums[..., 0])}


def exact_shares(n: int, p: float) -> Coverage:
    """The coverage of a share of n independent records."""
    from scipy import stats

    probability = stats.binom.pmf(np.arange(n + 1), n, p)
    covered, width = [], 0.0
    for k in np.flatnonzero(probability > LIKELY).tolist():
        hits = np.arange(n) < k
        low, high = intervals(np.column_stack([np.ones(n), hits]), mean)["mean"] or (np.nan, np.nan)
        width += float(probability[k]) * (high - low)
        if low <= p <= high:
            covered.append(float(probability[k]))
    return Coverage("share", n, p, sum(covered), width, sum(covered) - min(covered))


def clustered(rng: np.random.Generator, images: int, p: float) -> tuple[Floats, Floats, float]:
    """Statistics, clusters and true value of questions about `images` images."""
    sizes, spread = rng.integers(1, 10, images), (1 - CORRELATION) / CORRELATION
    ids = np.repeat(np.arange(images), sizes)
    hits = rng.random(len(ids)) < rng.beta(p * spread, (1 - p) * spread, images)[ids]
    return np.column_stack([np.ones(len(ids)), hits]), ids, p


def ious(rng: np.random.Generator, n: int, p: float) -> tuple[Floats, None, float]:
    """Boxes of which a share p is found, the others having an IoU of 0."""
    values = np.where(rng.random(n) < p, rng.beta(*HIT_IOU, n), 0.0)
    return np.column_stack([np.ones(n), values]), None, p * HIT_IOU[0] / sum(HIT_IOU)


def ciders(rng: np.random.Generator, n: int, p: float) -> tuple[Floats, None, float]:
    """Scores that are mostly low and sometimes very high; p is the shape of their Gamma distribution."""
    return np.column_stack([np.ones(n), rng.gamma(p, 1.2, n)]), None, 1.2 * p


def precisions(rng: np.random.Generator, n: int, p: float) -> tuple[Floats, None, float]:
    """Matched by written words, of captions that differ in length and in how many of their words match."""
    words = rng.integers(5, 25, n)
    matched = rng.binomial(words, rng.beta(4 * p, 4 * (1 - p), n))
    return np.column_stack([words, matched]).astype(np.float64), None, p


Draw = Callable[[np.random.Generator, int, float], tuple[Floats, Floats | None, float]]
SIMULATED: tuple[tuple[str, Draw, tuple[float, ...]], ...] = (
    ("clustered share", clustered, SHARES),
    ("IoU", ious, SHARES),
    ("CIDEr-like", ciders, (0.5, 1.0)),
    ("word precision", precisions, (0.5, 0.95)),
)


def simulated(kind: str, draw: Draw, n: int, p: float, trials: int, seed: int) -> Coverage:
    rng, hits, width = np.random.default_rng(seed), 0, 0.0
    for trial in range(trials):
        statistics, clusters, truth = draw(rng, n, p)
        ids = None if clusters is None else clusters.astype(np.int64)
        low, high = intervals(statistics, mean, ids, seed=trial)["mean"] or (truth, truth)  # nothing varies: no claim
        hits += low <= truth <= high
        width += high - low
    return Coverage(kind, n, p, hits / trials, width / trials)


def false_differences(draw: Draw, n: int, p: float, trials: int, seed: int) -> float:
    """Share of comparisons of two equally good models whose p-value is below 0.05."""
    rng, found = np.random.default_rng(seed), 0
    for trial in range(trials):
        first, clusters, _ = draw(rng, n, p)
        ids = None if clusters is None else clusters.astype(np.int64)
        swapped = rng.random(len(first) if ids is None else n) < 0.5  # per image: which model got which answer
        other = draw(rng, n, p)[0]
        second = other if len(other) == len(first) else first[rng.permutation(len(first))]
        where = (swapped if ids is None else swapped[ids])[:, None]
        pair = np.where(where, first, second), np.where(where, second, first)
        result = paired_differences(*pair, mean, ids, resamples=100, seed=trial)
        found += "mean" in result and result["mean"].p_value < 0.05
    return found / trials


def coverages(sizes: tuple[int, ...], trials: int, seed: int) -> Iterator[Coverage]:
    """All kinds, sizes and parameters."""
    yield from (exact_shares(n, p) for n in sizes for p in SHARES)
    for kind, draw, parameters in SIMULATED:
        yield from (simulated(kind, draw, n, p, trials, seed) for n in sizes for p in parameters)


def main(arguments: list[str] | None = None) -> None:
    """Print a line for each kind, n and parameter."""
    parser = argparse.ArgumentParser(description="Coverage of the 95 % intervals and false positives of the tests.")
    parser.add_argument("--trials", type=int, default=2_000)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    print("kind\tn\tparameter\tcoverage\tmean width")
    for row in coverages(tuple(chosen.sizes), chosen.trials, chosen.seed):
        low, high = BAND
        outside = "" if low <= row.coverage <= high else "\toutside 93-97 %"
        outside += f"; one count less: {row.next:.3f}" if outside and row.next < low else ""
        print(f"{row.kind}\t{row.n}\t{row.parameter:g}\t{row.coverage:.3f}\t{row.width:.3f}{outside}", flush=True)
    for kind, draw, parameters in SIMULATED:
        for n in chosen.sizes:
            share = false_differences(draw, n, parameters[0], chosen.trials // 2, chosen.seed)
            print(f"equal models, {kind}\t{n}\t{parameters[0]:g}\tp < 0.05 in {share:.3f}", flush=True)


if __name__ == "__main__":
    main()
