"""What lets a flow survive, or end cleanly: one at a time in a checkout, tries that can help, one GPU job at a time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from prefect.concurrency.sync import concurrency
from prefect.tasks import exponential_backoff

from flows.runtime.reaper import PROCESS_TAG, STARTED_BY_WORKER
from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.workspace import Workspace

LOCK = ".geozero/flow.lock"
GPU = "gpu"  # the limit that `geozero stack up` creates
LEAVE_SECONDS = 15.0  # for a training to write its checkpoint on a cancel: Prefect kills the flow after 30
# What a child's last lines say where the machine or the network failed, not the work.
TRANSIENT_ERRORS = (
    "CUDA error",
    "NCCL",
    "ECC error",
    "Connection",
    "Bus error",
    "Resource temporarily unavailable",
    "Timeout",
)

_gpu = threading.Lock()


def retry_condition(task: Any, run: Any, state: Any) -> bool:
    """Whether another try of a failed task may succeed (Prefect's `retry_condition_fn`).

    Not after bad input, nor after an error in the code; but after a kill from outside (out of memory, preemption), and
    where machine or network failed. A training goes on from its last checkpoint then.
    """
    return is_transient(state.result(raise_on_failure=False))


def is_transient(error: object) -> bool:
    """Whether the same work may succeed a moment later."""
    if isinstance(error, process.ChildFailed):
        killed = error.code < 0 or error.code > 128
        return killed or any(word in line for line in error.tail for word in TRANSIENT_ERRORS)
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError | TimeoutError)


# For a task whose work can be tried again; half a minute, then a minute.
RETRIES: dict[str, Any] = {
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=30),
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": retry_condition,
}


@contextmanager
def gpu() -> Iterator[None]:
    """Hold the machine's GPUs: within this process by a lock, among runs of one server by its limit `gpu`.

    Without a GPU it holds nothing up: a process keeps to one core.
    """
    if not process.has_gpu():
        yield
        return
    with _gpu:
        if STARTED_BY_WORKER in os.environ:
            with concurrency(GPU, occupy=1):  # a lease: it ends some minutes after a run that dies
                yield
        else:
            yield


@contextmanager
def checkout_lock(workspace: Workspace, flow: str) -> Iterator[None]:
    """Hold the checkout: two pipelines in it would train into the same directories.

    The kernel frees the lock of a process that was killed; whatever that one has left running is ended.

    Raises:
        InputError: another flow runs here.
    """
    path = workspace.root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise _taken(path, workspace.root) from None
        left = _read(path)
        if left.get("mark") and left.get("host") == socket.gethostname():
            process_tags.kill_tagged(PROCESS_TAG, left["mark"])
        own = os.getpid()
        holder = {"flow": flow, "pid": own, "started": process_tags.started(own), "host": socket.gethostname()}
        _write(path, {**holder, "mark": os.environ.get(PROCESS_TAG, "")})
        try:
            yield
        finally:
            lock.truncate(0)


def _taken(path: Path, root: Path) -> InputError:
    holder = _read(path)
    since = time.strftime("%H:%M:%S", time.localtime(holder.get("started", 0)))
    who = f"{holder['flow']} (process {holder['pid']} of {holder['host']}, since {since})" if holder else "another flow"
    return InputError(f"{who} runs in this checkout", str(root), "wait for it, cancel it, or work in another clone")


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    """In place: the lock is on this very file."""
    path.write_text(json.dumps(values))


def with_worker_grace_period(workspace: Workspace) -> Workspace:
    """Under a worker: a training gets no longer to write its checkpoint than Prefect leaves a cancelled flow."""
    from dataclasses import replace

    hardware = workspace.settings.hardware
    if STARTED_BY_WORKER not in os.environ or hardware.leave_seconds <= LEAVE_SECONDS:
        return workspace
    quick = hardware.model_copy(update={"leave_seconds": LEAVE_SECONDS})
    return replace(workspace, settings=workspace.settings.model_copy(update={"hardware": quick}))
