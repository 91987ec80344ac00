"""The ablation: A²GRPO against SFT, stock GRPO and itself without its parts: `python -m benchmarks.ablation`.

Run it where params.yaml, its finished data and its SFT run are. Every arm starts from one model and takes as many
steps over the same samples; what is finished is kept (`runs/ablation/`), so a stopped run goes on, arm by arm, and
`--most N` ends one after N trainings. Scores follow the strict protocol: equality, IoU ≥ 0.5, and the captions'
reward; greedy. Arms of RL think first; those of SFT are asked directly, as they were trained, and thinking. Intervals:
bootstrap over seeds and samples, paired by both, so that arms are compared on the same questions. The results go to
MLflow and onto a page.

Where thinking pays: `--thinking --choose-beta` trains each arm with each β of one grid on seeds of its own and asks
`val` alone; then `--thinking` confirms on fresh seeds, each arm with the profile's β and with its own, and tells the
differences by question type. `--corpus` takes questions of your own, such as the suite; `--dry-run` gives the hours.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, get_args

from benchmarks.ablation import by_type, choose_beta, page, plan, tracking
from benchmarks.ablation.arms import (
    ARMS,
    REPORTED,
    SELECTION_ARMS,
    THINKING_ARMS,
    Start,
    arm_of,
    finished,
    result_path,
    start_of,
    with_beta,
)
from benchmarks.ablation.by_type import questions_of
from benchmarks.ablation.comparable import check_same
from benchmarks.ablation.given import given_corpora
from benchmarks.ablation.statistics import markdown, report
from geozero.common import process, process_tags
from geozero.common.atomic import write_json, write_text
from geozero.common.errors import EXIT_BAD_INPUT, InputError
from geozero.corpus.sample import Split
from geozero.params import Params
from geozero.workspace import Workspace

CHOOSING: tuple[Split, ...] = ("val",)  # what is asked while β is chosen


def run(
    workspace: Workspace, names: Sequence[str], seeds: int, few: int, out: Path, limit: int | None,
    start: Start = "sft", workers: int = 1, most: int | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """All arms with all seeds, seed by seed, so that a stopped run has compared something.

    Args:
        few: seeds of the arms that are not main.
        workers: arms at once, each in a process of its own.
        most: trainings at most; None: all.
    """
    return run_all(workspace, planned(names, seeds, few), out, limit, start_of(workspace, start, out), workers, most)


def planned(names: Sequence[str], seeds: int, few: int) -> list[tuple[str, int]]:
    """(arm, seed) of all trainings, seed by seed."""
    return [(arm, seed) for seed in range(1, seeds + 1) for arm in names if seed <= few or arm_of(arm).main]


def run_all(
    workspace: Workspace, todo: Sequence[tuple[str, int]], out: Path, limit: int | None, model: Path,
    workers: int = 1, most: int | None = None, splits: Sequence[Split] = REPORTED,
) -> list[dict[str, Any]]:  # fmt: skip
    """The results of these (arm, seed), trained where they are missing; at most so many of these."""
    missing = [item for item in todo if not result_path(out, *item).is_file()]
    later = set(missing[most:]) if most is not None else set()
    todo = [item for item in todo if item not in later]
    one = partial(finished, workspace, model, out, limit, splits=splits)
    if workers == 1:
        return [one(item) for item in todo]
    # A worker would finish its arm, an hour on a GPU, after the command was stopped.
    end_with_us = partial(process_tags.end_with_owner, os.getpid(), alone=True)
    with ProcessPoolExecutor(workers, get_context("spawn"), end_with_us) as pool:
        return list(pool.map(one, todo))


def tell(workspace: Workspace, out: Path, start: Start, probed: Path | None = None) -> str:
    """Write tables and page of all that was ever finished there, and send it to MLflow; returns the tables.

    Args:
        probed: what `geozero probe-thinking --predict` wrote about the start.
    """
    results = [json.loads(path.read_text()) for path in sorted((out / "results").glob("*.json"))]
    found = report(results)
    questions = questions_of([*workspace.val_corpora, *workspace.corpora_with("test")])
    tables = by_type.all_tables(results, questions, choose_beta.read(out), workspace.settings)
    if probed is not None:
        by_type.foresee(tables, json.loads(probed.read_text()))
    found["by_type"] = {title: rows for title, rows in tables.items() if rows}
    lines = [line for title, rows in tables.items() for line in by_type.markdown(title, rows)]
    text = "\n".join([markdown(found, start), *(["## By question type", "", *lines] if lines else [])])
    files = [out / "ablation.json", out / "ablation.md", out / "ablation.html"]
    write_json(files[0], found)
    write_text(files[1], text)
    page.write(found, results, out / "runs", start, files[2])
    try:
        tracking.log(workspace, results, out / "runs", start)
        tracking.log_page(workspace, files, start)
    except InputError as error:  # the results are on disk; the same command sends them later
        print(f"not sent to MLflow: {error}", file=sys.stderr)
    return text


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
    arms.add_argument(
        "--thinking", action="store_const", const=list(THINKING_ARMS), dest="arms",
        help="what of A²GRPO makes a model think, and what else would",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=10, help="of the three main arms")
    parser.add_argument("--few", type=int, default=3, help="seeds of the other arms")
    parser.add_argument(
        "--start", choices=get_args(Start), default="sft", help="terse, mixed: SFT made all or most thoughts short"
    )
    parser.add_argument("--model", type=Path, help="the model that arms start from, in place of the newest SFT run's")
    parser.add_argument("--corpus", type=Path, nargs="+", help="corpora to learn from, choose on and report")
    parser.add_argument("--hard", type=Path, help="with --corpus: the corpus that RL learns from")
    parser.add_argument("--choose-beta", action="store_true", help="choose each arm's β on val, then stop")
    parser.add_argument("--betas", type=float, nargs="+", default=list(choose_beta.GRID), help="the grid")
    parser.add_argument("--choose-seeds", type=int, default=2, help="seeds of each arm and β when choosing")
    parser.add_argument("--probe", type=Path, help="thinking.json of the start: foreseen beside found")
    parser.add_argument("--limit", type=int, help="questions a test split; all if left out")
    parser.add_argument("--most", type=int, help="trainings of this run; the next one goes on")
    parser.add_argument("--workers", type=int, help="arms at once; left out: a core each, or one on a GPU")
    parser.add_argument("--dry-run", action="store_true", help="print trainings and hours, start nothing")
    parser.add_argument("--out", type=Path, help="runs/ablation (-terse, -mixed) beside params.yaml if left out")
    options = parser.parse_args()
    workspace = Workspace.open(options.params)
    out = options.out or workspace.runs / ("ablation" if options.start == "sft" else f"ablation-{options.start}")
    if options.corpus:
        workspace = given_corpora(workspace, options.corpus, out, options.hard)
        if options.hard is None:  # nothing is selected, so these arms would repeat others
            options.arms = [
                name for name in options.arms if name != "sft_hard" and ARMS[name].data in ("instruct", "hard")
            ]
    if options.choose_beta:
        todo = choose_beta.grid_runs(workspace.settings, options.arms, options.betas, options.choose_seeds)
        place, splits = out / "choice", CHOOSING
    else:
        names = confirmed(workspace.settings, options.arms, choose_beta.read(out))
        todo = planned(names, options.seeds, options.few)
        place, splits = out, REPORTED
    if options.dry_run:
        model = options.model or plan.start_model(workspace)
        print(*plan.lines(workspace, todo, place, model), sep="\n")
        return 0
    workers = options.workers or (1 if process.has_gpu() else process.cores())
    model = options.model or start_of(workspace, options.start, out)
    check_same(workspace, out, model, options.limit)
    run_all(workspace, todo, place, options.limit, model, workers, options.most, splits)
    if options.choose_beta:
        print(json.dumps(choose_beta.write(workspace.settings, out, options.betas), indent=1))
    else:
        print(tell(workspace, out, options.start, options.probe))
    return 0


def confirmed(params: Params, names: Sequence[str], chosen: Mapping[str, Any]) -> list[str]:
    """Arms of the comparison: each with the profile's β and, where one was chosen for it, with its own."""
    own = [with_beta(params, name, chosen[name]["beta"]) for name in names if name in chosen]
    return list(dict.fromkeys([*names, *own]))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except InputError as error:
        print(f"ablation: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
