"""Splits that people give a data set by words: names of directories, files and columns, and lists of images."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import SPLITS, Split
from geozero.sources.readers.annotations import MAX_LINES_BYTES, read_lines
from geozero.sources.readers.archive_members import IMAGE_SUFFIXES, alnum_key, image_stem, stem
from geozero.sources.readers.image_files import agreement
from geozero.sources.readers.tree import Tree

_NAMES: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainval", "restval"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_WORD = re.compile(r"[a-z]+")
_FLAG = re.compile(r"\s+-?[01]$")  # behind a name: whether Pascal VOC's class is there
_COLUMNS = ("filename", "file_name", "image", "image_path", "path", "file")  # of a list of images


def split_named(text: str) -> Split | None:
    """The split that people mean by a word; None for any other. `trainval` and Karpathy's `restval` are trained on."""
    return _NAMES.get(text.strip().lower())


def split_of_path(file: str) -> Split | None:
    """The split that a word of the file's path names, the file's own name first; None where none does."""
    for part in reversed(file.lower().split("/")):
        for word in _WORD.findall(part):
            split = split_named(word)
            if split is not None:
                return split
    return None


def split_lists(tree: Tree, chosen: str = "") -> dict[str, dict[Split, str]]:
    """Lists of images by split that lie in or above the tree's top directory: name of the lists → split → file.

    `eurosat-train.txt` belongs to the lists `eurosat`, `train.csv` to those of no name.

    Args:
        chosen: the name of the only lists to be looked for; all, if left out.
    """
    found: dict[str, dict[Split, str]] = {}
    for file in tree.beside((".txt", ".csv")):
        name, separator, word = re.match(r"(.*?)([-_.]?)([a-z]+)$", stem(file).lower() or "-").groups()  # type: ignore[union-attr]
        split = split_named(word)
        if split is not None and bool(name) == bool(separator) and (not chosen or name == chosen.lower()):
            found.setdefault(name, {}).setdefault(split, file)
    return dict(sorted(found.items(), key=lambda item: (len(item[0]), item[0])))  # `eurosat` before `eurosat-spatial`


def read_split_lists(tree: Tree, files: Mapping[Split, str], images: Mapping[str, str]) -> dict[str, Split]:
    """Image key → split, of the images that the lists name, by file name or by class folder and file name.

    Args:
        files: split → list.
        images: member → image key.

    Raises:
        InputError: an image stands in two lists, or a name of the lists could be several images.
    """
    by_name: dict[str, set[str]] = {}
    for member, key in images.items():
        for name in (_short(member, 1), _short(member, 2)):
            by_name.setdefault(name, set()).add(key)
    listed: dict[str, Split] = {}
    of_name: dict[str, Split] = {}
    for split in SPLITS:
        if split not in files:
            continue
        for number, name in _listed(tree, files[split]):
            where = tree.where(files[split])
            short = _short(name, 2 if "/" in name else 1)
            if of_name.setdefault(short, split) != split:
                raise InputError(
                    f"line {number}: {name[:60]} stands in {files[of_name[short]].rpartition('/')[2]}, too",
                    where,
                    "an image belongs to one split; correct the files",
                )
            keys = by_name.get(short, set())
            if len(keys) > 1:
                raise InputError(
                    f"line {number}: {name[:60]} could be {len(keys)} images", where, "write class folders in front"
                )
            listed |= dict.fromkeys(keys, split)
    return listed


def splits_of_names(tree: Tree, files: Iterable[str]) -> dict[str, Split]:
    """File → its split, by lists of names that lie anywhere in the tree (`ImageSets/Main/train.txt`, `val2017.txt`).

    Empty where no list names one of the files. Names may have directories in front, a suffix, and VOC's flag behind.

    Args:
        files: images or their annotations.

    Raises:
        InputError: a file stands in the lists of two splits, or a name could be several files.
    """
    by_stem: dict[str, list[str]] = defaultdict(list)
    for file in files:
        by_stem[image_stem(file.removesuffix(".xml"))].append(file)
    there = {file for named in by_stem.values() for file in named}
    lists = [(split_of_path(stem(file)), file) for file in tree.names(suffixes=(".txt",)) if file not in there]
    listed: dict[str, Split] = {}
    for split, file in sorted(lists, key=lambda each: "trainval" in each[1].lower()):  # its halves first
        for number, line in read_lines(tree, file) if split and image_stem(file[:-4]) not in by_stem else ():
            parts = [part for part in _FLAG.sub("", line).replace("\\", "/").split("/") if part not in ("", ".", "..")]
            found = by_stem.get(image_stem(parts[-1].removesuffix(".xml")), []) if parts else []
            agreeing = [agreement(one, parts) for one in found]
            found = [one for one, n in zip(found, agreeing, strict=True) if n == max(agreeing)]
            if len(found) > 1:
                where = tree.where(file)
                raise InputError(
                    f"line {number}: {line[:60]} could be {', '.join(found[:3])}", where, "name directories"
                )
            both = bool(found) and "trainval" in file.lower() and found[0] in listed
            if split and found and not both and listed.setdefault(found[0], split) != split:
                raise InputError(
                    f"line {number}: {line[:60]} stands in the list of {listed[found[0]]}, too",
                    tree.where(file),
                    "an image belongs to one split; correct the lists",
                )
    if listed:
        tree.notes["splits"] = f"by lists of names: {', '.join(sorted({str(split) for split in listed.values()}))}"
    return listed


def _listed(tree: Tree, file: str) -> list[tuple[int, str]]:
    """The names of images in a list, with their line numbers; of a CSV the column of file names."""
    if file.lower().endswith(".txt"):
        return read_lines(tree, file)
    try:
        text = tree.read(file, MAX_LINES_BYTES).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text)))
    except (BadRecord, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"cannot be read: {error}", tree.where(file), "correct or remove it") from None
    columns = [name.strip().lower() for name in rows[0]] if rows else []
    place = next((columns.index(name) for name in _COLUMNS if name in columns), None)
    if place is None:
        return []
    return [(number, row[place].strip()) for number, row in enumerate(rows[1:], 2) if len(row) > place and row[place]]


def _short(name: str, parts: int) -> str:
    """The last parts of a path by letters' case, without an image's suffix; class folders by letters and digits."""
    *folders, file = name.replace("\\", "/").split("/")[-parts:]
    bare = stem(file) if PurePosixPath(file.lower()).suffix in IMAGE_SUFFIXES else file
    return "/".join([*map(alnum_key, folders), bare.casefold()])
