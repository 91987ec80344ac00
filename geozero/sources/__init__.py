"""The data sets by name. Each file of this room reads one of them in the layout in which it is distributed."""

from __future__ import annotations

from geozero.errors import InputError
from geozero.sources.base import Ratio, Record, Rejected, Source
from geozero.sources.tree import Tree, open_tree

SOURCES: dict[str, Source] = {}


def get(name: str) -> Source:
    """The data set of this name.

    Raises:
        InputError: there is none; the message lists the names.
    """
    if name not in SOURCES:
        raise InputError(f"unknown source '{name}'", mend=f"one of {', '.join(SOURCES)}")
    return SOURCES[name]


__all__ = ["SOURCES", "Ratio", "Record", "Rejected", "Source", "Tree", "get", "open_tree"]
