"""RSICD: captions of 10,921 aerial images of 224×224 px, five sentences an image.

Layout: `dataset_rsicd.json` beside `RSICD_images/` (also seen: `images/`, `imgs/`), images `airport_1.jpg` or
`00001.jpg`; the list in the form that `geozero.sources.readers.karpathy_captions` describes.
Splits, official: 8,734/1,094/1,093 (recalled, unverified).
Licence: unknown to us; ask the authors before passing images on.
Citation: Lu et al., "Exploring Models and Data for Remote Sensing Image Caption Generation", IEEE TGRS 2018,
arXiv 1712.07835.
Traps: five sentences are often reached by repeating fewer: equal ones (but for case and white space) are kept once.
10,000 of the images are AID's, by file name.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from geozero.sources.base import Published, stem
from geozero.sources.readers.karpathy_captions import KarpathyCaptions

_CLASS_AND_NUMBER = re.compile(r"(.+)_\d+")


@dataclass(frozen=True, kw_only=True)
class Rsicd(KarpathyCaptions):
    layout = "dataset_rsicd.json, RSICD_images/<class>_<n>.jpg or <nnnnn>.jpg"
    list_file: ClassVar[str] = "dataset_rsicd.json"
    image_folders = ("RSICD_images", "images", "imgs")
    declared: ClassVar[str] = "rsicd"
    folders = ("RSICD",)
    image_names = re.compile(r"[a-z]+_\d+|\d{5}")
    published = Published(images=10_921, samples=10_921)

    name: str = "rsicd"
    title: str = "RSICD"
    size: str = "54,605 sentences, 10,921 images"
    licence: str = "unknown"
    citation: str = "Lu et al., IEEE TGRS 2018, arXiv 1712.07835"

    def image_key(self, filename: str) -> str:
        matched = _CLASS_AND_NUMBER.fullmatch(stem(filename))
        return "/".join([self.name, *([matched[1]] if matched else []), stem(filename)])
