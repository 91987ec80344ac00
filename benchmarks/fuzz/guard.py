"""What an input may touch: files below its own directory; nothing else is written, opened, started or connected to."""

from __future__ import annotations

import os
import signal
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
READ = tuple(
    {
        os.path.realpath(path)
        for path in (
            sys.prefix,
            sys.base_prefix,
            sysconfig.get_path("stdlib"),
            ROOT / "geozero",
            "/usr/share",
            "/usr/lib",
        )
    }
    | {
        "/proc/self",
        "/sys/devices/system/cpu",
        "/dev/urandom",
        "/lib",
        "/usr/local/lib",
        "/etc/mime.types",
        "/etc/localtime",
    }
)
WRITE = ("/dev/null", "/dev/shm")
CHANGES = {  # audit events → how many of their arguments, from the first on, are paths that change
    "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.rename": 2, "os.link": 2, "os.chmod": 1, "os.truncate": 1,
    "os.utime": 1, "shutil.rmtree": 1, "shutil.move": 2,
}  # fmt: skip
FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pty.spawn")


class TooSlow(BaseException):
    """Raised inside an input that takes too long; no `except Exception` on the way may catch it."""


class Guard:
    """Sees what the process does while an input is read. There is one per process: an audit hook cannot be removed."""

    def __init__(self) -> None:
        self._place: str | None = None
        self._seen: list[str] = []
        sys.addaudithook(self._audit)

    @contextmanager
    def watch(self, place: Path, seconds: float) -> Iterator[list[str]]:
        """What happened against the rules while the block ran.

        Raises:
            TooSlow: the block took more processor time.
        """
        self._seen = []
        signal.signal(signal.SIGVTALRM, self._stop)
        signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
        self._place = os.path.realpath(place)
        try:
            yield self._seen
        finally:
            self._place = None
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        raise TooSlow

    def _audit(self, event: str, given: tuple[Any, ...]) -> None:
        if self._place is None:
            return
        place, self._place = self._place, None  # what is done here is not the input's
        try:
            if event == "open":
                path, mode, flags = given
                if isinstance(path, str | bytes | os.PathLike):
                    writes = bool((flags or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)) or bool(
                        set(mode or "") & set("wax+")
                    )
                    self._check(place, path, writes)
            elif event in CHANGES:
                for path in given[: CHANGES[event]]:
                    if isinstance(path, str | bytes | os.PathLike):
                        self._check(place, path, True)
            elif event in FORBIDDEN:
                self._seen.append(f"{event} {given[:1]!r}")
        finally:
            self._place = place

    def _check(self, place: str, path: Any, writes: bool) -> None:
        try:
            real = os.path.realpath(os.fsdecode(path))
        except (OSError, ValueError):
            return  # a name that no file can have
        allowed = (place, *WRITE) if writes else (place, *WRITE, *READ)
        if not any(real == one or real.startswith(one.rstrip("/") + "/") for one in allowed):
            self._seen.append(f"{'writes' if writes else 'reads'} {real}")


def scratch() -> Path:
    """A directory for inputs, beside which lies a file that none of them may read."""
    place = Path(tempfile.mkdtemp(prefix="fuzz-"))
    (place / "outside").write_bytes(b"nobody reads this")
    return place
