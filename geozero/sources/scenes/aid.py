"""AID: scene classification, 10,000 aerial images of 600×600 px in 30 classes.

Layout: `AID/<Class>/<class>_<n>.jpg`, CamelCase folder, lower-case file, n from 1 unpadded
(`AID/River/river_255.jpg`); some mirrors wrap it once more (`AID_dataset/AID`).
Splits: none official; papers train on 20 % or 50 %. Ours [ours]: a stable hash of the image's key within each
class, train 0.5, val 0.1, test 0.4.
Licence: unknown to us; ask the authors before passing images on.
Citation: Xia et al., "AID: A Benchmark Data Set for Performance Evaluation of Aerial Scene Classification",
IEEE TGRS 2017, arXiv 1608.05167.
Traps: labels are the folders' names split ("BareLand" → "bare land"); RSICD contains all of these images by file
name at another size, so training on one and testing on the other leaks.
"""

from __future__ import annotations

from dataclasses import dataclass

from geozero.sources.base import Published, Ratio
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.class_names import AID as FOLDERS

RATIO = Ratio(train=0.5, val=0.1)  # [ours]


@dataclass(frozen=True, kw_only=True)
class Aid(ClassFolders):
    layout = "AID/<Class>/<class>_<n>.jpg"
    any_of = FOLDERS
    folders = ("AID",)
    published = Published(images=10_000, samples=10_000, classes=30)

    name: str = "aid"
    title: str = "AID"
    size: str = "10,000 images, 30 classes"
    licence: str = "unknown"
    citation: str = "Xia et al., IEEE TGRS 2017, arXiv 1608.05167"
    labels: tuple[str, ...] | None = FOLDERS
    ratio: Ratio = RATIO
