"""RSICD: captions of 10,921 aerial pictures of 224×224 px, five sentences a picture.

Layout: `dataset_rsicd.json` beside `RSICD_images/` (also seen: `images/`, `imgs/`), pictures `airport_1.jpg` or
`00001.jpg`:
    {"images": [{"filename": "airport_1.jpg", "split": "train", "imgid": 0, "sentids": […],
                 "sentences": [{"raw": "…", "tokens": […], "imgid": 0, "sentid": 0}, …]}, …], "dataset": "rsicd"}
Splits, official: 8,734/1,094/1,093.
Licence: unknown to us; ask the authors before passing pictures on.
Citation: Lu et al., "Exploring Models and Data for Remote Sensing Image Caption Generation", IEEE TGRS 2018,
arXiv 1712.07835.
Traps: five sentences are often reached by repeating fewer: equal ones (but for case and white space) are kept once.
10,000 of the pictures are AID's, by file name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from geozero.errors import BadRecord
from geozero.sample import SPLITS, Split
from geozero.sources.annotations import json_items, list_of, text_of
from geozero.sources.base import Record, Rejected, Source, stem
from geozero.sources.tree import Tree

_CLASS_AND_NUMBER = re.compile(r"(.+)_\d+")


@dataclass(frozen=True, kw_only=True)
class Rsicd(Source):
    tasks = ("caption",)
    layout = "dataset_rsicd.json, RSICD_images/<class>_<n>.jpg or <nnnnn>.jpg"
    list_file: ClassVar[str] = "dataset_rsicd.json"
    pictures: ClassVar[tuple[str, ...]] = ("RSICD_images", "images", "imgs")
    required = (list_file,)
    any_of = pictures
    folders = ("RSICD",)

    name: str = "rsicd"
    title: str = "RSICD"
    licence: str = "unknown"
    citation: str = "Lu et al., IEEE TGRS 2018, arXiv 1712.07835"

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        folder = next((name for name in self.pictures if tree.directories().count(name)), self.pictures[0])
        for place, item in enumerate(json_items(tree, self.list_file, "images")):
            try:
                yield self._record(folder, item)
            except BadRecord as bad:
                name = item.get("filename") if isinstance(item, dict) else None
                yield Rejected(name if isinstance(name, str) else f"images[{place}]", bad.reason, bad.detail)

    def _record(self, folder: str, item: Any) -> Record:
        filename, references = text_of(item, "filename"), distinct_sentences(list_of(item, "sentences"))
        matched = _CLASS_AND_NUMBER.fullmatch(stem(filename))
        return Record(
            task="caption",
            split=split_of(text_of(item, "split")),
            key=filename,
            image=f"{folder}/{filename}",
            image_key="/".join([self.name, *([matched[1]] if matched else []), stem(filename)]),
            references=references,
        )


def split_of(name: str) -> Split:
    """The split of this name.

    Raises:
        BadRecord: neither train, val nor test.
    """
    for split in SPLITS:
        if name == split:
            return split
    raise BadRecord("split_unknown", name[:40])


def distinct_sentences(sentences: list[Any]) -> tuple[str, ...]:
    """The sentences' `raw` texts in order, each once, whatever its case; empty ones left out.

    Raises:
        BadRecord: none is left, or one is malformed.
    """
    kept = {text.casefold(): text for text in reversed([text_of(s, "raw") for s in sentences]) if text}
    if not kept:
        raise BadRecord("references_missing")
    return tuple(reversed(kept.values()))
