"""What a flow watches while it runs: the output of its children, its times, its memory."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from geozero.common import process
from geozero.common.atomic import write_json
from geozero.training.launcher.log_filter import LOSS_METRICS, format_progress_line, is_progress_line

RESOURCE_SECONDS = 15.0  # between two points of the resource curves
MEMORY_SECONDS = 1.0  # between two looks at the processes' memory
LINES_A_MINUTE = 30  # of a child's output that reach the flow's log; all of it stands in the child's own log file
COMMAND = "$ "  # how the line begins that says what is started


def rate_limited(write: Callable[[str], None]) -> Callable[[str], None]:
    """Pass at most `LINES_A_MINUTE` lines a minute on, so that a chatty child does not drown a flow's log."""
    window, passed = time.monotonic(), 0

    def take(line: str) -> None:
        nonlocal window, passed
        if not line.strip():
            return
        now = time.monotonic()
        if now - window > 60:
            window, passed = now, 0
        passed += 1
        if passed <= LINES_A_MINUTE:
            write(line)

    return take


def training(write: Callable[[str], None]) -> Callable[[str], None]:
    """Pass on what tells how a training goes; quick steps' losses cannot crowd out what its guards say."""
    losses, said = rate_limited(write), rate_limited(write)

    def take(line: str) -> None:
        if line.startswith(COMMAND) or is_progress_line(line):
            (losses if LOSS_METRICS in line else said)(format_progress_line(line))

    return take


@dataclass
class StageTime:
    """What a block of `Times.measure` says of itself: whether it found its work done."""

    reused: bool = False


class StageTimer:
    """Seconds by stage, in the order in which stages began, and the most memory that all processes took together.

    They stand in a file after each stage, so that a run that goes on where another ended, or reuses what it made,
    still tells what the whole took.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[str, float] = {}
        self.peak_bytes = 0
        self._before: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {"seconds": {}}
        threading.Thread(target=self._watch_memory, daemon=True).start()

    def _watch_memory(self) -> None:
        own = psutil.Process()
        while True:
            total = 0
            for one in (own, *own.children(recursive=True)):
                with suppress(psutil.Error):
                    total += one.memory_info().rss  # shared pages count more than once: an upper bound
            self.peak_bytes = max(self.peak_bytes, total)
            time.sleep(MEMORY_SECONDS)

    @contextmanager
    def measure(self, stage: str) -> Iterator[StageTime]:
        """Time the block; where it says that it reused its work, the seconds and the memory of that work stay."""
        self.seconds[stage] = 0.0
        spent, start = StageTime(), time.monotonic()
        yield spent
        self.seconds[stage] = round(time.monotonic() - start, 1)
        if spent.reused:
            self.seconds[stage] = self._before["seconds"].get(stage, self.seconds[stage])
            self.peak_bytes = max(self.peak_bytes, self._before.get("peak_bytes", 0))
        known = {**self._before["seconds"], **self.seconds}
        write_json(self.path, {"seconds": known, "peak_bytes": self.peak_bytes})


class ResourceMonitor:
    """Memory of the host, and use and memory of the GPUs, as metrics of a run while it lasts.

    Args:
        log: takes the numbers and the seconds since the start.
    """

    def __init__(self, log: Callable[[dict[str, float], int], None]) -> None:
        self._log, self._ended = log, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ResourceMonitor:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(RESOURCE_SECONDS)

    def _watch(self) -> None:
        start = time.monotonic()
        while True:
            values = {"system/host_memory_gb": psutil.virtual_memory().used / 1e9, **gpu_figures()}
            self._log(values, int(time.monotonic() - start))
            if self._ended.wait(RESOURCE_SECONDS):
                return


def gpu_figures() -> dict[str, float]:
    """Memory in use and utilisation of each GPU that nvidia-smi lists; empty where there is none."""
    if not process.has_gpu():
        return {}
    query = ["nvidia-smi", "--query-gpu=index,memory.used,utilization.gpu", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=RESOURCE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return read_gpu_figures(done.stdout)


def read_gpu_figures(text: str) -> dict[str, float]:
    """`index, MiB used, percent` a line; what a driver cannot tell (`[N/A]`) is left out."""
    figures = {}
    for line in text.splitlines():
        index, *numbers = (part.strip() for part in line.split(","))
        for name, factor, number in zip(("memory_gb", "utilization"), (2**20 / 1e9, 1.0), numbers, strict=False):
            with suppress(ValueError):
                figures[f"system/gpu_{index}_{name}"] = float(number) * factor
    return figures
