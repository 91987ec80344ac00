"""A directory that a command fills and may replace: it lists what it wrote, and removes nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from geozero.common.atomic import replacing
from geozero.common.errors import InputError

LIST = ".geozero-files"
MOST_HASHED = 1 << 20  # bytes; a larger file is known by its size and time


@contextmanager
def replacing_own(out: Path, beside: tuple[str, ...] = (), option: str = "--out") -> Iterator[Path]:
    """`replacing` for a directory, with a list of its files; an older one is replaced only if it is as it was written.

    Args:
        beside: names of files beside `out` that the block writes, too.
        option: of the command, for messages.

    Raises:
        InputError: `out` or a file beside it holds what an earlier call did not write, or was changed since.
    """
    _refuse_foreign(out, beside, f"choose another {option}")
    with replacing(out) as place:
        yield place
        written = {path.relative_to(place).as_posix(): _known_by(path) for path in _files(place)}
        written |= {f"../{name}": _known_by(out.parent / name) for name in beside}
        (place / LIST).write_text(json.dumps(written, indent=1), encoding="utf-8")


def _refuse_foreign(out: Path, beside: tuple[str, ...], hint: str) -> None:
    there = {f"../{name}": out.parent / name for name in beside if (out.parent / name).exists()}
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise InputError("the output exists and is something else", str(out), hint)
    if out.is_dir():
        there |= {path.relative_to(out).as_posix(): path for path in _files(out)}
    try:
        written = json.loads((out / LIST).read_text(encoding="utf-8")) if there else {}
        foreign = [
            path for name, path in sorted(there.items()) if name != LIST and written.get(name) != _known_by(path)
        ]
    except FileNotFoundError:
        raise InputError("the output exists and is something else", str(out), hint) from None
    except (OSError, ValueError, AttributeError):
        raise InputError("the list of what was written is damaged", str(out / LIST), hint) from None
    if foreign:
        what = f"geozero did not write {foreign[0].name}, or it was changed since"
        raise InputError(what, str(out), f"{hint}, or move it away")


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_symlink() or not path.is_dir()]


def _known_by(path: Path) -> str:
    state = path.lstat()
    if path.is_symlink() or state.st_size > MOST_HASHED:
        return f"{state.st_size} {state.st_mtime_ns}"
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
