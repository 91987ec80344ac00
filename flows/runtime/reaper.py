"""A small process beside a flow, which ends everything that the flow has started once the flow is gone.

A flow that is killed with -9 can end nothing and report nothing. The reaper waits for the end of the pipe between the
two; then it ends every process that carries the flow's tag, and closes the flow's MLflow run. Where a worker started
the flow, the reaper watches the worker as well: without it, the flow would continue unsupervised and keep its slot.
Beside that it speaks for the flow to Prefect (`liveness.py`).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from flows.runtime.liveness import FlowRun
from geozero.common import process, process_tags
from geozero.tracking import Tracker

PROCESS_TAG = "GEOZERO_FLOW"  # environment variable that everything a flow starts carries
STARTED_BY_WORKER = "PREFECT__FLOW_RUN_ID"  # set by Prefect for the process of a run
POLL_SECONDS = 2.0
RESTARTS = 20  # of the reaper of one flow
RESTART_SECONDS = 1.0  # before a reaper that was killed is started anew
LEAVE_SECONDS = 60.0  # for a flow under a worker to end by itself: write a checkpoint, report to the servers
SHELL_LEAVE_SECONDS = 660.0  # for one from a shell, whose training may take hardware.leave_seconds
GIVEN = "GEOZERO_REAPER"  # environment variable: what the reaper has to know, as JSON
GRACE = 3.0
FLUSH_SECONDS = 60.0


class Reaper:
    """The flow's end of the pipe; one at a time in a process.

    Attributes:
        tag: the value of `PROCESS_TAG` in every process that the flow starts.
    """

    def __init__(self, tracker: Tracker, folder: Path, run: FlowRun | None = None) -> None:
        self.tag, self.run = uuid.uuid4().hex, run
        self._given = {
            "tag": self.tag,
            "flow": os.getpid(),
            "worker": os.getppid() if STARTED_BY_WORKER in os.environ and os.getppid() > 1 else None,
            "store": [tracker.uri, tracker.experiment, str(tracker.project)],
            "folder": str(folder),
            "run": [run.address, run.run_id] if run is not None else None,
        }
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._said, self._closed = folder, list[str](), False
        self._child = self._start()
        os.environ[PROCESS_TAG] = self.tag
        threading.Thread(target=self._restart, daemon=True).start()

    def _start(self) -> subprocess.Popen[str]:
        with (self._folder / "reaper.log").open("a") as log:
            return process.start(
                [
                    "env",
                    "-u",
                    PROCESS_TAG,
                    sys.executable,
                    "-m",
                    "flows.runtime.reaper",
                ],  # with it, it would find itself
                env={GIVEN: json.dumps(self._given)},  # everybody can read arguments, and the store may need a password
                cwd=Path(__file__).resolve().parents[2],
                stdin=subprocess.PIPE,
                stdout=log,
            )

    def _restart(self) -> None:
        """Start a reaper that was killed anew, while the flow goes on."""
        for _ in range(RESTARTS):
            if self._child.wait() == 0 or self._closed:
                return
            time.sleep(RESTART_SECONDS)
            self._child = self._start()
            for line in self._said:
                self._write(line)

    def watch_run(self, parent: str) -> None:
        """Close this MLflow run as killed if the flow dies first."""
        self._send(f"run {parent}")

    def end_children(self) -> None:
        """End everything that this flow has started, now."""
        process_tags.end_tagged(PROCESS_TAG, self.tag, GRACE)

    def close(self) -> None:
        """The flow has ended normally: nothing is left to close."""
        self._closed = True
        self._send("done")
        os.environ.pop(PROCESS_TAG, None)
        if self._child.stdin is not None:
            self._child.stdin.close()

    def _send(self, line: str) -> None:
        self._said.append(line)
        self._write(line)

    def _write(self, line: str) -> None:
        assert self._child.stdin is not None
        with suppress(OSError):  # the reaper was killed; its successor gets all of it
            self._child.stdin.write(line + "\n")
            self._child.stdin.flush()


def main(given: dict[str, Any]) -> None:
    """Wait for the flow's end, then end everything that it has left running."""
    own, worker, text = _process(given["flow"]), _process(given["worker"]), ""
    flow = own
    run = FlowRun(*given["run"]) if given.get("run") else None
    done = threading.Event()
    leave = SHELL_LEAVE_SECONDS if given["worker"] is None else LEAVE_SECONDS
    if run is not None and own is not None:
        threading.Thread(target=run.watch, args=(lambda: _end(own, leave), done), daemon=True).start()
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS)
        if ready:
            data = os.read(0, 4096)
            if not data:
                done.set()
                break
            text += data.decode()
        if flow is not None and given["worker"] is not None and not _lives(worker):
            _end(flow, leave)
            flow = None
    process_tags.end_tagged(PROCESS_TAG, given["tag"], GRACE)
    if run is not None:
        _wait(own, LEAVE_SECONDS)
        run.settle(lambda: _lives(worker))
    lines = text.splitlines()
    runs = [line.removeprefix("run ") for line in lines if line.startswith("run ")]
    if runs and "done" not in lines:
        from geozero.tracking.outbox import Outbox

        uri, experiment, project = given["store"]
        box = Outbox(Tracker(uri, experiment, Path(project)), Path(given["folder"]))
        box.kill(runs[-1])
        box.close(FLUSH_SECONDS)


def _lives(process: psutil.Process | None) -> bool:
    return process is not None and process_tags.alive(process)


def _process(pid: int | None) -> psutil.Process | None:
    with suppress(psutil.Error):
        return psutil.Process(pid) if pid else None
    return None


def _end(flow: psutil.Process, leave: float) -> None:
    """Ask the flow to end, as a cancel does; kill it if it does not."""
    for stop, seconds in ((flow.terminate, leave), (flow.kill, 1.0)):
        with suppress(psutil.Error):
            stop()
        _wait(flow, seconds)


def _wait(process: psutil.Process | None, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and _lives(process):
        time.sleep(0.2)


if __name__ == "__main__":
    main(json.loads(os.environ.pop(GIVEN)))
