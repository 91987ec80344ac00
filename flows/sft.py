"""SFT on GeoZero-Instruct as a flow: `python -m flows.sft`."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.command import start
from flows.tracked import log_training, pipeline_run
from flows.watching import TRAINING, bounded
from geozero.training.replay import collect
from geozero.training.stage import StageResult, run_sft
from geozero.workspace import Workspace


@task(name="sft", cache_policy=NO_CACHE)
def train_sft(space: Workspace, parent: str | None) -> StageResult:
    """Train on GeoZero-Instruct in direct mode; a finished run with the same fingerprint is reused."""
    corpus, tell = space.instruct, bounded(get_run_logger().info, TRAINING)
    replay = collect(space.settings, space.base, corpus, space.runs, tell) if space.settings.sft.replay_share else []
    result = run_sft(space.settings, corpus, space.base, space.runs, replay=replay, on_line=tell)
    if parent is not None:
        log_training(space, parent, "sft", result, corpus)
    return result


@flow(name="geozero-sft")
def sft(params: Path = Path("params.yaml")) -> Path:
    """SFT alone, on the GeoZero-Instruct that `dvc repro` has made."""
    space = Workspace.open(params)
    with pipeline_run(space, "sft") as parent:
        return train_sft(space, parent).model


if __name__ == "__main__":
    start(sft)
