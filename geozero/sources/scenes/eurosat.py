"""EuroSAT: land use and land cover, 27,000 Sentinel-2 images of 64×64 px in 10 classes.

Layout: `2750/<Class>/<Class>_<n>.jpg` in the older archive, n from 1 unpadded; `EuroSAT_RGB/<Class>/…` in the newer one
(recalled, unverified). CamelCase folders.
Splits: none official. Ours [ours]: a stable hash of the image's key within each class, train 0.8, val 0.1, test 0.1.
Licence: MIT. Citation: Helber et al., "EuroSAT: A Novel Dataset and Deep Learning Benchmark for Land Use and Land Cover
Classification", IEEE JSTARS 2019, arXiv 1709.00029.
Traps: the 13-band GeoTIFF variant (`…/sentinel_2/tif/…`) has the same folders and is no RGB: it is refused. Labels are
the folders' names split ("SeaLake" → "sea lake").
"""

from __future__ import annotations

from dataclasses import dataclass

from geozero.common.errors import Ambiguous, InputError
from geozero.sources.base import Published, Ratio
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.class_names import EUROSAT as FOLDERS
from geozero.sources.readers.tree import Tree

RATIO = Ratio(train=0.8, val=0.1)  # [ours]


@dataclass(frozen=True, kw_only=True)
class EuroSat(ClassFolders):
    layout = "2750/<Class>/<Class>_<n>.jpg, or EuroSAT_RGB/<Class>/<Class>_<n>.jpg"
    any_of = FOLDERS
    folders = ("2750", "EuroSAT_RGB")
    suffixes = (".jpg", ".jpeg", ".png")
    published = Published(images=27_000, samples=27_000, classes=10)

    name: str = "eurosat"
    title: str = "EuroSAT"
    size: str = "27,000 images, 10 classes"
    licence: str = "MIT"
    citation: str = "Helber et al., IEEE JSTARS 2019, arXiv 1709.00029"
    labels: tuple[str, ...] | None = FOLDERS
    ratio: Ratio = RATIO

    def find(self, tree: Tree) -> Tree:
        """As every set of class folders.

        Raises:
            InputError: not found, found in several places, or only as 13-band GeoTIFF.
        """
        try:
            return super().find(tree)
        except Ambiguous:
            raise
        except InputError:
            bands = [name for name in tree.names(suffixes=(".tif", ".tiff")) if set(name.split("/")) & set(FOLDERS)]
            if not bands:
                raise
            raise InputError(
                f"this is the 13-band variant of EuroSAT ({bands[0]})",
                tree.where(),
                "take the RGB archive: reflectances of 13 bands cannot be read as an image",
            ) from None
