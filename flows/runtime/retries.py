"""The failures of a task that are retried: those of the machine or the network, not those of input or code."""

from __future__ import annotations

import re
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.tasks import exponential_backoff

from geozero.common import process

# In a child's last lines, signs that the machine or the network failed, not the work.
TRANSIENT_ERRORS = (
    "CUDA error",
    "NCCL",
    "ECC error",
    "Connection",
    "Bus error",
    "Resource temporarily unavailable",
    "Timeout",
)
DVC_FAILED = 255  # DVC's exit code for every fault; its last line says how the stage's command ended
STAGE_ENDED = re.compile(r"failed to reproduce .*, exited with (-?\d+)$")
LAST_SIGNAL = 64


def retry_condition(task: Any, run: Any, state: Any) -> bool:
    """Whether to retry a failed task (Prefect's `retry_condition_fn`).

    Not after bad input, nor after an error in the code; but after a kill from outside (out of memory, preemption), and
    where the machine or the network failed. A training then resumes from its last checkpoint.
    """
    return is_transient(state.result(raise_on_failure=False))


def is_transient(error: object) -> bool:
    """Whether the same work may succeed a moment later."""
    if isinstance(error, process.ChildFailed):
        code = error.code
        if code == DVC_FAILED:
            stages = [int(found[1]) for line in error.tail if (found := STAGE_ENDED.search(line))]
            code = stages[-1] if stages else code
        killed = code < 0 or 128 < code <= 128 + LAST_SIGNAL
        return killed or any(word in line for line in error.tail for word in TRANSIENT_ERRORS)
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError | TimeoutError)


# Every task is retried twice, after 30 and 60 seconds. Files, not a cache, record which work is finished.
TASK_OPTIONS: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": exponential_backoff(backoff_factor=30),
    "retry_jitter_factor": 0.2,
    "retry_condition_fn": retry_condition,
}
