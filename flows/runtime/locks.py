"""Locks of a running flow: its checkout and the machine's GPUs; and the time it has to end on a cancel."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect.concurrency.sync import concurrency

from flows.runtime.reaper import PROCESS_TAG, STARTED_BY_WORKER
from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.workspace import Workspace

LOCK = ".geozero/flow.lock"
GPU = "gpu"  # the limit that `geozero stack up` creates
LEAVE_SECONDS = 15.0  # for a training to write its checkpoint on a cancel; Prefect kills the flow after 30

_gpu = threading.Lock()
_turns: dict[str, threading.Lock] = {}  # of each GPU


@contextmanager
def gpu() -> Iterator[None]:
    """Lock the machine's GPUs: within this process by a lock, among the runs of one server by its limit `gpu`.

    Without a GPU nothing is locked: each process uses one core.
    """
    if not process.has_gpu():
        yield
        return
    with _gpu:
        if STARTED_BY_WORKER in os.environ:
            with concurrency(GPU, occupy=1):  # a lease: it ends some minutes after its run has died
                yield
        else:
            yield


@contextmanager
def turn_of(device: str | None) -> Iterator[None]:
    """Let the workers of one GPU run one after the other, so that two never share its memory."""
    if device is None:
        yield
        return
    with _turns.setdefault(device, threading.Lock()):
        yield


@contextmanager
def checkout_lock(workspace: Workspace, flow: str) -> Iterator[None]:
    """Lock the checkout: two pipelines in it would train into the same directories.

    The kernel frees the lock of a process that was killed; the processes that it left running are ended.

    Raises:
        InputError: another flow runs here.
    """
    path = workspace.root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    with path.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise InputError(
                f"{_holder(path)} is running in this checkout",
                str(workspace.root),
                "wait for it, cancel it, or work in another clone",
            ) from None
        former = _read(path)
        if former.get("tag") and former.get("host") == host:
            process_tags.end_tagged(PROCESS_TAG, former["tag"])
        own = {"flow": flow, "pid": os.getpid(), "started": time.time(), "host": host}
        path.write_text(json.dumps(own | {"tag": os.environ.get(PROCESS_TAG, "")}))  # in place: the file is locked
        try:
            yield
        finally:
            lock.truncate(0)


def _holder(path: Path) -> str:
    """The holder of a lock, in words."""
    held = _read(path)
    if not held:
        return "another flow"
    since = time.strftime("%H:%M:%S", time.localtime(held.get("started", 0)))
    return f"{held.get('flow')} (process {held.get('pid')} of {held.get('host')}, since {since})"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def with_worker_grace_period(workspace: Workspace) -> Workspace:
    """Under a worker, limit the time to write a checkpoint to what Prefect leaves a cancelled flow."""
    hardware = workspace.settings.hardware
    if STARTED_BY_WORKER not in os.environ or hardware.leave_seconds <= LEAVE_SECONDS:
        return workspace
    quick = hardware.model_copy(update={"leave_seconds": LEAVE_SECONDS})
    return replace(workspace, settings=workspace.settings.model_copy(update={"hardware": quick}))
