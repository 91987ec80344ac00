"""Your own boxes in YOLO's form: one text file per image, from which the same is asked as of COCO's boxes.

Layout: `images/train/a.jpg` with `labels/train/a.txt`, `train/images/a.jpg` with `train/labels/a.txt`, or side by side.
Each line is the number of a class, then centre x, centre y, width and height as shares of the image's sides, or the
corners of a polygon. The classes' names stand in a `.yaml` (`names: [ship, harbor]` or `names: {0: ship}`), or one per
line in `classes.txt`, `obj.names` or another `.names`.
What is asked: as `geozero.sources.custom.boxes` says; nothing of an image whose label file is empty.
Splits: lists of images `train.txt`, `val.txt`, `test.txt`, where what they do not name is refused; without them the
word train, val (valid) or test in the label file's path; else a stable hash of the image's key, train 0.8, val 0.1,
test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: files that number the classes differently stop the reading, and so do keypoints. Shares need no size, so that
resized images keep their boxes. Of a polygon the box around it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from geozero.common import unique_yaml
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Box
from geozero.sources.base import Record, Rejected, stem
from geozero.sources.custom.boxes import Objects, OwnBoxes, one_per_name
from geozero.sources.custom.common import ImageKeys
from geozero.sources.readers.annotations import read_lines
from geozero.sources.readers.archive_members import image_stem
from geozero.sources.readers.boxes import EDGES, CornerSigns, whole_number
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.splits import split_of_path, splits_of_names
from geozero.sources.readers.tree import Tree

NAME_FILES = ("classes.txt", "obj.names", "labels.txt", "_darknet.labels")
MAX_YAML_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class OwnYolo(OwnBoxes):
    layout = "labels/<any>/<name>.txt in YOLO's form, images/<any>/<name>.jpg, <any>.yaml or classes.txt with the names"
    suffixes = (".txt",)
    levels = 8

    name: str = "yolo"
    title: str = "boxes in YOLO's form"

    def find(self, tree: Tree) -> Tree:
        home = super().find(tree)
        class_names(home)
        return home

    def annotations(self, tree: Tree) -> list[str]:
        """Text files that are called as an image is."""
        images = {image_stem(name) for name in ImageFiles(tree)}
        return [
            file
            for file in super().annotations(tree)
            if stem(file) in images and file.rpartition("/")[2] not in NAME_FILES
        ]

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images, keys = ImageFiles(tree), ImageKeys(self.name, tree)
        names, same = one_per_name(class_names(tree))
        listed, signs = splits_of_names(tree, images), CornerSigns()
        for file in self.annotations(tree):
            split = split_of_path(file)
            try:
                image = images.find(_image_path(file), place=file.rpartition("/")[0])
                split, size = listed.get(image) or split, images.size(image)
                if listed and split is None:
                    raise BadRecord("in_no_split", "no list names it")
            except BadRecord as bad:
                yield Rejected(file, bad.reason, bad.detail, split)
                continue
            objects = Objects()
            for number, line in read_lines(tree, file):
                category = whole_number(line.split()[0])
                try:
                    if category is None or category not in same:
                        raise BadRecord("category_unknown", line[:40])
                    words = line.split()[1:]
                    objects.boxes[same[category]].add(box_of(words, size))
                    if len(words) == len(EDGES):
                        signs.add([float(word) for word in words], (1, 1))
                except BadRecord as bad:
                    if category is not None and category in same:
                        objects.vague.add(same[category])
                    yield Rejected(f"{file}:{number}", bad.reason, bad.detail, split)
            yield from self.ask(file, image, split, objects, names, None, keys)
        if signs.found():
            raise InputError(
                "the boxes seem to be corners x1, y1, x2, y2, not centre, width and height",
                tree.where(),
                "convert them to YOLO's form",
            )


def box_of(words: list[str], size: tuple[int, int]) -> Box:
    """The box of a line's numbers, xyxy in pixels: centre and sides as shares, or the corners of a polygon.

    Raises:
        BadRecord: other than four, or six and more even, finite numbers; a box without an area; pixels for shares.
    """
    try:
        values = [float(word) for word in words]
    except ValueError:
        raise BadRecord("box_malformed", " ".join(words)[:80]) from None
    if not all(map(math.isfinite, values)) or (len(values) != 4 and (len(values) < 6 or len(values) % 2)):
        raise BadRecord("box_malformed", f"{len(values)} numbers: {' '.join(words)[:60]}")
    if len(values) == 4:
        x, y, width, height = values
        corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        corners = (min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2]))
    if max(values) > 2:  # a little beyond the edge is left to the checks of boxes
        raise BadRecord("box_in_pixels", f"shares of the sides expected, found {' '.join(words)[:60]}")
    if corners[2] <= corners[0] or corners[3] <= corners[1]:
        raise BadRecord("box_degenerate", " ".join(words)[:80])
    return corners[0] * size[0], corners[1] * size[1], corners[2] * size[0], corners[3] * size[1]


def class_names(tree: Tree) -> dict[int, str]:
    """Number of a class → its name in words.

    Raises:
        InputError: there are none, or they are malformed.
    """
    found: dict[str, dict[int, str]] = {}
    for file in tree.names(suffixes=(".yaml", ".yml")):
        try:
            content = unique_yaml.safe_load(tree.read(file, MAX_YAML_BYTES))
        except (BadRecord, yaml.YAMLError, ValueError, RecursionError) as error:
            raise InputError(
                f"cannot be read: {str(error).splitlines()[0][:100]}", tree.where(file), "correct it"
            ) from None
        if isinstance(content, dict) and content.get("names") is not None:
            found[file] = _of_yaml(content, tree.where(file))
    for file in tree.names(suffixes=(".txt", ".names", ".labels")):
        if file.rpartition("/")[2] in NAME_FILES or file.endswith(".names"):
            lines = {number - 1: line for number, line in read_lines(tree, file)}  # a blank line has its number, too
            found[file] = _numbered(lines, tree.where(file))
    if found:
        file, names = next(iter(found.items()))
        other = next((one for one, its in found.items() if its != names), "")
        if other:
            raise InputError(
                f"{file} and {other} name the classes differently",
                tree.where(),
                "what the boxes show cannot be known; remove the one that is not of these labels",
            )
        return names
    raise InputError(
        f"no names of classes: looked for 'names' in a .yaml, and for {', '.join(NAME_FILES)}",
        tree.where(),
        "write them into classes.txt, one a line",
    )


def _of_yaml(content: dict[str, Any], where: str) -> dict[int, str]:
    """The names of a data set's `.yaml`, whose other fields must allow that its labels are read as boxes."""
    names = _numbered(content["names"], where)
    if content.get("kpt_shape"):
        raise InputError("the labels hold keypoints (kpt_shape)", where, "export them as boxes or polygons")
    if type(content.get("nc")) is int and content["nc"] != len(names):
        raise InputError(f"'nc' is {content['nc']}, but {len(names)} 'names' stand there", where, "correct the names")
    return names


def _numbered(names: Any, where: str) -> dict[int, str]:
    pairs = names.items() if isinstance(names, dict) else enumerate(names) if isinstance(names, list) else []
    found = {
        int(number): " ".join(str(name).replace("_", " ").split())
        for number, name in pairs
        if str(number).isdigit() and isinstance(name, str | int)
    }
    if not found or len(found) != len(names) or not all(found.values()):
        raise InputError("'names' is no list of names", where, "write names: [ship, harbor]")
    return found


def _image_path(file: str) -> str:
    """Where the image of a label file lies: in the directory `images` for `labels`, else beside it."""
    parts = ["images" if part == "labels" else part for part in file.split("/")]
    return "/".join(parts).rpartition(".")[0]
