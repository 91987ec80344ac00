"""The reader of the caption sets in Karpathy's form, one JSON list of images with their sentences:

{"images": [{"filename": "1.tif", "split": "train", "imgid": 0, "sentids": […],
             "sentences": [{"raw": "…", "tokens": […], "imgid": 0, "sentid": 0}, …]}, …], "dataset": "UCM"}
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from geozero.common.errors import BadRecord, InputError, Missing
from geozero.corpus.sample import SPLITS, Split
from geozero.sources.base import IMAGE_SUFFIXES, Published, Record, Rejected, Source, stem
from geozero.sources.readers.annotations import json_items, list_of, text_of
from geozero.sources.readers.archive_members import alnum_key
from geozero.sources.readers.archives import DAMAGED
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.locate_root import best_root, depth_of, given_name, has_usual_name
from geozero.sources.readers.rows import IMAGE, PATH, texts_in
from geozero.sources.readers.splits import split_of_path
from geozero.sources.readers.tables import Table, check_whole, sound_tables, table_files, table_place
from geozero.sources.readers.tree import MAX_DEPTH, Tree

KNOWN = ("ucm", "sydney", "rsicd", "nwpu")  # what `dataset` says in the sets of this form
CAPTION_COLUMNS = ("captions", "caption", "sentences", "references", "texts", "text", "raw", "description")
_NUMBERED = re.compile(r"(?:captions?|raw|sentences?|text)_?\d+")
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

    def expected(self) -> Published:
        counts = super().expected()
        return counts if self.each == "image" else counts._replace(samples=None)

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
    image_names: ClassVar[re.Pattern[str]] = re.compile(r"\d{1,4}")  # stems of images, where only they tell sets apart
    n_images: ClassVar[int] = 0
    confused_with: ClassVar[tuple[str, int] | None] = None  # a set whose images lie in this one's place, how many

    def find(self, tree: Tree) -> Tree:
        """The directory of the list and the images; where several sets lie side by side, by the list's `dataset`.

        Raises:
            InputError: there is none, or (Ambiguous) several equally good ones.
        """
        places = self._places(tree) or self._tables(tree)
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

    def _tables(self, tree: Tree) -> dict[str, tuple[bool, bool, int]]:
        """Directories of Parquet files with captions that may be this set's, by their names or their images'."""
        scores = {}
        for table in sound_tables(tree):
            place = table_place(table.file)
            path = alnum_key(f"{given_name(tree)}/{place}")
            others = [name for name in KNOWN if name in path and name not in self.declared]
            if place in scores or others or not table.image or not caption_columns(table.columns):
                continue
            declared = self.declared in path
            name = next((image_name(row) for _, row in table.rows()), "")
            if declared or not name or self.image_names.fullmatch(stem(name)):
                scores[place] = (declared, False, -depth_of(place))
        return scores

    def _read_tables(self, tree: Tree) -> Iterator[Record | Rejected]:
        check_whole(tree, table_files(tree))
        for file in table_files(tree):
            table, split = Table(tree, file), split_of_path(file) or "train"
            columns = caption_columns(table.columns)
            for number, row in table.rows():
                name = image_name(row) or f"{split}_{number:08}"
                try:
                    references = distinct([text for column in columns for text in texts_in(row.get(column))])
                    record = Record(
                        task="caption",
                        split=split,
                        key=name.rpartition("/")[2],
                        image=row[IMAGE],
                        image_key=self.image_key(name.rpartition("/")[2]),
                        references=references,
                    )
                    yield from self.samples(record)
                except BadRecord as bad:
                    yield Rejected(name, bad.reason, bad.detail, split)

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        if self.list_file not in tree:
            yield from self._read_tables(tree)
            return
        folder = tree.directory(*self.image_folders)
        self.check_images(tree, folder)
        for place, item in enumerate(json_items(tree, self.list_file, "images")):
            try:
                yield from self.samples(self._record(folder, item))
            except BadRecord as bad:
                name = item.get("filename") if isinstance(item, dict) else None
                yield Rejected(name if isinstance(name, str) else f"images[{place}]", bad.reason, bad.detail)

    def check_images(self, tree: Tree, folder: str) -> None:
        """Raise InputError where the images are plainly those of the set that this one is confused with, or where their
        numbers, which say what class they are of, begin at 0."""
        if self.confused_with is None:
            return
        other, number = self.confused_with
        if any(stem(name) == "0" for name in tree.names(folder, IMAGE_SUFFIXES)):
            raise InputError(
                "images are numbered from 0, those of the release from 1",
                tree.where(folder),
                "take the authors' own images: other numbers are other classes",
            )
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


def caption_columns(columns: Sequence[str], chosen: str = "") -> list[str]:
    """The columns of captions: the chosen one, else one with a usual name, else all numbered ones (`caption_1` …)."""
    if chosen:
        return [chosen] if chosen in columns else []
    usual = [name for name in CAPTION_COLUMNS if name in columns]
    return usual[:1] or [name for name in columns if _NUMBERED.fullmatch(name)]


def image_name(row: Mapping[str, Any]) -> str:
    """What a row calls its image, empty where it says nothing."""
    names = (row.get(column) for column in ("filename", "file_name", PATH, "path", "name"))
    return next((name for name in names if isinstance(name, str) and name), "")


def plain_text(text: str) -> str:
    """Odd Unicode in its usual form: NFKC, straight quotes and dashes, nothing invisible, single spaces."""
    composed = unicodedata.normalize("NFKC", text).translate(_PLAIN)
    return " ".join("".join(c if c.isprintable() else " " for c in composed).split())
