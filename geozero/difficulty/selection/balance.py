"""How many to take from each (task, source) so that tasks, and within a task its sources, are as equal as can be."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Mapping
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Cell = tuple[str, str]  # task, source


def balanced(available: Mapping[Cell, int], size: int, already: Mapping[Cell, int] | None = None) -> dict[Cell, int]:
    """Take `size` in all, or everything where there is less.

    Args:
        available: how many each cell has.
        size: how many are wanted.
        already: what was taken from the cells before; the sums of both are made equal.
    """
    already = already or {}
    per_task = level(_by_task(available), size, _by_task(already))
    taken: dict[Cell, int] = {}
    for task, count in per_task.items():
        inside = {cell: n for cell, n in available.items() if cell[0] == task}
        taken.update(level(inside, count, already))
    return taken


def level(available: Mapping[Key, int], size: int, already: Mapping[Key, int]) -> dict[Key, int]:
    """Give `size` units one by one to the key that has the least so far and something left; ties go by name."""
    taken = dict.fromkeys(available, 0)
    heap = [(already.get(key, 0), key) for key, n in available.items() if n > 0]
    heapq.heapify(heap)
    for _ in range(min(size, sum(available.values()))):
        total, key = heapq.heappop(heap)
        taken[key] += 1
        if taken[key] < available[key]:
            heapq.heappush(heap, (total + 1, key))
    return taken


def _by_task(cells: Mapping[Cell, int]) -> dict[str, int]:
    sums: dict[str, int] = {}
    for (task, _), n in cells.items():
        sums[task] = sums.get(task, 0) + n
    return sums
