"""WHU-RS19: scene classification, 1,005 images of 600×600 px in 19 classes.

Layout: `WHU-RS19/RSDataset/<Class>/<image>.jpg` or `WHU-RS19/<Class>/<image>.jpg`.
Splits: none official. Ours [ours]: a stable hash of the image's key within each class, train 0.5, val 0.1, test 0.4.
Licence: unknown to us; ask the authors before passing images on.
Citation: Xia et al., "Structural High-resolution Satellite Image Indexing", ISPRS TC VII Symposium 2010.
Traps: `footballField` and `railwayStation` begin with a small letter, all others with a capital one. Images in
a folder that is no class are left out and listed.
"""

from __future__ import annotations

from dataclasses import dataclass

from geozero.sources.base import Published, Ratio
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.class_names import WHU_RS19 as FOLDERS

RATIO = Ratio(train=0.5, val=0.1)  # [ours]


@dataclass(frozen=True, kw_only=True)
class WhuRs19(ClassFolders):
    layout = "WHU-RS19/RSDataset/<Class>/<image>.jpg, or WHU-RS19/<Class>/<image>.jpg"
    any_of = FOLDERS
    folders = ("RSDataset", "WHU-RS19")
    published = Published(images=1_005, samples=1_005, classes=19)

    name: str = "whu_rs19"
    title: str = "WHU-RS19"
    size: str = "1,005 images, 19 classes"
    licence: str = "unknown"
    citation: str = "Xia et al., ISPRS TC VII Symposium 2010"
    labels: tuple[str, ...] | None = FOLDERS
    ratio: Ratio = RATIO
