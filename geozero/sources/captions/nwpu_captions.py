"""NWPU-Captions: five sentences for each of the 31,500 images of RESISC45, 256×256 px.

Layout: `dataset_nwpu.json` beside `NWPU_images/<class>/<class>_001.jpg` (RESISC45's own `NWPU-RESISC45/` will do). The
list is an object with one list a class; a file name has no directory:
    {"airplane": [{"filename": "airplane_001.jpg", "split": "train", "imgid": 0, "raw": "…", "raw_1": "…",
                   "raw_2": "…", "raw_3": "…", "raw_4": "…", "sentids": 0, "sentids_1": 1, …}, …], …}
Splits: official, named by each item.
Licence: unknown to us; ask the authors before passing images on.
Citation: Cheng et al., "NWPU-Captions Dataset and MLCA-Net for Remote Sensing Image Captioning", IEEE TGRS 2022.
Traps: `airplane_111.jpg` is listed and does not exist (it is refused as `image_missing`). Odd Unicode in the sentences
is put into its usual form. The images are RESISC45's, same class and file name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import BadRecord
from geozero.sources.base import Published, Record, Rejected, stem
from geozero.sources.readers.annotations import json_groups, text_of
from geozero.sources.readers.karpathy_captions import Captions, distinct, plain_text, split_of
from geozero.sources.readers.tree import Tree

LIST = "dataset_nwpu.json"
RAW = ("raw", "raw_1", "raw_2", "raw_3", "raw_4")


@dataclass(frozen=True, kw_only=True)
class NwpuCaptions(Captions):
    layout = f"{LIST}, NWPU_images/<class>/<class>_<nnn>.jpg"
    image_folders = ("NWPU_images", "NWPU-RESISC45", "images", "imgs")
    required = (LIST,)
    folders = ("NWPU-Captions", "NWPU_Captions")
    published = Published(images=31_500, samples=31_500)

    name: str = "nwpu_captions"
    title: str = "NWPU-Captions"
    size: str = "157,500 sentences, 31,500 images"
    licence: str = "unknown"
    citation: str = "Cheng et al., IEEE TGRS 2022"

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        folder = tree.directory(*self.image_folders)
        counts: dict[str, int] = {}
        for group, item in json_groups(tree, LIST):
            place = counts[group] = counts.get(group, -1) + 1
            try:
                yield from self.samples(self._record(folder, group, item))
            except BadRecord as bad:
                name = item.get("filename") if isinstance(item, dict) else None
                key = f"{group}/{name}" if isinstance(name, str) else f"{group}[{place}]"
                yield Rejected(key, bad.reason, bad.detail)

    def _record(self, folder: str, group: str, item: Any) -> Record:
        filename, split = text_of(item, "filename"), split_of(text_of(item, "split"))
        sentences = [plain_text(text_of(item, field)) for field in RAW if isinstance(item, dict) and field in item]
        return Record(
            task="caption",
            split=split,
            key=f"{group}/{filename}",
            image=f"{folder}/{group}/{filename}",
            image_key=f"{self.name}/{group}/{stem(filename)}",
            references=distinct(sentences),
        )
