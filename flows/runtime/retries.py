"""The failures of a task that are retried: those of the machine or the network, not those of input or code."""

from __future__ import annotations

import errno
import re
import signal
import threading
from collections.abc import Sequence
from typing import Any
from urllib.error import URLError

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from geozero.common import process
from geozero.common.errors import EXIT_BAD_INPUT

# In a child's last lines, what a GPU, its driver or its network reports. An assertion on the device, a wrong index and
# a missing kernel are faults of the code or the input.
GPU_FAULT = re.compile(
    r"CUDA error: (?!device-side assert|no kernel image|invalid (?:argument|device|configuration|resource))"
    r"|ECC error|\bXid\b|GPU is lost"
    r"|NCCL (?:error|timeout)(?!.*invalid (?:usage|argument))|nccl(?:System|Remote|Internal|UnhandledCuda)Error"
    r"|Watchdog caught collective operation timeout|Bus error"
)
# … and the errors of a network or a file system that may pass, where the last exception is one of them
PASSING_FAULT = re.compile(
    r"Connection(?:Reset|Refused|Aborted)?Error\b|BrokenPipeError|(?:Connect|Read|Pool|Write)Timeout\b|RemoteDisconnected"
    r"|MaxRetryError|(?:Connect|Read|Write|RemoteProtocol)Error\b|Connection (?:reset|refused|timed out|aborted|closed)"
    r"|Temporary failure in name resolution|Resource temporarily unavailable|Stale file handle|Input/output error"
)
EXCEPTION = re.compile(r"^(?:\[rank\d+\]: ?)?[A-Za-z_][\w.]*(?:Error|Exception|Timeout|Disconnected|Interrupt)\b")
DVC_FAILED = 255  # DVC's exit code for every fault; its last line says how the stage's command ended
STAGE_ENDED = re.compile(r"failed to reproduce .*, exited with (-?\d+)$")
LAST_SIGNAL = 64
# Signals that a process sends itself by a fault of its own: the same work would end the same way.
FAULTS = (signal.SIGSEGV, signal.SIGABRT, signal.SIGILL, signal.SIGFPE, signal.SIGSYS, signal.SIGTRAP)
PASSING_ERRNO = (
    *(errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.ESTALE, errno.ENOMEM),
    *(errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)
leaving = threading.Event()  # set while a flow is ended: it has ended the children of its tasks itself
NETWORK_LIBRARIES = ("requests", "urllib3", "httpx", "httpcore")


def retry_condition(task: Any, run: Any, state: Any) -> bool:
    """Whether to retry a failed task (Prefect's `retry_condition_fn`).

    Not after bad input or an error in the code, nor while the flow itself is ended, and its children with it; but
    after a kill from outside (out of memory, preemption), and where the machine or the network failed. A training then
    resumes from its last checkpoint.
    """
    return not leaving.is_set() and is_transient(state.result(raise_on_failure=False))


def is_transient(error: object) -> bool:
    """Whether the same work may succeed a moment later."""
    if isinstance(error, process.ChildFailed):
        return _child_may_succeed(error.code, error.tail)
    if getattr(error, "code", getattr(getattr(error, "response", None), "status_code", 500)) in range(400, 500):
        return False  # a server's answer to a wrong request
    if isinstance(error, ConnectionError | URLError) or type(error).__module__.partition(".")[0] in NETWORK_LIBRARIES:
        return True
    return isinstance(error, OSError) and error.errno in PASSING_ERRNO


def _child_may_succeed(code: int, tail: Sequence[str]) -> bool:
    if code == DVC_FAILED:
        stages = [int(found[1]) for line in tail if (found := STAGE_ENDED.search(line))]
        code = stages[-1] if stages else code
    if code == EXIT_BAD_INPUT:
        return False
    number = -code if code < 0 else code - 128
    if 0 < number <= LAST_SIGNAL and number not in FAULTS:
        return True  # killed from outside
    lines = [line for line in tail if line[:1].strip()]  # no source lines of a traceback
    if any(GPU_FAULT.search(line) for line in lines):
        return True
    raised = [line for line in lines if EXCEPTION.match(line)]
    return bool(raised) and PASSING_FAULT.search(raised[-1]) is not None


# Every task is retried twice, after 30 and 60 seconds. Files, not a cache, record which work is finished.
TASK_OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=30),
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": retry_condition,
}
