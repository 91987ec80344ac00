"""The data stages: DVC decides what has to run, Prefect shows it: `python -m flows.data`."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task

from flows.runtime.flow_parameters import Stage, form
from flows.runtime.locks import gpu
from flows.runtime.monitoring import rate_limited
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, pipeline_run
from geozero.common import process
from geozero.common.errors import InputError
from geozero.workspace import Workspace

PARAMS, STAGES = "params.yaml", "dvc.yaml"  # the names that DVC reads, side by side
ERROR_PREFIX, DVC_BUSY = "geozero: ", "is busy, it is being blocked by"  # error lines of a stage, and of DVC
# … and what DVC says of a checkout that it cannot work in, with how to fix it
UNFIT = {
    "not a git repository": "git init, or dvc config --local core.no_scm true",
    "not inside of a DVC repository": "copy the whole checkout, the directory .dvc included",
    "Read-only file system": "work in a writable copy of the checkout",
    "Permission denied": "give this user the checkout, or work in a copy of it",
}
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
    do_without_git(workspace)
    log, ran = rate_limited(get_run_logger().info), False

    def on_line(line: str) -> None:
        nonlocal ran
        ran = ran or line.startswith("Running stage")
        log(line)

    with gpu():  # the stages filter and difficulty use it; which of them have to run, only DVC knows
        dvc(workspace, "repro", last, *([CARD] if last == LAST else []), on_line=on_line)
    return ran


def dvc(workspace: Workspace, *words: str, on_line: Callable[[str], None] | None = None) -> None:
    """Run a DVC command in the checkout; its stages find this environment's `python3`.

    Raises:
        InputError: bad input that its last lines explain.
        ChildFailed: it failed otherwise.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    options: dict[str, Any] = {"log": workspace.log("dvc"), "cwd": workspace.root, "env": {"PATH": path}}
    try:
        process.run([sys.executable, "-m", "dvc", *words], on_line=on_line, **options)
    except process.ChildFailed as failed:
        if (explained := explain(failed.tail, workspace)) is None:
            raise
        raise explained from None


def do_without_git(workspace: Workspace) -> None:
    """Let DVC work in a checkout outside any git repository, such as a downloaded archive. Experiments need git."""
    root = workspace.root
    settings = [file.read_text() for name in ("config", "config.local") if (file := root / ".dvc" / name).is_file()]
    if any((place / ".git").exists() for place in (root, *root.parents)) or "no_scm" in "".join(settings):
        return
    dvc(workspace, "config", "--local", "core.no_scm", "true")


def explain(tail: Sequence[str], workspace: Workspace) -> InputError | None:
    """Bad input that DVC's last lines report: that of a stage, another DVC at work, an unfit checkout."""
    for line in tail:
        if line.startswith(ERROR_PREFIX):
            return InputError(line.removeprefix(ERROR_PREFIX))
        if DVC_BUSY in line:
            holder = next((other.strip() for other in tail if "(PID " in other), "another process")
            hint = f"wait for it; if that process is gone, remove {workspace.root / '.dvc/tmp/rwlock'}"
            return InputError(f"DVC is running in this checkout: {holder}", str(workspace.root), hint)
        unfit = next((words for words in UNFIT if words in line), None) if line.startswith("ERROR: ") else None
        if unfit is not None:
            return InputError(line.removeprefix("ERROR: "), str(workspace.root), UNFIT[unfit])
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
