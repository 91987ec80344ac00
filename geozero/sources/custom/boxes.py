"""Your own boxes: detection annotations in COCO's form, from which expressions and, if asked for, questions follow.

Layout: one or more `.json` beside your images, which may lie in any directories below:
    {"images": [{"id": 1, "file_name": "a.jpg", "width": …, "height": …}, …],
     "annotations": [{"id": 7, "image_id": 1, "category_id": 3, "bbox": [x, y, w, h], "iscrowd": 0}, …],
     "categories": [{"id": 3, "name": "ship"}, …]}
What is asked: where a category has exactly one box in an image, "the ship" is to be located. With the option
`questions=presence,count,detection` also "Is there a ship in the image?" (as many absent categories as present ones,
chosen by stable hash), "What is the number of ship objects in the image?", and for all boxes of each category, and of
one that is absent, where there are at most `most_boxes`.
Splits: the word train, val (valid, validation) or test in the file's name or directory (`instances_train2017.json`,
`valid/_annotations.coco.json`); else a stable hash of the image's key, train 0.8, val 0.1, test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: boxes are x, y, width, height in pixels, or corners where Detectron2's `bbox_mode` is 0. Categories of one name
are one. An image that is listed twice is refused; one in the files of two splits stops the reading. A category with a
crowd (or a broken box) in an image is not located, detected or counted there; a box listed twice is one.
Questions take the annotations for complete: do not ask for them
where they are not. Where other JSON files lie there as well, choose (option `file`); give it a name of its own (option
`name`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Box, Split, stable_unit
from geozero.sources.base import Ratio, Record, Rejected, Source
from geozero.sources.custom.common import RATIO, ImageKeys
from geozero.sources.readers.annotations import int_of, json_items, list_of, size_of, text_of
from geozero.sources.readers.boxes import CornerSigns, four_numbers, from_corner
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.splits import split_of_path
from geozero.sources.readers.tree import Tree

XYXY, XYWH = 0, 1  # Detectron2's numbers of the forms of boxes
QUESTIONS = ("presence", "count", "detection")


@dataclass(slots=True)
class Objects:
    """What an image holds: the boxes of each category; categories that are there as a crowd or with a broken box."""

    boxes: dict[int, set[Box]] = field(default_factory=lambda: defaultdict(set))
    vague: set[int] = field(default_factory=set)


@dataclass(frozen=True, kw_only=True)
class OwnBoxes(Source):
    """Args:
    file: the annotations' path below the root; without it all JSON files there are read.
    questions: which questions to ask besides expressions, of `presence`, `count` and `detection`.
    most_boxes: detection is asked for up to so many boxes [ours]: an answer of 50 has about 1,000 tokens.
    ratio: shares of the splits where the file's path names none.
    """

    tasks = ("grounding", "vqa", "detection")
    layout = "<any>.json in COCO's form, images anywhere below"
    generic = True
    suffixes: ClassVar[tuple[str, ...]] = (".json",)
    levels: ClassVar[int] = 1  # of directories, above the annotations

    name: str = "coco"
    title: str = "boxes in COCO's form"
    size: str = "your own"
    licence: str = "your own"
    citation: str = "your own"
    file: str = ""
    questions: tuple[str, ...] = ()
    most_boxes: int = 50
    ratio: Ratio = RATIO

    def __post_init__(self) -> None:
        unknown = set(self.questions) - set(QUESTIONS)
        if unknown:
            raise InputError(f"unknown question '{min(unknown)}'", hint=f"any of {', '.join(QUESTIONS)}")

    def find(self, tree: Tree) -> Tree:
        """What was given.

        Raises:
            InputError: it holds no annotations.
        """
        while not self.annotations(tree):
            if not tree.mount_archives():
                raise tree.absent(self.title, f"looked for {', '.join(self.suffixes)}")
        return tree

    def annotations(self, tree: Tree) -> list[str]:
        """The annotation files: the chosen one, else all.

        Raises:
            InputError: the chosen one is not there.
        """
        if self.file and self.file not in tree:
            raise InputError(f"no such file: {self.file}", tree.where(), "give its path below --root")
        found = [self.file] if self.file else tree.names(suffixes=self.suffixes)
        return [name for name in found if self.file or name.count("/") <= self.levels]

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images, keys = ImageFiles(tree), ImageKeys(self.name, tree)
        for file in self.annotations(tree):
            yield from self._read_file(tree, file, images, keys)

    def _read_file(self, tree: Tree, file: str, images: ImageFiles, keys: ImageKeys) -> Iterator[Record | Rejected]:
        split = split_of_path(file)
        names: dict[int, str] = {}
        for item in json_items(tree, file, "categories"):
            try:
                number, name = int_of(item, "id"), text_of(item, "name").replace("_", " ")
                if names.setdefault(number, name) != name:
                    raise InputError(
                        f"category {number} is '{names[number]}' and '{name}'",
                        tree.where(file),
                        "what the boxes show cannot be known; give each category an id of its own",
                    )
            except BadRecord as bad:
                yield Rejected(f"{file}/category", bad.reason, bad.detail, split)
        names, same = one_per_name(names)
        sizes: dict[Any, tuple[int, int] | None] = {}
        listed, named_twice = Counter[Any](), Counter[Any]()
        for item in json_items(tree, file, "images"):
            if isinstance(item, dict):
                listed[str(item.get("id"))] += 1
                named_twice[str(item.get("file_name"))] += 1
                sizes[str(item.get("id"))] = size_of(item)
        signs = CornerSigns()
        found: dict[int, Objects] = defaultdict(Objects)
        for place, item in enumerate(json_items(tree, file, "annotations")):
            try:
                category, image_id = int_of(item, "category_id"), int_of(item, "image_id")
                if category not in same:
                    raise BadRecord("category_unknown", str(category))
                category, objects = same[category], found[image_id]
                if item.get("iscrowd") in (1, True):
                    objects.vague.add(category)
                    continue
                try:
                    box = _box(item)
                    size = sizes.get(str(image_id))
                    if size is not None and "bbox_mode" not in item:
                        signs.add(item["bbox"], size)
                except BadRecord:
                    objects.vague.add(category)
                    raise
                objects.boxes[category].add(box)
            except BadRecord as bad:
                yield Rejected(f"{file}/annotations[{place}]", bad.reason, bad.detail, split)
        if signs.found():
            raise InputError(
                "the boxes seem to be corners x1, y1, x2, y2, not x, y, width, height",
                tree.where(file),
                "convert them, or write bbox_mode 0 into each annotation; bbox_mode 1 says that they are as in COCO",
            )
        for place, item in enumerate(json_items(tree, file, "images")):
            try:
                image_id, named = int_of(item, "id"), text_of(item, "file_name")
                if named_twice[str(item["file_name"])] > listed[str(image_id)]:
                    raise BadRecord("image_listed_twice", f"{named[:60]}: its objects are known in part")
                if listed[str(image_id)] > 1:
                    raise BadRecord("image_id_twice", f"{image_id}: whose the boxes are cannot be known")
                image = images.find(f"{file.rpartition('/')[0]}/{named}".lstrip("/"))
                objects = found.pop(image_id, Objects())
                yield from self.ask(f"{file}/{image_id}", image, split, objects, names, size_of(item), keys)
            except BadRecord as bad:
                yield Rejected(f"{file}/images[{place}]", bad.reason, bad.detail, split)
        for image_id in sorted(number for number in found if str(number) not in listed):
            yield Rejected(f"{file}/{image_id}", "image_not_listed", "annotations of no listed image", split)

    def ask(
        self,
        key: str,
        image: str,
        split: Split | None,
        objects: Objects,
        names: dict[int, str],
        drawn_on: tuple[int, int] | None,
        keys: ImageKeys,
    ) -> Iterator[Record | Rejected]:
        """What is asked of an image.

        Args:
            key: of the image's annotation; those of the records begin with it.
            split: None where the annotation names none.
            names: number of a category → its name in words, of all categories of the set.
            drawn_on: width and height of the image that the boxes were drawn on, where it is known.
            keys: of the set's images.
        """
        image_key = keys(image)
        split = split or self.ratio.split(image_key)
        try:
            keys.check(image, split)
        except BadRecord as bad:
            yield Rejected(key, bad.reason, bad.detail, split)
            return
        keys.annotate(image, split, key)
        counted = {category: boxes for category, boxes in objects.boxes.items() if category not in objects.vague}

        def question(kind: str, category: int, text: str, answer: str) -> Record:
            return Record(
                task="vqa",
                split=split,
                key=f"{key}/{kind}/{category}",
                image=image,
                image_key=image_key,
                text=text,
                answer=answer,
                question_type=kind,
            )

        for category, boxes in sorted(counted.items()):
            if len(boxes) == 1:
                yield Record(
                    task="grounding",
                    split=split,
                    key=f"{key}/{category}",
                    image=image,
                    image_key=image_key,
                    text=f"the {names[category]}",
                    box=next(iter(boxes)),
                    drawn_on=drawn_on,
                )
        present = objects.boxes.keys() | objects.vague
        absent = sorted(names.keys() - present, key=lambda category: stable_unit(f"{key}/{category}", "absent"))
        if "presence" in self.questions:
            for category in (*sorted(present), *absent[: len(present)]):
                article = "an" if names[category][:1].lower() in "aeiou" else "a"
                text = f"Is there {article} {names[category]} in the image?"
                yield question("presence", category, text, "yes" if category in present else "no")
        if "count" in self.questions:
            for category, boxes in sorted(counted.items()):
                text = f"What is the number of {names[category]} objects in the image?"
                yield question("count", category, text, str(len(boxes)))
        if "detection" in self.questions:
            for category in (*sorted(counted), *absent[: min(1, len(counted))]):
                boxes = counted.get(category, set())
                if len(boxes) > self.most_boxes:
                    found = f"{len(boxes)} {names[category]} in {image}"
                    yield Rejected(f"{key}/detection/{category}", "too_many_boxes", found, split)
                    continue
                yield Record(
                    task="detection",
                    split=split,
                    key=f"{key}/detection/{category}",
                    image=image,
                    image_key=image_key,
                    text=names[category],
                    boxes=tuple(sorted(boxes)),
                    question_type=names[category],
                    drawn_on=drawn_on,
                )


def one_per_name(names: Mapping[int, str]) -> tuple[dict[int, str], dict[int, int]]:
    """Categories without those of a name that another has, letters' case apart; number → the number that stands for it.

    "the ship" is to be one category, or there would be two right answers."""
    first: dict[str, int] = {}
    same = {number: first.setdefault(name.casefold(), number) for number, name in names.items()}
    return {number: names[number] for number in first.values()}, same


def _box(item: Any) -> Box:
    """The box of an annotation, in COCO's form or as Detectron2's `bbox_mode` says."""
    mode, values = item.get("bbox_mode", XYWH), list_of(item, "bbox")
    if mode == XYWH:
        return from_corner(values)
    if mode != XYXY:
        raise BadRecord("box_malformed", f"bbox_mode {mode}, read are {XYXY} and {XYWH}"[:80])
    box = four_numbers(values, "box_malformed")
    if box[2] <= box[0] or box[3] <= box[1]:
        raise BadRecord("box_degenerate", str(values)[:80])
    return box
