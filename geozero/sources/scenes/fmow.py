"""fMoW-rgb: functional map of the world, 62 classes of places seen several times.

Layout: `fMoW-rgb/{train,val}/<category>/<category>_<seq>/<category>_<seq>_<k>_rgb.jpg` with a `.json` of the same name:
    {"gsd": …, "img_filename": "…_rgb.tif", "img_width": 512, "img_height": 400, "timestamp": "…", …,
     "bounding_boxes": [{"ID": -1, "box": [x, y, w, h], "category": …},
                        {"ID": 47768, "box": [x, y, w, h], "category": "airport", "visible": "True"}]}
Splits, official: `train` and `val`, by sequence; `test` and `seq` carry no labels and are listed, not read. With
`val_as="test"` the official validation images are evaluated on.
Licence: unknown to us; ask the authors before passing images on.
Citation: Christie et al., "Functional Map of the World", CVPR 2018, arXiv 1711.07846.
Traps: boxes are x, y, width, height in pixels; `{"ID": -1}` stands for no object; an object may be listed twice; the
image's name in the json ends in `.tif` though it is a jpg; `_msrgb` shows the same scene again and is left out; the
number of a sequence is counted anew in each split, so that the split is part of the image's key. The label is that of
the boxed place, which may be a small part of the image.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Box, Split
from geozero.sources.base import Published, Record, Rejected, Source, stem
from geozero.sources.readers.annotations import list_of, size_of, text_of
from geozero.sources.readers.boxes import four_numbers
from geozero.sources.readers.class_folders import label_text
from geozero.sources.readers.class_names import FMOW as CATEGORIES
from geozero.sources.readers.locate_root import best_root, depth_of, has_usual_name
from geozero.sources.readers.tree import MAX_DEPTH, Tree

IMAGES = ("_rgb.jpg", "_rgb.jpeg", "_rgb.png")
WILDS = "rgb_metadata.csv"
NO_OBJECT = -1
MAX_JSON_BYTES = 4 << 20
_UNLABELLED = ("test", "seq")
_LABELS = {category: label_text(category) for category in CATEGORIES}


@dataclass(frozen=True, kw_only=True)
class Fmow(Source):
    """Args:
    grounding: also ask where the place is, in images with exactly one box. The json of each image is then read.
    val_as: the split that the official validation images are given to.
    """

    tasks = ("scene_cls", "grounding")
    layout = "fMoW-rgb/{train,val}/<category>/<category>_<seq>/<category>_<seq>_<k>_rgb.{jpg,json}"
    folders = ("fMoW-rgb",)
    published = Published(classes=62)

    name: str = "fmow"
    title: str = "fMoW-rgb"
    size: str = "62 classes"
    licence: str = "unknown"
    citation: str = "Christie et al., CVPR 2018, arXiv 1711.07846"
    grounding: bool = False
    val_as: Literal["val", "test"] = "val"

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(sorted(_LABELS.values()))

    def find(self, tree: Tree) -> Tree:
        """The directory that holds `train` or `val` with categories below.

        Raises:
            InputError: there is none, or (Ambiguous) several equally good ones.
        """
        places = self._places(tree)
        while not places and tree.mount_archives((self.title, *self.folders)):
            places = self._places(tree)
        wilds = [name for name in tree.names(suffixes=(".csv",)) if name.rpartition("/")[2] == WILDS]
        if not places and wilds:
            raise InputError(
                f"this is WILDS' copy of fMoW ({wilds[0]}): images of 224x224 px, known by their place in a list",
                tree.where(),
                f"take fMoW-rgb itself: {self.layout}",
            )
        if not places:
            return tree.locate(self.title, (), ("train/<category>", "val/<category>"), self.folders)
        return best_root(tree, self.title, places)

    def _places(self, tree: Tree) -> dict[str, tuple[bool, int]]:
        found = set()
        for name in tree.names(suffixes=IMAGES):
            parts = name.split("/")
            if len(parts) >= 4 and parts[-4] in ("train", "val") and parts[-3] in _LABELS:
                found.add("/".join(parts[:-4]))
        return {
            place: (has_usual_name(tree, place, self.folders), -depth_of(place))
            for place in found
            if depth_of(place) <= MAX_DEPTH
        }

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        parts: dict[str, Split] = {"train": "train", "val": self.val_as}
        classes = self.classes
        unread: Counter[tuple[str, str]] = Counter()
        for name in tree.names(suffixes=IMAGES):
            part, _, rest = name.partition("/")
            category = rest.partition("/")[0]
            if part in parts and category in _LABELS:
                yield from self._ask(tree, name, part, parts[part], category, classes)
            elif part in _UNLABELLED:
                unread[part, "label_missing"] += 1
            else:
                unread[name.rpartition("/")[0] or name, "class_unknown"] += 1
        for (place, reason), count in sorted(unread.items()):
            yield Rejected(place, reason, f"{count} images")

    def _ask(
        self, tree: Tree, name: str, part: str, split: Split, category: str, classes: tuple[str, ...]
    ) -> Iterator[Record | Rejected]:
        image_key = f"{self.name}/{part}/{stem(name)}"
        yield Record(
            task="scene_cls",
            split=split,
            key=name,
            image=name,
            image_key=image_key,
            answer=_LABELS[category],
            classes=classes,
        )
        if self.grounding:
            key = f"{name.rpartition('.')[0]}.json"
            try:
                annotation = _annotation(tree, key)
                box = the_object(annotation, category)
                text = f"the {_LABELS[category]}"
                yield Record(
                    task="grounding",
                    split=split,
                    key=key,
                    image=name,
                    image_key=image_key,
                    text=text,
                    box=box,
                    drawn_on=size_of(annotation, "img_width", "img_height"),
                )
            except BadRecord as bad:
                yield Rejected(key, bad.reason, bad.detail, split)


def _annotation(tree: Tree, name: str) -> Any:
    data = tree.read(name, MAX_JSON_BYTES)
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadRecord("json_malformed", str(error)[:80]) from None


def the_object(annotation: Any, category: str) -> Box:
    """The box of the one object of an annotation, xyxy in pixels.

    Raises:
        BadRecord: none, several, one of another category or invisible, or a malformed one.
    """
    found = set()
    for item in list_of(annotation, "bounding_boxes"):
        if not isinstance(item, dict):
            raise BadRecord("record_malformed", "a box is no object")
        if item.get("ID") == NO_OBJECT:
            continue
        box = four_numbers(list_of(item, "box"), "box_malformed")
        found.add((text_of(item, "category"), str(item.get("visible", "True")), box))
    if len(found) != 1:
        raise BadRecord("object_missing" if not found else "object_not_unique", f"{len(found)} objects")
    named, visible, (x, y, width, height) = found.pop()
    if named != category:
        raise BadRecord("category_conflict", f"{named} in an image of {category}"[:120])
    if visible.lower() != "true":
        raise BadRecord("object_not_visible")
    return x, y, x + width, y + height
