"""What the ingest of each data set depends on, in one small file per data set that DVC compares.

Several data sets may lie in one root, and each is read by another adapter. A stage that depended on the root and on all
adapters would run again whenever any of them changed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from geozero.common import import_closure
from geozero.common.atomic import make_parent, write_json
from geozero.common.errors import InputError, Missing
from geozero.params import Data
from geozero.sources import Source, Tree, get, modules, open_tree

STAGE = "DVC_STAGE"  # DVC tells a command so which stage it is


def stage_source() -> str | None:
    """The data set whose DVC stage this process is, `ingest@NAME`; None outside of one."""
    return os.environ.get(STAGE, "").rpartition("@")[2] or None


def write_code(data: Data, out: Path) -> None:
    """Write `NAME.json` for every data set: a hash of the files that read it, and its options.

    Raises:
        InputError: no data set and no adapter has that name.
    """
    shared = import_closure.command("data", "ingest")
    for name, place in data.places.items():
        get(place.source or name)
        files = shared | import_closure.closure(*modules(place.source or name))
        settings = place.model_dump(include={"source", "options"}, exclude_defaults=True)
        _write(out, name, {"code": import_closure.digest(files), **settings})


def write_files(data: Data, checkout: Path, out: Path) -> None:
    """Write `NAME.json` for every data set that is looked for in a root: number and hash of its own files there.

    Raises:
        InputError: no data set has that name, or a root cannot be read.
    """
    for root in sorted(set(data.searched.values())):
        place = checkout / root
        own: dict[str, set[str]] = {name: set() for name, searched in data.searched.items() if searched == root}
        with suppress(Missing), open_tree(place) as tree:
            own = {name: _own_files(get(name), tree) for name in own}
        known = _hashes_of_dvc(checkout, {place / file for files in own.values() for file in files})
        for name, files in own.items():
            total = hashlib.blake2b(digest_size=16)
            for file in sorted(files):
                total.update(f"{file}\0{known.get(_absolute(place / file)) or _md5(place / file)}\0".encode())
            _write(out, name, {"files": len(files), "content": total.hexdigest()})


def _own_files(source: Source, tree: Tree) -> set[str]:
    """The files of a root that hold the data set, none where it is not found; "" is the root that is an archive."""
    if not tree.files():
        return {""}
    try:
        return source.find(tree).files()
    except Missing:
        return set()
    except InputError:  # which of its files are meant is not known here
        return tree.files()


def _hashes_of_dvc(checkout: Path, paths: Iterable[Path]) -> dict[str, str]:
    """The MD5 of the files that DVC has just read to compare the root, by absolute path: large data is read once."""
    if STAGE not in os.environ:
        return {}
    from dvc.repo import Repo

    with Repo(str(checkout)) as repo:
        found = repo.state.get_many([_absolute(path) for path in paths], repo.fs, {})
        return {path: str(known.value) for path, _, known in found if known is not None and known.name == "md5"}


def _md5(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "md5").hexdigest()
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _absolute(path: Path) -> str:
    return os.path.abspath(path)  # noqa: PTH100  # as DVC names it: a link stays


def _write(out: Path, name: str, content: Mapping[str, Any]) -> None:
    make_parent(out / name)
    write_json(out / f"{name}.json", content)
