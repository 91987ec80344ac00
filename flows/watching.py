"""What a flow watches while it runs: the output of its children, its times, its memory."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from geozero.corpus import write_json

MEMORY_SECONDS = 1.0  # between two looks at the processes' memory
LINES_A_MINUTE = 30  # of a child's output that reach the flow's log; all of it stands in runs/logs


def bounded(write: Callable[[str], None]) -> Callable[[str], None]:
    """Pass at most `LINES_A_MINUTE` lines a minute on, so that a chatty child does not drown a flow's log."""
    window, passed = time.monotonic(), 0

    def take(line: str) -> None:
        nonlocal window, passed
        now = time.monotonic()
        if now - window > 60:
            window, passed = now, 0
        passed += 1
        if line.strip() and passed <= LINES_A_MINUTE:
            write(line)

    return take


class Times:
    """Seconds by stage, in the order in which stages began, and the most memory that all processes took together."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.peak_bytes = 0
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
    def measure(self, stage: str) -> Iterator[None]:
        self.seconds[stage] = 0.0
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] = round(time.monotonic() - start, 1)

    def settle(self, path: Path, reused: Collection[str]) -> None:
        """Write the times to `path`; a stage that was reused keeps the seconds of the run that did it."""
        before = json.loads(path.read_text()) if path.is_file() else {}
        for stage in reused:
            self.seconds[stage] = before.get("seconds", {}).get(stage, self.seconds.get(stage, 0.0))
        if reused:
            self.peak_bytes = max(self.peak_bytes, before.get("peak_bytes", 0))
        write_json(path, {"seconds": self.seconds, "peak_bytes": self.peak_bytes})
