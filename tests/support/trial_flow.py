"""A deployment whose training is a counter: ready in a second, it checkpoints on SIGTERM and goes on from there."""

from __future__ import annotations

import sys
from pathlib import Path

from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.tracking import outbox, pipeline_run
from geozero.common import process
from geozero.common.errors import InputError
from geozero.workspace import Workspace

TRAINING = """
import os, signal, sys, time
from geozero.common import process_tags
process_tags.end_with_owner()
folder, steps = sys.argv[1], int(sys.argv[2])
stopped = []
signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
saved = os.path.join(folder, "checkpoint")
step = int(open(saved).read()) if os.path.exists(saved) else 0
with open(os.path.join(folder, "starts"), "a") as starts:
    print(os.getpid(), step, file=starts)
while step < steps and not stopped:
    time.sleep(0.2)
    step += 1
    open(os.path.join(folder, "step"), "w").write(str(step))
if stopped:
    time.sleep(1.0)
    open(saved, "w").write(str(step))
sys.exit(bool(stopped))
"""


@task(name="train", **TASK_OPTIONS)
def train(folder: Path, steps: int) -> None:
    process.run([sys.executable, "-c", TRAINING, str(folder), str(steps)], log=folder / "log")


@task(name="beside", **TASK_OPTIONS)
def sleep(folder: Path) -> None:
    process.run([sys.executable, "-c", "import time; time.sleep(600)"], log=folder / "beside.log")


@flow(name="geozero-trial", task_runner=ThreadPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]
def trial(steps: int = 100, beside: bool = False) -> int:
    """Count to `steps`, five a second; `beside` it another task waits in a thread, as in the pipeline."""
    workspace = Workspace.open(Path("params.yaml"))
    folder = workspace.runs / "trial"
    folder.mkdir(parents=True, exist_ok=True)
    with pipeline_run(workspace, "trial") as parent:
        outbox(workspace).log_metrics(parent, {"begun": 1.0})
        if steps < 0:
            raise InputError("steps must not be negative")
        if beside and not (folder / "checkpoint").exists():
            sleep.submit(folder)
        train(folder, steps)
    return steps
