"""Watching over the process that trains: hung, out of memory, or asked to leave (SIGTERM).

`run` starts the child once and says how it ended; what to do about it is the stage's.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from geozero.common import process

TRAINER, TORCHRUN = "geozero.training.launcher.launch", "torch.distributed.run"
OUT_OF_MEMORY = re.compile(
    r"torch\.(cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory|DefaultCPUAllocator: can't allocate"
)
CHECK_SECONDS = 1.0
DUMP_SECONDS = 30.0  # what py-spy may take
FLUSH_SECONDS = 2.0  # for the stacks that the trainer writes itself


class OutOfMemory(RuntimeError):
    """Memory did not suffice, here or on another node."""

    REASON = "out of memory"

    def __init__(self) -> None:
        super().__init__(self.REASON)


class HangDetected(RuntimeError):
    """No step for too long; the processes' stacks are in the message's file."""


class PeerFailed(RuntimeError):
    """One of several nodes failed, and the others with it."""


class Preempted(SystemExit):
    """SIGTERM came, and the training has written its checkpoint: the exit code is that of a terminated process."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


@dataclass
class Watchdog:
    """One start of the child.

    Attributes:
        log: takes the child's output.
        stall_seconds: time without `alive`, after which it is dumped and killed.
        leave_seconds: time that it may take to write its checkpoint after SIGTERM.
        tell: takes a line about what is done.
        over: asked now and then; once it says why, the child is in vain and killed.
    """

    log: Path
    stall_seconds: float
    leave_seconds: float
    tell: Callable[[str], None]
    over: Callable[[], str] = lambda: ""
    left: bool = False
    _stalled: Path | None = None
    _no_memory: bool = False
    _pid: int | None = None
    _last: float = field(default_factory=time.monotonic)
    _leaving_since: float | None = None

    def alive(self) -> None:
        """A step was done: the clock starts anew."""
        self._last = time.monotonic()

    def run(self, command: Sequence[str], env: Mapping[str, str], on_line: Callable[[str], None]) -> None:
        """Run the child to its end.

        Raises:
            OutOfMemory, Stalled: see there.
            process.ChildFailed: it failed in another way.
            Exception: what `on_line` raised.
        """
        ended = threading.Event()

        def take(line: str) -> None:
            self._no_memory = self._no_memory or bool(OUT_OF_MEMORY.search(line))
            on_line(line)

        watcher = threading.Thread(target=self._watch, args=(ended,), daemon=True)
        self.alive()
        watcher.start()
        try:
            with self._until_terminated():
                process.run(command, log=self.log, env=env, on_line=take, on_start=self._started)
        except process.ChildFailed:
            if self._stalled is not None:
                raise HangDetected(
                    f"no step for {self.stall_seconds / 60:g} minutes; stacks in {self._stalled}"
                ) from None
            if self.left:
                return
            if self._no_memory:
                raise OutOfMemory from None
            raise
        finally:
            ended.set()

    def _started(self, pid: int) -> None:
        self._pid = pid
        if self.left:  # asked between two starts
            self._ask_to_leave()

    def _watch(self, ended: threading.Event) -> None:
        while not ended.wait(min(CHECK_SECONDS, self.stall_seconds / 4)):
            now = time.monotonic()
            if self._leaving_since is not None and now - self._leaving_since > self.leave_seconds:
                self.tell(f"no checkpoint {self.leave_seconds:g} s after SIGTERM; the training is ended")
                self._kill()
                return
            if why := self.over():
                self.tell(f"{why}; what trains here is ended")
                self._kill()
                return
            if not self.left and now - self._last > self.stall_seconds:
                self._stalled = self._dump()
                self.tell(f"no step for {self.stall_seconds / 60:g} minutes; stacks in {self._stalled}")
                self._kill()
                return

    def _dump(self) -> Path:
        """The stacks of every training process: by py-spy where it is installed and allowed to, else by itself."""
        found = trainers(self._pid)
        for one in found:  # a scheduler may have stopped it, and neither could tell anything then
            with suppress(psutil.Error):
                one.resume()
        spy = shutil.which("py-spy")
        if spy is not None:
            out = self.log.with_name(f"stacks-{int(time.time())}.txt")
            spied = [_spied(spy, one, out) for one in found]
            if all(spied):
                return out
        for one in found:
            with suppress(psutil.Error):
                one.send_signal(signal.SIGUSR1)  # the launcher has told faulthandler to write the stacks then
        time.sleep(FLUSH_SECONDS)
        return self.log

    def _kill(self) -> None:
        if self._pid is None:
            return
        found = trainers(self._pid)  # torchrun's lead sessions of their own
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        for one in found:
            with suppress(psutil.Error):
                one.kill()

    @contextmanager
    def _until_terminated(self) -> Iterator[None]:
        """Pass SIGTERM on to the processes that train; only a main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def leave(number: int, frame: FrameType | None) -> None:
            self.left = True
            self._ask_to_leave()

        before: Any = signal.signal(signal.SIGTERM, leave)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _ask_to_leave(self) -> None:
        if self._leaving_since is None:
            self._leaving_since = time.monotonic()
        for one in trainers(self._pid):
            with suppress(psutil.Error):
                one.terminate()


def _spied(spy: str, one: psutil.Process, out: Path) -> bool:
    """Append a process's stacks as py-spy sees them; False where it could not, as in a container without ptrace."""
    with out.open("a") as file, suppress(subprocess.TimeoutExpired):
        words = [spy, "dump", "--pid", str(one.pid)]
        return subprocess.run(words, stdout=file, stderr=file, timeout=DUMP_SECONDS).returncode == 0
    return False


def trainers(pid: int | None) -> list[psutil.Process]:
    """The processes that train, of a child and all below it: torchrun's agent, which would kill them, is none."""
    if pid is None:
        return []
    try:
        child = psutil.Process(pid)
        family = [child, *child.children(recursive=True)]
    except psutil.Error:
        return []
    found = []
    for one in family:
        with suppress(psutil.Error):
            words = one.cmdline()
            if TRAINER in words and TORCHRUN not in words:
                found.append(one)
    return found
