"""Class folders: the layout in which most scene classification sets come, one directory of images a class."""

from __future__ import annotations

import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar, Literal

from geozero.common.errors import InputError, Missing
from geozero.corpus.sample import SPLITS, Split
from geozero.sources.base import IMAGE_SUFFIXES, Ratio, Record, Rejected, Source, stem
from geozero.sources.readers.archive_members import OTHER_IMAGE_SUFFIXES, alnum_key
from geozero.sources.readers.class_names import OTHER_SETS, SCENE_SETS
from geozero.sources.readers.locate_root import best_root, depth_of, given_name, has_usual_name
from geozero.sources.readers.splits import read_split_lists, split_lists, split_named, split_of_path
from geozero.sources.readers.tables import IMAGE, PATH, Table, check_whole, sound_tables, table_files, table_place
from geozero.sources.readers.tree import MAX_DEPTH, Tree

log = logging.getLogger(__name__)

MOST = 0.9  # of a data set in files called train: then they are all of it, and no split of its own
LABEL_COLUMNS = ("label", "labels", "class", "class_name", "category", "scene")
STRAYS = 2  # folders of no class that any tree may hold

_NUMBER_AT_END = re.compile(r"[ _-]*\(?\d+\)?$")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


_Kind = Literal["classes", "splits", "tables"]  # what a directory holds


@dataclass(frozen=True, slots=True)
class _Image:
    """An image: its member, the directory or file of a split that it lies in (or none), its folder as distributed, its
    own name."""

    member: str
    part: str
    folder: str
    name: str


@dataclass(frozen=True, kw_only=True)
class ClassFolders(Source):
    """`<class>/<image>`, or `{train,val,test}/<class>/<image>`; the label is the folder's name as text.

    Folders are known by their letters, whatever their case and separators: `Baseball_Diamond` is `baseball_diamond`.
    Splits come from directories called train, val and test, else from lists of images beside the class folders, else
    from `ratio`; the manifest says which.

    Args:
        labels: the folders of the data set; images in any other are rejected. None: whatever the tree holds.
        ratio: shares of the splits, where the data set has no split of its own [ours].
        stratify: the shares hold in every class to the image; else each image goes by its own hash alone.
        lists: the name of the lists to follow, where there are several (`eurosat-spatial`).
        column: the column of labels in Parquet files of the Hugging Face hub; if left out, the one that has names.
    """

    tasks = ("scene_cls",)
    suffixes: ClassVar[tuple[str, ...]] = IMAGE_SUFFIXES
    spoken: ClassVar[Mapping[str, str]] = {}  # folder → label, where the folder's name does not tell its words
    other_spellings: ClassVar[Mapping[str, str]] = {}  # folder as some copies have it → folder

    labels: tuple[str, ...] | None
    ratio: Ratio
    stratify: bool = True
    lists: str = ""
    column: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(map(self.label, self.labels or ())))

    def label(self, folder: str) -> str:
        """The class of a folder as a question names it."""
        return self.spoken.get(folder) or label_text(folder)

    def find(self, tree: Tree) -> Tree:
        """The directory that holds the class folders, or the directories of the splits that do: one with a usual name,
        else the one with most of the classes.

        Raises:
            InputError: there is none, or (Ambiguous) several equally good ones.
        """
        places = self._places(tree)
        while not places and tree.mount_archives((self.title, *self.folders)):
            places = self._places(tree)
        if not places:
            home = tree.locate(self.title, self.required, self.any_of, self.folders)  # says what is missing
            raise Missing(
                f"no {self.title} found: its folders are {self._other_set(home)}",
                home.where(),
                f"expected {self.layout}",
            )
        home = best_root(tree, self.title, places)
        copies = [place or "." for place, score in places.items() if not score[3]]
        if copies and places[min(places, key=lambda p: tree.at(p).where() != home.where())][3]:
            home.notes["copies"] = f"in {', '.join(sorted(copies))}: give one as --root to follow it"
        return home

    def accepts(self, path: str, best: bool) -> bool:
        """Whether the class folders may lie in the directory of this path; at the top it is what the user gave.

        Args:
            best: no other data set knows as many of the folders.
        """
        return True

    def _places(self, tree: Tree) -> dict[str, tuple[bool, int, int, bool, int]]:
        """Directories that may be the data set's, with how good they are; class folders at once before splits."""
        holding: dict[tuple[str, _Kind], set[str]] = defaultdict(set)  # classes
        for directory in {name.rpartition("/")[0] for name in tree.names(suffixes=self.suffixes)}:
            place, _, folder = directory.rpartition("/")
            above, _, last = place.rpartition("/")
            if folder and split_named(last):
                holding[above, "splits"].add(folder)
            elif folder:
                holding[place, "classes"].add(folder)
        for table in sound_tables(tree):
            try:
                holding[table_place(table.file), "tables"].update(self._labels(table))
            except InputError as error:
                tree.pass_over(table.file, error)
        scores: dict[str, tuple[bool, int, int, bool, int]] = {}
        for (place, kind), found in holding.items():
            named = has_usual_name(tree, place, self.folders)
            fit = _fit((*self.any_of, *self.other_spellings), found)
            other = max((_fit(names, found) for names in SCENE_SETS if names != self.any_of), default=(0, 0))
            fits = fit[0] >= other[0] if named or kind == "tables" else fit >= other
            foreign = max((_fit(names, found)[0] for names in OTHER_SETS.values()), default=0)
            strange = len(found) - fit[0]  # a stray folder or two is no other data set
            other_set = not fits or foreign > fit[0] or strange > max(fit[0], STRAYS)
            if not fit[0] or other_set or depth_of(place) > MAX_DEPTH:
                continue
            if self.accepts(place or given_name(tree), fit[0] > other[0]):
                score = (named, *fit, kind == "classes", -depth_of(place))
                scores[place] = max(score, scores.get(place, score))
        return scores

    def _other_set(self, home: Tree) -> str:
        """Which data set the folders are of that are taken for this one."""
        found = {name.rpartition("/")[0].rpartition("/")[2] for name in home.names(suffixes=self.suffixes)}
        fits = {title: _fit(names, found)[0] for title, names in OTHER_SETS.items()}
        best = max(fits, key=lambda title: fits[title])
        known = _fit((*self.any_of, *self.other_spellings), found)[0]
        if fits[best] <= known:
            return f"another data set's, or hold no {'/'.join(self.suffixes)}"
        return f"{best}'s ({fits[best]} of them, {known} are {self.title}'s)"

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        known = self._folders(tree)
        strays: Counter[str] = Counter()
        images: list[_Image] = []
        for name in tree.names(suffixes=(*self.suffixes, *OTHER_IMAGE_SUFFIXES)):
            *above, folder, _ = ["", "", *name.split("/")][-3:] if name.count("/") < 3 else ["", "", ""]
            part = above[0] if above else ""
            if folder not in known or (part and split_named(part) is None):
                strays[name.rpartition("/")[0] or name] += 1
            elif name.lower().endswith(OTHER_IMAGE_SUFFIXES):
                yield Rejected(name, "format_not_read", f"read are {', '.join(self.suffixes)}")
            else:
                images.append(_Image(name, part, known[folder], stem(name)))
        if not images and (tables := table_files(tree)):
            yield from self.read_tables(tree, tables)
            return
        yield from self._records(tree, images)
        for place, count in sorted(strays.items()):
            yield Rejected(place, "class_unknown", f"{count} images outside the data set's class folders")

    def _labels(self, table: Table) -> list[str]:
        """The names of a table's classes; none where it has no images with labels."""
        column = label_column(table, self.column)
        if not table.image or not column:
            return []
        return table.names.get(column) or sorted(set(_names_of_labels(table, column).values()))

    def read_tables(self, tree: Tree, files: Sequence[str]) -> Iterator[Record | Rejected]:
        """The records of Parquet files; the word in a file's path is the split, where not all of the data set is in
        files called train."""
        check_whole(tree, files)
        known: dict[str, str] | None = None
        if self.labels is not None:
            known = {alnum_key(other): folder for other, folder in self.other_spellings.items()}
            known |= {alnum_key(folder): folder for folder in self.labels}
        images: list[_Image] = []
        for file in files:
            table, part = Table(tree, file), split_of_path(file) or ""
            column = label_column(table, self.column)
            if not table.image or not column:
                raise InputError(
                    f"no column of {'labels' if table.image else 'images'} (found {', '.join(table.columns)[:120]})",
                    tree.where(file),
                    "name the labels', as --set column=label"
                    if table.image
                    else "images are structs with bytes or a path, or bytes in a column called image",
                )
            named = {} if column in table.names else _names_of_labels(table, column)
            for number, row in table.rows():
                label = named.get(row.get(column), row.get(column))
                name = stem(str(row[PATH])) or f"{part or 'row'}_{len(images):08}"
                folder = str(label) if known is None else known.get(alnum_key(str(label)))
                if label is None or folder is None:
                    detail = "no label, or one without a name" if label is None else str(label)[:80]
                    yield Rejected(f"{file}/{number:08}", "class_unknown", detail)
                else:
                    images.append(_Image(row[IMAGE], part, folder, name))
        if len({(i.part, i.folder, i.name) for i in images}) < len(images):  # names that tell nothing
            images = [replace(i, name=f"{i.part or 'row'}_{n:08}") for n, i in enumerate(images)]
        whole = self.expected().images
        if whole and {i.part for i in images} == {"train"} and len(images) >= MOST * whole:
            images = [replace(i, part="") for i in images]
        yield from self._records(tree, images)

    def _records(self, tree: Tree, images: Sequence[_Image]) -> Iterator[Record | Rejected]:
        keys = {image.member: f"{self.name}/{image.folder}/{image.name}" for image in images}
        if len({(image.part, keys[image.member]) for image in images}) > len(set(keys.values())):
            # names are counted anew in each split
            keys = {i.member: "/".join(filter(None, (self.name, i.part, i.folder, i.name))) for i in images}
        classes = self.classes or tuple(sorted({self.label(image.folder) for image in images}))
        splits = self._in_parts(tree, images, keys) or self.splits(tree, keys)
        for image in images:
            image_key = keys[image.member]
            if image_key not in splits:
                yield Rejected(image.member, "in_no_split")
                continue
            yield Record(
                task="scene_cls",
                split=splits[image_key],
                key=image.member,
                image=image.member,
                image_key=image_key,
                answer=self.label(image.folder),
                classes=classes,
            )

    def _in_parts(self, tree: Tree, images: Sequence[_Image], keys: Mapping[str, str]) -> dict[str, Split]:
        """Image key → split, where the images lie in directories of splits, all but those of other directories."""
        parts = {image.part for image in images}
        given = tree.where().rpartition("/")[2]
        if parts == {""} and split_named(given):  # one split alone was given
            parts = {given}
        named = {part: split for part in parts if (split := split_named(part))}
        if not named:
            return {}
        tree.notes["splits"] = f"by directory or file: {', '.join(sorted(named))}"
        return {keys[i.member]: named[i.part or given] for i in images if (i.part or given) in named}

    def splits(self, tree: Tree, images: Mapping[str, str]) -> dict[str, Split]:
        """Image key → split: by lists that lie beside the class folders, else by `ratio`.

        Args:
            images: member → image key.

        Raises:
            InputError: the lists contradict each other.
        """
        unused = []
        for files in split_lists(tree, self.lists).values():
            if len(files) == len(SPLITS):
                listed = read_split_lists(tree, files, images)
                if listed:
                    tree.notes["splits"] = f"lists {', '.join(files[split] for split in SPLITS)}"
                    return listed
            unused += sorted(files.values())
        if self.lists:
            raise InputError(f"no lists '{self.lists}' of train, val and test", tree.where(), "check --set lists")
        rest = 1 - self.ratio.train - self.ratio.val
        tree.notes["splits"] = f"by hash, {self.ratio.train:g}/{self.ratio.val:g}/{rest:.4g} of train/val/test"
        if copies := tree.notes.pop("copies", ""):
            unused.append(f"the directories {copies}")
        if unused:
            tree.notes["splits"] += f"; not followed, because incomplete or of other images: {', '.join(unused[:6])}"
            log.warning("%s: splits go %s", self.name, tree.notes["splits"])
        if not self.stratify:
            return {key: self.ratio.split(key) for key in images.values()}
        by_class: dict[str, list[str]] = defaultdict(list)
        for key in images.values():
            by_class[key.rpartition("/")[0]].append(key)
        return {key: split for keys in by_class.values() for key, split in self.ratio.stratified(keys).items()}

    def _folders(self, tree: Tree) -> dict[str, str]:
        """Folder as it stands in the tree → folder as distributed."""
        there = tree.directories()
        there += [folder for part in there if split_named(part) for folder in tree.directories(part)]
        if self.labels is None:
            return {folder: folder for folder in there}
        known = {alnum_key(other): folder for other, folder in self.other_spellings.items()}
        known |= {alnum_key(folder): folder for folder in self.labels}
        return {folder: known[alnum_key(folder)] for folder in there if alnum_key(folder) in known}


@lru_cache(maxsize=4_096)
def label_text(folder: str) -> str:
    """A class folder's name as people write it: "BareLand" and "bare_land" → "bare land"; hyphens stay."""
    return " ".join(_CAMEL.sub(" ", folder).replace("_", " ").lower().split())


def label_column(table: Table, chosen: str = "") -> str:
    """The column of labels: the chosen one, else the first of classes with names, else one with a usual name."""
    if chosen:
        return chosen if chosen in table.columns else ""
    named = [column for column in table.columns if column in table.names]
    return next(iter([*named, *(column for column in LABEL_COLUMNS if column in table.columns)]), "")


def _names_of_labels(table: Table, column: str) -> dict[Any, str]:
    """Label → name, where the schema gives no names: texts name themselves, numbers by their images' names
    (`airport_1.jpg`).

    Raises:
        InputError: numbers, and the images of one are called differently.
    """
    named: dict[Any, set[str]] = defaultdict(set)
    for _, row in table.rows():
        label = row.get(column)
        if isinstance(label, str):
            named[label].add(label)
        elif isinstance(label, int):
            named[label].add(_NUMBER_AT_END.sub("", stem(row[PATH])))
    if any(len(names) != 1 or "" in names for names in named.values()):
        raise InputError(
            f"'{column}' holds numbers, and the schema does not say which classes they are",
            table.tree.where(table.file),
            "take a copy whose schema names them (ClassLabel), or add a column of class names",
        )
    return {label: name for label, (name,) in named.items()}


def _fit(names: Iterable[str], found: set[str]) -> tuple[int, int]:
    """How many of the folders found a label set knows: by their letters, and exactly."""
    names = set(names)
    known = set(map(alnum_key, names))
    return sum(alnum_key(folder) in known for folder in found), len(names & found)
