"""Evaluation as a flow: every model and prompt mode on both test splits: `python -m flows.evaluate`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.task_runners import ThreadPoolTaskRunner

from flows.runtime.flow_parameters import Limit, Modes, Name, Seed, Shards, form, opened
from flows.runtime.locks import gpu, turn_of
from flows.runtime.monitoring import rate_limited
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.score_logging import log_scores, tested_sources
from flows.runtime.sharding import MOST_WORKERS, devices_of, mapped, number_of_shards, on_ray, ray_options
from flows.runtime.shell import start
from flows.runtime.tracking import leave_links, log_data, log_model, pipeline_run
from geozero.common import process
from geozero.common.child import run_job
from geozero.evaluation.result_sets import ModelAnswers, eval_slices
from geozero.evaluation.score_rows import rows_of
from geozero.inference.corpus_job import JOB_MODULE, CorpusJob, run_in_child
from geozero.tasks.text import Mode
from geozero.workspace import Workspace


def _job(workspace: Workspace, model: Path, modes: tuple[Mode, ...], out: Path) -> CorpusJob:
    settings = workspace.settings
    return CorpusJob(
        model=str(model),
        corpora=tuple(map(str, workspace.corpora_with("test"))),
        out=str(out),
        modes=modes,
        max_tokens=settings.evaluation.max_tokens,
        seed=settings.seed,
        limit=settings.evaluation.limit,
        boxes=settings.model.boxes,
        engine=workspace.engine,
        prefilled=settings.evaluation.forced,
        swapped=settings.evaluation.swapped,
    )


@task(name="answer-shard", task_run_name="answer-{name}-{shard}-of-{of}", **TASK_OPTIONS)
def answer_shard(
    shard: int,
    device: int | str | None,
    workspace: Workspace,
    of: int,
    name: str,
    model: Path,
    modes: tuple[Mode, ...],
    out: Path,
) -> None:
    """One worker's part of the greedy answers, in a process of its own; `answer` takes the parts over.

    Args:
        device: its GPU, as `devices_of` gives it.
        model: seen from the checkout.
    """
    part, log = f"{shard}of{of}", rate_limited(get_run_logger().info)
    job = replace(_job(workspace, model, modes, out), shard=f"{shard}/{of}")
    env = {} if device is None else {process.VISIBLE_GPUS: str(device)}
    with turn_of(None if device is None else str(device)):
        file, place = out / f"job-{part}.json", workspace.root
        run_job(JOB_MODULE, job, file, workspace.log(f"answer-{name}-{part}"), log, env=env, cwd=place)


@task(name="answer", task_run_name="answer-{name}", **TASK_OPTIONS)
def answer(workspace: Workspace, name: str, model: Path, modes: tuple[Mode, ...], out: Path) -> ModelAnswers:
    """Greedy answers of one model to every test sample; existing answers are kept."""
    job = _job(workspace, model, modes, out)
    with gpu():
        run_in_child(job, workspace.log(f"answer-{name}"), rate_limited(get_run_logger().info))
    return ModelAnswers(name, out, job.prompt_modes)


@form
@flow(name="geozero-evaluate", task_runner=ThreadPoolTaskRunner(max_workers=MOST_WORKERS))  # type: ignore[arg-type]  # Prefect's type is invariant
def evaluate(
    model: Path,
    name: Name = "model",
    modes: Modes = "both",
    limit: Limit | None = None,
    seed: Seed | None = None,
    shards: Shards = 1,
    params: Path = Path("params.yaml"),
) -> Path:
    """The answers of one checkpoint to every test question, and their strict scores. Returns the answers' directory.

    It may run while a training runs in the same checkout.

    Args:
        model: Directory of the checkpoint.
        name: Under which the answers are kept, runs/answers-NAME: letters, digits, _ - and dots, at most 60.
        modes: Answer directly, with a thought before the answer, or both.
        limit: Questions per benchmark, 1 or more, chosen by stable hash; if empty, as many as the parameter file says.
        seed: Of the engine; 0 to 2,147,483,647.
        shards: Workers that answer a part each, 1 to 4,096, on this machine's GPUs in turn, or with --ray on a cluster.
            With 1, each GPU of this machine answers a part.
        params: The parameter file, seen from the checkout; profiles/ holds more.
    """
    workspace = opened(params, "evaluation", seed, limit=limit)
    prompt_modes: tuple[Mode, ...] = ("direct", "tagged") if modes == "both" else (modes,)
    with pipeline_run(workspace, f"evaluate-{name}", checkout="free") as parent:
        log_data(workspace, parent, *workspace.corpora_with("test"))
        log_model(workspace, parent, model)
        out = workspace.runs / f"answers-{name}"
        if shards > 1:
            same = {
                "workspace": workspace,
                "of": shards,
                "name": name,
                "model": model,
                "modes": prompt_modes,
                "out": out,
            }
            with gpu():
                mapped(answer_shard, range(shards), devices_of(workspace, shards), **same)
        answered = answer(workspace, name, model, prompt_modes, out)
        slices = eval_slices([answered], tested_sources(workspace), workspace.settings.model.boxes)
        log_scores(workspace, parent, list(rows_of(slices)))
        leave_links(workspace, parent)
        return answered.out


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", type=number_of_shards, default=1, help="workers; auto: one per visible GPU")
    ray_options(parser)


if __name__ == "__main__":
    start(evaluate, model=True, options=_options, choose=on_ray(evaluate))
