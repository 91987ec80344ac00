"""Directories that a writer fills beside their final place, and what is done with those whose writer was killed."""

from __future__ import annotations

import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geozero.common.errors import refusal

ABANDONED_DAYS = 7  # a partial corpus of another machine that nothing was written to for so long is removed
_DAY = 86_400.0


def partial_name(out: Path, kind: str) -> str:
    """A name beside `out` that ends with this machine and process."""
    return f".{out.name}.{kind}-{socket.gethostname()}-{os.getpid()}"


def remove_abandoned(out: Path) -> None:
    """Remove what killed writers of this corpus left: on this machine at once, of another machine, whose processes
    cannot be seen from here, once nothing was written there for `ABANDONED_DAYS`."""
    marks = tuple(f".{out.name}.{kind}-" for kind in ("part", "old"))
    for path in [p for p in out.parent.iterdir() if p.name.startswith(marks) and p.is_dir()]:
        machine, _, process = path.name.removeprefix(next(m for m in marks if path.name.startswith(m))).rpartition("-")
        if not machine or not process.isdecimal():
            continue
        ended = not _is_running(int(process)) if machine == socket.gethostname() else _is_old(path)
        if ended:
            shutil.rmtree(path, ignore_errors=True)


def _is_old(directory: Path) -> bool:
    try:
        newest = max(p.stat().st_mtime for p in (directory, *directory.iterdir()))
    except OSError:  # its writer is at work, or it is not ours
        return False
    return time.time() - newest > ABANDONED_DAYS * _DAY


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextmanager
def refusals(where: Path) -> Iterator[None]:
    """Turn what only the user can fix, such as a full disk, into InputError."""
    try:
        yield
    except OSError as error:
        refused = refusal(error, where)
        if refused is None:
            raise
        raise refused from None
