"""A²GRPO on GeoZero-Hard as a flow, after a preflight check of the SFT model: `python -m flows.a2grpo`."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger, task

from flows.runtime.flow_parameters import GroupSize, Hours, LearningRate, Seed, Steps, Weight, form, opened, seconds
from flows.runtime.locks import gpu, with_worker_grace_period
from flows.runtime.monitoring import rate_limited, training_log
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, pipeline_run, trained
from geozero.common.atomic import write_json
from geozero.inference.corpus_job import CorpusJob, records_path, run_in_child
from geozero.training.grpo import preflight
from geozero.training.stage import StageResult, run_a2grpo
from geozero.workspace import Workspace


@task(name="gate", **TASK_OPTIONS)
def run_preflight(workspace: Workspace, model: Path) -> preflight.PreflightResult:
    """Measure on `val` whether RL can start from this model; stop the pipeline if it cannot."""
    settings = workspace.settings.a2grpo
    out = model.parent / "gate"
    corpora = [str(path) for path in workspace.val_corpora]
    job = CorpusJob(
        model=str(model),
        corpora=tuple(corpora),
        out=str(out),
        modes=("tagged",),
        split="val",
        max_tokens=settings.max_completion_tokens,
        samples=settings.group_size,
        temperature=settings.temperature,
        seed=workspace.settings.seed,
        limit=preflight.QUESTIONS_PER_SOURCE,
        boxes=workspace.settings.model.boxes,
        engine=workspace.engine,
    )
    with gpu():
        run_in_child(job, workspace.log("gate"), rate_limited(get_run_logger().info))
    records = [
        record
        for corpus in corpora
        for record in json.loads(records_path(out, "tagged", Path(corpus).name).read_text())
    ]
    result = preflight.measure(records)
    write_json(out / "gate.json", asdict(result))
    preflight.require(result, settings.min_well_formed, settings.min_mixed_groups)
    return result


@task(name="a2grpo", **TASK_OPTIONS)
def train_a2grpo(workspace: Workspace, model: Path, parent: str) -> StageResult:
    """Reinforce on GeoZero-Hard in tagged mode; a finished run with the same fingerprint is reused."""
    corpus, log = workspace.hard, training_log(get_run_logger().info)
    settings, val = with_worker_grace_period(workspace).settings, workspace.val_corpora
    run = partial(run_a2grpo, settings, corpus, model, workspace.runs, val=val)
    return trained(workspace, parent, "a2grpo", corpus, log, run)


@form
@flow(name="geozero-a2grpo")
def a2grpo(
    model: Path | None = None,
    params: Path = Path("params.yaml"),
    steps: Steps | None = None,
    learning_rate: LearningRate | None = None,
    group_size: GroupSize | None = None,
    beta: Weight | None = None,
    seed: Seed | None = None,
    hours: Hours | None = None,
) -> Path:
    """A²GRPO alone, from a checkpoint of SFT. Returns the model's directory.

    Args:
        model: Directory of the SFT checkpoint; if empty, the one that was finished last in runs/.
        params: The parameter file, seen from the checkout; profiles/ holds more. Empty fields below keep its values.
        steps: Optimizer steps, 1 to 1,000,000.
        learning_rate: Highest learning rate of the schedule, above 0, at most 0.1.
        group_size: Completions per question, G, 2 to 64.
        beta: Weight of the answer-anchored KL, 0 to 10.
        seed: Of the order of questions and of every other random choice; 0 to 2,147,483,647.
        hours: Time limit, above 0, at most 2,160. The run fails when it is over; its checkpoint stays, and the next
            run resumes from it.
    """
    workspace = opened(
        params, "a2grpo", seed, steps=steps, learning_rate=learning_rate, group_size=group_size, beta=beta
    )
    with pipeline_run(workspace, "a2grpo") as parent:
        log_data(workspace, parent)
        # a field of the form that was emptied is Path("")
        sft_model = model if model and model.parts else workspace.newest("sft")
        run_preflight(workspace, sft_model)
        return train_a2grpo.with_options(timeout_seconds=seconds(hours))(workspace, sft_model, parent).model


if __name__ == "__main__":
    start(a2grpo, model=True)
