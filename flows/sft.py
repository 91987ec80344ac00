"""SFT on GeoZero-Instruct as a flow: `python -m flows.sft`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from prefect import flow, get_run_logger, task

from flows.runtime.flow_parameters import Hours, LearningRate, Seed, Steps, form, opened, seconds
from flows.runtime.locks import with_worker_grace_period
from flows.runtime.monitoring import training_log
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, pipeline_run, trained
from geozero.training.replay import collect
from geozero.training.stage import StageResult, run_sft
from geozero.workspace import Workspace


@task(name="sft", **TASK_OPTIONS)
def train_sft(workspace: Workspace, parent: str) -> StageResult:
    """Train on GeoZero-Instruct in direct mode; a finished run with the same fingerprint is reused."""
    corpus, log = workspace.instruct, training_log(get_run_logger().info)
    replay = (
        collect(workspace.settings, workspace.base, corpus, workspace.runs, log)
        if workspace.settings.sft.replay_share
        else []
    )
    run = partial(
        run_sft, with_worker_grace_period(workspace).settings, corpus, workspace.base, workspace.runs, replay=replay
    )
    return trained(workspace, parent, "sft", corpus, log, run)


@form
@flow(name="geozero-sft")
def sft(
    params: Path = Path("params.yaml"),
    steps: Steps | None = None,
    learning_rate: LearningRate | None = None,
    seed: Seed | None = None,
    hours: Hours | None = None,
) -> Path:
    """SFT alone, on the GeoZero-Instruct that `dvc repro` has made. Returns the model's directory.

    Args:
        params: The parameter file, seen from the checkout; profiles/ holds more. Empty fields below keep its values.
        steps: Optimizer steps, 1 to 1,000,000.
        learning_rate: Highest learning rate of the schedule, above 0, at most 0.1.
        seed: Of the order of samples and of every other random choice; 0 to 2,147,483,647.
        hours: Time limit, above 0, at most 2,160. The run fails when it is over; its checkpoint stays, and the next
            run resumes from it.
    """
    workspace = opened(params, "sft", seed, steps=steps, learning_rate=learning_rate)
    with pipeline_run(workspace, "sft") as parent:
        log_data(workspace, parent)
        return train_sft.with_options(timeout_seconds=seconds(hours))(workspace, parent).model


if __name__ == "__main__":
    start(sft)
