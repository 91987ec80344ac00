"""Your own captions: one JSON list of images with their sentences, in Karpathy's form, or a table.

Layout: a `.json` beside your images, which may lie in any directories below:
    {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": "A ship ."}, …]}, …]}
`filepath` in front of `filename` is understood; `tokens`, `imgid`, `sentids` may be there and are not needed. Or a
`.csv`, `.tsv` or `.jsonl` with `file_name` and captions (an ImageFolder's metadata), or `.parquet` files of the Hugging
Face hub that hold their images; captions are a text, a list of texts, structs, or several columns.
Splits: each item's `split` (train, restval, val, test); without one the word train, val or test in the file's path;
else a stable hash of the image's key, train 0.8, val 0.1, test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: where several JSON files lie there, choose one (option `file`); give it a name of its own (option `name`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import BadRecord, InputError
from geozero.sources.base import Ratio, Record, Rejected
from geozero.sources.custom.common import RATIO, ImageKeys, image_of, the_files
from geozero.sources.readers.annotations import json_items, list_of, text_of
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.karpathy_captions import Captions, caption_columns, distinct, distinct_sentences
from geozero.sources.readers.rows import IMAGE, PATH, SUFFIXES, read_rows, row_files, texts_in
from geozero.sources.readers.splits import split_named, split_of_path
from geozero.sources.readers.tree import Tree


@dataclass(frozen=True, kw_only=True)
class OwnCaptions(Captions):
    """Args:
    file: the list's path below the root, where there are several.
    column: the column of captions of a table; if left out, one with a usual name (`captions`, `text`, `caption_1` …).
    ratio: shares of the splits of items that name none.
    """

    layout = "<any>.json in Karpathy's form, or <any>.{csv,jsonl,parquet}; images anywhere below, or inside"
    generic = True

    name: str = "captions_json"
    title: str = "captions in Karpathy's form"
    size: str = "your own"
    licence: str = "your own"
    citation: str = "your own"
    file: str = ""
    column: str = ""
    ratio: Ratio = RATIO

    def find(self, tree: Tree) -> Tree:
        self._lists(tree)
        return tree

    def _lists(self, tree: Tree) -> list[str]:
        """The lists to read: JSON before tables."""
        suffixes = (".json",) if row_files(tree, (".json",)) else SUFFIXES
        return the_files(tree, suffixes, self.file, "list of captions")

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images, keys = ImageFiles(tree), ImageKeys(self.name, tree)
        for file in self._lists(tree):
            if file.lower().endswith(".json"):
                yield from self._read_list(tree, file, images, keys)
                continue
            columns: list[str] = []
            for number, row in read_rows(tree, file, columns.extend):
                key = f"{file}/{number}"
                try:
                    if isinstance(row, BadRecord):
                        raise row
                    chosen = caption_columns(columns, self.column)
                    if not chosen:
                        raise InputError(
                            f"no column of captions (found {', '.join(columns)[:120]})",
                            tree.where(file),
                            f"name it, as --set column={columns[0] if columns else 'caption'}",
                        )
                    image = image_of(row, IMAGE, images, file)
                    texts = [text for column in chosen for text in texts_in(row.get(column))]
                    named = row.get("split") or split_of_path(file)
                    yield from self.samples(
                        self._record(key, (image, row.get(PATH) or image), keys, named, distinct(texts))
                    )
                except BadRecord as bad:
                    yield Rejected(key, bad.reason, bad.detail)

    def _read_list(self, tree: Tree, file: str, images: ImageFiles, keys: ImageKeys) -> Iterator[Record | Rejected]:
        for place, item in enumerate(json_items(tree, file, "images")):
            try:
                filename = text_of(item, "filename")
                if isinstance(item.get("filepath"), str):
                    filename = f"{item['filepath'].strip('/')}/{filename}"
                named = item.get("split") or split_of_path(file)
                image, references = images.find(filename), distinct_sentences(list_of(item, "sentences"))
                yield from self.samples(self._record(filename, (image, image), keys, named, references))
            except BadRecord as bad:
                name = item.get("filename") if isinstance(item, dict) else None
                yield Rejected(name if isinstance(name, str) else f"images[{place}]", bad.reason, bad.detail)

    def _record(
        self, key: str, place: tuple[str, str], keys: ImageKeys, named: Any, references: tuple[str, ...]
    ) -> Record:
        image, path = place
        image_key = keys(path)
        split = split_named(str(named)) if named is not None else self.ratio.split(image_key)
        if split is None:
            raise BadRecord("split_unknown", str(named)[:40])
        keys.check(path, split)
        return Record(task="caption", split=split, key=key, image=image, image_key=image_key, references=references)
