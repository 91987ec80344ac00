"""Watch one start of the trainer: does it hang, run out of memory, or have to end (SIGTERM, another node)?"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import psutil

from geozero.common.process import ChildFailed
from geozero.params import Hardware
from geozero.training.launcher.launch import LAUNCHER

TORCHRUN = "torch.distributed.run"
OUT_OF_MEMORY = re.compile(
    rb"torch\.(cuda\.)?OutOfMemoryError|CUDA (error: )?out of memory|DefaultCPUAllocator: can't allocate"
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
    """No step for too long; the message names the file with the processes' stacks."""


class PeerFailed(RuntimeError):
    """One of several nodes failed, and the others with it."""


class Preempted(SystemExit):
    """SIGTERM came, and the trainer has ended: the exit code is that of a terminated process."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Heartbeat:
    """A file that another process writes to while it works."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = self._modified()

    def changed(self) -> bool:
        """Whether it was written to since the last call, or at first since it is watched."""
        before, self._seen = self._seen, self._modified()
        return self._seen not in (before, 0.0)

    def _modified(self) -> float:
        with suppress(OSError):
            return self._path.stat().st_mtime
        return 0.0


class Watchdog:
    """A context in which the trainer runs once; `watch` gives it the trainer's process id.

    On leaving, the trainer's failure becomes what it was: `HangDetected`, `OutOfMemory`, `Preempted`, or `ChildFailed`.

    Args:
        hardware: bounds on the time without a step and on the time to end after SIGTERM.
        steps: the file that the trainer writes each step to.
        log_file: where the trainer's output goes.
        log: called with a line about what is done.
        abort_reason: called now and then; once it returns a reason, the trainer is killed.
    """

    def __init__(
        self,
        hardware: Hardware,
        steps: Path,
        log_file: Path,
        log: Callable[[str], object],
        abort_reason: Callable[[], str] = str,
    ) -> None:
        self.log_file = log_file
        self._stall_seconds, self._end_seconds = 60 * hardware.stall_minutes, hardware.leave_seconds
        self._steps, self._log, self._abort_reason = steps, log, abort_reason
        self._pid: int | None = None
        self._terminated: float | None = None  # when SIGTERM came
        self._stacks: Path | None = None  # of a trainer that hung
        self._ended = threading.Event()
        self._log_start = log_file.stat().st_size if log_file.is_file() else 0
        self._previous: Any = None  # the handler of SIGTERM

    def __enter__(self) -> Watchdog:
        if threading.current_thread() is threading.main_thread():  # only it can handle signals
            self._previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._previous or signal.SIG_DFL)
        if isinstance(error, ChildFailed) and self._stacks is not None:
            raise HangDetected(self._hang()) from None
        if (error is None or isinstance(error, ChildFailed)) and self._terminated is not None:
            raise Preempted from None
        if isinstance(error, ChildFailed) and self._lacked_memory():
            raise OutOfMemory from None

    def watch(self, pid: int) -> None:
        """The trainer has been started."""
        self._pid = pid
        if self._terminated is not None:  # SIGTERM came just before
            self._terminate()

    def _watch(self) -> None:
        steps, since = Heartbeat(self._steps), time.monotonic()
        while not self._ended.wait(min(CHECK_SECONDS, self._stall_seconds / 4)):
            now = time.monotonic()
            if steps.changed():
                since = now
            reason = self._abort_reason()
            if self._terminated is not None and now - self._terminated > self._end_seconds:
                reason = f"no checkpoint {self._end_seconds:g} s after SIGTERM"
            elif self._terminated is None and not reason and now - since > self._stall_seconds:
                self._stacks = self._dump_stacks()
                reason = self._hang()
            if reason:
                self._log(f"{reason}; killing the trainer")
                self._kill()
                return

    def _hang(self) -> str:
        return f"no step for {self._stall_seconds / 60:g} minutes; stacks in {self._stacks}"

    def _lacked_memory(self) -> bool:
        with self.log_file.open("rb") as file:
            file.seek(self._log_start)
            return any(OUT_OF_MEMORY.search(line) for line in file)

    def _dump_stacks(self) -> Path:
        """Write every training process's stacks: by py-spy where it is installed and allowed to, else by itself."""
        found = trainers(self._pid)
        for one in found:  # a scheduler may have stopped it, and it could write nothing
            with suppress(psutil.Error):
                one.resume()
        spy = shutil.which("py-spy")
        if spy is not None:
            out = self.log_file.with_name(f"stacks-{int(time.time())}.txt")
            if all(_spy_on(spy, one, out) for one in found):
                return out
        for one in found:
            with suppress(psutil.Error):
                one.send_signal(signal.SIGUSR1)  # the launcher's faulthandler then writes the stacks
        time.sleep(FLUSH_SECONDS)
        return self.log_file

    def _kill(self) -> None:
        if self._pid is None:
            return
        found = trainers(self._pid)  # torchrun's lead sessions of their own
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, signal.SIGKILL)
        for one in found:
            with suppress(psutil.Error):
                one.kill()

    def _on_sigterm(self, number: int, frame: FrameType | None) -> None:
        self._terminated = self._terminated or time.monotonic()
        self._terminate()

    def _terminate(self) -> None:
        for one in trainers(self._pid):
            with suppress(psutil.Error):
                one.terminate()


def _spy_on(spy: str, one: psutil.Process, out: Path) -> bool:
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
        tree = [child, *child.children(recursive=True)]
    except psutil.Error:
        return []
    found = []
    for one in tree:
        with suppress(psutil.Error):
            words = one.cmdline()
            if LAUNCHER in words and TORCHRUN not in words:
                found.append(one)
    return found
