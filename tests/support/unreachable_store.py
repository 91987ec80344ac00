"""A tracking store that does not answer."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from geozero.tracking import RUN_ID_FILE


class Refusal(Exception):
    error_code = "INVALID_PARAMETER_VALUE"


class FakeTracker:
    """Keeps what it is sent, like MLflow equal points once; `state` is what the server does now."""

    def __init__(self) -> None:
        self.state = "up"
        self.points: dict[tuple[str, str, int, int], float] = {}
        self.calls: list[tuple[str, str]] = []

    def _arrive(self) -> None:
        if self.state == "down":
            raise ConnectionError("nobody there")
        if self.state == "slow":
            time.sleep(0.3)

    def answers(self) -> bool:
        return self.state != "down"

    def child(self, parent: str, stage: str, run_dir: Path, tags: dict[str, str], at: int) -> str:
        self._arrive()
        (run_dir / RUN_ID_FILE).write_text(f"id-{run_dir.name}")
        self.calls.append(("child", stage))
        return f"id-{run_dir.name}"

    def log_points(self, run: str, points: list[tuple[str, int, float, int]]) -> None:
        self._arrive()
        if any(name == "bad" for name, *_ in points):
            raise Refusal("no such metric")
        for name, step, value, at in points:
            self.points[run, name, step, at] = value

    def set_tag(self, run: str, key: str, value: str) -> None:
        self._arrive()
        if key == "bad":
            raise Refusal("no such tag\nmore")
        if key == "broken":
            raise RuntimeError("500")
        self.calls.append(("set_tag", f"{run}/{key}"))

    def finish(self, run: str, status: str = "FINISHED", at: int | None = None) -> None:
        self._arrive()
        self.calls.append(("finish", f"{run}/{status}"))


class Unreachable(FakeTracker):
    def __init__(self) -> None:
        super().__init__()
        self.state = "down"


def stop(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait(30)
