"""NaSC-TG2: scene classification, 20,000 Tiangong-2 images of 128×128 px in 10 classes of 2,000.

Layout: a directory whose name contains `RGB`, or one called as the data set, class folders below it or below `train`
and `test`, images in jpg, png or tif. The names of folders and files are unknown to us (assumed; other spellings of
the two farmlands are accepted).
Splits: those of the directories `train` and `test`; else none known. Ours [ours]: a stable hash of the image's key
within each class, train 0.8, val 0.1, test 0.1.
Licence: unknown to us; ask the authors before passing images on.
Citation: Zhou et al., "NaSC-TG2: Natural Scene Classification With Tiangong-2 Remotely Sensed Imagery",
IEEE JSTARS 2021.
Traps: the same scenes come a second time as 14-band `.tif` outside the RGB directory; they are never read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from geozero.sources.base import Published, Ratio
from geozero.sources.readers.archive_members import alnum_key
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.class_names import NASC_TG2 as FOLDERS

_MULTISPECTRAL = re.compile(r"(?:^|[^a-z])ms(?:[^a-z]|$)|multi")

RATIO = Ratio(train=0.8, val=0.1)  # [ours]


@dataclass(frozen=True, kw_only=True)
class NascTg2(ClassFolders):
    layout = "…RGB…/<class>/<image> (assumed)"
    any_of = FOLDERS
    folders = ("NaSC-TG2", "NASC_TG2", "NaSC_TG2", "NASC-TG2-RGB")
    other_spellings: ClassVar[Mapping[str, str]] = {
        "circle_farmland": "circular_farmland",
        "circlefarmland": "circular_farmland",
        "rectangle_farmland": "rectangular_farmland",
    }
    published = Published(images=20_000, samples=20_000, classes=10)

    name: str = "nasc_tg2"
    title: str = "NaSC-TG2"
    size: str = "20,000 images, 10 classes"
    licence: str = "unknown"
    citation: str = "Zhou et al., IEEE JSTARS 2021"
    labels: tuple[str, ...] | None = FOLDERS
    ratio: Ratio = RATIO

    def accepts(self, path: str, best: bool) -> bool:
        if "rgb" in path.lower():
            return True
        named = alnum_key(self.title) in alnum_key(path)
        return (best or named) and _MULTISPECTRAL.search(path.lower()) is None
