"""RSVQA-HR: questions about 10,659 aerial images (USGS) of 512×512 px at 15 cm.

Layout: `Data/<id>.tif` and the same as `Data/<id>.png`, beside
`USGS_split_{train,val,test,test_phili}_{questions,answers,images}.json`; the archive of the images may lie there
packed.
Splits, official: 625,340/102,843/222,684/105,647 questions; types area, comp, count, presence. `test_phili`
(Philadelphia) is a second test set: its images come from a region that is not trained on, those of `test` share
theirs. Both become `test`; their keys begin with `test/` and `test_phili/`, and the option `test` chooses one of them.
Licence: CC-BY-4.0. Citation: Lobry et al., "RSVQA: Visual Question Answering for Remote Sensing Data",
IEEE TGRS 2020, arXiv 2003.07333.
Traps: inactive placeholders in each split's lists as in RSVQA-LR; the png is read, the tif is the same image; areas
are raw ("1934m2"), the bins of the papers exist only in their code. Papers report presence and comp and leave out count
and area.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from geozero.corpus.sample import Split
from geozero.sources.base import Published, Record, Rejected
from geozero.sources.readers.rsvqa import Rsvqa, area_bin
from geozero.sources.readers.tree import Tree

TEST, PHILI = 222_684, 105_647  # questions of the two test sets
PARTS: dict[str, Split] = {"train": "train", "val": "val", "test": "test", "test_phili": "test"}


@dataclass(frozen=True, kw_only=True)
class RsvqaHr(Rsvqa):
    """Args:
    test: which of the two test sets to read.
    """

    layout = "Data/<id>.png and <id>.tif, USGS_split_{train,val,test,test_phili}_{questions,answers,images}.json"
    image_folders = ("Data", "Images")
    prefix = "USGS_split"
    suffixes = (".png", ".tif", ".jpg")
    parts = PARTS
    any_of = tuple(f"USGS_split_{part}_questions.json" for part in PARTS)
    folders = ("RSVQA_HR", "RSVQA-HR")
    published = Published(images=10_659, samples=1_056_514)

    name: str = "rsvqa_hr"
    title: str = "RSVQA-HR"
    size: str = "1,056,514 questions, 10,659 images"
    licence: str = "CC-BY-4.0"
    citation: str = "Lobry et al., IEEE TGRS 2020, arXiv 2003.07333"
    test: Literal["both", "test", "test_phili"] = "both"

    def expected(self) -> Published:
        counts = super().expected()
        left_out = {"both": 0, "test": PHILI, "test_phili": TEST}[self.test]
        return Published(samples=counts.samples - left_out) if left_out and counts.samples else counts

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        for part in PARTS:
            if PARTS[part] != "test" or self.test in ("both", part):
                yield from self.read_part(tree, part)

    def binned(self, kind: str, answer: str) -> str:
        return area_bin(answer) if kind == "area" else answer
