"""Where a sampling stands: answers, tokens, rate, time left."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from geozero.common.progress import Progress


@dataclass(slots=True)
class SamplingProgress:
    """Numbers of answers of this call."""

    total: int  # shrinks where adaptive sampling finds answers that nobody needs
    done: int = 0
    truncated: int = 0
    errors: int = 0
    faults: dict[str, tuple[int, str]] = field(default_factory=dict)  # of errors: kind → how many, and one in words
    empty: int = 0
    spared: int = 0  # by adaptive sampling
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    loading: float = 0.0  # seconds, of all engines so far
    latest: float | None = None  # when the latest answers were stored

    @property
    def rate(self) -> float:
        """Answers a second, loading of models left out."""
        return self.done / self.seconds

    @property
    def seconds(self) -> float:
        """From the start until the latest answers (or now), loading of models left out."""
        return max(1e-9, (self.latest or time.monotonic()) - self.started - self.loading)

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / self.rate if self.done else float("inf")

    def loaded(self, seconds: float) -> None:
        """A model was loaded; with cross-fitting there are several, and answers of the one before."""
        self.loading += seconds
        self.latest = None

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Count rows of the store that were just written."""
        self.done += len(rows)
        self.latest = time.monotonic()
        self.tokens += sum(row["n_tokens"] for row in rows)
        given = [row for row in rows if row["error"] is None]
        self.truncated += sum(row["finish_reason"] == "length" for row in given)
        self.errors += len(rows) - len(given)
        self.empty += sum(not row["text"].strip() for row in given)

    def failed(self, fault: str) -> None:
        """An answer was not given; the reasons are summed up at the end."""
        kind = fault.partition(":")[0].strip()
        n, words = self.faults.get(kind, (0, fault))
        self.faults[kind] = n + 1, words

    def spare(self, answers: int) -> None:
        """These answers are not needed."""
        self.spared += answers
        self.total -= answers

    def line(self) -> str:
        """One plain line."""
        left = f"{self.seconds_left:.0f} s left" if self.done else "loading the model"
        line = f"sampled {self.done:,} of {self.total:,} answers, {self.rate:.1f} a second, {left}"
        return line + (f", {self.spared:,} spared" if self.spared else "")

    def show(self, progress: Progress) -> None:
        """Report these numbers."""
        progress.total = self.total
        progress.at(self.done, self.line())
