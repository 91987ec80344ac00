"""Your own boxes in Pascal VOC's form: one XML file per image, from which the same is asked as of COCO's boxes.

Layout: `.xml` files and images in any directories (`Annotations/a.xml` and `JPEGImages/a.jpg`, or side by side):
    <annotation><filename>a.jpg</filename><size><width>800</width><height>600</height></size>
      <object><name>ship</name><difficult>0</difficult>
        <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>
What is asked: as `geozero.sources.custom.boxes` says.
Splits: lists of names `train.txt`, `val.txt`, `test.txt` (`ImageSets/Main/`); without them the word train, val or test
in the file's path; else a stable hash of the image's key, train 0.8, val 0.1, test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: boxes are corners in pixels and are taken as they are written, from 0 or from 1 on; where `<size>` differs from
the image, they are refused or scaled. Objects marked `difficult` are neither located nor counted. An image that stands
in two lists stops the reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Split
from geozero.sources.base import Record, Rejected, stem
from geozero.sources.custom.boxes import Objects, OwnBoxes
from geozero.sources.custom.common import ImageKeys
from geozero.sources.readers.annotations import read_lines, read_xml
from geozero.sources.readers.boxes import voc_box, voc_size
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.splits import split_named, split_of_path
from geozero.sources.readers.tree import Tree


@dataclass(frozen=True, kw_only=True)
class OwnVoc(OwnBoxes):
    layout = (
        "<any>/<name>.xml in Pascal VOC's form, images anywhere below, ImageSets/Main/{train,val,test}.txt (optional)"
    )
    suffixes = (".xml",)

    name: str = "voc"
    title: str = "boxes in Pascal VOC's form"

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images, listed, keys = ImageFiles(tree), _lists(tree), ImageKeys(self.name, tree)
        numbers = {name: number for number, name in enumerate(sorted(self._categories(tree)))}
        names = {number: name for name, number in numbers.items()}
        for file in self.annotations(tree):
            split = listed.get(stem(file)) or split_of_path(file)
            try:
                annotation = read_xml(tree, file)
                if annotation.tag != "annotation":
                    raise BadRecord("record_malformed", f"<{annotation.tag[:40]}>, expected <annotation>")
                named = (annotation.findtext("filename") or "").strip() or stem(file)
                image = _image(images, named, file)
            except BadRecord as bad:
                yield Rejected(file, bad.reason, bad.detail, split)
                continue
            objects = Objects()
            for place, element in enumerate(annotation.findall("object")):
                name, box = _name(element), element.find("bndbox")
                if not name:
                    yield Rejected(f"{file}/{place}", "category_missing", "", split)
                    continue
                category = numbers[name]
                try:
                    if box is None:
                        raise BadRecord("box_missing", f"object {place}")
                    if (element.findtext("difficult") or "").strip() == "1":
                        objects.vague.add(category)
                    else:
                        objects.boxes[category].add(voc_box(box))
                except BadRecord as bad:
                    objects.vague.add(category)
                    yield Rejected(f"{file}/{place}", bad.reason, bad.detail, split)
            yield from self.ask(file, image, split, objects, names, voc_size(annotation), keys)

    def _categories(self, tree: Tree) -> set[str]:
        """The names of all categories, from every annotation that can be read."""
        found = set()
        for file in self.annotations(tree):
            try:
                found |= {_name(element) for element in read_xml(tree, file).findall("object")}
            except BadRecord:
                continue
        return found - {""}


def _name(element: Element) -> str:
    return " ".join((element.findtext("name") or "").replace("_", " ").split())


def _image(images: ImageFiles, named: str, file: str) -> str:
    """The image that an annotation names, else the one called as the file is."""
    place = file.rpartition("/")[0]
    try:
        return images.find(named, place=place)
    except BadRecord as bad:
        if bad.reason != "image_missing":
            raise
        return images.find(stem(file), place=place)


def _lists(tree: Tree) -> dict[str, Split]:
    """Name of an annotation without suffix → its split, from lists of names.

    Raises:
        InputError: a name stands in two splits.
    """
    listed: dict[str, Split] = {}
    for file in tree.names(suffixes=(".txt",)):
        split = split_named(stem(file))
        for number, line in read_lines(tree, file) if split else ():
            if split is not None and listed.setdefault(stem(line), split) != split:
                raise InputError(
                    f"line {number}: {line[:60]} stands in the list of {listed[stem(line)]}, too",
                    tree.where(file),
                    "an image belongs to one split; correct the lists",
                )
    return listed
