"""Write files and directories atomically: beside their final place, then renamed."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, for a file or a directory, which replaces `path` when the block ends.

    After an error in the block it is removed, and `path` stays as it was.

    Raises:
        InputError: its directory cannot be created, or `path` is a directory and a file was written.
    """
    make_parent(path)
    temporary = path.with_name(f".{path.name}.part-{os.getpid()}")
    _remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            if not temporary.is_dir():
                raise InputError("a directory stands where a file is expected", str(path), "choose another name")
            shutil.rmtree(path)
        os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def make_parent(path: Path) -> None:
    """Create the directory of `path` if it does not exist.

    Raises:
        InputError: the system allows none there, as in `/proc`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:
        raise InputError("no directory can be made there", str(path.parent), "choose another place") from None


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file as a whole."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file as a whole; half of a surrogate pair, which UTF-8 cannot hold, as its JSON escape."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=_plain) + "\n"
    write_text(path, text.encode(errors="backslashreplace").decode())


def update_json(path: Path, value: Any) -> None:
    """Write a JSON file, unless it holds this value already."""
    try:
        if json.loads(path.read_text(encoding="utf-8")) == value:
            return
    except (OSError, ValueError, RecursionError):
        pass
    write_json(path, value)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return str(value)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
