"""UCM (UC Merced Land Use): scene classification, 2,100 aerial images of about 256×256 px in 21 classes of 100.

Layout: `UCMerced_LandUse/Images/<class>/<class><nn>.tif`, nn from 00 to 99.
Splits: none official; 80/20 is usual (recalled, unverified). Ours [ours]: by a stable hash of the image's key within
each class, train 0.8, test 0.2.
Licence: unknown to us (the imagery is the USGS's); ask the authors before passing images on.
Citation: Yang and Newsam, "Bag-of-Visual-Words and Spatial Extensions for Land-Use Classification", ACM GIS 2010.
Traps: folder names have no separators ("baseballdiamond" is asked for as "baseball diamond"); some images are 242 to
257 px wide. UCM-Captions shows the same images as `1.tif` to `2100.tif`, and VHM-Instruct and SkyEye hold them, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from geozero.sources.base import Published, Ratio
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.class_names import UCM as FOLDERS

RATIO = Ratio(train=0.8, val=0.0)  # [ours]


@dataclass(frozen=True, kw_only=True)
class Ucm(ClassFolders):
    layout = "UCMerced_LandUse/Images/<class>/<class><nn>.tif"
    any_of = FOLDERS
    folders = ("UCMerced_LandUse",)
    spoken: ClassVar[Mapping[str, str]] = {
        "baseballdiamond": "baseball diamond",
        "denseresidential": "dense residential",
        "golfcourse": "golf course",
        "mediumresidential": "medium residential",
        "mobilehomepark": "mobile home park",
        "parkinglot": "parking lot",
        "sparseresidential": "sparse residential",
        "storagetanks": "storage tanks",
        "tenniscourt": "tennis court",
    }
    published = Published(images=2_100, samples=2_100, classes=21)

    name: str = "ucm"
    title: str = "UC Merced Land Use"
    size: str = "2,100 images, 21 classes"
    licence: str = "unknown"
    citation: str = "Yang and Newsam, ACM GIS 2010"
    labels: tuple[str, ...] | None = FOLDERS
    ratio: Ratio = RATIO
