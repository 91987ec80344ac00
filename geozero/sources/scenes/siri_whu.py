"""SIRI-WHU, the Google set: scene classification, 2,400 images of 200×200 px in 12 classes of 200.

Layout: `Google dataset of SIRI-WHU_earth_im_tiff/12class_tif/<class>/<nnnn>.tif`, nnnn from 0001; note the spaces.
Splits: none official. Ours [ours]: a stable hash of the image's key within each class, train 0.8, val 0.1, test 0.1.
Licence: unknown to us; ask the authors before passing images on.
Citation: Zhao et al., "Dirichlet-Derived Multiple Topic Scene Classification Model for High Spatial Resolution Remote
Sensing Imagery", IEEE TGRS 2016.
Traps: `pond/0002.tif` is 190×200. File names repeat from class to class. The USGS set of the same group (four classes,
one large image) has a layout unknown to us and is refused.
"""

from __future__ import annotations

from dataclasses import dataclass

from geozero.common.errors import Ambiguous, InputError
from geozero.sources.base import Published, Ratio
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.class_names import SIRI_WHU as FOLDERS
from geozero.sources.readers.tree import Tree

RATIO = Ratio(train=0.8, val=0.1)  # [ours]


@dataclass(frozen=True, kw_only=True)
class SiriWhu(ClassFolders):
    layout = "Google dataset of SIRI-WHU_earth_im_tiff/12class_tif/<class>/<nnnn>.tif"
    any_of = FOLDERS
    folders = ("12class_tif",)
    published = Published(images=2_400, samples=2_400, classes=12)

    name: str = "siri_whu"
    title: str = "SIRI-WHU"
    size: str = "2,400 images, 12 classes"
    licence: str = "unknown"
    citation: str = "Zhao et al., IEEE TGRS 2016"
    labels: tuple[str, ...] | None = FOLDERS
    ratio: Ratio = RATIO

    def find(self, tree: Tree) -> Tree:
        """As every set of class folders.

        Raises:
            InputError: not found, found in several places, or only the USGS set is there.
        """
        try:
            return super().find(tree)
        except Ambiguous:
            raise
        except InputError:
            usgs = [name for name in (tree.where(), *tree.names()) if "siri" in name.lower() and "usgs" in name.lower()]
            if not usgs:
                raise
            raise InputError(
                f"unsupported layout: the USGS set of SIRI-WHU ({usgs[0]})",
                tree.where(),
                f"only the Google set is read: {self.layout}",
            ) from None
