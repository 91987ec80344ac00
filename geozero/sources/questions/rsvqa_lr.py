"""RSVQA-LR: questions about 772 Sentinel-2 images of 256×256 px at 10 m.

Layout: `Images_LR/<id>.tif` (RGB) beside `LR_split_{train,val,test}_{questions,answers,images}.json`; each file is an
object with one list. The archive of the images, `Images_LR.zip`, may lie there packed.
Splits, official: 572/100/100 images, 57,223/10,005/10,004 questions; types comp, count, presence, rural_urban.
Licence: CC-BY-4.0. Citation: Lobry et al., "RSVQA: Visual Question Answering for Remote Sensing Data",
IEEE TGRS 2020, arXiv 2003.07333.
Traps: the ids index the lists of the whole set, so each split's lists hold inactive placeholders that are only
`{"id": n, "active": false}`; counts are raw integers, the bins of the papers exist only in their code. Papers report
presence, comp and rural_urban and leave out count.
"""

from __future__ import annotations

from dataclasses import dataclass

from geozero.corpus.sample import SPLITS
from geozero.sources.base import Published
from geozero.sources.readers.rsvqa import Rsvqa, count_bin


@dataclass(frozen=True, kw_only=True)
class RsvqaLr(Rsvqa):
    layout = "Images_LR/<id>.tif, LR_split_{train,val,test}_{questions,answers,images}.json"
    image_folders = ("Images_LR", "Images")
    prefix = "LR_split"
    suffixes = (".tif", ".png", ".jpg")
    any_of = tuple(f"LR_split_{split}_questions.json" for split in SPLITS)
    folders = ("RSVQA_LR", "RSVQA-LR")
    published = Published(images=772, samples=77_232)

    name: str = "rsvqa_lr"
    title: str = "RSVQA-LR"
    size: str = "77,232 questions, 772 images"
    licence: str = "CC-BY-4.0"
    citation: str = "Lobry et al., IEEE TGRS 2020, arXiv 2003.07333"

    def binned(self, kind: str, answer: str) -> str:
        return count_bin(answer) if kind == "count" else answer
