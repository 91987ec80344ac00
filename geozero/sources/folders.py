"""Class folders: the layout in which most scene classification sets come, one directory of pictures a class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from geozero.sources.base import IMAGE_SUFFIXES, Ratio, Record, Rejected, Source, stem
from geozero.sources.tree import Tree

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class ClassFolders(Source):
    """`<class>/<picture>`; the label is the folder's name as text, the split a stable hash of the picture's key.

    Args:
        labels: the folders of the data set; pictures in any other are rejected. None: whatever the tree holds.
        ratio: shares of the splits, where the data set has no split of its own [ours].
    """

    tasks = ("scene_cls",)

    labels: tuple[str, ...] | None
    ratio: Ratio

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(map(label_text, self.labels or ())))

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        known = set(self.labels if self.labels is not None else tree.directories())
        classes = tuple(sorted(map(label_text, known)))
        strays: Counter[str] = Counter()
        for name in tree.names(suffixes=IMAGE_SUFFIXES):
            folder, _, file = name.partition("/")
            if folder not in known or not file or "/" in file:
                strays[name.rpartition("/")[0] or name] += 1
                continue
            image_key = f"{self.name}/{folder}/{stem(file)}"
            yield Record(
                task="scene_cls",
                split=self.ratio.split(image_key),
                key=name,
                image=name,
                image_key=image_key,
                answer=label_text(folder),
                classes=classes,
            )
        for place, count in sorted(strays.items()):
            yield Rejected(place, "class_unknown", f"{count} pictures outside the data set's class folders")


def label_text(folder: str) -> str:
    """A class folder's name as people write it: "BareLand" and "bare_land" → "bare land"; hyphens stay."""
    return " ".join(_CAMEL.sub(" ", folder).replace("_", " ").lower().split())
