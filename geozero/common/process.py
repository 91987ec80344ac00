"""Child processes and the state a process needs before it imports transformers, ms-swift or vLLM."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from geozero.common.errors import InputError

QUIET_AND_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "true",  # Prefect and MLflow; MLflow does not read "1"
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "VLLM_NO_USAGE_STATS": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DVC_NO_ANALYTICS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
# Not the user's choice: our sampler is a logits processor of vLLM's V1 model runner. vLLM takes V2 by itself wherever
# Triton is installed, which is on every GPU machine, and V2 refuses such a processor when the engine starts.
REQUIRED_ENVIRONMENT = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
LAST_LINES = 40
TERMINATE_SECONDS = 10.0
DRAIN_SECONDS = 2.0  # for the last lines, once the child is gone
DEVICES = Path("/dev")
CALLER = "GEOZERO_CALLER"  # environment variable of what `run` starts: the id of the process that waits for it
CALLER_SECONDS = 1.0  # between two looks whether that one is still there

_libraries: list[Any] = []  # torch.library.Library unregisters its operators when it is collected


class ChildFailed(RuntimeError):
    """A child process ended with another code than 0; the message ends with its last lines."""

    def __init__(self, command: Sequence[str], code: int, tail: Sequence[str]) -> None:
        self.code, self.tail = code, list(tail)
        super().__init__(f"{' '.join(command[:4])} … ended with code {code}:\n" + "\n".join(tail))


def quiet_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment with every dependency's telemetry and hub look-ups off, unless the user set them."""
    environment = {**QUIET_AND_OFFLINE, **os.environ, **(extra or {}), **REQUIRED_ENVIRONMENT}
    if not has_gpu():
        environment.setdefault("OMP_NUM_THREADS", "1")  # measured: 5–30 times faster than 2 for a tiny model
    return environment


def prepare() -> None:
    """Make this process fit to import transformers, ms-swift and vLLM; call it before the first such import.

    Sets the quiet environment. Where torchvision's compiled operators do not load, as with PyPI's torchvision beside
    a CPU build of torch, it declares the two schemas that torchvision looks for at import and would fail without.
    """
    for key, value in quiet_environment().items():
        os.environ.setdefault(key, value)
    os.environ.update(REQUIRED_ENVIRONMENT)
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None or "torchvision" in sys.modules or _libraries:
        return
    import torch

    if _has_compiled_operators(Path(spec.origin).parent):
        return  # to declare them twice aborts the process
    library = torch.library.Library("torchvision", "DEF")
    library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    library.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _libraries.append(library)


def _has_compiled_operators(torchvision: Path) -> bool:
    """Whether torchvision's library of operators loads beside the installed torch.

    What matters is how the two were built, not whether a GPU is visible: a CUDA build on a login node has them too.
    """
    import torch

    for library in torchvision.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            continue
        return True
    return False


def cores() -> int:
    """Cores that this process may use, which a container or a batch system may have made fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_gpu() -> bool:
    """Whether an NVIDIA driver answers; asks the driver's files, so that nothing heavy is imported."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def gpus() -> int:
    """How many NVIDIA GPUs this machine shows; 0 where there is none, or where it cannot be told."""
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in DEVICES.glob("nvidia*"))


def check_gpu(number: int, where: str) -> None:
    """Refuse a GPU that is not there; without this, the work would go on in silence on the CPU.

    Raises:
        InputError: it is beyond those of this machine. A machine without any is left to the caller.
    """
    if 0 < gpus() <= number:
        what = f"no GPU {number}: this machine has {gpus()}"
        raise InputError(what, where, "name GPUs as nvidia-smi does, from 0")


def run(
    command: Sequence[str],
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    on_start: Callable[[int], None] | None = None,
) -> None:
    """Run a command in its own process group, its output line by line to `log` and `on_line`.

    Whatever ends the wait (an error, a cancelled flow, a time-out), the whole group is gone afterwards. A `kill -9`
    of this process lets nobody end the group from here: a command of ours ends itself then, see `end_with_caller`.

    Args:
        on_line: called in a thread of its own; if it raises, the command is ended.
        timeout: seconds; None waits for ever.
        on_start: takes the child's process id, which is its group's too.

    Raises:
        ChildFailed: another exit code than 0.
        TimeoutError: it ran longer than `timeout`.
        Exception: what `on_line` raised, or writing `log`.
    """
    tail: deque[str] = deque(maxlen=LAST_LINES)
    faults: list[Exception] = []
    sink: IO[str] | None = None
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        sink = log.open("a")
    child = subprocess.Popen(
        list(command),
        cwd=cwd,
        env={**quiet_environment(env), CALLER: str(os.getpid())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )

    def take(line: str) -> None:
        tail.append(line.rstrip())
        if sink is not None:
            sink.write(line)
            sink.flush()
        if on_line is not None:
            on_line(line.rstrip())

    def read() -> None:
        assert child.stdout is not None
        with child.stdout, sink or nullcontext():
            for line in child.stdout:
                try:
                    take(line)
                except Exception as error:  # a broken pipe, a full disk: an unread child would wait for ever
                    faults.append(error)
                    kill_group(child)
                    return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        if on_start is not None:
            on_start(child.pid)
        code = child.wait(timeout)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{' '.join(command[:4])} … ran longer than {timeout} s") from None
    finally:
        kill_group(child)
        reader.join(
            DRAIN_SECONDS
        )  # whoever left the group may hold the pipe open: never wait for the end of the output
    if faults:
        raise faults[0]
    if code != 0:
        raise ChildFailed(command, code, list(tail))


def kill_group(child: subprocess.Popen[str]) -> None:
    """End the whole group of a child started in its own session: first politely, then for certain.

    With it goes what it started in sessions of their own, as an engine does its server: that ends by itself once it
    notices that its parent is gone, but not while it is stopped.
    """
    below = _below(child)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except (ProcessLookupError, PermissionError):
            break
        try:
            child.wait(TERMINATE_SECONDS)
        except subprocess.TimeoutExpired:
            continue
    _, stopped = psutil.wait_procs(below, timeout=2 * CALLER_SECONDS)
    for one in stopped:
        with suppress(psutil.Error):
            one.kill()


def _below(child: subprocess.Popen[str]) -> list[psutil.Process]:
    """All that descend from a child that still runs."""
    if child.poll() is not None:
        return []
    try:
        return list(psutil.Process(child.pid).children(recursive=True))
    except psutil.Error:
        return []


def end_with_caller() -> None:
    """In a command that `run` started: end with the process that waits for it. Elsewhere nothing happens.

    A worker whose caller was killed with -9 (by Ray, by a lack of memory) would go on holding its GPU beside the one
    that is started in its place.
    """
    caller = os.environ.get(CALLER, "")
    if not caller.isdecimal() or os.getsid(0) != os.getpid():
        return  # the variable was inherited from further up: `run` makes what it starts lead a session
    if os.getppid() == int(caller) or not _lives(int(caller)):
        die_with(int(caller))


def die_with(ancestor: int, *, alone: bool = False) -> None:
    """End this process when its parent, or one further up, is gone, even by `kill -9`.

    Args:
        alone: only this process, for one that shares the group of who called it; else all of its group.
    """
    is_parent = os.getppid() == ancestor  # then its number cannot be another process's by now

    def watch() -> None:
        while os.getppid() == ancestor if is_parent else _lives(ancestor):
            time.sleep(CALLER_SECONDS)
        if alone:
            os.kill(os.getpid(), signal.SIGKILL)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def _lives(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # another user's
    return True
