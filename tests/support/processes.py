"""Waiting for processes to end."""

from __future__ import annotations

import time
from pathlib import Path


def is_running(number: int) -> bool:
    """Whether a process still works; a killed orphan that nobody has fetched yet does not."""
    try:
        return "Z" not in Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def is_gone_soon(number: int) -> bool:
    until = time.monotonic() + 5
    while is_running(number) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_running(number)
