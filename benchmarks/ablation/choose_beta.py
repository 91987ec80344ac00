"""β for each arm by itself, on val: one grid for all, seeds that the comparison does not use, no test question."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation.arms import ARMS, with_beta
from geozero.common.atomic import write_json
from geozero.params import Params

GRID = (0.0, 0.05, 0.2, 0.5)
FIRST_SEED = 1_001  # of choosing; the comparison's seeds count from 1
CHOSEN = "beta.json"


def has_beta(name: str) -> bool:
    """Whether β is an arm's to choose: it is RL, and β is not what it changes."""
    return ARMS[name].stage == "a2grpo" and "beta" not in ARMS[name].changes


def grid_runs(params: Params, names: Iterable[str], grid: Sequence[float], seeds: int) -> list[tuple[str, int]]:
    """(arm, seed) of all trainings that choosing takes, seed by seed."""
    arms = [with_beta(params, name, beta) for name in names if has_beta(name) for beta in grid]
    return [(arm, FIRST_SEED + i) for i in range(seeds) for arm in dict.fromkeys(arms)]


def choose(params: Params, results: Sequence[Mapping[str, Any]], grid: Sequence[float]) -> dict[str, Any]:
    """Arm → its β with the highest mean over tasks on val, over seeds; a tie goes to the smaller β.

    An arm is left out while a β of the grid has no result.
    """
    scores: dict[str, list[float]] = defaultdict(list)
    for result in results:
        by_task = next(iter(result["modes"].values()))["outcomes"]["val"]
        scores[result["arm"]].append(float(np.mean([np.mean(list(own.values())) for own in by_task.values()])))
    found: dict[str, Any] = {}
    for name in ARMS:
        names = {beta: with_beta(params, name, beta) for beta in grid}
        if has_beta(name) and scores.keys() >= set(names.values()):
            by_beta = {beta: float(np.mean(scores[arm])) for beta, arm in names.items()}
            best = max(sorted(by_beta), key=lambda beta: by_beta[beta])
            found[name] = {"beta": best, "val": {f"{beta:g}": mean for beta, mean in by_beta.items()}}
    return found


def write(params: Params, out: Path, grid: Sequence[float]) -> dict[str, Any]:
    """Choose from all results that are there, and keep the choice in `out`/beta.json."""
    results = [json.loads(path.read_text()) for path in sorted((out / "choice" / "results").glob("*.json"))]
    found = choose(params, results, grid)
    write_json(out / CHOSEN, found)
    return found


def read(out: Path) -> dict[str, Any]:
    """The choice; empty where nothing was chosen."""
    path = out / CHOSEN
    return dict(json.loads(path.read_text())) if path.is_file() else {}
