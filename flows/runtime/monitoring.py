"""Monitoring of a running flow: the output of its child processes, its times, the machine."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from geozero.common import process
from geozero.common.atomic import write_json
from geozero.training.launcher.log_filter import LOSS_METRICS, format_progress_line, is_progress_line

SYSTEM_SECONDS = 15.0  # between two points of the machine's curves
MEMORY_SECONDS = 1.0  # between two looks at the processes' memory
LINES_PER_MINUTE = 30  # of a child's output that reach the flow's log; the child's own log file has everything
COMMAND = "$ "  # begins the line with the command that is started


def rate_limited(write: Callable[[str], None]) -> Callable[[str], None]:
    """Pass on at most `LINES_PER_MINUTE`, so that a verbose child process does not flood a flow's log."""
    window, passed = time.monotonic(), 0

    def on_line(line: str) -> None:
        nonlocal window, passed
        if not line.strip():
            return
        now = time.monotonic()
        if now - window > 60:
            window, passed = now, 0
        passed += 1
        if passed <= LINES_PER_MINUTE:
            write(line)

    return on_line


def training_log(write: Callable[[str], None]) -> Callable[[str], None]:
    """Pass on what a training reports; the losses of quick steps cannot crowd out warnings."""
    losses, other = rate_limited(write), rate_limited(write)

    def on_line(line: str) -> None:
        if line.startswith(COMMAND) or is_progress_line(line):
            (losses if LOSS_METRICS in line else other)(format_progress_line(line))

    return on_line


@dataclass
class StageTime:
    """Set by a block of `StageTimer.measure`: whether it reused finished work."""

    reused: bool = False


class StageTimer:
    """Seconds by stage, in the order in which stages began, and the peak memory of all processes together.

    Both are written to a file after each stage, so that a run that resumes or reuses another one's work still reports
    what the whole took.
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
        """Time the block. If it reused finished work, the seconds and the memory of that work are kept."""
        self.seconds[stage] = 0.0
        timed, start = StageTime(), time.monotonic()
        yield timed
        self.seconds[stage] = round(time.monotonic() - start, 1)
        if timed.reused:
            self.seconds[stage] = self._before["seconds"].get(stage, self.seconds[stage])
            self.peak_bytes = max(self.peak_bytes, self._before.get("peak_bytes", 0))
        known = {**self._before["seconds"], **self.seconds}
        write_json(self.path, {"seconds": known, "peak_bytes": self.peak_bytes})


@contextmanager
def system_metrics(log: Callable[[dict[str, float], int], None]) -> Iterator[None]:
    """Report use of CPU, memory, disk, network and GPUs while the block runs, as MLflow measures and names them.

    MLflow's own loop asks the server for the run before each point, and ends for good at the first failure.

    Args:
        log: takes the metrics and the seconds since the start.
    """
    from mlflow.system_metrics.metrics import cpu_monitor, disk_monitor, gpu_monitor, network_monitor

    monitors = [cpu_monitor.CPUMonitor(), disk_monitor.DiskMonitor(), network_monitor.NetworkMonitor()]
    if process.has_gpu():
        try:
            monitors.append(gpu_monitor.GPUMonitor())
        except Exception as error:  # the driver, or its Python package nvidia-ml-py, does not work
            logging.getLogger(__name__).warning("no GPU metrics: %s", error)
    ended, start = threading.Event(), time.monotonic()

    def watch() -> None:
        while True:
            values: dict[str, float] = {}
            for monitor in monitors:
                monitor.collect_metrics()
                values |= {f"system/{name}": value for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
            log(values, int(time.monotonic() - start))
            if ended.wait(SYSTEM_SECONDS):
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(SYSTEM_SECONDS)
