"""Files outside of a corpus that it refers to: how they are named, and which it may refer to.

A corpus may refer to what lies in its workspace (the directory above it with `dvc.yaml` or `params.yaml`) or beside
it. Anything else has to lie below a directory in `.geozero/image-roots` of the workspace, which commands extend whose
user named files there; a corpus that comes from a stranger cannot.
"""

from __future__ import annotations

import os
from pathlib import Path

from geozero.common.atomic import write_text
from geozero.common.errors import InputError

ROOTS = Path(".geozero") / "image-roots"
_MARKS = ("dvc.yaml", "params.yaml")


def home_of(corpus: Path) -> tuple[Path, bool]:
    """The directory above a corpus that it is moved with, and whether it is a workspace: if none is, its parent."""
    found = next((p for p in corpus.parents if any((p / mark).is_file() for mark in _MARKS)), None)
    return (found, True) if found else (corpus.parent, False)


class Referrer:
    """Names the files that a corpus refers to as it is written, and sees to it that it may.

    Args:
        corpus: its directory, resolved.
    """

    def __init__(self, corpus: Path) -> None:
        self._corpus = corpus
        self._home, self._is_workspace = home_of(corpus)
        self._directories: dict[str, str] = {}

    def name(self, file: str) -> str:
        """The name in the file table of a file, given by its resolved path: relative, so that both can be moved, unless
        it lies outside the workspace and stays where it is."""
        directory, _, last = file.rpartition("/")
        if directory not in self._directories:
            stays = self._is_workspace and not Path(directory).is_relative_to(self._home)
            self._directories[directory] = directory if stays else os.path.relpath(directory or "/", self._corpus)
        return f"{self._directories[directory]}/{last}"

    def allow(self) -> None:
        """Note the directories outside the home that were named: the user said so."""
        named = [Path(directory or "/") for directory in self._directories]
        known = _listed(self._home)
        fresh = [p for p in named if not any(p.is_relative_to(root) for root in (self._home, *known))]
        top = sorted(p for p in fresh if not any(p != q and p.is_relative_to(q) for q in fresh))
        if top:
            roots = [*known, *top]
            lines = [str(p) if self._is_workspace else os.path.relpath(p, self._home) for p in roots]
            write_text(self._home / ROOTS, "".join(f"{line}\n" for line in lines))


class References:
    """The files that one corpus may read.

    Args:
        corpus: its directory, as it was given.
    """

    def __init__(self, corpus: Path) -> None:
        self._given = Path(os.path.normpath(Path.cwd() / corpus))
        self.corpus = Path(os.path.realpath(corpus))
        self._own = f"{self.corpus}/"
        self._roots: tuple[str, ...] = ()

    def path(self, name: str) -> str:
        """Where a file of the file table lies.

        Raises:
            InputError: the corpus must not refer to it.
        """
        name = name.replace("\0", "?")
        path = os.path.normpath(name if name.startswith("/") else self._own + name)
        if self.is_own(path):
            return path
        if not self._roots:
            homes = (home_of(self._given)[0], home_of(self.corpus)[0])
            roots = {*homes, self.corpus.parent, *(root for home in homes for root in _listed(home))}
            self._roots = tuple(f"{str(root).rstrip('/')}/" for root in roots)
        if not path.startswith(self._roots):
            raise InputError(
                f"it refers to '{name[:200]}', outside its workspace",
                str(self.corpus),
                f"if you trust it, add that directory to {home_of(self._given)[0] / ROOTS}",
            )
        return path

    def is_own(self, path: str) -> bool:
        """Whether a file lies in the corpus's own directory."""
        return path.startswith(self._own) and "/" not in path[len(self._own) :]


def _listed(home: Path) -> list[Path]:
    try:
        lines = (home / ROOTS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    return [Path(os.path.normpath(home / line)) for line in lines if line.strip()]
