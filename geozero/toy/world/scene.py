"""The toy world: draws random overhead scenes of known content and renders them as images."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from geozero.common.errors import InputError
from geozero.corpus.sample import Box
from geozero.toy.world import drawing

# Folder name -> name in text, as AID writes and splits them.
SCENE_CLASSES: dict[str, str] = {
    "Airport": "airport",
    "DenseResidential": "dense residential",
    "Farmland": "farmland",
    "Forest": "forest",
    "Parking": "parking",
    "Port": "port",
    "River": "river",
    "StorageTanks": "storage tanks",
}
KINDS: tuple[str, ...] = ("building", "vehicle", "ship", "airplane", "storage tank")
COLOURS: tuple[str, ...] = tuple(drawing.COLOUR_RGB)

DEFAULT_SIZE = 96
SIZE_RANGE = (48, 256)
MAX_PER_KIND = 5
URBAN_BUILDINGS = 3  # from this many buildings on a place is urban (RSVQA-LR, too, decides by buildings)

# Lengths in px at 96 px, easy and hard.
LENGTHS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "building": ((14, 26), (12, 20)),
    "vehicle": ((10, 14), (9, 12)),
    "ship": ((18, 34), (16, 27)),
    "airplane": ((18, 34), (16, 27)),
    "storage tank": ((12, 23), (10, 17)),
}
_TYPICAL: dict[str, tuple[str, ...]] = {
    "Airport": ("airplane",),
    "DenseResidential": ("vehicle",),
    "Farmland": (),
    "Forest": (),
    "Parking": ("vehicle",),
    "Port": ("ship",),
    "River": ("ship",),
    "StorageTanks": ("storage tank",),
}
# Share of scenes meant to be urban, 0.52 elsewhere; at the water some buildings find no room.
_URBAN_SHARE = {"DenseResidential": 0.68, "Farmland": 0.40, "Forest": 0.40, "Port": 0.72, "River": 0.72}
_COUNT_WEIGHTS: dict[str, tuple[float, ...]] = {  # of 1, 2, … 5 objects, where the kind is present
    "vehicle": (0.30, 0.24, 0.20, 0.15, 0.11),
    "storage tank": (0.34, 0.24, 0.18, 0.14, 0.10),
    "ship": (0.38, 0.26, 0.17, 0.12, 0.07),
    "airplane": (0.38, 0.26, 0.17, 0.12, 0.07),
}
# How often another class's land reaches into the image, and its share of the image, easy and hard.
NEIGHBOUR_CHANCE = (0.4, 0.8)
NEIGHBOUR_SHARE = ((0.10, 0.38), (0.20, 0.46))
_MOST_OBJECTS = (7, 9)  # easy, hard
_GAP = 2.0  # px at 96 px between two boxes
_TRIES = 30


@dataclass(frozen=True)
class SceneObject:
    """One object. `box`: tight xyxy in float px of the rotated shape, without its shadow; `angle`: radians,
    clockwise on the screen from +x; `length`, `width`: px along and across the object's own axis."""

    kind: str
    colour: str
    box: Box
    angle: float
    length: float
    width: float
    centre: tuple[float, float]  # px, the middle of the unrotated shape


@dataclass(frozen=True)
class Scene:
    """The whole truth about a scene; `render` turns it into pixels. `scene_class` is a key of SCENE_CLASSES."""

    seed: int
    size: int
    hard: bool
    scene_class: str
    land: str
    objects: tuple[SceneObject, ...]

    def count(self, kind: str) -> int:
        """How many objects of this kind the scene holds."""
        return sum(item.kind == kind for item in self.objects)


def _stream(seed: int, size: int, hard: bool, purpose: int) -> np.random.Generator:
    return np.random.default_rng((seed, size, int(hard), purpose))


def _check_size(size: int) -> None:
    if not SIZE_RANGE[0] <= size <= SIZE_RANGE[1]:
        raise InputError(
            f"a toy scene of {size} px",
            "the requested size",
            f"choose a size from {SIZE_RANGE[0]} to {SIZE_RANGE[1]} px",
        )


def _draw_counts(scene_class: str, hard: bool, rng: np.random.Generator) -> Counter[str]:
    """How many of each kind to place. Presence stays near one half for every kind in every class."""
    counts: Counter[str] = Counter()
    if rng.random() < _URBAN_SHARE.get(scene_class, 0.52):
        counts["building"] = int(rng.choice([3, 4, 5], p=[0.45, 0.32, 0.23]))
    else:
        counts["building"] = int(rng.choice([0, 1, 2], p=[0.70, 0.16, 0.14]))
    for kind, weights in _COUNT_WEIGHTS.items():
        if rng.random() < (0.62 if kind in _TYPICAL[scene_class] else 0.44):
            counts[kind] = 1 + int(rng.choice(MAX_PER_KIND, p=weights))
    while counts.total() > _MOST_OBJECTS[hard]:  # thin out the most frequent: presence stays as drawn
        others = [kind for kind in _COUNT_WEIGHTS if counts[kind]]
        counts[max(others, key=lambda kind: (counts[kind], kind)) if others else "building"] -= 1
    return counts


def _fits(kind: str, polygons: list[drawing.Points], box: Box, ground: drawing.Ground, taken: list[Box]) -> bool:
    size, gap = ground.size, _GAP * ground.size / drawing.REFERENCE
    if box[0] < 1 or box[1] < 1 or box[2] > size - 1 or box[3] > size - 1:
        return False
    if any(
        box[0] < other[2] + gap and other[0] < box[2] + gap and box[1] < other[3] + gap and other[1] < box[3] + gap
        for other in taken
    ):
        return False
    if kind == "airplane":
        return True
    depth = ground.depth(polygons[0][:, 0], polygons[0][:, 1])  # all that is not an airplane is one polygon
    on_land = bool(depth.max() < -1.0)
    if kind == "ship":  # on water, or on land in a pond of its own, never across the shore
        return bool(depth.min() > 0.5) or (on_land and bool(depth.max() < -4.0))
    return on_land


def sample_scene(seed: int, size: int = DEFAULT_SIZE, hard: bool = False, scene_class: str | None = None) -> Scene:
    """A random scene, determined by its arguments. `scene_class`: a key of SCENE_CLASSES, drawn evenly if None.

    `hard`: more and smaller objects here, more clutter and noise and less contrast in `render`.
    Raises InputError on an unknown class or a size outside SIZE_RANGE.
    """
    _check_size(size)
    if scene_class is not None and scene_class not in SCENE_CLASSES:
        raise InputError(
            f"unknown toy scene class {scene_class!r}",
            "the requested class",
            f"choose one of {', '.join(SCENE_CLASSES)}",
        )
    rng = _stream(seed, size, hard, 0)
    drawn = str(rng.choice(list(SCENE_CLASSES)))
    scene_class = scene_class or drawn
    ground = _ground(seed, size, hard, scene_class)
    counts = _draw_counts(scene_class, hard, rng)
    scale = size / drawing.REFERENCE
    needed = [(float(rng.uniform(*LENGTHS[kind][hard])) * scale, kind) for kind in KINDS for _ in range(counts[kind])]
    objects: list[SceneObject] = []
    for length, kind in sorted(needed, reverse=True):  # large ones first, while there is room
        item = _try_to_place(kind, length, LENGTHS[kind][hard][0] * scale, ground, [o.box for o in objects], rng)
        if item is not None:
            objects.append(item)
    objects = [objects[i] for i in rng.permutation(len(objects))]
    buildings = sum(item.kind == "building" for item in objects)
    land = "urban" if buildings >= URBAN_BUILDINGS else "rural"
    return Scene(seed, size, hard, scene_class, land, tuple(objects))


def _ground(seed: int, size: int, hard: bool, scene_class: str) -> drawing.Ground:
    return drawing.sample_ground(scene_class, size, _stream(seed, size, hard, 1))


def _try_to_place(
    kind: str, length: float, least: float, ground: drawing.Ground, taken: list[Box], rng: np.random.Generator
) -> SceneObject | None:
    aspect = float(rng.uniform(*drawing.ASPECT[kind]))
    colour = str(rng.choice(COLOURS))
    places = rng.uniform((0, 0, 0), (ground.size, ground.size, 2 * math.pi), (_TRIES, 3)).tolist()
    for attempt, (x, y, angle) in enumerate(places):
        if attempt == _TRIES // 2:  # no room: try again at the smallest size
            length = least
        inside = least / 4  # no shape comes closer to the edge or to another one; saves most of the work
        if any(b[0] - inside < x < b[2] + inside and b[1] - inside < y < b[3] + inside for b in taken):
            continue
        polygons = drawing.outline(kind, (x, y), angle, length, length * aspect)
        corners = polygons[0] if len(polygons) == 1 else np.concatenate(polygons)
        (x1, y1), (x2, y2) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        if _fits(kind, polygons, (x1, y1, x2, y2), ground, taken):
            return SceneObject(kind, colour, (x1, y1, x2, y2), angle, length, length * aspect, (x, y))
    return None


def _outline(item: SceneObject) -> list[drawing.Points]:
    return drawing.outline(item.kind, item.centre, item.angle, item.length, item.width)


def render(scene: Scene) -> npt.NDArray[np.uint8]:
    """The image (size, size, 3) uint8 RGB of a scene; the same scene always gives the same bytes.

    Ground, objects and sensor draw from separate random streams, so that leaving an object out changes nothing else.
    """
    size, hard = scene.size, scene.hard
    ground = _ground(scene.seed, size, hard, scene.scene_class)
    rng = _stream(scene.seed, size, hard, 2)
    canvas = drawing.ground_canvas(ground, rng)
    _paint_neighbour(canvas, scene, ground)
    draw = ImageDraw.Draw(canvas)
    _paint_ponds(draw, scene, ground)
    drawing.paint_clutter(draw, size, int(rng.integers(12, 28) if hard else rng.integers(2, 10)), rng)

    outlines = [_outline(item) for item in scene.objects]
    sun, dark = float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(0.35, 0.6))
    shadows = [(item.kind, polygons, item.length) for item, polygons in zip(scene.objects, outlines, strict=True)]
    drawing.paint_shadows(canvas, shadows, sun, dark)
    shifts = _stream(scene.seed, size, hard, 3)
    tints = shifts.uniform(-16, 16, (16, 1)) + shifts.uniform(-6, 6, (16, 3))
    for item in scene.objects:
        # the tint belongs to the place, so that it stays when other objects are left out
        tint = tints[int(item.centre[0] + item.centre[1]) % len(tints)]
        red, green, blue = (np.array(drawing.COLOUR_RGB[item.colour]) + tint).tolist()
        drawing.paint_object(draw, item.kind, (red, green, blue), item.centre, item.angle, item.length, item.width)
    image = canvas.reduce(drawing.OVERSAMPLE)
    return drawing.sensor(image, _stream(scene.seed, size, hard, 4), hard)


def _paint_neighbour(canvas: Image.Image, scene: Scene, ground: drawing.Ground) -> None:
    """Often another class's land reaches into the image; the scene's own class keeps the larger part."""
    rng = _stream(scene.seed, scene.size, scene.hard, 6)
    if rng.random() >= NEIGHBOUR_CHANCE[scene.hard]:
        return
    share = float(rng.uniform(*NEIGHBOUR_SHARE[scene.hard]))
    other = str(rng.choice([name for name in SCENE_CLASSES if name not in (scene.scene_class, *drawing.WATER_CLASSES)]))
    neighbour = drawing.sample_ground(other, scene.size, rng)
    mask = drawing.neighbour_mask(ground, share, rng)
    canvas.paste(drawing.ground_canvas(neighbour, rng), (0, 0), mask)


def _paint_ponds(draw: ImageDraw.ImageDraw, scene: Scene, ground: drawing.Ground) -> None:
    """Ships away from open water are in a pond; some ponds are empty, so that a pond does not imply a ship."""
    rng = _stream(scene.seed, scene.size, scene.hard, 5)
    for x, y, width, height in rng.uniform((0, 0, 14, 14), (scene.size, scene.size, 26, 26), (2, 4)).tolist():
        scale = scene.size / drawing.REFERENCE
        half_w, half_h = width * scale / 2, height * scale / 2
        box = (x - half_w, y - half_h, x + half_w, y + half_h)
        dry = float(ground.depth(np.array([x]), np.array([y]))[0]) < -max(half_w, half_h)
        free = all(
            box[2] < o.box[0] - 4 or o.box[2] + 4 < box[0] or box[3] < o.box[1] - 4 or o.box[3] + 4 < box[1]
            for o in scene.objects
        )
        if rng.random() < 0.4 and dry and free:
            drawing.paint_pond(draw, box, rng)
    for item in scene.objects:
        x, y = item.centre
        if item.kind == "ship" and float(ground.depth(np.array([x]), np.array([y]))[0]) < 0:
            drawing.paint_pond(draw, item.box, rng)
