"""Files outside of a corpus that it refers to: how they are named, and which it may refer to.

A corpus may refer to what lies in its workspace (the directory above it with `dvc.yaml` or `params.yaml`) or beside
it. Anything else has to lie below a directory in `.geozero/image-roots` of the workspace, which commands extend whose
user named files there; a corpus that comes from a stranger cannot.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from geozero.common.atomic import write_text
from geozero.common.errors import InputError

ROOTS = Path(".geozero") / "image-roots"
_MARKS = ("dvc.yaml", "params.yaml")


def home_of(corpus: Path) -> tuple[Path, bool]:
    """The directory above a corpus that it is moved with, and whether it is a workspace: if none is, its parent."""
    found = next((p for p in corpus.parents if any((p / mark).is_file() for mark in _MARKS)), None)
    return (found, True) if found else (corpus.parent, False)


def reference(corpus: Path, file: Path) -> str:
    """The name of a file in the file table of a corpus: relative, so that both can be moved, unless the file lies
    outside the workspace and stays where it is. Both paths are resolved."""
    home, is_workspace = home_of(corpus)
    if is_workspace and not file.is_relative_to(home):
        return str(file)
    return Path(os.path.relpath(file, corpus)).as_posix()


def allow(corpus: Path, files: Iterable[Path]) -> None:
    """Note where files outside its home lie that a corpus refers to because its user said so."""
    home = home_of(corpus)[0]
    outside = {file.parent for file in files if not file.is_relative_to(home)}
    known = _listed(home)
    fresh = {p for p in outside if not any(p.is_relative_to(k) for k in known)}
    top = sorted(p for p in fresh if not any(p != q and p.is_relative_to(q) for q in fresh))
    if top:
        lines = [str(p) if home_of(corpus)[1] else os.path.relpath(p, home) for p in [*known, *top]]
        write_text(home / ROOTS, "".join(f"{line}\n" for line in lines))


class References:
    """The files that one corpus may read.

    Args:
        corpus: its directory, as it was given.
    """

    def __init__(self, corpus: Path) -> None:
        self._given = Path(os.path.normpath(Path.cwd() / corpus))
        self.corpus = Path(os.path.realpath(corpus))
        self._roots: list[Path] | None = None

    def path(self, name: str) -> Path:
        """Where a file of the file table lies.

        Raises:
            InputError: the corpus must not refer to it.
        """
        path = Path(os.path.normpath(self.corpus / name.replace("\0", "?")))
        if path.parent == self.corpus:
            return path
        if self._roots is None:
            homes = [home_of(self._given)[0], home_of(self.corpus)[0], self.corpus.parent]
            self._roots = [*homes, *(root for home in homes[:2] for root in _listed(home))]
        if not any(path.is_relative_to(root) for root in self._roots):
            raise InputError(
                f"it refers to '{name[:200]}', outside its workspace",
                str(self.corpus),
                f"if you trust it, add that directory to {homes_file(self._given)}",
            )
        return path


def homes_file(corpus: Path) -> Path:
    """The list of directories outside the workspace that corpora in it may refer to."""
    return home_of(corpus)[0] / ROOTS


def _listed(home: Path) -> list[Path]:
    try:
        lines = (home / ROOTS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    return [Path(os.path.normpath(home / line)) for line in lines if line.strip()]
