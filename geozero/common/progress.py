"""How far a long piece of work is: a bar on a terminal, lines in a log, or what a caller publishes elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from geozero.common.redaction import plain

LINE_SECONDS = 15.0  # between two lines
BAR_SECONDS = 0.1
PUBLISH_SECONDS = 10.0


class Progress:
    """Draws a bar on a terminal; elsewhere writes a plain line at the start, now and then, and at the end.

    Args:
        what: begins each line.
        total: steps in all, None where unknown; may change on the way.
        unit: what a step is called.
        write: takes the lines, also on a terminal; if left out, standard error does.
        publish: takes percent and text instead, from a thread of its own: a server that hangs or fails costs updates,
            not the work.
    """

    def __init__(
        self,
        what: str = "",
        total: int | None = None,
        unit: str = "step",
        *,
        write: Callable[[str], object] | None = None,
        publish: Callable[[float, str], object] | None = None,
    ) -> None:
        self.what, self.total, self.unit, self.done = what, total, unit, 0
        self._write, self._publish, self._note = write, publish, ""
        self._first: tuple[int, float] | None = None  # steps and time at the first report: rates leave out the start
        self._last = time.monotonic()
        self._due = self._last + LINE_SECONDS
        self._bar: Any = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._publish_all, daemon=True)

    def __enter__(self) -> Progress:
        if self._publish is not None:
            self._thread.start()
        elif self._write is None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar, self._due = Bar(*columns, console=Console(stderr=True), transient=True), 0.0
            self._bar.add_task(self.what, total=None)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._bar is not None:
            self._bar.stop()
        if self._thread.is_alive():
            self._thread.join(PUBLISH_SECONDS if kind is None else 1.0)

    def step(self, note: str = "") -> None:
        """One more step is done; `note` says how things stand."""
        self.at(self.done + 1, note)

    def at(self, done: int, note: str = "") -> None:
        """So many steps are done. Without a note, the text gives the rate and the time left."""
        now = time.monotonic()
        self._first = self._first or (done, now)
        self.done, self._note, self._last = done, note, now
        if self._publish is None and (now >= self._due or done in (0, self.total)):
            self._due = now + (LINE_SECONDS if self._bar is None else BAR_SECONDS)
            if self._bar is not None:
                self._bar.update(
                    self._bar.task_ids[0], completed=done, total=self.total, description=plain(self.text())
                )
            elif self._write is not None:
                self._write(self.text())
            else:
                print(plain(self.text()), file=sys.stderr, flush=True)

    def text(self) -> str:
        """How things stand, in one line."""
        before = f"{self.what}: " if self.what else ""
        if self._note:
            return before + self._note
        if self._first is None:
            return f"{before}starting"
        (first, began), total = self._first, "" if self.total is None else f" of {self.total}"
        line = f"{before}{self.unit} {self.done}{total}"
        if self.done == first:
            return line
        each = (self._last - began) / (self.done - first)
        line += f", {1 / each:.2f} {self.unit}s/s" if 0 < each < 1 else f", {each:.1f} s per {self.unit}"
        left = each * ((self.total or 0) - self.done)
        return f"{line}, {_duration(left)} left" if left > 0 else line

    def _publish_all(self) -> None:
        assert self._publish is not None
        published = ""
        while True:
            ended = self._ended.wait(PUBLISH_SECONDS)
            text = self.text()
            if text != published and self._first is not None:
                try:
                    self._publish(min(100.0, 100.0 * self.done / self.total) if self.total else 0.0, text)
                    published = text
                except Exception:  # tried again with the next step
                    published = ""
            if ended:
                return


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
