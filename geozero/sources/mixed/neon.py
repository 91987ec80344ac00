"""neon: 88 tiles of real aerial imagery with tree boxes, and the questions that follow from the boxes by rule.

Layout (`data/samples/neon/` in this repository, cut by the make.py there):

    annotations.json        the rule of the cut, and a list `tiles`: file, image, name, split, x, y (its upper left
                            corner in the large image), boxes (trees), slivers (trees that the tile's edge cuts off),
                            unlabelled (trees without a box); all boxes xyxy in pixels of the tile
    tiles/IMAGE_rRRcCC.jpg  256×256 px

Size: 88 tiles with 693 trees, cut from two large images (by their names some 13 km apart); 1,027 questions. Splits: one
image is train (72 tiles, 865 questions); the other is test (12, 119) and val (4, 43), with 128 px between them.
Licence: package and boxes MIT, imagery by the National Ecological Observatory Network; see NOTICE there.
Traps: `unlabelled` is ours, found by eye and not exhaustive. Standing dead trees have boxes, fallen ones have not.
The test image is denser and holds a road; none of its tiles is without trees, so that "Is there a tree in the image?"
is asked in train only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from geozero.common.errors import BadRecord
from geozero.corpus.sample import SPLITS, TaskName
from geozero.sources.base import Record, Rejected, Source
from geozero.sources.mixed.neon_questions import THIN, TILE, Tile, ask
from geozero.sources.readers.annotations import json_items
from geozero.sources.readers.tree import Tree

ANNOTATIONS = "annotations.json"


@dataclass(frozen=True, kw_only=True)
class Neon(Source):
    """The reader of the shard. What is asked, and when, stands in `neon_questions`."""

    name: str = "neon"
    title: str = "NEON tree tiles"
    size: str = "1,027 questions, 88 tiles"
    licence: str = (
        "boxes MIT (deepforest 2.1.0); imagery of the National Ecological Observatory Network, CC0 by its policy"
    )
    citation: str = (
        "Weinstein et al. 2019, Individual tree-crown detection in RGB imagery using semi-supervised deep learning "
        "neural networks, Remote Sensing 11(11):1309; imagery: NEON"
    )

    tasks: ClassVar[tuple[TaskName, ...]] = ("vqa", "grounding")
    layout: ClassVar[str] = "annotations.json\ntiles/IMAGE_rRRcCC.jpg"
    required: ClassVar[tuple[str, ...]] = (ANNOTATIONS, "tiles")
    folders: ClassVar[tuple[str, ...]] = ("neon",)

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        """Yield the questions tile by tile; a tile whose entry is broken is one `Rejected`.

        Raises:
            InputError: annotations.json is missing or no list of tiles.
        """
        tiles = []
        for number, entry in enumerate(json_items(tree, ANNOTATIONS, "tiles")):
            try:
                tiles.append(_tile(entry))
            except BadRecord as bad:
                yield Rejected(f"tile {number}", bad.reason, bad.detail)
        questions = defaultdict(list)
        for record in ask(tiles, self.name):
            questions[record.image].append(record)
        for tile in tiles:
            yield from questions.pop(tile.file, ())


def _tile(entry: Any) -> Tile:
    """One entry of annotations.json.

    Raises:
        BadRecord: a field is missing or of another kind, or a box lies outside the tile.
    """
    try:
        file, image, name, split = (entry[field] for field in ("file", "image", "name", "split"))
        boxes, slivers, unlabelled = (
            tuple((x1, y1, x2, y2) for x1, y1, x2, y2 in entry[field]) for field in ("boxes", "slivers", "unlabelled")
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadRecord("tile_malformed", repr(error)[:200]) from None
    if not all(isinstance(text, str) and text for text in (file, image, name)) or split not in SPLITS:
        raise BadRecord("tile_malformed", f"{file!r} {image!r} {name!r} {split!r}"[:200])
    for box in (*boxes, *slivers, *unlabelled):
        if not all(type(v) is int for v in box):
            raise BadRecord("tile_malformed", f"box {box!r}"[:200])
        if not (0 <= box[0] < box[2] <= TILE and 0 <= box[1] < box[3] <= TILE):
            raise BadRecord("box_outside_image", f"{box} in {TILE}x{TILE}")
    doubtful = (b for b in (*slivers, *unlabelled) if min(b[2] - b[0], b[3] - b[1]) >= THIN)
    return Tile(file, image, name, split, boxes, tuple(doubtful))
