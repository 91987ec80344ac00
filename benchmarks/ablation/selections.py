"""Does the selection help? Random and middle samples for A²GRPO, as many as GeoZero-Hard has of each task.

Published results disagree on which samples to train on, so the arms `random` and `middle` stand beside `a2grpo`:
`python -m benchmarks.ablation --selection`. Equal numbers per task, because GeoZero-Hard is balanced by task and the
raw corpus is not: what is compared is difficulty alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from geozero.common.errors import InputError
from geozero.corpus.sample import digest, stable_unit
from geozero.corpus.store import MANIFEST, Corpus, subset
from geozero.training.grpo.curriculum import rates_file
from geozero.workspace import Workspace

Selection = Literal["random", "middle"]
MIDDLE = 0.25, 0.75  # pass rates of the middle band


def corpus_of(workspace: Workspace, selection: Selection, out: Path) -> Path:
    """The corpus of a selection, made once under `out`/data.

    Raises:
        InputError: there are no pass rates, or too few samples.
    """
    table = pq.read_table(rates_file(workspace.hard), columns=["id", "task", "p"]).to_pylist()
    wanted = Counter(s.task for s in Corpus(workspace.hard).samples())
    ids = choose(table, wanted, selection)
    if len(ids) < wanted.total():
        what = f"{len(ids)} samples are fewer than the {wanted.total()} of GeoZero-Hard"
        raise InputError(what, str(workspace.raw), f"the selection '{selection}' cannot be compared on this corpus")
    path, made_by = out / "data" / selection, {"selection": selection, "ids": digest("\n".join(sorted(ids)).encode())}
    if not (path / MANIFEST).is_file() or Corpus(path).manifest["made_by"] != made_by:
        raw = Corpus(workspace.raw)
        subset(raw, [s for s in raw.samples("train") if s.id in ids], path, made_by)
    return path


def choose(rows: list[dict[str, Any]], wanted: Mapping[str, int], selection: Selection) -> set[str]:
    """Ids of so many samples of each task, by stable hash; `middle`: those nearest to the middle band first.

    Args:
        rows: `id`, `task` and pass rate `p` of every candidate.
        wanted: task → number. A task with too few samples is filled up by the others.
    """

    def place(row: dict[str, Any]) -> tuple[float, float]:
        rate = 0.0 if row["p"] is None else float(row["p"])
        outside = max(MIDDLE[0] - rate, rate - MIDDLE[1], 0.0) if selection == "middle" else 0.0
        return outside, stable_unit(row["id"], salt=f"ablation-{selection}")

    ordered, chosen = sorted(rows, key=place), set[str]()
    left = Counter(wanted)
    for row in ordered:
        if left[row["task"]] > 0:
            left[row["task"]] -= 1
            chosen.add(row["id"])
    for row in ordered:
        if len(chosen) >= sum(wanted.values()):
            break
        chosen.add(row["id"])
    return chosen
