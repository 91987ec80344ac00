"""Difficulty over many GPU workers, each with a shard of the answer store: `python -m flows.difficulty --shards N`.

The data stage `difficulty` then finds the store complete and does nothing.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.task_runners import ThreadPoolTaskRunner

from flows.runtime import locks
from flows.runtime.flow_parameters import Answers, Engine, Hours, Number, Shards, form, opened, seconds
from flows.runtime.monitoring import rate_limited
from flows.runtime.progress import artifact_progress, leave_artifact
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.sharding import MOST_WORKERS, devices_of, mapped, number_of_shards, on_ray, ray_options
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, outbox, pipeline_run
from geozero.common import process
from geozero.common.child import run_module
from geozero.common.errors import InputError
from geozero.workspace import Workspace

THROUGHPUT = re.compile(r"throughput\t([\d.]+) answers a second\t([\d.]+) tokens a second")
SAMPLED = re.compile(r"sampled ([\d,]+) of ([\d,]+) answers")
STORE, MODELS = "data/difficulty", "models/filter"


@task(name="sample", task_run_name="sample-{shard}-of-{of}", **TASK_OPTIONS)
def sample_shard(
    shard: int, gpu: int | str | None, workspace: Workspace, of: int, parent: str, limit: float | None = None
) -> dict[str, float]:
    """One worker's shard, in a process of its own; a retry resumes where the store ends.

    Args:
        gpu: its number among the visible ones, or its value in CUDA_VISIBLE_DEVICES; workers of one GPU take turns.
        limit: seconds.

    Returns:
        Answers and tokens per second; empty where the shard was complete.

    Raises:
        InputError: the worker's own, or there is no such GPU here.
    """
    if isinstance(gpu, int):
        if not process.has_gpu():
            raise InputError(f"no GPU {gpu}: this machine has none", "gpus", "leave it empty to answer on the CPU")
        gpu = process.gpu_name(gpu, "gpus")
    log, found, settings = rate_limited(get_run_logger().info), dict[str, float](), workspace.settings.sampling
    words = ["sample", "--params", str(workspace.file), "--corpus", str(workspace.raw), "--engine", settings.engine]
    words += ["--k", str(settings.k), "--model", str(workspace.root / MODELS), "--out", str(workspace.root / STORE)]
    words += ["--shard", f"{shard}/{of}"]
    with artifact_progress(f"sample-{shard}-of-{of}", 1, unit="answer") as progress:

        def on_line(line: str) -> None:
            rates, state = THROUGHPUT.fullmatch(line), SAMPLED.match(line)
            if rates:
                found.update(answers_per_second=float(rates[1]), tokens_per_second=float(rates[2]))
            if state:
                done, progress.total = (int(number.replace(",", "")) for number in state.groups())
                if done:
                    progress.at(done)
            log(f"{shard}/{of} {line}")

        with locks.shard_lock(workspace, f"sample-{shard}-of-{of}"), locks.turn_of(gpu):
            run_module(
                "geozero.cli",
                *words,
                log=workspace.log(f"sample-{shard}of{of}"),
                cwd=workspace.root,
                env={} if gpu is None else {process.VISIBLE_GPUS: gpu},
                on_line=on_line,
                timeout=limit,
            )
    outbox(workspace).log_metrics(parent, {f"sample.{shard}.{name}": value for name, value in found.items()}, 0)
    return found


@form
@flow(name="geozero-difficulty", task_runner=ThreadPoolTaskRunner(max_workers=MOST_WORKERS))  # type: ignore[arg-type]  # Prefect's type is invariant
def difficulty(
    shards: Shards = 1,
    only: list[Number] | None = None,
    gpus: list[Number] | None = None,
    engine: Engine | None = None,
    k: Answers | None = None,
    params: Path = Path("params.yaml"),
    hours: Hours | None = None,
) -> dict[str, float]:
    """Fill the answer store. Returns answers and tokens per second, over all shards.

    The shards are mapped over the flow's task runner: threads that wait for children here; with `--ray` the machines
    of a Ray cluster, which need the checkout at the same path.

    Args:
        shards: Workers in all, on every machine together, 1 to 4,096. A run with another number continues the rest.
        only: The shards that this machine takes, from 0 to 4,095; if empty, all.
        gpus: The GPUs that its workers take in turn, from 0 to 4,095; if empty, all that are visible. Workers of one
            GPU run one after the other.
        engine: What answers; if empty, what the parameter file says.
        k: Answers per sample, 1 to 1,024; if empty, as many as the parameter file says. A store can grow to more.
        params: The parameter file, seen from the checkout; profiles/ holds more.
        hours: Time limit of each worker, above 0, at most 2,160. It fails when it is over; its answers stay, and the
            next run continues.
    """
    workspace = opened(params, "sampling", engine=engine, k=k)
    mine = check_shards(workspace, shards, only, gpus)
    devices = devices_of(workspace, len(mine), gpus)
    with pipeline_run(workspace, "difficulty", checkout="shared") as parent, locks.gpu(gpus):
        log_data(workspace, parent, workspace.raw)
        same = {"workspace": workspace, "of": shards, "parent": parent, "limit": seconds(hours)}
        rates = mapped(sample_shard, mine, devices, **same)
        names = ("answers_per_second", "tokens_per_second")
        total = {name: sum(rate.get(name, 0.0) for rate in rates) for name in names}
        outbox(workspace).log_metrics(parent, {f"sample.{name}": value for name, value in total.items()}, 0)
        table: list[dict[str, float]] = [{"shard": shard, **rate} for shard, rate in zip(mine, rates, strict=True)]
        about = "Of each shard that was not complete before"
        leave_artifact(create_table_artifact, table=table, key="throughput", description=about)
        get_run_logger().info(f"over all shards {total['answers_per_second']:.1f} answers a second")
        return total


def check_shards(
    workspace: Workspace, shards: int, only: Sequence[int] | None = None, gpus: Sequence[int] | None = None
) -> list[int]:
    """The shards of this machine.

    Raises:
        InputError: a shard does not exist or is named twice; or the corpus or the filtering model does not exist.
    """
    mine = list(only or range(shards))
    if shards < 1 or any(not 0 <= shard < shards for shard in mine):
        raise InputError(f"no such shards: {mine} of {shards}", "only", "name shards from 0 to N - 1")
    twice = [shard for shard, n in Counter(mine).items() if n > 1]
    if twice:
        raise InputError(f"shards named more than once: {twice}", "only", "each has one worker")
    if any(gpu < 0 for gpu in gpus or ()):
        raise InputError(f"no such GPUs: {list(gpus or ())}", "gpus", "name them as nvidia-smi does, from 0")
    for made, stage in ((workspace.raw, "raw"), (workspace.root / MODELS, "filter")):
        if not made.is_dir():
            raise InputError("does not exist yet", str(made), f"run the data stage `{stage}` first: dvc repro {stage}")
    return mine


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", type=number_of_shards, default=1, help="workers in all; auto: one per visible GPU")
    parser.add_argument("--only", type=int, nargs="*", help="the shards of this machine; default all")
    parser.add_argument("--gpus", type=int, nargs="*", help="GPUs to take in turn")
    ray_options(parser)


if __name__ == "__main__":
    start(difficulty, check=check_shards, options=_options, choose=on_ray(difficulty))
