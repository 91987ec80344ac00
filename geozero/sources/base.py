"""What every data set says about itself, and the record it gives: a sample that has no pixels yet."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import ClassVar, NamedTuple

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Box, Split, TaskName, stable_unit
from geozero.sources.readers.archive_members import IMAGE_SUFFIXES, stem
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.tree import Tree

__all__ = ["IMAGE_SUFFIXES", "Published", "Ratio", "Record", "Rejected", "Source", "stem"]


@dataclass(frozen=True, slots=True)
class Record:
    """One question of a data set, before its image is decoded and before any prompt template.

    `key` is the data set's own name of the record, stable over releases; `image` the member path of the image in the
    tree that `Source.find` returned, or a name by which `records` finds it there; `image_key` = `set/class/name`
    without suffix (leak control); `text` the bare question or expression (empty for scene classification and
    captions); `answer` the truth as text (empty for grounding, whose answer is `box`, and for captions, whose answer is
    the first of `references`);
    `box` absolute pixels xyxy, `boxes` where the answer is a list of them; `classes` the labels or options that the
    question offers; `drawn_on` the width and height of the image that boxes were drawn on, where the annotation says
    it; `repaired` what was put right in reading it, in short stable words for counting.
    """

    task: TaskName
    split: Split
    key: str
    image: str
    image_key: str
    text: str = ""
    answer: str = ""
    references: tuple[str, ...] = ()
    box: Box | None = None
    boxes: tuple[Box, ...] = ()
    question_type: str | None = None
    classes: tuple[str, ...] = ()
    drawn_on: tuple[int, int] | None = None
    repaired: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot become a sample: `reason` is a short stable word for counting, `detail` what was seen.

    `split` where it is known: then it is listed only where that split is asked for.
    """

    key: str
    reason: str
    detail: str = ""
    split: Split | None = None


class Published(NamedTuple):
    """How many images, samples and classes a data set has by its authors' count, where that is known."""

    images: int | None = None
    samples: int | None = None
    classes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A data set in the layout in which it is distributed. One file a data set; its docstring gives layout, size,
    splits, licence, citation and traps.

    To write one: subclass, give the fields below defaults, name what the top directory of the tree holds in
    `required` and `any_of`, and write `read`. Options of a data set are further fields with defaults. A record that
    cannot be used is yielded as `Rejected`; what makes the whole set unusable (a missing list, an unreadable file
    that would shift others) raises InputError.
    """

    name: str  # as the commands know it; also `source` of its samples and the set part of `image_key`
    title: str  # as the papers call it
    licence: str
    citation: str
    size: str = ""  # how much there is of it, for people
    forced_split: Split | None = None  # every record is given to this split

    tasks: ClassVar[tuple[TaskName, ...]]
    generic: ClassVar[bool] = False  # a layout for anybody's data; `name` is then the user's to choose
    layout: ClassVar[str]  # one line a path, for people
    required: ClassVar[tuple[str, ...]] = ()  # entries (files or directories) that the tree's top directory holds
    any_of: ClassVar[tuple[str, ...]] = ()  # … of which it holds at least one
    folders: ClassVar[tuple[str, ...]] = ()  # usual names of the top directory, preferred where several places match
    published: ClassVar[Published] = Published()
    image_folders: ClassVar[tuple[str, ...]] = ()  # usual names of the directories that the images lie in

    @property
    def classes(self) -> tuple[str, ...]:
        """The label set, where the data set has one that is known before reading."""
        return ()

    def expected(self) -> Published:
        """What the whole data set should give: `published`, as far as the options leave it so; nothing for a set of
        another name, which only has the same layout."""
        own = next(field.default for field in fields(self) if field.name == "name")
        return self.published if self.name == own and self.forced_split is None else Published()

    def find(self, tree: Tree) -> Tree:
        """The data set's own top directory in what the user gave.

        Raises:
            InputError: not found, or (Ambiguous) found in several places.
        """
        return self.with_images(tree.locate(self.title, self.required, self.any_of, self.folders))

    def with_images(self, home: Tree) -> Tree:
        """The data set's top directory with images in the usual place, from archives that lie there if need be.

        Raises:
            InputError: there are none.
        """
        names = (*self.image_folders, *self.folders, self.title)
        while self.image_folders and not ImageFiles(home, self.image_folders).are_there():
            if not home.mount_archives(names):
                looked = f"looked for images in {' or '.join(self.image_folders)} beside the annotations"
                raise home.absent(self.title, looked, names)
        return home

    @abstractmethod
    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        """Yield every record of the tree that `find` returned, of all splits, in a stable order.

        Raises:
            InputError: the data set as a whole cannot be read.
        """

    def records(self, tree: Tree) -> Iterator[Record | Rejected]:
        """`read`, with `forced_split` applied, and each image where it lies in the tree."""
        images: ImageFiles | None = None
        for item in self.read(tree):
            if isinstance(item, Record) and item.image not in tree:
                images = images or ImageFiles(tree, self.image_folders)
                item = _located(item, images)
            yield item if self.forced_split is None else replace(item, split=self.forced_split)


def _located(record: Record, images: ImageFiles) -> Record | Rejected:
    """The record with the image that it means; as it is where there is none, which is for others to say."""
    try:
        return replace(record, image=images.find(record.image))
    except BadRecord as bad:
        return record if bad.reason == "image_missing" else Rejected(record.key, bad.reason, bad.detail, record.split)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Shares of train, val and test where a data set has no split of its own; `test` takes the rest."""

    train: float
    val: float

    def __post_init__(self) -> None:
        if min(self.train, self.val) < 0 or self.train + self.val > 1:
            raise InputError(f"split shares {self.train} and {self.val}", hint="both from 0 on, together at most 1")

    def split(self, image_key: str) -> Split:
        """The split of an image by the stable hash of its key: adding images moves no other."""
        return self._at(stable_unit(image_key, salt="split"))

    def stratified(self, image_keys: Iterable[str]) -> dict[str, Split]:
        """The splits of the images of one class, in these shares to the image: ordered by the same hash, then cut.

        An image more or less moves at most the images at the two cuts of its own class.
        """
        ordered = sorted(set(image_keys), key=lambda key: (stable_unit(key, salt="split"), key))
        return {key: self._at((place + 0.5) / len(ordered)) for place, key in enumerate(ordered)}

    def _at(self, place: float) -> Split:
        if place < self.train:
            return "train"
        return "val" if place < self.train + self.val else "test"
