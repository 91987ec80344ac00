"""Locks of a running flow: its checkout or a shard, and the machine's GPUs; and the time it has to end on a cancel."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
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
CHECKOUT_SECONDS = 1.0  # between two tries to get a checkout
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
def gpu(numbers: Sequence[int] | None = None) -> Iterator[None]:
    """Lock the GPUs that this process sees, among the threads of this process and among all flows of this machine.

    What the block starts holds the lock as well: a training that outlives its flow keeps the next one off its GPU, and
    the kernel frees the lock once the last of them is gone. Without a GPU nothing is locked: a process uses one core.

    Args:
        numbers: only these GPUs, counted from 0 among those that are visible.
    """
    if not process.has_gpu():
        yield
        return
    with _gpu, ExitStack() as stack:
        seen = process.gpu_identities()
        names = [seen[number] for number in numbers if number < len(seen)] if numbers else seen
        names = sorted(set(names))  # in one order, so that two flows never wait for each other
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
def checkout_lock(workspace: Workspace, flow: str, shared: bool = False) -> Iterator[None]:
    """Lock the checkout: two pipelines in it would train into the same directories.

    The kernel frees the lock of a process that was killed; the processes that it left running are ended. A worker's
    run waits for its turn: somebody has queued it, perhaps on another machine, or Prefect has freed the slot of a
    suspended run before its training has written its checkpoint.

    Args:
        shared: other flows that share it may run in the checkout too; each does another part of the work.

    Raises:
        InputError: another flow runs here, and no worker has started this one.
    """
    path = workspace.root / LOCK
    with _opened(path) as lock:
        if not _take(lock, path, flow, shared):
            if STARTED_BY_WORKER not in os.environ:
                hint = "wait for it, cancel it, or work in another clone"
                raise InputError(f"{_holder(path)} is running in this checkout", str(workspace.root), hint)
            _take_in_turn(lock, path, flow, shared)
        try:
            yield
        finally:
            if not shared:
                lock.truncate(0)


@contextmanager
def shard_lock(workspace: Workspace, name: str) -> Iterator[None]:
    """Lock a shard of the work that several machines do in one checkout; who comes second waits, and finds it done."""
    path = (workspace.root / LOCK).with_name(f"{name}.lock")
    with _opened(path) as lock:
        _take_in_turn(lock, path, name, shared=False)
        try:
            yield
        finally:
            lock.truncate(0)


def _opened(path: Path) -> IO[str]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a+")


def _take_in_turn(lock: IO[str], path: Path, flow: str, shared: bool) -> None:
    """Take a lock, after all who have it."""
    if _take(lock, path, flow, shared):
        return
    _log(f"waiting: {_holder(path)} is running in this checkout")
    while not _take(lock, path, flow, shared):
        time.sleep(CHECKOUT_SECONDS)


def _take(lock: IO[str], path: Path, flow: str, shared: bool) -> bool:
    """Take a lock if it is free; what its last holder left behind, where it was killed, is ended."""
    if not _flock(lock, fcntl.LOCK_EX):
        return shared and _flock(lock, fcntl.LOCK_SH)
    former, host = _read(path), socket.gethostname()
    if former.get("tag") and former.get("host") == host:
        process_tags.end_tagged(PROCESS_TAG, former["tag"])
    lock.truncate(0)
    if shared:
        return _flock(lock, fcntl.LOCK_SH)
    own = {"flow": flow, "pid": os.getpid(), "started": time.time(), "host": host}
    path.write_text(json.dumps(own | {"tag": os.environ.get(PROCESS_TAG, "")}))  # in place: the file is locked
    return True


def _flock(lock: IO[str], kind: int) -> bool:
    """Raises InputError where the file system knows no locks."""
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        hint = "keep the checkout on one that can: NFS 4, or Lustre mounted with the option flock"
        raise InputError(f"the file system cannot lock files: {error.strerror}", lock.name, hint) from None
    return True


def _holder(path: Path) -> str:
    """The holder of a lock, in words."""
    held = _read(path)
    if not held:
        return "a flow that others may join"
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
