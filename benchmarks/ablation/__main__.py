"""The ablation: A²GRPO against SFT, stock GRPO and itself without its parts: `python -m benchmarks.ablation`.

Run it where params.yaml, its finished data and its SFT run are. Every arm starts from one model and takes as many
steps over the same samples; what is finished is kept (`runs/ablation/`), so a stopped run goes on, arm by arm. Scores
follow the strict protocol: equality, IoU ≥ 0.5, and the captions' reward; greedy. Arms of RL think first; those of SFT
are asked directly, as they were trained, and thinking. Intervals: bootstrap over seeds and samples, paired by both, so
that arms are compared on the same questions. The results go to MLflow and onto a page.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

from benchmarks.ablation import page, tracking
from benchmarks.ablation.arms import ARMS, SELECTION_ARMS, Start, finished, start_of
from benchmarks.ablation.statistics import markdown, report
from geozero.common import process, process_tags
from geozero.common.atomic import write_json, write_text
from geozero.common.errors import InputError
from geozero.workspace import Workspace


def run(
    workspace: Workspace, names: Sequence[str], seeds: int, few: int, out: Path, limit: int | None,
    start: Start = "sft", workers: int = 1,
) -> list[dict[str, Any]]:  # fmt: skip
    """All arms with all seeds, seed by seed, so that a stopped run has compared something.

    Args:
        few: seeds of the arms that are not main.
        workers: arms at once, each in a process of its own.
    """
    model = start_of(workspace, start, out)
    todo = [(arm, seed) for seed in range(1, seeds + 1) for arm in names if seed <= few or ARMS[arm].main]
    one = partial(finished, workspace, model, out, limit)
    if workers == 1:
        return [one(item) for item in todo]
    # A worker would finish its arm, an hour on a GPU, after the command was stopped.
    end_with_us = partial(process_tags.end_with_owner, os.getpid(), alone=True)
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_us) as pool:
        return list(pool.map(one, todo))


def tell(workspace: Workspace, out: Path, start: Start) -> str:
    """Write tables and page of all that was ever finished there, and send it to MLflow; returns the tables."""
    results = [json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))]
    found = report(results)
    files = [out / "ablation.json", out / "ablation.md", out / "ablation.html"]
    write_json(files[0], found)
    write_text(files[1], markdown(found, start))
    page.write(found, results, out / "runs", start, files[2])
    try:
        tracking.log(workspace, results, out / "runs", start)
        tracking.log_page(workspace, files, start)
    except InputError as error:  # the results are on disk; the same command sends them later
        print(f"not sent to MLflow: {error}", file=sys.stderr)
    return markdown(found, start)


def main() -> int:
    """Run what is missing, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--params", type=Path, default=Path("params.yaml"))
    usual = [name for name, arm in ARMS.items() if arm.data in ("instruct", "hard")]
    arms = parser.add_mutually_exclusive_group()
    arms.add_argument("--arms", nargs="+", choices=list(ARMS), default=usual)
    arms.add_argument(
        "--selection", action="store_const", const=list(SELECTION_ARMS), dest="arms",
        help="does the selection help? GeoZero-Hard against random and middle samples of the same number",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10, help="of the three main arms")
    parser.add_argument("--few", type=int, default=3, help="seeds of the other arms")
    parser.add_argument(
        "--start", choices=get_args(Start), default="sft", help="terse, mixed: SFT made all or most thoughts short"
    )
    parser.add_argument("--limit", type=int, help="questions a test split; all if left out")
    parser.add_argument("--workers", type=int, help="arms at once; left out: a core each, or one on a GPU")
    parser.add_argument("--out", type=Path, help="runs/ablation (-terse, -mixed) beside params.yaml if left out")
    options = parser.parse_args()
    workspace = Workspace.open(options.params)
    out = options.out or workspace.runs / ("ablation" if options.start == "sft" else f"ablation-{options.start}")
    workers = options.workers or (1 if process.has_gpu() else process.cores())
    run(workspace, options.arms, options.seeds, options.few, out, options.limit, options.start, workers)
    print(tell(workspace, out, options.start))
    return 0


if __name__ == "__main__":
    sys.exit(main())
