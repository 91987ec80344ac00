"""DIOR-RSVG: visual grounding, 38,320 expressions for objects in 17,402 images of 800×800 px.

Layout: `DIOR_RSVG/Annotations/00001.xml`, `JPEGImages/00001.jpg`, `train.txt`, `val.txt`, `test.txt`. An annotation:
    <annotation><filename>00001.jpg</filename>…<size><width>800</width>…</size><object><name>airport</name><pose>…</pose>
      <bndbox><xmin>…</xmin><ymin>…</ymin><xmax>…</xmax><ymax>…</ymax></bndbox>
      <description>The airport in the middle</description></object>…</annotation>
Or Parquet files as danielz01/DIOR-RSVG on the Hugging Face hub has them: `image`, `path`, and `objects` with lists of
`captions` and `bbox` (read as corners in pixels, unverified; a file that cannot be so read stops). The split stands in
the file's name.
Splits, official: 26,991/3,829/7,500 objects. The lines of the txt files are indices of OBJECTS, counted from 0 over all
`<object>` elements of the sorted annotation files.
Licence: unknown to us; ask the authors before passing images on.
Citation: Zhan et al., "RSVG: Exploring Data and Models for Visual Grounding on Remote Sensing Data",
IEEE TGRS 2023, arXiv 2210.12634.
Traps: a missing, unreadable or additional annotation would shift every later index, so it stops the reading, as does
any difference between the numbers of objects and of indices. An early release of the txt files overlapped between
splits, which stops it, too. Boxes are in pixels of the image that `<size>` states; an image of another size is refused.
Splits go by object: one image may be asked about in train and in test. Elements are read by tag; where a tag is
missing, by the position that the authors' code reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

from geozero.common.errors import Ambiguous, BadRecord, InputError
from geozero.corpus.sample import SPLITS, Box, Split
from geozero.sources.base import Published, Record, Rejected, Source, stem
from geozero.sources.readers.annotations import list_of, read_lines, read_xml
from geozero.sources.readers.boxes import four_numbers, voc_box, voc_size, whole_number
from geozero.sources.readers.locate_root import best_root, depth_of
from geozero.sources.readers.splits import split_of_path
from geozero.sources.readers.tables import IMAGE, PATH, Table, check_whole, sound_tables, table_files, table_place
from geozero.sources.readers.tree import Tree

ANNOTATIONS, IMAGES = "Annotations", "JPEGImages"
OBJECTS = "objects"  # the column of the hub's copies
MOST_TURNED = 0.01  # share of boxes whose corners are exchanged; more are another convention [ours]
_BOX_AT, _DESCRIPTION_AT = 2, 3  # children of <object>, where the tags are missing


@dataclass(frozen=True, kw_only=True)
class DiorRsvg(Source):
    tasks = ("grounding",)
    layout = "DIOR_RSVG/Annotations/<nnnnn>.xml, JPEGImages/<nnnnn>.jpg, {train,val,test}.txt (object indices)"
    required = (ANNOTATIONS, IMAGES)
    image_folders = (IMAGES,)
    any_of = tuple(f"{split}.txt" for split in SPLITS)
    folders = ("DIOR_RSVG", "DIOR-RSVG")
    published = Published(images=17_402, samples=38_320)

    name: str = "dior_rsvg"
    title: str = "DIOR-RSVG"
    size: str = "38,320 expressions, 17,402 images"
    licence: str = "unknown"
    citation: str = "Zhan et al., IEEE TGRS 2023, arXiv 2210.12634"

    def find(self, tree: Tree) -> Tree:
        """The directory of the annotations, or of Parquet files of the hub.

        Raises:
            InputError: there is none, or (Ambiguous) several.
        """
        try:
            return super().find(tree)
        except Ambiguous:
            raise
        except InputError:
            places = {table_place(table.file) for table in sound_tables(tree) if _has_boxes(table)}
            if not places:
                raise
            return best_root(tree, self.title, {place: -depth_of(place) for place in places})

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        if not {ANNOTATIONS.casefold()} & {name.casefold() for name in tree.directories()}:
            check_whole(tree, table_files(tree))
            for file in table_files(tree):
                yield from self._read_table(Table(tree, file))
            return
        splits = read_splits(tree)
        files = tree.names(tree.directory(ANNOTATIONS), (".xml",))
        last = max(splits, default=-1)
        total, twins = _count_objects(tree, files)  # first: a fault costs seconds
        if last >= total:
            raise InputError(
                f"index {last} in the split files, but {len(files)} annotation files hold {total} objects",
                tree.where(ANNOTATIONS),
                "an annotation is missing, so all later indices would name other objects; download it again",
            )
        if len(splits) != total or twins:
            numbers = f"{len(files)} annotation files hold {total} objects, the split files name {len(splits)}"
            raise InputError(
                f"{numbers} indices" + (f"; {twins}" if twins else ""),
                tree.where(),
                "both are 38,320 in the release; a file too many, lost or cut short shifts the indices of all later "
                "objects: remove copies, or download it again",
            )
        images, index = tree.directory(IMAGES), 0
        for file in files:
            annotation = _annotation(tree, file)
            image, drawn_on = _image(tree, images, file, annotation), voc_size(annotation)
            for place, element in enumerate(annotation.findall("object")):
                key = f"{stem(file)}/{place}"
                try:
                    yield Record(
                        task="grounding",
                        split=splits[index],
                        key=key,
                        image=image,
                        image_key=f"{self.name}/{IMAGES}/{stem(image)}",
                        text=_description(element),
                        box=_box(element),
                        drawn_on=drawn_on,
                    )
                except BadRecord as bad:
                    yield Rejected(key, bad.reason, bad.detail, splits[index])
                index += 1

    def _read_table(self, table: Table) -> Iterator[Record | Rejected]:
        """Rows of the hub's copy: `objects` holds lists of `bbox` (xyxy) and `captions`, one row per image and split.

        Raises:
            InputError: the boxes are plainly no corners.
        """
        split = split_of_path(table.file) or "train"
        turned = count = 0
        for number, row in table.rows():
            objects, name = _by_field(row.get(OBJECTS)), row.get("path") or row.get(PATH) or f"{split}_{number:08}"
            try:
                boxes, texts = list_of(objects, "bbox"), list_of(objects, "captions")
                if len(boxes) != len(texts):
                    raise BadRecord("record_malformed", f"{len(boxes)} boxes, {len(texts)} captions")
            except BadRecord as bad:
                yield Rejected(f"{table.file}/{number}", bad.reason, bad.detail, split)
                continue
            for place, (values, text) in enumerate(zip(boxes, texts, strict=True)):
                key = f"{stem(name)}/{place}"
                try:
                    box = four_numbers(values)
                    count, turned = count + 1, turned + (box[2] <= box[0] or box[3] <= box[1])
                    if not isinstance(text, str) or not text.strip():
                        raise BadRecord("expression_missing")
                    yield Record(
                        task="grounding",
                        split=split,
                        key=key if split == "train" else f"{split}/{key}",
                        image=row[IMAGE],
                        image_key=f"{self.name}/{IMAGES}/{stem(name)}",
                        text=" ".join(text.split()),
                        box=box,
                    )
                except BadRecord as bad:
                    yield Rejected(key, bad.reason, bad.detail, split)
        if turned > MOST_TURNED * count:
            raise InputError(
                f"{turned} of {count} boxes are no corners x1, y1, x2, y2",
                table.tree.where(table.file),
                "they may be x, y, width, height: take a copy that says what they are",
            )


def _by_field(objects: Any) -> Any:
    """A list of structs as a struct of lists."""
    if not isinstance(objects, list):
        return objects
    names = ("bbox", "captions", "caption")
    lists = {name: [one[name] for one in objects if isinstance(one, dict) and name in one] for name in names}
    return {"bbox": lists["bbox"], "captions": lists["captions"] or lists["caption"]}


def _has_boxes(table: Table) -> bool:
    return bool(table.image) and OBJECTS in table.columns


def read_splits(tree: Tree) -> dict[int, Split]:
    """Object index → split.

    Raises:
        InputError: a txt file is missing or holds something else than indices; an index stands in two splits.
    """
    splits: dict[int, Split] = {}
    for split in SPLITS:
        file = f"{split}.txt"
        for number, line in read_lines(tree, file):
            index = whole_number(line)
            if index is None:
                raise InputError(
                    f"line {number} is '{line[:40]}', expected the index of an object", tree.where(file), "correct it"
                )
            if splits.setdefault(index, split) != split:
                raise InputError(
                    f"object {index} stands in {splits[index]}.txt and in {file}",
                    tree.where(),
                    "an early release of the split files overlapped; take the corrected one",
                )
    return splits


def _count_objects(tree: Tree, files: list[str]) -> tuple[int, str]:
    """How many objects the annotation files hold; two files of one image, if there are any.

    Raises:
        InputError: one is unreadable.
    """
    total, twins, of_image = 0, "", dict[str, str]()
    for file in files:
        annotation = _annotation(tree, file)
        total += len(annotation.findall("object"))
        named = (annotation.findtext("filename") or file).strip()
        if of_image.setdefault(named, file) != file:
            twins = twins or f"{of_image[named]} and {file} are both of {named}"
    return total, twins


def _annotation(tree: Tree, file: str) -> Element:
    try:
        return read_xml(tree, file)
    except BadRecord as bad:
        raise InputError(
            f"unreadable annotation ({bad}), and all later indices would name other objects",
            tree.where(file),
            "download it again",
        ) from None


def _image(tree: Tree, images: str, file: str, annotation: Element) -> str:
    """The image of an annotation file: the one it names, else the one of the same stem."""
    named = (annotation.findtext("filename") or "").strip()
    return f"{images}/{named}" if f"{images}/{named}" in tree else f"{images}/{stem(file)}.jpg"


def _description(element: Element) -> str:
    found = element.find("description")
    if found is None and len(element) > _DESCRIPTION_AT:
        found = element[_DESCRIPTION_AT]
    text = " ".join((found.text or "").split()) if found is not None else ""
    if not text:
        raise BadRecord("expression_missing")
    return text


def _box(element: Element) -> Box:
    box = element.find("bndbox")
    if box is None and len(element) > _BOX_AT:
        box = element[_BOX_AT]
    if box is None:
        raise BadRecord("box_missing")
    return voc_box(box)
