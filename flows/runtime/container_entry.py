"""Process 1 of a container: `python -m flows.runtime.container_entry COMMAND…` runs the command and reaps orphans.

When process 1 ends, the kernel kills everything else in the container, and Prefect's own command ends within seconds of
SIGTERM. So the trainers get the signal first, and the command once they have written their checkpoint and are gone.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import psutil

from geozero.training.launcher.launch import LAUNCHER

LEAVE_SECONDS = 600.0  # as hardware.leave_seconds; the pod's grace period is a little longer
POLL_SECONDS = 0.2


def main(words: list[str]) -> int:
    """Run the command to its end; returns its exit code, 128 + N for signal N."""
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    child = subprocess.Popen(words)
    passed_on = False
    while child.poll() is None:
        if told.wait(POLL_SECONDS) and not passed_on:
            passed_on = True
            _end_trainers()
            child.terminate()
        elif passed_on:
            time.sleep(POLL_SECONDS)
        _reap(child.pid)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _end_trainers() -> None:
    """Pass SIGTERM on to the trainers and wait until they are gone, but not forever."""
    trainers = [one for one in psutil.Process().children(recursive=True) if _is_trainer(one)]
    for trainer in trainers:
        with suppress(psutil.Error):
            trainer.terminate()
    deadline = time.monotonic() + LEAVE_SECONDS
    while any(map(_runs, trainers)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _runs(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _is_trainer(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return LAUNCHER in process.cmdline()
    return False


def _reap(but: int) -> None:
    """Collect orphans that have ended: process 1 inherits them."""
    for process in psutil.Process().children():
        with suppress(psutil.Error, ChildProcessError):
            if process.pid != but and process.status() == psutil.STATUS_ZOMBIE:
                os.waitpid(process.pid, os.WNOHANG)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
