"""A progress bar in Prefect for a long stage: rate and time left, told by a thread of its own."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any
from uuid import UUID

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

UPDATE_SECONDS = 10.0


class ArtifactProgress:
    """Follows a stage of so many steps; a server that does not answer costs the bar, not the stage.

    Attributes:
        steps: may change while the stage goes on.
        unit: what a step is called.
    """

    def __init__(self, stage: str, steps: int, unit: str = "step") -> None:
        self.stage, self.steps, self.unit = stage, steps, unit
        self._first: tuple[int, float] | None = None
        self._now: tuple[int, float] | None = None
        self._ended = threading.Event()
        self._artifact: UUID | None = None
        self._thread = threading.Thread(target=self._tell, daemon=True)

    def __enter__(self) -> ArtifactProgress:
        try:  # here, in the task's own thread: so the bar is shown with the task
            made: Any = create_progress_artifact(
                0.0, key=f"{self.stage}-progress", description=f"{self.stage}: starting"
            )
            self._artifact = made
        except Exception as error:
            get_run_logger().warning(f"no progress bar: {error}")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join(UPDATE_SECONDS if kind is None else 1.0)

    def at(self, step: int) -> None:
        """A step was done. Returns at once."""
        self._now = (step, time.monotonic())
        self._first = self._first or self._now

    def text(self) -> str:
        """What the bar says: steps, rate, time left."""
        if self._now is None or self._first is None:
            return f"{self.stage}: starting"
        (first, began), (step, now) = self._first, self._now
        line = f"{self.stage}: {self.unit} {step} of {self.steps}"
        if step == first:
            return line
        each = (now - began) / (step - first)
        left = each * (self.steps - step)
        rate = f"{1 / each:.2f} {self.unit}s/s" if each < 1 else f"{each:.1f} s a {self.unit}"
        return f"{line}, {rate}, {_spell(left)} left" if left > 0 else f"{line}, {rate}"

    def _tell(self) -> None:
        said = ""
        while self._artifact is not None:
            ended = self._ended.wait(UPDATE_SECONDS)
            if self.text() != said and self._now is not None:
                said = self.text()
                share = min(100.0, 100.0 * self._now[0] / self.steps)
                try:
                    update_progress_artifact(self._artifact, share, description=said)
                except Exception:  # tried again at the next step
                    said = ""
            if ended:
                return


def _spell(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
