"""What every flow shares: the checkout it works in, its settings, its tracking, its log of times."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from geozero import params
from geozero.corpus import MANIFEST
from geozero.tracking import Tracker

MEMORY_SECONDS = 1.0  # between two looks at the processes' memory
LINES_A_MINUTE = 30  # of a child's output that reach the flow's log; all of it stands in runs/logs


@dataclass(frozen=True)
class Workspace:
    """One checkout: where its params.yaml stands, everything else stands beside it."""

    file: Path
    settings: params.Params = field(repr=False)

    @classmethod
    def open(cls, file: Path | str) -> Workspace:
        path = Path(file).resolve()
        settings = params.load(path)
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # DVC's commands are ours
        return cls(path, settings)

    @property
    def root(self) -> Path:
        return self.file.parent

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def reports(self) -> Path:
        return self.root / "reports"

    @property
    def base(self) -> Path:
        """The base model; a name that is no directory here is taken as it is (a hub name)."""
        path = self.root / self.settings.model.path
        return path if path.is_dir() else Path(self.settings.model.path)

    @property
    def corpora(self) -> list[Path]:
        """Every ingested corpus, by name."""
        return sorted(p.parent for p in (self.root / "data/corpus").glob(f"*/{MANIFEST}"))

    @property
    def trained_sources(self) -> list[str]:
        """The sources whose train split is learned from, and whose val split may choose."""
        return [*self.settings.data.sources, *self.settings.data.samples]

    @property
    def tracker(self) -> Tracker:
        return Tracker(self.settings.tracking.uri, self.settings.tracking.experiment, self.root)

    @property
    def engine(self) -> dict[str, Any]:
        """What `open_engine` takes beside the model."""
        model = self.settings.model
        return {
            "name": self.settings.sampling.engine,
            "dtype": model.dtype,
            "max_pixels": model.max_pixels,
            "max_length": model.max_length,
            "template": model.template,
            "model_type": model.model_type,
            "memory": self.settings.sampling.memory,
        }

    def log(self, name: str) -> Path:
        return self.runs / "logs" / f"{name}.log"


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
