"""The reader of the caption sets in Karpathy's form, one JSON list of images with their sentences:

{"images": [{"filename": "1.tif", "split": "train", "imgid": 0, "sentids": […],
             "sentences": [{"raw": "…", "tokens": […], "imgid": 0, "sentid": 0}, …]}, …], "dataset": "UCM"}
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from geozero.common.errors import BadRecord, InputError, Missing
from geozero.corpus.sample import SPLITS, Split
from geozero.sources.base import IMAGE_SUFFIXES, Record, Rejected, Source, stem
from geozero.sources.readers.annotations import json_items, list_of, text_of
from geozero.sources.readers.archives import DAMAGED
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.locate_root import best_root, depth_of, has_usual_name
from geozero.sources.readers.tree import MAX_DEPTH, Tree

KNOWN = ("ucm", "sydney", "rsicd", "nwpu")  # what `dataset` says in the sets of this form
MAX_LIST_BYTES = 256 << 20
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "\u200b": "", "\ufeff": ""})


@dataclass(frozen=True, kw_only=True)
class Captions(Source):
    """What caption sets share: equal sentences of an image (but for case and white space) are kept once.

    Args:
        each: `image` makes one sample an image with all its sentences as references; `sentence` makes one of each.
    """

    tasks = ("caption",)

    each: Literal["image", "sentence"] = "image"

    def samples(self, record: Record) -> Iterator[Record]:
        """The record of an image, or one of each of its sentences."""
        if self.each == "image":
            yield record
            return
        for number, sentence in enumerate(record.references):
            yield replace(record, key=f"{record.key}#{number}", references=(sentence,))


@dataclass(frozen=True, kw_only=True)
class KarpathyCaptions(Captions):
    list_file: ClassVar[str] = "dataset.json"
    image_folders: ClassVar[tuple[str, ...]] = ("imgs", "images")
    declared: ClassVar[str]  # what `dataset` in the list contains, in lower case
    n_images: ClassVar[int] = 0
    confused_with: ClassVar[tuple[str, int] | None] = None  # a set whose images lie in this one's place, how many

    def find(self, tree: Tree) -> Tree:
        """The directory of the list and the images; where several sets lie side by side, by the list's `dataset`.

        Raises:
            InputError: there is none, or (Ambiguous) several equally good ones.
        """
        places = self._places(tree)
        while not places and tree.mount_archives((self.title, *self.folders, *self.image_folders)):
            places = self._places(tree)
        if not places:
            home = tree.locate(self.title, (self.list_file,), self.image_folders, self.folders)
            raise Missing(
                f"no {self.title} found: {self.list_file} is another data set's", home.where(), "check --root"
            )
        return best_root(tree, self.title, places)

    def _places(self, tree: Tree) -> dict[str, tuple[bool, bool, int]]:
        scores = {}
        for name in tree.names(suffixes=(self.list_file,)):
            place, _, file = name.rpartition("/")
            home = tree.at(place)
            if file != self.list_file or depth_of(place) > MAX_DEPTH:
                continue
            if not ImageFiles(home, self.image_folders).are_there():
                continue
            declared = declared_name(tree, name)
            named = has_usual_name(tree, place, self.folders)
            if self.declared in declared or not any(other in declared for other in KNOWN):
                scores[place] = (self.declared in declared, named, -depth_of(place))
        return scores

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        folder = tree.directory(*self.image_folders)
        self.check_images(tree, folder)
        for place, item in enumerate(json_items(tree, self.list_file, "images")):
            try:
                yield from self.samples(self._record(folder, item))
            except BadRecord as bad:
                name = item.get("filename") if isinstance(item, dict) else None
                yield Rejected(name if isinstance(name, str) else f"images[{place}]", bad.reason, bad.detail)

    def check_images(self, tree: Tree, folder: str) -> None:
        """Raise InputError where the images are plainly those of the set that this one is confused with."""
        if self.confused_with is None:
            return
        other, number = self.confused_with
        if len(tree.names(folder, IMAGE_SUFFIXES)) == number:
            raise InputError(
                f"{number:,} images, which is {other}' number and not {self.n_images:,}",
                tree.where(folder),
                "the two archives of images have been mixed up; exchange them",
            )

    def image_key(self, filename: str) -> str:
        """The key of an image of this name."""
        return f"{self.name}/{stem(filename)}"

    def _record(self, folder: str, item: Any) -> Record:
        filename, references = text_of(item, "filename"), distinct_sentences(list_of(item, "sentences"))
        return Record(
            task="caption",
            split=split_of(text_of(item, "split")),
            key=filename,
            image=f"{folder}/{filename}",
            image_key=self.image_key(filename),
            references=references,
        )


def declared_name(tree: Tree, name: str) -> str:
    """What `dataset` says in a list, in lower case; empty where it says nothing or the list cannot be read."""
    try:
        content = json.loads(tree.read(name, MAX_LIST_BYTES))
    except (BadRecord, RecursionError, *DAMAGED):
        return ""
    declared = content.get("dataset") if isinstance(content, dict) else None
    return declared.lower() if isinstance(declared, str) else ""


def split_of(name: str) -> Split:
    """The split of this name.

    Raises:
        BadRecord: neither train, val nor test.
    """
    for split in SPLITS:
        if name == split:
            return split
    raise BadRecord("split_unknown", name[:40])


def distinct_sentences(sentences: list[Any]) -> tuple[str, ...]:
    """The sentences' `raw` texts in order, each once, whatever its case; empty ones left out.

    Raises:
        BadRecord: none is left, or one is malformed.
    """
    return distinct([text_of(s, "raw") for s in sentences])


def distinct(texts: list[str]) -> tuple[str, ...]:
    """The texts in order, each once, whatever its case; empty ones left out.

    Raises:
        BadRecord: none is left.
    """
    kept: dict[str, str] = {}
    for text in texts:
        if text:
            kept.setdefault(text.casefold(), text)
    if not kept:
        raise BadRecord("references_missing")
    return tuple(kept.values())


def plain_text(text: str) -> str:
    """Odd Unicode in its usual form: NFKC, straight quotes and dashes, nothing invisible, single spaces."""
    composed = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    return " ".join("".join(c if c.isprintable() else " " for c in composed).split())
