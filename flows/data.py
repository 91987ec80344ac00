"""The data stages as one task: DVC decides what has to run, Prefect only watches."""

from __future__ import annotations

import sys

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.workspace import Workspace, bounded
from geozero import process


@task(name="data", cache_policy=NO_CACHE)
def build_data(space: Workspace) -> None:
    """`dvc repro`: sources, GeoZero-Raw, filtering model, difficulty, GeoZero-Instruct and GeoZero-Hard."""
    process.run(
        [sys.executable, "-m", "dvc", "repro"],
        log=space.log("dvc"),
        cwd=space.root,
        on_line=bounded(get_run_logger().info),
    )
