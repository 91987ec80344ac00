"""Prompts from easy, medium and hard pools by what the policy itself last made of them: `a2grpo.order: pools` [ours].

A prompt's pool follows from the mean answer reward of its latest group, and before its first group from the filtering
model's pass rate. prime-rl keeps such pools too. What a step draws depends on the seed, the step and the groups of
earlier steps only, and these are in `pools.jsonl`: a resumed run draws what it would have drawn.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from geozero.corpus.sample import stable_unit

FILE = "pools.jsonl"  # in the run's directory: step, rows and mean answer rewards of each step
EASY, HARD = 0.75, 0.25  # mean answer reward from which on, and up to which, a prompt is in that pool
NAMES = ("easy", "medium", "hard")


class Pools:
    """The rows of the training data by difficulty.

    Args:
        rates: the first estimate for each row, in [0, 1]; None: unknown, which counts as medium.
        shares: of a step's prompts that come from the easy, the medium and the hard pool.
        seed: the run's seed.
    """

    def __init__(self, rates: Sequence[float | None], shares: Sequence[float], seed: int) -> None:
        self.rates, self.shares, self.seed = list(rates), shares, seed
        self._drawn: dict[int, tuple[int, int]] = {}  # row → times drawn, last step

    def pool(self, row: int) -> int:
        """The row's pool, as index into `NAMES`."""
        rate = self.rates[row]
        return 1 if rate is None else 0 if rate >= EASY else 2 if rate <= HARD else 1

    def draw(self, step: int, n: int) -> list[int]:
        """The rows of a step's n prompts; each pool gives those that were drawn least often and longest ago.

        Where a pool has too few rows, the others fill up, medium ones first. Fewer than n rows are repeated.
        """
        queues: list[list[int]] = [[], [], []]
        for row in range(len(self.rates)):
            queues[self.pool(row)].append(row)
        for queue in queues:
            queue.sort(key=lambda row: (*self._drawn.get(row, (0, -1)), self._place(row)))
        wanted = _apportion(n, self.shares)
        found = [queue[:count] for queue, count in zip(queues, wanted, strict=True)]
        rest = [row for pool in (1, 2, 0) for row in queues[pool][wanted[pool] :]]
        rows = [row for part in found for row in part]
        rows += rest[: n - len(rows)]
        return [rows[i % len(rows)] for i in range(n)]

    def update(self, step: int, rows: Sequence[int], means: Sequence[float]) -> None:
        """Take in the mean answer rewards of a step's groups."""
        for row, mean in zip(rows, means, strict=True):
            self.rates[row] = mean
            self._drawn[row] = self._drawn.get(row, (0, 0))[0] + 1, step

    def _place(self, row: int) -> float:
        return stable_unit(f"{self.seed}/{row}/{self._drawn.get(row, (0, 0))[0]}", salt="pools")


class PoolLog:
    """The groups of a run's steps on disk; one process writes, all read."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / FILE

    def write(self, step: int, rows: Sequence[int], means: Sequence[float]) -> None:
        with self.path.open("a") as file:
            # a line of its own even behind one that a kill cut off
            file.write("\n" + json.dumps({"step": step, "rows": list(rows), "means": list(means)}) + "\n")

    def replay(self, pools: Pools, before: int) -> None:
        """Tell the pools what the steps before `before` made of their prompts; of a repeated step the last counts."""
        steps: dict[int, tuple[list[int], list[float]]] = {}
        for line in self.path.read_text().splitlines() if self.path.is_file() else ():
            try:
                value = json.loads(line)
                steps[int(value["step"])] = [int(row) for row in value["rows"]], [float(m) for m in value["means"]]
            except (ValueError, KeyError, TypeError):
                continue  # cut off by a kill: its step is repeated
        for step in sorted(step for step in steps if step < before):
            pools.update(step, *steps[step])


def _apportion(n: int, shares: Sequence[float]) -> list[int]:
    """n in whole numbers by shares, largest remainders first."""
    total = sum(shares)
    exact = [n * share / total for share in shares]
    counts = [int(value) for value in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: n - sum(counts)]:
        counts[i] += 1
    return counts
