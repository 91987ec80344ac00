"""The arithmetic of optimal stopping: how often a kind of question has t successes, and where asking on is worth it.

See `adaptive` for the method; here are its estimate (counts of the pilot, mixed with a fitted beta-binomial) and its
dynamic program. All of it is our choice.
"""

from __future__ import annotations

from math import comb

import numpy as np
import numpy.typing as npt

from geozero import params

EASY, LEARNABLE, UNSOLVED, NEITHER = range(4)
LEARNABLE_FOR_UNSOLVED = 0.05  # what mistaking these two costs: both may go to Hard, learnable ones come first
# A kind's frequencies are its pilot's counts, mixed with a beta-binomial that is fitted to them and to a few samples'
# worth of the level above: weights in samples, chosen on the demo's store (docs/experiments.md).
WEIGHT_OF_PARENT = 5.0
WEIGHT_OF_SHAPE = 40.0
# The beta-binomials that are averaged by their likelihood: mean success rates, and a + b of the beta distribution.
MEANS = (0.002, 0.005, 0.01, 0.02, *np.linspace(0.03, 0.97, 22).tolist(), 0.98, 0.99, 0.995)
CONCENTRATIONS = tuple(np.geomspace(0.2, 60.0, 16).tolist())

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


def decision(successes: int, n: int, easy: float, hard: float) -> int:
    """Where a sample with this pass rate may go; the order of the questions is that of `bands.measure`."""
    rate = successes / n
    if rate >= easy:
        return EASY
    if rate == 0:
        return UNSOLVED
    return LEARNABLE if rate <= hard else NEITHER


def frequencies(levels: npt.NDArray[np.str_], totals: npt.NDArray[np.int64], k: int) -> dict[str, tuple[float, ...]]:
    """Shares of t = 0 … k successes by each name of each level.

    Args:
        levels: of each sample the names under which it counts, from the task down to its kind [P, levels].
        totals: its successes [P].
        k: K.
    """
    shapes = _beta_binomials(k)
    found: dict[str, tuple[float, ...]] = {}
    for level in range(levels.shape[1]):
        for name in sorted(set(levels[:, level].tolist())):
            rows = levels[:, level] == name
            counts = np.bincount(totals[rows], minlength=k + 1).astype(float)
            above = WEIGHT_OF_PARENT * np.array(found[str(levels[rows][0, level - 1])]) if level else 0.0
            fits = np.log(shapes) @ (counts + above)
            likely = np.exp(fits - fits.max())
            mixed = counts + WEIGHT_OF_SHAPE * (likely / likely.sum()) @ shapes
            found[name] = tuple(float(v) for v in mixed / mixed.sum())
    return found


def _beta_binomials(k: int) -> Floats:
    """Probabilities of t = 0 … k under each of the grid's beta-binomial distributions [grid, k + 1]."""
    from scipy.special import betaln, comb

    t = np.arange(k + 1)
    grid = [(mean * total, (1 - mean) * total) for mean in MEANS for total in CONCENTRATIONS]
    rows = [np.exp(betaln(t + a, k - t + b) - betaln(a, b)) * comb(k, t) for a, b in grid]
    return np.maximum(np.array(rows, np.float64), 1e-300)


class Table:
    """The dynamic program of one kind."""

    def __init__(self, frequencies: Floats, thresholds: params.Select, settings: params.Adaptive) -> None:
        self.k, self.first, self.frequencies = len(frequencies) - 1, settings.first, frequencies
        k, t = self.k, np.arange(self.k + 1)
        final = [decision(int(v), k, thresholds.easy, thresholds.hard) for v in t]
        self.up = np.zeros((k + 1, k + 1, k + 1))  # probability that the next answer succeeds, given t  [n, s, t]
        self.posterior = np.zeros((k + 1, k + 1, k + 1))
        self.wrong = np.zeros((k + 1, k + 1))  # expected cost of deciding at (n, s)
        self.cost = np.zeros((k + 1, k + 1, k + 1))
        for n in range(k + 1):
            for s in range(n + 1):
                ways = np.array([comb(n, s) * comb(k - n, v - s) / comb(k, v) if v >= s else 0.0 for v in t])
                joint = ways * frequencies
                self.posterior[n, s] = joint / joint.sum() if joint.sum() > 0 else 1 / (k + 1)
                if n < k:
                    self.up[n, s] = np.clip((t - s) / (k - n), 0, 1)
                if n:
                    now = decision(s, n, thresholds.easy, thresholds.hard)
                    self.cost[n, s] = [cost(now, then) for then in final]
                    self.wrong[n, s] = float(self.posterior[n, s] @ self.cost[n, s])

    def stops(self, price: float) -> Bools:
        """Where it is best to stop [n, s] if an answer costs `price`."""
        k = self.k
        stop = np.zeros((k + 1, k + 1), bool)
        stop[k] = True
        value = np.zeros(k + 1)
        for n in range(k - 1, -1, -1):
            s = np.arange(n + 1)
            up = (self.posterior[n, : n + 1] * self.up[n, : n + 1]).sum(axis=1)
            ask = price + up * value[s + 1] + (1 - up) * value[s]
            if n >= max(1, self.first):
                stop[n, : n + 1] = self.wrong[n, : n + 1] <= ask
                ask = np.minimum(ask, self.wrong[n, : n + 1])
            value = ask
        return stop

    def expected(self, stop: Bools) -> float:
        """Probability that a sample that follows `stop` is decided otherwise than by all its answers."""
        reach = self.frequencies[None, :].copy()  # [s, t] at n = 0
        cost = 0.0
        for n in range(self.k):
            s = np.arange(n + 1)
            ends = stop[n, : n + 1]
            cost += float((reach[ends] * (self.cost[n, s[ends]] == 1)).sum())
            on = np.where(ends[:, None], 0.0, reach)
            up = self.up[n, : n + 1]
            reach = np.zeros((n + 2, self.k + 1))
            reach[1:] += on * up
            reach[:-1] += on * (1 - up)
        return cost

    def pairs(self, stop: Bools) -> frozenset[tuple[int, int]]:
        return frozenset((int(n), int(s)) for n, s in zip(*np.nonzero(stop), strict=True) if s <= n < self.k)


def cost(now: int, then: int) -> float:
    """What it costs to decide one thing where all answers would say another."""
    if now == then:
        return 0.0
    return LEARNABLE_FOR_UNSOLVED if {now, then} == {LEARNABLE, UNSOLVED} else 1.0
