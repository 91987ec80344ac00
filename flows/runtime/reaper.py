"""The process that outlives a flow: when the flow is gone, however it went, nothing that it started goes on.

A flow that is killed with -9 can end nothing and report nothing. `Guard` starts this module as a small process beside
it, which waits for the end of the pipe between them; then it ends every process that carries the flow's mark, and
closes the flow's MLflow run. Where a worker started the flow it watches the worker as well: a flow whose worker is gone
would go on unsupervised, and hold a slot that nobody frees.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from geozero.common import process_tags
from geozero.tracking import Tracker

PROCESS_TAG = "GEOZERO_FLOW"  # environment variable that everything a flow starts carries
STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"  # what Prefect sets for the process that it starts for a run
POLL_SECONDS = 2.0
LEAVE_SECONDS = 60.0  # for a flow without a worker to end by itself: a checkpoint, and a word to the servers
GRACE = 3.0
FLUSH_SECONDS = 60.0


class Reaper:
    """The flow's end of the pipe; one at a time in a process."""

    def __init__(self, tracker: Tracker, folder: Path) -> None:
        own = os.getpid()
        self.mark = f"{own}-{process_tags.started(own):.2f}"
        worker = os.getppid() if STARTED_BY_WORKER in os.environ and os.getppid() > 1 else None
        told = {
            "mark": self.mark,
            "flow": own,
            "worker": [worker, process_tags.started(worker)] if worker else None,
            "store": [tracker.uri, tracker.experiment, str(tracker.project)],
            "folder": str(folder),
        }
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "guard.log").open("w") as log:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "flows.runtime.reaper", json.dumps(told)],
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        os.environ[PROCESS_TAG] = self.mark  # after the guard has started: it must not find itself

    def watch_run(self, parent: str) -> None:
        """Close this MLflow run as killed, should the flow not live to do it."""
        self._tell(f"run {parent}")

    def end_children(self) -> None:
        """End everything that this flow has started, now."""
        process_tags.kill_tagged(PROCESS_TAG, self.mark, GRACE)

    def close(self) -> None:
        """The flow has ended in order: there is nothing left to close."""
        self._tell("done")
        os.environ.pop(PROCESS_TAG, None)
        if self._child.stdin is not None:
            self._child.stdin.close()

    def _tell(self, line: str) -> None:
        try:
            assert self._child.stdin is not None
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()
        except OSError:
            pass  # somebody has ended the guard; the flow does without


def main(told: dict[str, Any]) -> None:
    """Wait for the flow's end, then leave nothing behind."""
    text = ""
    worker, flow_started = told["worker"], _started(told["flow"])
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if ready:
            data = os.read(0, 4096)
            if not data:
                break
            text += data.decode()
        if worker is not None and not process_tags.alive(*worker):
            worker = None
            _end_flow(told["flow"], flow_started)
    process_tags.kill_tagged(PROCESS_TAG, told["mark"], GRACE)
    lines = text.splitlines()
    runs = [line.removeprefix("run ") for line in lines if line.startswith("run ")]
    if runs and "done" not in lines:
        from geozero.tracking.outbox import Outbox

        uri, experiment, project = told["store"]
        box = Outbox(Tracker(uri, experiment, Path(project)), Path(told["folder"]))
        box.kill(runs[-1])
        box.close(FLUSH_SECONDS)


def _started(pid: int) -> float | None:
    try:
        return process_tags.started(pid)
    except psutil.Error:
        return None


def _end_flow(pid: int, began: float | None) -> None:
    """Ask the flow to end, as a cancel does, and make sure of it."""
    for sign, seconds in ((signal.SIGTERM, LEAVE_SECONDS), (signal.SIGKILL, 1.0)):
        if began is None or not process_tags.alive(pid, began):
            return
        os.kill(pid, sign)
        end = time.monotonic() + seconds
        while time.monotonic() < end and process_tags.alive(pid, began):
            time.sleep(0.2)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
