"""The data stages: DVC decides what has to run, Prefect shows it: `python -m flows.data`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from prefect import flow, get_run_logger, task

from flows.runtime.flow_parameters import Stage, form
from flows.runtime.monitoring import rate_limited
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, pipeline_run
from geozero.common import process
from geozero.common.errors import InputError
from geozero.workspace import Workspace

PARAMS, STAGES = "params.yaml", "dvc.yaml"  # the names that DVC reads, side by side
ERROR_PREFIX, DVC_BUSY = "geozero: ", "is busy, it is being blocked by"  # error lines of a stage, and of DVC
LAST: Stage = "select"  # and the stages before it; a profile without a toy world must not render one
CARD = "card"  # no stage depends on it; it describes the data that LAST completes


def check_stages(workspace: Workspace) -> None:
    """Raises InputError unless this is a checkout whose data stages read this parameter file."""
    if workspace.file.name != PARAMS or not (workspace.root / STAGES).is_file():
        hint = f"copy it over the {PARAMS} of a checkout"
        raise InputError(f"not a {PARAMS} beside a {STAGES}", str(workspace.file), hint)


@task(name="data", **TASK_OPTIONS)
def build_data(workspace: Workspace, last: Stage = LAST) -> bool:
    """`dvc repro`: sources, GeoZero-Raw, filtering model, difficulty, GeoZero-Instruct and GeoZero-Hard, the data card.

    Returns:
        Whether any stage had to run.
    """
    log, ran = rate_limited(get_run_logger().info), False

    def on_line(line: str) -> None:
        nonlocal ran
        ran = ran or line.startswith("Running stage")
        log(line)

    try:
        process.run(
            [sys.executable, "-m", "dvc", "repro", last, *([CARD] if last == LAST else [])],
            log=workspace.log("dvc"),
            cwd=workspace.root,
            env={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},  # the stages call `geozero`
            on_line=on_line,
        )
    except process.ChildFailed as failed:
        if (explained := explain(failed.tail, workspace)) is None:
            raise
        raise explained from None
    return ran


def explain(tail: Sequence[str], workspace: Workspace) -> InputError | None:
    """Bad input that DVC's last lines report: that of a stage, or another DVC running in the same checkout."""
    for line in tail:
        if line.startswith(ERROR_PREFIX):
            return InputError(line.removeprefix(ERROR_PREFIX))
        if DVC_BUSY in line:
            holder = next((other.strip() for other in tail if "(PID " in other), "another process")
            hint = f"wait for it; if that process is gone, remove {workspace.root / '.dvc/tmp/rwlock'}"
            return InputError(f"DVC is running in this checkout: {holder}", str(workspace.root), hint)
    return None


@form
@flow(name="geozero-data")
def data(params: Path = Path("params.yaml"), last: Stage = LAST) -> bool:
    """The data stages alone: from the sources to GeoZero-Instruct and GeoZero-Hard. Returns whether anything ran.

    Args:
        params: The params.yaml of the checkout, beside dvc.yaml.
        last: The stage to reach; those it needs come first, and what is up to date is left as it is.
    """
    workspace = Workspace.open(params)
    check_stages(workspace)
    with pipeline_run(workspace, "data") as parent:
        ran = build_data(workspace, last)
        if last == LAST:
            log_data(workspace, parent, *workspace.output_corpora)
    return ran


if __name__ == "__main__":
    start(data, check=check_stages)
