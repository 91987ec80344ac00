"""Locks of a running flow: its checkout and the machine's GPUs; and the time it has to end on a cancel."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

from flows.runtime.reaper import PROCESS_TAG, STARTED_BY_WORKER
from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.workspace import Workspace

LOCK = ".geozero/flow.lock"
GPU_SECONDS = 1.0  # between two tries to get a GPU
CHECKOUT_SECONDS = 60.0  # for a run that was cancelled or suspended a moment ago to leave the checkout to the next
LEAVE_SECONDS = 15.0  # for a training to write its checkpoint on a cancel; Prefect kills the flow after 30

_gpu = threading.Lock()
_turns: dict[str, threading.Lock] = {}  # of each GPU


class _Usage:
    """Seconds for which this process has held GPUs, times their number."""

    def __init__(self) -> None:
        self._ended, self._running = 0.0, (0, 0.0)

    @contextmanager
    def measure(self, gpus: int) -> Iterator[None]:
        self._running = gpus, time.monotonic()
        try:
            yield
        finally:
            self._ended, self._running = self.seconds(), (0, 0.0)

    def seconds(self) -> float:
        gpus, since = self._running
        return self._ended + gpus * (time.monotonic() - since)


_usage = _Usage()


def gpu_hours() -> float:
    """GPU hours of this process so far: the time in which it held GPUs, times their number."""
    return _usage.seconds() / 3600


@contextmanager
def gpu() -> Iterator[None]:
    """Lock the GPUs that this process sees, among the threads of this process and among all flows of this machine.

    What the block starts holds the lock as well: a training that outlives its flow keeps the next one off its GPU, and
    the kernel frees the lock once the last of them is gone. Without a GPU nothing is locked: a process uses one core.
    """
    if not process.has_gpu():
        yield
        return
    with _gpu, ExitStack() as stack:
        names = sorted(process.gpu_identities())  # in one order, so that two flows never wait for each other
        for name in names:
            stack.enter_context(_machine_lock(f"gpu-{name}"))
        with _usage.measure(len(names)):
            yield


@contextmanager
def _machine_lock(name: str) -> Iterator[None]:
    """Wait for a name that one process of this machine can have: an abstract socket, without a file and its rights."""
    with socket.socket(socket.AF_UNIX) as held:
        waits = False
        while True:
            try:
                held.bind(f"\0geozero-{name}")
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
            if not waits:
                _log(f"waiting for {name}: another run on this machine uses it")
                waits = True
            time.sleep(GPU_SECONDS)
        process.held.add(held.fileno())
        try:
            yield
        finally:
            process.held.discard(held.fileno())


def _log(line: str) -> None:
    try:
        get_run_logger().info(line)
    except MissingContextError:  # outside a flow
        print(line)


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

    The kernel frees the lock of a process that was killed; the processes that it left running are ended. A worker's run
    waits a minute: Prefect frees the slot of a suspended run before its training has written its checkpoint.

    Raises:
        InputError: another flow runs here.
    """
    path = workspace.root / LOCK
    path.parent.mkdir(parents=True, exist_ok=True)
    host = socket.gethostname()
    with path.open("a+") as lock:
        end = time.monotonic() + (CHECKOUT_SECONDS if STARTED_BY_WORKER in os.environ else 0.0)
        while not _try_lock(lock):
            if time.monotonic() >= end:
                raise InputError(
                    f"{_holder(path)} is running in this checkout",
                    str(workspace.root),
                    "wait for it, cancel it, or work in another clone",
                )
            time.sleep(1.0)
        former = _read(path)
        if former.get("tag") and former.get("host") == host:
            process_tags.end_tagged(PROCESS_TAG, former["tag"])
        own = {"flow": flow, "pid": os.getpid(), "started": time.time(), "host": host}
        path.write_text(json.dumps(own | {"tag": os.environ.get(PROCESS_TAG, "")}))  # in place: the file is locked
        try:
            yield
        finally:
            lock.truncate(0)


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


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
