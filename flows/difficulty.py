"""Difficulty over many GPU workers: shards of the answer store, one a worker: `python -m flows.difficulty --shards N`.

The data stage `difficulty` finds the store that this leaves complete and does nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, get_run_logger, task, unmapped
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.command import BAD_INPUT
from flows.survive import RETRIES
from flows.tracked import outbox, pipeline_run
from flows.watching import bounded
from geozero import process
from geozero.errors import InputError
from geozero.workspace import Workspace

THROUGHPUT = re.compile(r"throughput\t([\d.]+) answers a second\t([\d.]+) tokens a second")
MOST_WORKERS = 64  # of one machine, at once; they only wait for their children
STORE, MODELS = "data/difficulty", "models/filter"


@task(name="sample", task_run_name="sample-{shard}-of-{of}", cache_policy=NO_CACHE, **RETRIES)
def sample_shard(space: Workspace, shard: int, of: int, gpu: int | None, parent: str) -> dict[str, float]:
    """One worker's share, in a process of its own; a retry goes on where the store ends.

    Returns:
        Answers and tokens a second; nothing where the share was complete.
    """
    tell, found = bounded(get_run_logger().info), dict[str, float]()

    def on_line(line: str) -> None:
        matched = THROUGHPUT.fullmatch(line)
        if matched:
            found.update(answers_per_second=float(matched[1]), tokens_per_second=float(matched[2]))
        tell(f"{shard}/{of} {line}")

    command = [sys.executable, "-m", "geozero.cli", "sample", "--params", str(space.file), "--corpus", str(space.raw)]
    command += ["--model", str(space.root / MODELS), "--out", str(space.root / STORE), "--shard", f"{shard}/{of}"]
    try:
        process.run(
            command,
            log=space.log(f"sample-{shard}of{of}"),
            cwd=space.root,
            env={} if gpu is None else {"CUDA_VISIBLE_DEVICES": str(gpu)},
            on_line=on_line,
        )
    except process.ChildFailed as failed:
        if failed.code == BAD_INPUT and failed.tail:
            raise InputError(failed.tail[-1].removeprefix("geozero: ")) from None
        raise
    outbox(space).log_metrics(parent, {f"sample.{shard}.{name}": value for name, value in found.items()}, 0)
    return found


@flow(name="geozero-difficulty", task_runner=ThreadPoolTaskRunner(max_workers=MOST_WORKERS))
def difficulty(
    params: Path = Path("params.yaml"), shards: int = 1, only: Sequence[int] = (), gpus: Sequence[int] = ()
) -> dict[str, float]:
    """Fill the answer store. Returns answers and tokens a second, over all shards.

    Args:
        shards: workers in all, on every machine together.
        only: the shards that this machine takes; none named: all.
        gpus: the GPUs that its workers take in turn; none named: what each finds.

    The shards are mapped over the flow's task runner: threads that wait for children here; with
    `difficulty.with_options(task_runner=RayTaskRunner(…))` (package prefect-ray) the machines of a Ray
    cluster, which then need the checkout and the store at the same paths.
    """
    space, mine = Workspace.open(params), _mine(shards, only)
    devices = [gpus[i % len(gpus)] if gpus else None for i in range(len(mine))]
    with pipeline_run(space, "difficulty") as parent:
        shares = sample_shard.map(unmapped(space), mine, unmapped(shards), devices, unmapped(parent))
        shares.wait()  # one that fails leaves the others to end, and what they stored stays
        rates = shares.result()
        total = {
            name: sum(rate.get(name, 0.0) for rate in rates) for name in ("answers_per_second", "tokens_per_second")
        }
        outbox(space).log_metrics(parent, {f"sample.{name}": value for name, value in total.items()}, 0)
        return total


def _mine(shards: int, only: Sequence[int]) -> list[int]:
    mine = list(only) or list(range(shards))
    if shards < 1 or any(not 0 <= shard < shards for shard in mine):
        raise InputError(f"no such shards: {mine} of {shards}", "--only", "name shards from 0 to N - 1")
    return mine


def main() -> None:
    """Read the words of the command line; what is wrong with them is said before a server is started."""
    parser = argparse.ArgumentParser(description="Fill the answer store over many workers.")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the parameter file")
    parser.add_argument("--shards", type=int, default=1, help="workers in all")
    parser.add_argument("--only", type=int, nargs="*", default=(), help="the shards of this machine; default all")
    parser.add_argument("--gpus", type=int, nargs="*", default=(), help="GPUs to take in turn")
    given = parser.parse_args()
    try:
        Workspace.open(given.params)
        _mine(given.shards, given.only)
        print(difficulty(**vars(given)))
    except InputError as error:
        print(f"geozero: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


if __name__ == "__main__":
    main()
