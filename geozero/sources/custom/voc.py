"""Your own boxes in Pascal VOC's form: one XML file per image, from which the same is asked as of COCO's boxes.

Layout: `.xml` files and images in any directories (`Annotations/a.xml` and `JPEGImages/a.jpg`, or side by side):
    <annotation><filename>a.jpg</filename><size><width>800</width><height>600</height></size>
      <object><name>ship</name><difficult>0</difficult>
        <bndbox><xmin>1</xmin><ymin>1</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object></annotation>
What is asked: as `geozero.sources.custom.boxes` says.
Splits: lists of names `train.txt`, `val.txt`, `test.txt` (`ImageSets/Main/`; `trainval.txt` is trained on), where what
they do not name is refused; without them the word train, val or test in the file's path; else a stable hash of the
image's key, train 0.8, val 0.1, test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: boxes are corners in pixels and are taken as they are written, from 0 or from 1 on; where `<size>` differs from
the image, they are refused or scaled. Objects marked `difficult` are neither located nor counted. An image that stands
in two lists stops the reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree.ElementTree import Element

from geozero.common.errors import BadRecord
from geozero.sources.base import Record, Rejected, stem
from geozero.sources.custom.boxes import Objects, OwnBoxes, one_per_name
from geozero.sources.custom.common import ImageKeys
from geozero.sources.readers.annotations import read_xml
from geozero.sources.readers.boxes import voc_box, voc_size
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.splits import split_of_path, splits_of_names
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
        images, keys = ImageFiles(tree), ImageKeys(self.name, tree)
        listed = splits_of_names(tree, self.annotations(tree))
        names = dict(enumerate(sorted(self._categories(tree))))
        numbers = {name: number for number, name in names.items()}
        names, same = one_per_name(names)
        for file in self.annotations(tree):
            split = listed.get(file) or split_of_path(file)
            try:
                if listed and split is None:
                    raise BadRecord("in_no_split", "no list names it")
                annotation = read_xml(tree, file)
                if annotation.tag != "annotation":
                    raise BadRecord("record_malformed", f"<{annotation.tag[:40]}>, expected <annotation>")
                named = (annotation.findtext("filename") or "").strip() or stem(file)
                image = _image(images, named, file)
                if keys.is_annotated(image):
                    raise BadRecord("image_listed_twice", image)
            except BadRecord as bad:
                yield Rejected(file, bad.reason, bad.detail, split)
                continue
            objects = Objects()
            for place, element in enumerate(annotation.findall("object")):
                name, box = _name(element), element.find("bndbox")
                if not name:
                    yield Rejected(f"{file}/{place}", "category_missing", "", split)
                    continue
                category = same[numbers[name]]
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
