"""Your own captions: one JSON list of images with their sentences, in Karpathy's form.

Layout: a `.json` beside your images, which may lie in any directories below:
    {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A ship ."}, …]}, …]}
`filepath` in front of `filename` is understood; `tokens`, `imgid`, `sentids` may be there and are not needed.
Splits: each item's `split` (train, restval, val, test); without one a stable hash of the image's key, train 0.8,
val 0.1, test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: where several JSON files lie there, choose one (option `file`); give it a name of its own (option `name`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import BadRecord
from geozero.sources.base import Ratio, Record, Rejected
from geozero.sources.custom.common import RATIO, make_image_key, split_named, the_file
from geozero.sources.readers.annotations import json_items, list_of, text_of
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.karpathy_captions import Captions, distinct_sentences
from geozero.sources.readers.tree import Tree


@dataclass(frozen=True, kw_only=True)
class OwnCaptions(Captions):
    """Args:
    file: the list's path below the root, where there are several.
    ratio: shares of the splits of items that name none.
    """

    layout = "<any>.json in Karpathy's form, images anywhere below"
    generic = True

    name: str = "captions_json"
    title: str = "captions in Karpathy's form"
    size: str = "your own"
    licence: str = "your own"
    citation: str = "your own"
    file: str = ""
    ratio: Ratio = RATIO

    def find(self, tree: Tree) -> Tree:
        the_file(tree, (".json",), self.file, "list of captions")
        return tree

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images = ImageFiles(tree)
        file = the_file(tree, (".json",), self.file, "list of captions")
        for place, item in enumerate(json_items(tree, file, "images")):
            try:
                yield from self.samples(self._record(item, images))
            except BadRecord as bad:
                name = item.get("filename") if isinstance(item, dict) else None
                yield Rejected(name if isinstance(name, str) else f"images[{place}]", bad.reason, bad.detail)

    def _record(self, item: Any, images: ImageFiles) -> Record:
        filename = text_of(item, "filename")
        if isinstance(item.get("filepath"), str):
            filename = f"{item['filepath'].strip('/')}/{filename}"
        image = images.find(filename)
        image_key = make_image_key(self.name, image)
        named = item.get("split")
        split = split_named(str(named)) if named is not None else self.ratio.split(image_key)
        if split is None:
            raise BadRecord("split_unknown", str(named)[:40])
        references = distinct_sentences(list_of(item, "sentences"))
        return Record(
            task="caption", split=split, key=filename, image=image, image_key=image_key, references=references
        )
