"""Which of several directories of a tree is the data set's own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from geozero.common.errors import Ambiguous
from geozero.sources.readers.tree import Tree


def best_root(tree: Tree, title: str, scores: Mapping[str, Any]) -> Tree:
    """The directory with the highest score.

    Raises:
        Ambiguous: several have it.
    """
    best = max(scores.values())
    equal = sorted(place for place, score in scores.items() if score == best)
    if len(equal) > 1:
        raise Ambiguous(f"{title} could be any of {', '.join(equal[:4])}", tree.where(), "give the right one as --root")
    return tree.at(equal[0])


def has_usual_name(tree: Tree, place: str, usual: Iterable[str]) -> bool:
    """Whether a directory, one above it, or what the user gave has one of the usual names, whatever the case."""
    parts = {part.casefold() for part in (given_name(tree), *place.split("/"))}
    return bool(parts & {name.casefold() for name in usual})


def given_name(tree: Tree) -> str:
    """The last part of what the user gave, without an archive's suffix: it may be a data set's own directory."""
    return tree.where().rsplit("/", 1)[-1].split(".", 1)[0]


def depth_of(directory: str) -> int:
    """How many levels below the top a directory lies; 0 is the top itself."""
    return directory.count("/") + 1 if directory else 0
