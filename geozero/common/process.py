"""Child processes and the state a process needs before it imports transformers, ms-swift or vLLM."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import IO, Any

import psutil

from geozero.common.errors import InputError
from geozero.common.process_tags import OWNER, OWNER_SECONDS, TERMINATE_SECONDS

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
# Environment variable, inherited by every process: checkpoints may run code of their own (geozero/engines/trust.py)
TRUST_CHECKPOINT = "GEOZERO_TRUST_CHECKPOINT"
LAST_LINES = 40
DRAIN_SECONDS = 2.0  # for the last lines, once the child is gone
DEVICES = Path("/dev")
VISIBLE_GPUS = "CUDA_VISIBLE_DEVICES"
GPU_LIST_SECONDS = 20.0  # nvidia-smi wakes the driver
_GPU_LINE = re.compile(r"GPU (\d+):")
_GPU_UUID = re.compile(r"^GPU (\d+): .*\(UUID: (GPU-[^)]+)\)", re.MULTILINE)
_MIG_LINE = re.compile(r"MIG .*\(UUID: (MIG-[^)]+)\)")

held: set[int] = set()  # file descriptors of locks: what `start` starts holds them too, as long as it lives
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
    """Prepare this process for importing transformers, ms-swift and vLLM; call it before the first such import.

    Sets the quiet environment. Where torchvision's compiled operators do not load, as with PyPI's torchvision beside
    a CPU build of torch, it declares the two schemas without which torchvision fails at import.
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
    """Cores that this process may use; a container or a batch system may allow fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_limit() -> int:
    """Bytes of memory of this machine, or what its container is allowed, whichever is less."""
    total = int(psutil.virtual_memory().total)
    try:
        return min(total, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return total


def has_gpu() -> bool:
    """Whether there is an NVIDIA driver; looks at the driver's files, so that nothing heavy is imported."""
    return Path("/proc/driver/nvidia/version").exists() or Path("/dev/nvidia0").exists()


def gpus() -> int:
    """How many NVIDIA GPUs this machine shows; 0 where there are none, or where it is unknown."""
    return sum(path.name.removeprefix("nvidia").isdecimal() for path in DEVICES.glob("nvidia*"))


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as the value of CUDA_VISIBLE_DEVICES that shows it alone.

    An existing mask is heeded as CUDA heeds it: what stands behind an entry that names no GPU is hidden. Without one, a
    GPU that is partitioned (MIG) stands for its instances, which only their UUIDs name.
    """
    mask = os.environ.get(VISIBLE_GPUS)
    if mask is None:
        return _listed() or [str(number) for number in range(gpus())]
    found: list[str] = []
    for name in (part.strip() for part in mask.split(",")):
        if name.isdecimal() and (gpus() == 0 or int(name) < gpus()):
            name = str(int(name))
        elif not name.startswith(("GPU-", "MIG-")):
            break  # CUDA ignores it and all behind it
        if name not in found:
            found.append(name)
    return found


def _listed() -> list[str]:
    """What nvidia-smi lists: the numbers of the GPUs, but for one with MIG instances their UUIDs; none without it."""
    found: dict[str, list[str]] = {}
    number = ""
    for line in _nvidia_smi().splitlines():
        if gpu := _GPU_LINE.match(line):
            number = gpu[1]
            found[number] = []
        elif (instance := _MIG_LINE.search(line)) and number:
            found[number].append(instance[1])
    return [name for gpu, instances in found.items() for name in instances or [gpu]]


def _nvidia_smi() -> str:
    try:
        return subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=GPU_LIST_SECONDS).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def gpu_identities() -> list[str]:
    """What names the visible GPUs on this machine whatever mask shows them: their UUIDs, or else their numbers.

    A number names another GPU in each job of a batch system that shows a job only its own.
    """
    uuids = dict(_GPU_UUID.findall(_nvidia_smi()))
    names = visible_gpus()
    if not names and has_gpu() and VISIBLE_GPUS not in os.environ:
        return ["all"]  # there is a driver, but nothing that tells its GPUs apart
    return [uuids.get(name, name) for name in names]


def gpu_name(number: int, where: str) -> str:
    """What shows one GPU alone in CUDA_VISIBLE_DEVICES; `number` counts among those that are visible now.

    Raises:
        InputError: there are fewer.
    """
    visible = os.environ.get(VISIBLE_GPUS)
    if visible is None:
        check_gpu(number, where)
        names = _listed()
        return names[number] if number < len(names) else str(number)
    names = visible_gpus()
    if number >= len(names):
        what = f"no GPU {number}: {VISIBLE_GPUS} shows {len(names)}"
        raise InputError(what, where, "count from 0 among those, or change that variable")
    return names[number]


def worker_gpus(workers: int | None, where: str) -> list[str | None]:
    """The GPU of each of several workers; None where there is none, or where one worker may use them all.

    Args:
        workers: how many; None: one for each visible GPU, or a single one where there is none.

    Raises:
        InputError: more workers than GPUs: two would share one.
    """
    names = visible_gpus()
    n = max(1, len(names)) if workers is None else workers
    if not names or n == 1:
        return [None] * n
    if n > len(names):
        what = f"{n} workers, but {len(names)} visible GPU{'s' if len(names) > 1 else ''}"
        raise InputError(what, where, f"auto takes one for each, or ask for at most {len(names)}")
    return [*names[:n]]


def check_gpu(number: int, where: str) -> None:
    """Refuse a GPU that does not exist; otherwise the work would silently run on the CPU.

    Raises:
        InputError: the number is too high. A machine without GPUs is the caller's matter.
    """
    if 0 < gpus() <= number:
        what = f"no GPU {number}: this machine has {gpus()}"
        raise InputError(what, where, "name GPUs as nvidia-smi does, from 0")


def choose_gpu(number: int, where: str) -> None:
    """Make one GPU the only one that this process sees: `number` counts among those that are visible now.

    Raises:
        InputError: there are fewer.
    """
    visible = os.environ.get(VISIBLE_GPUS)
    if visible is None:
        check_gpu(number, where)
        os.environ[VISIBLE_GPUS] = str(number)
        return
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if number >= len(names):
        what = f"no GPU {number}: {VISIBLE_GPUS} shows {len(names)}"
        raise InputError(what, where, "count from 0 among those, or change that variable")
    os.environ[VISIBLE_GPUS] = names[number]


def start(
    command: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[Any] = subprocess.PIPE,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[str]:
    """Start a command in a session of its own, in the quiet environment and with its errors in its output.

    End it with `end_tree`. A command of ours also ends once this process is gone: `process_tags.end_with_owner`.

    Args:
        env: added to this process's environment.
    """
    return subprocess.Popen(
        list(command),
        cwd=cwd,
        env={**quiet_environment(env), OWNER: str(os.getpid())},
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        pass_fds=(*pass_fds, *held),
    )


class Child:
    """A started command whose output a thread reads line by line.

    Args:
        log: a file that the output is appended to.
        on_line: called in that thread; if it raises, the command is ended.

    Attributes:
        popen: the process.
        tail: the last lines.
        fault: what `on_line`, or writing `log`, raised.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path | None = None,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        on_line: Callable[[str], None] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.tail: deque[str] = deque(maxlen=LAST_LINES)
        self.fault: Exception | None = None
        sink: IO[str] | None = None
        if log is not None:
            log.parent.mkdir(parents=True, exist_ok=True)
            sink = log.open("a")
        self.popen = start(command, cwd=cwd, env=env, pass_fds=pass_fds)
        self._reader = threading.Thread(target=self._read, args=(sink, on_line), daemon=True)
        self._reader.start()

    def end(self) -> None:
        """End it with all that it has started."""
        end_tree(self.popen)
        self.drain()

    def drain(self) -> None:
        """Wait for the last lines, but not for ever: who has left the group may hold the pipe open."""
        self._reader.join(DRAIN_SECONDS)

    def _read(self, sink: IO[str] | None, on_line: Callable[[str], None] | None) -> None:
        assert self.popen.stdout is not None
        with self.popen.stdout as lines, sink or nullcontext():
            for line in lines:
                self.tail.append(line.rstrip())
                try:
                    if sink is not None:
                        sink.write(line)
                        sink.flush()
                    if on_line is not None:
                        on_line(line.rstrip())
                except Exception as error:  # a broken pipe, a full disk: an unread child would wait for ever
                    self.fault = error
                    end_tree(self.popen)
                    return


def run(
    command: Sequence[str],
    log: Path | None = None,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    on_line: Callable[[str], None] | None = None,
    timeout: float | None = None,
    on_start: Callable[[int], None] | None = None,
) -> None:
    """Run a command to its end. Whatever ends the wait (an error, a cancelled flow, a time-out), it is gone afterwards.

    Args:
        log, on_line: as for `Child`.
        timeout: seconds; None waits for ever.
        on_start: takes the process id, which is its group's too.

    Raises:
        ChildFailed: another exit code than 0.
        TimeoutError: it ran longer than `timeout`.
        Exception: what `on_line` raised, or writing `log`.
    """
    child = Child(command, log=log, cwd=cwd, env=env, on_line=on_line)
    try:
        if on_start is not None:
            on_start(child.popen.pid)
        code = child.popen.wait(timeout)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"{' '.join(command[:4])} … ran longer than {timeout} s") from None
    finally:
        child.end()
    if child.fault is not None:
        raise child.fault
    if code != 0:
        raise ChildFailed(command, code, list(child.tail))


def end_tree(child: subprocess.Popen[str]) -> None:
    """End a child that `start` started: its group by SIGTERM, then by SIGKILL, and whatever descends from it.

    A descendant in a session of its own, such as an engine's server, ends by itself once its parent is gone; one that
    is stopped cannot notice that, and is killed.
    """
    descendants: list[psutil.Process] = []
    if child.poll() is None:
        with suppress(psutil.Error):
            descendants = psutil.Process(child.pid).children(recursive=True)
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(child.pid, sign)
        except (ProcessLookupError, PermissionError):
            break
        with suppress(subprocess.TimeoutExpired):
            child.wait(TERMINATE_SECONDS)
    for left in psutil.wait_procs(descendants, timeout=2 * OWNER_SECONDS)[1]:
        with suppress(psutil.Error):
            left.kill()
