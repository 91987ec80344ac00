"""RESISC45: scene classification, 31,500 images of 256×256 px in 45 classes of 700.

Layout: `NWPU-RESISC45/<class>/<class>_001.jpg` to `_700.jpg`; folders in snake case, `snowberg` spelled so.
Splits: none by the authors. Some copies have `resisc45-{train,val,test}.txt`, base names of images, one a line, in
or beside that directory: where all three are there, they are followed. Else ours [ours]: by a stable hash of the
image's key within each class, train 0.2 (papers train on 10 % or 20 %; recalled, unverified), val 0.1, test 0.7.
Licence: unknown to us; ask the authors before passing images on.
Citation: Cheng et al., "Remote Sensing Image Scene Classification: Benchmark and State of the Art",
Proceedings of the IEEE 2017, arXiv 1703.00121.
Traps: NWPU-Captions consists of these images under the same class and file names, and VHM-Instruct holds them, too.
"""

from __future__ import annotations

from dataclasses import dataclass

from geozero.sources.base import Published, Ratio
from geozero.sources.readers.class_folders import ClassFolders
from geozero.sources.readers.class_names import RESISC45 as FOLDERS

RATIO = Ratio(train=0.2, val=0.1)  # [ours]


@dataclass(frozen=True, kw_only=True)
class Resisc45(ClassFolders):
    layout = "NWPU-RESISC45/<class>/<class>_<nnn>.jpg\nresisc45-{train,val,test}.txt (optional)"
    any_of = FOLDERS
    folders = ("NWPU-RESISC45", "RESISC45")
    published = Published(images=31_500, samples=31_500, classes=45)

    name: str = "resisc45"
    title: str = "RESISC45"
    size: str = "31,500 images, 45 classes"
    licence: str = "unknown"
    citation: str = "Cheng et al., Proceedings of the IEEE 2017, arXiv 1703.00121"
    labels: tuple[str, ...] | None = FOLDERS
    ratio: Ratio = RATIO
