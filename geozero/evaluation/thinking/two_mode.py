"""A model with one decision, to think or to answer at once: what GRPO and A²GRPO make of it, before any training.

The policy thinks with probability p = σ(θ); a thinking completion is right with probability a, a terse one with g.
A step takes `prompts` groups of `group_size` completions and rewards R = R_a + λ · R_a · S_t (for answers that are
right or wrong the gate is R_a itself). Advantages are relative to the group, groups whose R_a are alike are dropped,
and losses are means over each completion's tokens, so that the one decision weighs 1 / length. Stock GRPO's KL also
holds that decision, A²GRPO's does not. All of it is ours. It leaves out what becomes of a, g and the thoughts
themselves in training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STEP = 0.52  # of θ per step; fits the demo, 75 steps
LOGIT_LIMIT = 9.0
EPS = 1e-4


@dataclass(frozen=True)
class TwoModes:
    """What a probe measures of a question type: the two modes at the start, and how a run would train.

    Attributes:
        p0: share of thinking completions; within (0, 1).
        a: share of right ones among them.
        g: share of right ones among the terse.
        long, short: tokens of a thinking and a terse completion.
        score_long, score_short: S_t of either.
    """

    p0: float
    a: float
    g: float
    long: float = 40.0
    short: float = 6.0
    score_long: float = 1.0
    score_short: float = 0.15
    beta: float = 0.2
    weight: float = 0.5
    steps: int = 75
    group_size: int = 8
    prompts: int = 8

    def accuracy(self, p: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Share of right completions where a share p thinks."""
        return np.asarray(p * self.a + (1 - np.asarray(p)) * self.g)


@dataclass(frozen=True)
class Outcome:
    """After training: accuracy and share of thinking completions, means over seeds, and the accuracy's deviation."""

    accuracy: float
    thinking: float
    deviation: float


ARMS: Mapping[str, tuple[bool, bool]] = {  # whether S_t counts, and whether the KL holds the answer alone
    "grpo": (False, False),
    "gated_score": (True, False),
    "answer_kl": (False, True),
    "a2grpo": (True, True),
}


def train(modes: TwoModes, scored: bool, answer_only: bool, seeds: int = 30, seed: int = 0) -> Outcome:
    """Many seeds at once; arrays are (seeds, prompts, completions)."""
    rng = np.random.default_rng(seed)
    start = float(np.log(modes.p0 / (1 - modes.p0)))
    theta = np.full(seeds, start)
    weight = modes.weight if scored else 0.0
    middle = (modes.long + modes.short) / 2
    for _ in range(modes.steps):
        p = (1 / (1 + np.exp(-theta)))[:, None, None]
        thinks = rng.random((seeds, modes.prompts, modes.group_size)) < p
        right = (rng.random(thinks.shape) < np.where(thinks, modes.a, modes.g)).astype(np.float64)
        reward = right * (1 + weight * np.where(thinks, modes.score_long, modes.score_short))
        spread = reward.std(axis=2, keepdims=True)
        mixed = right.min(axis=2, keepdims=True) < right.max(axis=2, keepdims=True)
        advantage = np.where(mixed, (reward - reward.mean(axis=2, keepdims=True)) / (spread + EPS), 0.0)
        direction = np.where(thinks, 1 - p, -p) * middle / np.where(thinks, modes.long, modes.short)
        step = advantage
        if not answer_only:
            q = 1 / (1 + np.exp(-start))
            ratio = np.where(thinks, q / p, (1 - q) / (1 - p))  # π_ref / π of the decision
            step = step - np.where(mixed, modes.beta * (1 - ratio), 0.0)
        theta = np.clip(theta + STEP * (step * direction).mean(axis=(1, 2)), -LOGIT_LIMIT, LOGIT_LIMIT)
    p_end = 1 / (1 + np.exp(-theta))
    accuracy = modes.accuracy(p_end)
    return Outcome(float(accuracy.mean()), float(p_end.mean()), float(accuracy.std()))


def predict(modes: TwoModes, seeds: int = 30) -> dict[str, Outcome]:
    """Every arm's outcome; differences below a point or two mean nothing."""
    return {name: train(modes, scored, answer_only, seeds) for name, (scored, answer_only) in ARMS.items()}
