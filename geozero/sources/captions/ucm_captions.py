"""UCM-Captions: five sentences for each of the 2,100 images of UC Merced Land Use, about 256×256 px.

Layout: `dataset.json` beside `imgs/` or `images/`, images `1.tif` to `2100.tif`; the list in the form that
`geozero.sources.readers.karpathy_captions` describes.
Splits, official: 1,680/210/210 images.
Licence: unknown to us; ask the authors before passing images on.
Citation: Qu et al., "Deep Semantic Understanding of High Resolution Remote Sensing Image", CITS 2016.
Traps: these are UCM's images (`n.tif` belongs to class (n-1)//100 in alphabetical order; it stands in the image's
key). The archives of images of this set and of Sydney-Captions have been mixed up: a directory of exactly 613
images is refused. Of the 1,050 test sentences 573 stand word for word in train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geozero.sources.base import Published, stem
from geozero.sources.readers.class_names import UCM as CLASSES
from geozero.sources.readers.karpathy_captions import KarpathyCaptions

PER_CLASS = 100


@dataclass(frozen=True, kw_only=True)
class UcmCaptions(KarpathyCaptions):
    layout = "dataset.json, imgs/<n>.tif or images/<n>.tif"
    declared: ClassVar[str] = "ucm"
    n_images = 2_100
    confused_with = ("Sydney-Captions", 613)
    folders = ("UCM_captions", "UCM-captions", "UCM_Captions", "UCM")
    published = Published(images=2_100, samples=2_100)

    name: str = "ucm_captions"
    title: str = "UCM-Captions"
    size: str = "10,500 sentences, 2,100 images"
    licence: str = "unknown"
    citation: str = "Qu et al., CITS 2016"

    def image_key(self, filename: str) -> str:
        number = stem(filename)
        if number.isascii() and number.isdigit() and len(number) <= 4:
            place = (int(number) - 1) // PER_CLASS
            if 0 <= place < len(CLASSES):
                return f"{self.name}/{CLASSES[place]}/{number}"
        return f"{self.name}/{number}"
