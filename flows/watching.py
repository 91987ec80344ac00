"""What a flow watches while it runs: the output of its children, its times, its memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from geozero.corpus import write_json

MEMORY_SECONDS = 1.0  # between two looks at the processes' memory
LINES_A_MINUTE = 30  # of a child's output that reach the flow's log; all of it stands in the child's own log file
# How lines begin that tell how a training goes; ms-swift writes hundreds of others.
TRAINING = ("$ ", "{'loss'", "replay:", "resumed", "checkpoint-", "another process")


def bounded(write: Callable[[str], None], starts: tuple[str, ...] = ("",)) -> Callable[[str], None]:
    """Pass at most `LINES_A_MINUTE` lines a minute on, so that a chatty child does not drown a flow's log.

    Args:
        starts: only lines that begin with one of these count and pass.
    """
    window, passed = time.monotonic(), 0

    def take(line: str) -> None:
        nonlocal window, passed
        if not line.strip() or not line.startswith(starts):
            return
        now = time.monotonic()
        if now - window > 60:
            window, passed = now, 0
        passed += 1
        if passed <= LINES_A_MINUTE:
            write(line)

    return take


@dataclass
class Spent:
    """What a block of `Times.measure` says of itself: whether it found its work done."""

    reused: bool = False


class Times:
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
    def measure(self, stage: str) -> Iterator[Spent]:
        """Time the block; where it says that it reused its work, the seconds and the memory of that work stay."""
        self.seconds[stage] = 0.0
        spent, start = Spent(), time.monotonic()
        yield spent
        self.seconds[stage] = round(time.monotonic() - start, 1)
        if spent.reused:
            self.seconds[stage] = self._before["seconds"].get(stage, self.seconds[stage])
            self.peak_bytes = max(self.peak_bytes, self._before.get("peak_bytes", 0))
        known = {**self._before["seconds"], **self.seconds}
        write_json(self.path, {"seconds": known, "peak_bytes": self.peak_bytes})
