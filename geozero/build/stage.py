"""What every stage of this room shares: skip finished work, show progress, say plainly that the disk is full."""

from __future__ import annotations

import errno
import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from geozero.corpus import MANIFEST, CorpusWriter
from geozero.errors import InputError

LINE_SECONDS = 20.0  # between two lines of progress in a log
_DISK = {
    errno.ENOSPC: "no space left on the disk",
    errno.EDQUOT: "the disk quota is used up",
    errno.EACCES: "no permission to write",
    errno.EPERM: "no permission to write",
    errno.EROFS: "the disk is read-only",
}


def finished(out: Path, made_by: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest of a corpus at `out` that was made in exactly this way and is whole; None otherwise."""
    try:
        manifest: dict[str, Any] = json.loads((out / MANIFEST).read_text())
        same = manifest["made_by"] == json.loads(json.dumps(made_by))
        whole = all((out / shard).is_file() for shard in manifest["shards"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return manifest if same and whole else None


@contextmanager
def corpus_writer(out: Path, made_by: Mapping[str, Any]) -> Iterator[CorpusWriter]:
    """A CorpusWriter whose troubles with the disk become one clear line; nothing half-written stays behind.

    Raises:
        InputError: `out` is no directory, or the disk is full, read-only or not ours.
    """
    if out.exists() and not out.is_dir():
        raise InputError("a file stands where the corpus is to go", str(out), "choose another --out")
    writer = CorpusWriter(out, made_by)
    try:
        with writer:
            yield writer
    except OSError as error:
        shutil.rmtree(writer.temporary, ignore_errors=True)  # also where it was the last shard that did not fit
        if error.errno in _DISK:
            raise InputError(_DISK[error.errno], str(out), "make room or choose another --out") from None
        raise


class Progress:
    """A bar on a terminal, else a plain line on standard error now and then; counts, because totals are unknown.

    Args:
        what: what is being done, such as "ingest aid".
    """

    def __init__(self, what: str) -> None:
        self._what, self._count, self._note = what, 0, ""
        self._next_line = time.monotonic() + LINE_SECONDS
        self._bar: Any = None

    def __enter__(self) -> Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress as Bar
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
            self._bar = Bar(*columns, console=Console(stderr=True), transient=True)
            self._bar.add_task(self._what, total=None)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def step(self, note: str) -> None:
        """One more item is done; `note` says how things stand."""
        self._count += 1
        if self._bar is not None:
            if self._count % 50 == 0:
                self._bar.update(self._bar.task_ids[0], description=f"{self._what}: {note}")
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LINE_SECONDS
            print(f"{self._what}: {note}", file=sys.stderr, flush=True)
