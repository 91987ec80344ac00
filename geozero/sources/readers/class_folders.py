"""Class folders: the layout in which most scene classification sets come, one directory of images a class."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

from geozero.common.errors import Missing
from geozero.corpus.sample import Split
from geozero.sources.base import IMAGE_SUFFIXES, Ratio, Record, Rejected, Source, stem
from geozero.sources.readers.archive_members import alnum_key
from geozero.sources.readers.class_names import SCENE_SETS
from geozero.sources.readers.locate_root import best_root, depth_of, given_name, has_usual_name
from geozero.sources.readers.tree import MAX_DEPTH, Tree

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


@dataclass(frozen=True, kw_only=True)
class ClassFolders(Source):
    """`<class>/<image>`; the label is the folder's name as text.

    Folders are known by their letters, whatever their case and separators: `Baseball_Diamond` is `baseball_diamond`.

    Args:
        labels: the folders of the data set; images in any other are rejected. None: whatever the tree holds.
        ratio: shares of the splits, where the data set has no split of its own [ours].
        stratify: the shares hold in every class to the image; else each image goes by its own hash alone.
    """

    tasks = ("scene_cls",)
    suffixes: ClassVar[tuple[str, ...]] = IMAGE_SUFFIXES
    spoken: ClassVar[Mapping[str, str]] = {}  # folder → label, where the folder's name does not tell its words
    other_spellings: ClassVar[Mapping[str, str]] = {}  # folder as some copies have it → folder

    labels: tuple[str, ...] | None
    ratio: Ratio
    stratify: bool = True

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(map(self.label, self.labels or ())))

    def label(self, folder: str) -> str:
        """The class of a folder as a question names it."""
        return self.spoken.get(folder) or label_text(folder)

    def find(self, tree: Tree) -> Tree:
        """The directory that holds the class folders: one with a usual name, else the one with most of the classes.

        Raises:
            InputError: there is none, or (Ambiguous) several equally good ones.
        """
        places = self._places(tree)
        while not places and tree.mount_archives((self.title, *self.folders)):
            places = self._places(tree)
        if not places:
            home = tree.locate(self.title, self.required, self.any_of, self.folders)  # says what is missing
            raise Missing(
                f"no {self.title} found: its folders are another data set's, or hold no {'/'.join(self.suffixes)}",
                home.where(),
                f"expected {self.layout}",
            )
        return best_root(tree, self.title, places)

    def accepts(self, path: str) -> bool:
        """Whether the class folders may lie in the directory of this path; at the top it is what the user gave."""
        return True

    def _places(self, tree: Tree) -> dict[str, tuple[bool, int, int, int]]:
        """Directories that may be the data set's, with how good they are."""
        holding: dict[str, set[str]] = defaultdict(set)
        for directory in {name.rpartition("/")[0] for name in tree.names(suffixes=self.suffixes)}:
            place, _, folder = directory.rpartition("/")
            if folder and depth_of(place) <= MAX_DEPTH:
                holding[place].add(folder)
        scores = {}
        for place, found in holding.items():
            named = has_usual_name(tree, place, self.folders)
            fit = _fit((*self.any_of, *self.other_spellings), found)
            better = max((_fit(names, found) for names in SCENE_SETS), default=fit)
            if fit[0] and (named or fit >= better) and self.accepts(place or given_name(tree)):
                scores[place] = (named, *fit, -depth_of(place))
        return scores

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        known = self._folders(tree)
        classes = self.classes or tuple(sorted(map(self.label, known)))
        strays: Counter[str] = Counter()
        images: list[tuple[str, str]] = []  # member, folder as distributed
        for name in tree.names(suffixes=self.suffixes):
            folder, _, file = name.partition("/")
            if folder not in known or not file or "/" in file:
                strays[name.rpartition("/")[0] or name] += 1
            else:
                images.append((name, known[folder]))
        keys = [f"{self.name}/{folder}/{stem(name)}" for name, folder in images]
        splits = self.splits(tree, keys)
        for (name, folder), image_key in zip(images, keys, strict=True):
            if image_key not in splits:
                yield Rejected(name, "in_no_split")
                continue
            yield Record(
                task="scene_cls",
                split=splits[image_key],
                key=name,
                image=name,
                image_key=image_key,
                answer=self.label(folder),
                classes=classes,
            )
        for place, count in sorted(strays.items()):
            yield Rejected(place, "class_unknown", f"{count} images outside the data set's class folders")

    def splits(self, tree: Tree, image_keys: Iterable[str]) -> dict[str, Split]:
        """Image key → split, by `ratio` where the data set has no split of its own."""
        if not self.stratify:
            return {key: self.ratio.split(key) for key in image_keys}
        by_class: dict[str, list[str]] = defaultdict(list)
        for key in image_keys:
            by_class[key.rpartition("/")[0]].append(key)
        return {key: split for keys in by_class.values() for key, split in self.ratio.stratified(keys).items()}

    def _folders(self, tree: Tree) -> dict[str, str]:
        """Folder as it stands in the tree → folder as distributed."""
        if self.labels is None:
            return {folder: folder for folder in tree.directories()}
        known = {alnum_key(other): folder for other, folder in self.other_spellings.items()}
        known |= {alnum_key(folder): folder for folder in self.labels}
        return {folder: known[alnum_key(folder)] for folder in tree.directories() if alnum_key(folder) in known}


@lru_cache(maxsize=4_096)
def label_text(folder: str) -> str:
    """A class folder's name as people write it: "BareLand" and "bare_land" → "bare land"; hyphens stay."""
    return " ".join(_CAMEL.sub(" ", folder).replace("_", " ").lower().split())


def _fit(names: Iterable[str], found: set[str]) -> tuple[int, int]:
    """How many of the folders found a label set knows: by their letters, and exactly."""
    names = set(names)
    known = set(map(alnum_key, names))
    return sum(alnum_key(folder) in known for folder in found), len(names & found)
