"""Sydney-Captions: five sentences for each of 613 images of Sydney, seven kinds of scene.

Layout: `dataset.json` beside `imgs/` or `images/`, images `1.tif` to `613.tif`; the list in the form that
`geozero.sources.readers.karpathy_captions` describes.
Splits, official: 497/58/58 images.
Licence: unknown to us; ask the authors before passing images on.
Citation: Qu et al., "Deep Semantic Understanding of High Resolution Remote Sensing Image", CITS 2016.
Traps: the archives of images of this set and of UCM-Captions have been mixed up: a directory of exactly 2,100
images is refused. The kind of scene goes by the number (residential 1-242, airport 243-264, meadow 265-314,
river 315-359, ocean 360-451, industrial 452-547, runway 548-613); it stands in the image's key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from geozero.sources.base import Published, stem
from geozero.sources.readers.karpathy_captions import KarpathyCaptions

LAST_OF_KIND = {
    "residential": 242,
    "airport": 264,
    "meadow": 314,
    "river": 359,
    "ocean": 451,
    "industrial": 547,
    "runway": 613,
}


@dataclass(frozen=True, kw_only=True)
class SydneyCaptions(KarpathyCaptions):
    layout = "dataset.json, imgs/<n>.tif or images/<n>.tif"
    declared: ClassVar[str] = "sydney"
    n_images = 613
    confused_with = ("UCM-Captions", 2_100)
    folders = ("Sydney_captions", "Sydney-captions", "Sydney_Captions", "Sydney")
    published = Published(images=613, samples=613)

    name: str = "sydney_captions"
    title: str = "Sydney-Captions"
    size: str = "3,065 sentences, 613 images"
    licence: str = "unknown"
    citation: str = "Qu et al., CITS 2016"

    def image_key(self, filename: str) -> str:
        number = stem(filename)
        if number.isascii() and number.isdigit() and len(number) <= 3 and int(number) > 0:
            kind = next((kind for kind, last in LAST_OF_KIND.items() if int(number) <= last), None)
            if kind is not None:
                return f"{self.name}/{kind}/{number}"
        return f"{self.name}/{number}"
