"""The questions about a neon tile that follow from its tree boxes. All rules and thresholds are our choice.

A tree is where the centre of its box is. `doubtful` places (trees cut off by the tile's edge, trees without a box) are
neither counted nor denied: a question whose answer depends on one is not asked.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from geozero.corpus.sample import SPLITS, Split, stable_unit
from geozero.sources.base import Record

Rectangle = tuple[int, int, int, int]  # xyxy pixels of the tile

TILE = 256  # px
THIN = 8  # px: a doubtful place narrower than this shows no tree and decides nothing
MARGIN = 4  # px by which a tree's centre clears the inner borders of a region in which trees are counted
LEAD = 12  # px by which a named tree is nearer to its edge, corner or middle than any other
LARGER = 1.4  # times the area of any other tree: "the largest tree"
MIN_TARGET = 12  # px of the shorter side of a tree to be located; below it IoU turns on single pixels
SPARSE, DENSE = 0.15, 0.30  # share of the area inside tree boxes: at most, at least; what lies between is not asked
MIN_LEAD = 2  # trees by which one half has more than the other
PER_TILE = 2  # questions of one kind and one answer about one tile
EXPRESSIONS_PER_KIND, EXPRESSIONS_PER_TREE = 2, 2  # in one tile

HALVES: dict[str, Rectangle] = {
    "left half": (0, 0, 128, TILE),
    "right half": (128, 0, TILE, TILE),
    "upper half": (0, 0, TILE, 128),
    "lower half": (0, 128, TILE, TILE),
}
QUARTERS: dict[str, Rectangle] = {
    f"{row} {column} quarter": (x, y, x + 128, y + 128)
    for row, y in (("upper", 0), ("lower", 128))
    for column, x in (("left", 0), ("right", 128))
}
CELLS: dict[str, Rectangle] = {
    "middle" if (row, column) == ("middle", "middle") else f"{row} {column}": (x1, y1, x2, y2)
    for row, y1, y2 in (("top", 0, 85), ("middle", 85, 171), ("bottom", 171, TILE))
    for column, x1, x2 in (("left", 0, 85), ("middle", 85, 171), ("right", 171, TILE))
}
CORNERS = {"upper left": (0, 0), "upper right": (TILE, 0), "lower left": (0, TILE), "lower right": (TILE, TILE)}
WHOLE: Rectangle = (0, 0, TILE, TILE)


@dataclass(frozen=True, slots=True)
class Tile:
    """One image: `boxes` are its trees, `doubtful` where a tree may be that does not count."""

    file: str
    image: str
    name: str
    split: Split
    boxes: tuple[Rectangle, ...]
    doubtful: tuple[Rectangle, ...]

    @property
    def key(self) -> str:
        return f"{self.image}/{self.name}"


def ask(tiles: Sequence[Tile], source: str) -> list[Record]:
    """All questions about the tiles: candidates by rule, then levelled within each split so that no answer leads."""
    chosen: list[Record] = []
    for split in SPLITS:
        own = [tile for tile in tiles if tile.split == split]
        wooded = [tile for tile in own if tile.boxes]  # an empty tile is asked about as a whole only
        chosen += level(r for tile in own for r in presence(tile, {"image": WHOLE}, source))
        for regions in (QUARTERS, CELLS):
            chosen += level(r for tile in wooded for r in presence(tile, regions, source))
        for regions in (HALVES, QUARTERS, CELLS):
            chosen += level(r for tile in wooded for r in count(tile, regions, source))
        chosen += level(r for tile in own for r in density(tile, source))
        chosen += comparison(own, source)
        chosen += [r for tile in own for r in grounding(tile, source)]
    return chosen


def level(candidates: Iterable[Record]) -> list[Record]:
    """At most `PER_TILE` of an answer a tile, and the most frequent answer no more often than the second.

    Two answers come out equally often, a single one (nothing to tell apart) not at all. Which candidates stay goes
    by the stable hash of their keys.
    """
    by_answer: dict[str, list[Record]] = defaultdict(list)
    seen: Counter[tuple[str, str]] = Counter()
    for record in sorted(candidates, key=_draw):
        seen[record.image, record.answer] += 1
        if seen[record.image, record.answer] <= PER_TILE:
            by_answer[record.answer].append(record)
    sizes = sorted((len(records) for records in by_answer.values()), reverse=True)
    most = sizes[1] if len(sizes) > 1 else 0
    return [record for records in by_answer.values() for record in records[:most]]


def presence(tile: Tile, regions: Mapping[str, Rectangle], source: str) -> Iterator[Record]:
    """Is there a tree in a region: yes where a tree has its centre well inside, no where nothing touches the region."""
    for name, region in regions.items():
        place = "the image" if region == WHOLE else _place(name)
        text = f"Is there a tree in {place}?"
        if any(_inside(_centre(box), region) and _clears(box, region) for box in tile.boxes):
            yield _vqa(tile, source, "presence", name, text, "yes")
        elif not any(_overlap(box, region) for box in (*tile.boxes, *tile.doubtful)):
            yield _vqa(tile, source, "presence", name, text, "no")


def count(tile: Tile, regions: Mapping[str, Rectangle], source: str) -> Iterator[Record]:
    """How many trees a region holds, at least one, where nothing doubtful and no border leaves a choice."""
    for name, region in regions.items():
        near = [box for box in tile.boxes if _overlap(box, region)]
        if any(_overlap(box, region) for box in tile.doubtful) or not all(_clears(box, region) for box in near):
            continue
        n = sum(_inside(_centre(box), region) for box in near)
        if n > 0:  # none is for `presence` to ask
            yield _vqa(tile, source, "count", name, f"How many trees are there in {_place(name)}?", str(n))


def density(tile: Tile, source: str) -> Iterator[Record]:
    """Whether the tree cover is sparse or dense, by the share of a region inside tree boxes; none is not sparse."""
    for name, region in {"image": WHOLE, **HALVES, **QUARTERS}.items():
        text = f"Is the tree cover in {'the image' if region == WHOLE else _place(name)} sparse or dense?"
        has_tree = any(_inside(_centre(box), region) for box in tile.boxes)
        if _cover(tile.boxes, region) >= DENSE:
            yield _vqa(tile, source, "density", name, text, "dense")
        elif has_tree and _cover((*tile.boxes, *tile.doubtful), region) <= SPARSE:
            yield _vqa(tile, source, "density", name, text, "sparse")


def comparison(tiles: Iterable[Tile], source: str) -> list[Record]:
    """Whether one half holds more trees than the other, yes and no in turn.

    Asked where one half leads by `MIN_LEAD` trees or more, and by more than the doubtful places in the other half.
    """
    found: list[tuple[Tile, str, str]] = []
    for tile in tiles:
        for pair in (("left half", "right half"), ("upper half", "lower half")):
            counts = [sum(_inside(_centre(box), HALVES[half]) for box in tile.boxes) for half in pair]
            doubts = [sum(_overlap(box, HALVES[half]) for box in tile.doubtful) for half in pair]
            for more, less in ((0, 1), (1, 0)):
                if counts[more] - counts[less] >= max(MIN_LEAD, doubts[less] + 1):
                    found.append((tile, pair[more], pair[less]))
    records = []
    found.sort(key=lambda item: stable_unit(f"{item[0].key}/{item[1]}", source))
    for position, (tile, leader, other) in enumerate(found):
        answer, first, second = ("yes", leader, other) if position % 2 == 0 else ("no", other, leader)
        text = f"Are there more trees in {_place(first)} than in the {second}?"
        records.append(_vqa(tile, source, "comp", first, text, answer))
    return records


def grounding(tile: Tile, source: str) -> Iterator[Record]:
    """Expressions that single out one tree by a margin: some a tile, and few about one tree or about corners."""
    found = [
        Record(
            task="grounding",
            split=tile.split,
            key=f"{tile.key}/{kind}/{text}",
            image=tile.file,
            image_key=f"{source}/{tile.key}",
            text=text,
            box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            drawn_on=(TILE, TILE),
            question_type=kind,
        )
        for kind, text, box in expressions(tile)
    ]
    per_box: Counter[Any] = Counter()
    per_kind: Counter[str | None] = Counter()
    for record in sorted(found, key=_draw):
        if per_box[record.box] < EXPRESSIONS_PER_TREE and per_kind[record.question_type] < EXPRESSIONS_PER_KIND:
            per_box[record.box] += 1
            per_kind[record.question_type] += 1
            yield record


def expressions(tile: Tile) -> Iterator[tuple[str, str, Rectangle]]:
    """Kind, text and box of every expression that holds for exactly one tree; doubtful places compete, unnamed."""
    rivals = (*tile.boxes, *tile.doubtful)
    if len(rivals) == 1:
        yield from _named("property", "the only tree", tile, [1.0, 0.0], 0.0)
    if len(rivals) < 2:
        return
    centres = [_centre(box) for box in rivals]
    for text, farness in (
        ("the leftmost tree", [x for x, _ in centres]),
        ("the rightmost tree", [-x for x, _ in centres]),
        ("the topmost tree", [y for _, y in centres]),
        ("the bottommost tree", [-y for _, y in centres]),
        ("the tree nearest to the center", [math.dist(c, (TILE / 2, TILE / 2)) for c in centres]),
    ):
        yield from _named("extreme", text, tile, [-v for v in farness], LEAD)
    for corner, point in CORNERS.items():
        nearness = [-math.dist(c, point) for c in centres]
        yield from _named("corner", f"the tree nearest to the {corner} corner", tile, nearness, LEAD)
    areas = [math.log((x2 - x1) * (y2 - y1)) for x1, y1, x2, y2 in rivals]
    yield from _named("property", "the largest tree", tile, areas, math.log(LARGER))


def _named(
    kind: str, text: str, tile: Tile, scores: Sequence[float], lead: float
) -> Iterator[tuple[str, str, Rectangle]]:
    """The expression with the highest-scoring tree, if that one counts, is large enough and leads by `lead`."""
    best, second = sorted(range(len(scores)), key=lambda i: -scores[i])[:2]
    if best < len(tile.boxes) and scores[best] - scores[second] >= lead:
        box = tile.boxes[best]
        if min(box[2] - box[0], box[3] - box[1]) >= MIN_TARGET:
            yield kind, text, box


def _vqa(tile: Tile, source: str, kind: str, scope: str, text: str, answer: str) -> Record:
    return Record(
        task="vqa",
        split=tile.split,
        key=f"{tile.key}/{kind}/{scope}",
        image=tile.file,
        image_key=f"{source}/{tile.key}",
        text=text,
        answer=answer,
        question_type=kind,
    )


def _draw(record: Record) -> float:
    return stable_unit(record.key, "neon")


def _place(region: str) -> str:
    return f"the {region} cell of a 3 by 3 grid over the image" if region in CELLS else f"the {region} of the image"


def _centre(box: Rectangle) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _inside(point: tuple[float, float], region: Rectangle) -> bool:
    return region[0] <= point[0] < region[2] and region[1] <= point[1] < region[3]


def _overlap(box: Rectangle, region: Rectangle) -> bool:
    return box[0] < region[2] and box[2] > region[0] and box[1] < region[3] and box[3] > region[1]


def _clears(box: Rectangle, region: Rectangle) -> bool:
    """Whether the centre of the box is at least `MARGIN` px away from each border that the region has in the tile."""
    x, y = _centre(box)
    inner_x = [edge for edge in (region[0], region[2]) if 0 < edge < TILE]
    inner_y = [edge for edge in (region[1], region[3]) if 0 < edge < TILE]
    return all(abs(x - edge) >= MARGIN for edge in inner_x) and all(abs(y - edge) >= MARGIN for edge in inner_y)


def _cover(boxes: Iterable[Rectangle], region: Rectangle) -> float:
    """The share of the region's pixels that lie in at least one box."""
    mask = np.zeros((TILE, TILE), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        mask[y1:y2, x1:x2] = True
    return float(mask[region[1] : region[3], region[0] : region[2]].mean())
