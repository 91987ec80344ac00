"""Your own class folders: a directory of images a class.

Layout: `<class>/<image>`, or `{train,val,test}/<class>/<image>` where you have a split; below as many directories
as you like. Images in jpg, png, tif, bmp or webp; the label is the folder's name in words. Or `.parquet` files of the
Hugging Face hub with an image and a label in each row (option `column`).
Splits: yours, where the folders above the classes are called train, val (valid, validation) and test; else a stable
hash of the image's key within each class, train 0.8, val 0.1, test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: give it a name of its own (option `name`), or two data sets of yours meet in one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Split
from geozero.sources.base import Ratio, Record, Rejected
from geozero.sources.custom.common import RATIO, ImageKeys
from geozero.sources.readers.archive_members import OTHER_IMAGE_SUFFIXES, alnum_key
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.splits import split_named
from geozero.sources.readers.tables import table_files
from geozero.sources.readers.tree import Tree

# directories that hold images of all classes, by letters and digits
_NO_CLASSES = {"image", "images", "img", "imgs", "jpegimages", "photos", "mask", "masks", "labels", "annotations"}


@dataclass(frozen=True, kw_only=True)
class OwnClasses(ClassFolders):
    layout = "<class>/<image>, or {train,val,test}/<class>/<image>"
    generic = True

    name: str = "class_folders"
    title: str = "class folders"
    size: str = "your own"
    licence: str = "your own"
    citation: str = "your own"
    labels: tuple[str, ...] | None = None
    ratio: Ratio = RATIO

    def find(self, tree: Tree) -> Tree:
        """The directory that holds the class folders, or the folders of the splits.

        Raises:
            InputError: no images in directories.
        """
        places = self._above_classes(tree)
        while not places and not table_files(tree) and tree.mount_archives((self.title, *self.folders)):
            places = self._above_classes(tree)
        if not places and table_files(tree):
            return tree
        if not places:
            raise tree.absent("class folders with images", f"looked for {self.layout}")
        top = os.path.commonpath(places).strip("/")
        above, _, last = top.rpartition("/")
        return tree.at(above if split_named(last) else top)  # one split alone is still a split

    def _above_classes(self, tree: Tree) -> list[str]:
        """The directories that hold directories with images."""
        directories = {name.rpartition("/")[0] for name in tree.names(suffixes=self.suffixes)} - {""}
        if all(alnum_key(directory.rpartition("/")[2]) in _NO_CLASSES for directory in directories):
            return []
        return sorted({f"/{directory}".rpartition("/")[0] or "/" for directory in directories})

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        if not self._above_classes(tree):
            yield from self.read_tables(tree, table_files(tree))
            return
        tops = {name.split("/")[0] for name in tree.names(suffixes=self.suffixes) if "/" in name}
        official: dict[str, Split] = {top: split for top in tops if (split := split_named(top))}
        if any(name.count("/") < 2 and name.split("/")[0] in official for name in tree.names(suffixes=self.suffixes)):
            official = {}  # a class may be called so
        levels = 3 if official else 2
        if levels == 3:
            tree.notes["splits"] = f"by directory or file: {', '.join(sorted(official))}"
        strays: Counter[str] = Counter()
        keys = ImageKeys(self.name, tree)
        images: list[tuple[str, str, str]] = []  # member, its key, folder
        for name in tree.names(suffixes=(*self.suffixes, *OTHER_IMAGE_SUFFIXES)):
            parts = name.split("/")
            if (
                len(parts) != levels
                or (official and parts[0] not in official)
                or (self.labels is not None and parts[-2] not in self.labels)
            ):
                strays[name.rpartition("/")[0] or name] += 1
            elif name.lower().endswith(OTHER_IMAGE_SUFFIXES):
                yield Rejected(name, "format_not_read", f"read are {', '.join(self.suffixes)}")
            else:
                images.append((name, keys(name), parts[-2]))
        classes = tuple(sorted({self.label(folder) for _, _, folder in images}))
        splits = {} if levels == 3 else self.splits(tree, {name: key for name, key, _ in images})
        for name, key, folder in images:
            if splits and key not in splits:
                yield Rejected(name, "in_no_split")
                continue
            split = splits[key] if splits else official[name.split("/")[0]]
            try:
                keys.check(name, split)
            except BadRecord as bad:
                yield Rejected(name, bad.reason, bad.detail, split)
                continue
            yield Record(
                task="scene_cls",
                split=split,
                key=name,
                image=name,
                image_key=key,
                answer=self.label(folder),
                classes=classes,
            )
        for place, count in sorted(strays.items()):
            yield Rejected(place, "class_unknown", f"{count} images outside the class folders")
