"""The look of the toy world: grounds of the scene classes, shapes of the objects, light and sensor."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]
RGB = tuple[float, float, float]

OVERSAMPLE = 2  # shapes are drawn at twice the size and averaged down: cheap anti-aliasing
REFERENCE = 96.0  # px; every length below is for this image size and scales with it

COLOUR_RGB: dict[str, RGB] = {
    "red": (206, 44, 38),
    "blue": (40, 82, 214),
    "white": (238, 238, 234),
    "yellow": (238, 204, 36),
    "black": (24, 24, 28),
}
WATER_CLASSES = ("River", "Port")
WATER: RGB = (52, 92, 108)
BANK: RGB = (168, 152, 118)
GLASS = -1.0  # a part's shade that means window glass, not the object's own colour
DARK = 60.0  # below this mean level a colour is shaded by lightening, since darkening would not show

# Width over length, lowest and highest.
ASPECT: dict[str, tuple[float, float]] = {
    "building": (0.58, 0.92),
    "vehicle": (0.46, 0.54),
    "ship": (0.30, 0.38),
    "airplane": (0.88, 0.98),
    "storage tank": (1.0, 1.0),
}
HEIGHT: dict[str, float] = {"building": 0.16, "vehicle": 0.10, "ship": 0.07, "airplane": 0.12, "storage tank": 0.18}


# --- objects -----------------------------------------------------------------------------------------------


def _rectangle(x1: float, y1: float, x2: float, y2: float) -> Points:
    return np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)])


def _disc(radius: float, cx: float = 0.0, cy: float = 0.0, corners: int = 32) -> Points:
    turn = np.linspace(0, 2 * math.pi, corners, endpoint=False)
    return np.stack([cx + radius * np.cos(turn), cy + radius * np.sin(turn)], axis=1)


# Parts are (shade, polygon) in a frame where length and width are 1 and the nose points to +x. The first
# OUTLINES[kind] parts make the silhouette, the others are inside it.
_PARTS: dict[str, list[tuple[float, Points]]] = {
    "building": [
        (1.0, _rectangle(-0.5, -0.5, 0.5, 0.5)),
        (0.62, _rectangle(-0.5, 0.0, 0.5, 0.5)),
        (1.25, _rectangle(-0.5, -0.05, 0.5, 0.05)),
        (0.45, _rectangle(0.18, -0.34, 0.32, -0.18)),
    ],
    "vehicle": [
        (1.0, _rectangle(-0.5, -0.5, 0.5, 0.5)),
        (GLASS, _rectangle(0.06, -0.42, 0.25, 0.42)),
        (GLASS, _rectangle(-0.40, -0.38, -0.29, 0.38)),
    ],
    "ship": [
        (
            0.8,
            np.array([(-0.5, -0.38), (-0.38, -0.5), (0.12, -0.5), (0.5, 0), (0.12, 0.5), (-0.38, 0.5), (-0.5, 0.38)]),
        ),
        (1.1, np.array([(-0.42, -0.26), (0.10, -0.28), (0.36, 0), (0.10, 0.28), (-0.42, 0.26)])),
        (0.5, _rectangle(-0.34, -0.20, -0.16, 0.20)),
        (0.6, _rectangle(-0.04, -0.06, 0.14, 0.06)),
    ],
    "airplane": [
        (0.9, np.array([(0.18, 0), (-0.12, 0.5), (-0.26, 0.5), (-0.10, 0), (-0.26, -0.5), (-0.12, -0.5)])),
        (0.9, np.array([(-0.30, 0), (-0.42, 0.22), (-0.5, 0.22), (-0.44, 0), (-0.5, -0.22), (-0.42, -0.22)])),
        (1.05, np.array([(-0.5, -0.04), (0.36, -0.075), (0.5, 0), (0.36, 0.075), (-0.5, 0.04)])),
        (GLASS, np.array([(0.34, -0.05), (0.42, -0.03), (0.42, 0.03), (0.34, 0.05)])),
    ],
    "storage tank": [
        (0.58, _disc(0.5)),
        (1.0, _disc(0.40, 0.03, 0.03)),
        (1.2, _disc(0.20, 0.10, 0.10, 16)),
        (0.55, _disc(0.05, 0.0, 0.0, 8)),
    ],
}
_OUTLINES = {"building": 1, "vehicle": 1, "ship": 1, "airplane": 3, "storage tank": 1}


def _place(points: Points, centre: tuple[float, float], angle: float, length: float, width: float) -> Points:
    cos, sin = math.cos(angle), math.sin(angle)
    frame = np.array(((length * cos, length * sin), (-width * sin, width * cos)))
    return np.asarray(points @ frame + centre, dtype=np.float64)


def outline(kind: str, centre: tuple[float, float], angle: float, length: float, width: float) -> list[Points]:
    """The polygons (n, 2), in pixels, whose union is the object's silhouette."""
    return [_place(points, centre, angle, length, width) for _, points in _PARTS[kind][: _OUTLINES[kind]]]


def _shade(colour: RGB, factor: float) -> tuple[int, int, int]:
    if factor == GLASS:
        return (150, 165, 178) if sum(colour) / 3 < DARK else (30, 36, 48)
    if sum(colour) / 3 < DARK and factor < 1:
        colour, factor = tuple(c + (1 - factor) * 90 for c in colour), 1.0  # type: ignore[assignment]
    r, g, b = (int(min(255, max(0, c * factor))) for c in colour)
    return r, g, b


def _polygon(draw: ImageDraw.ImageDraw, points: Points, fill: tuple[int, int, int] | int, offset: float = 0.0) -> None:
    # A pixel centre is at (i + 0.5) / OVERSAMPLE of the image; PIL counts centres from 0.
    scaled = points * OVERSAMPLE - 0.5 + offset
    draw.polygon(scaled.reshape(-1).tolist(), fill=fill)


def paint_object(
    draw: ImageDraw.ImageDraw,
    kind: str,
    colour: RGB,
    centre: tuple[float, float],
    angle: float,
    length: float,
    width: float,
) -> None:
    """Draws one object on an oversampled canvas."""
    for factor, points in _PARTS[kind]:
        _polygon(draw, _place(points, centre, angle, length, width), _shade(colour, factor))


# --- grounds -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ground:
    """The layout of one scene: it decides where objects may stand and how the ground is painted."""

    scene_class: str
    size: int
    heading: float  # radians: direction of fields, river, quay, runway, roads
    offset: float  # px, of the river's middle line or the quay from the image centre
    bend: float  # px, amplitude of the river's meanders
    phase: float
    half_width: float  # px, of the river

    def depth(self, x: Points | Floats, y: Points | Floats) -> Floats:
        """Signed distance (px, roughly) into the water; negative on land. Same shape as `x`."""
        if self.scene_class not in WATER_CLASSES:
            return np.full(np.shape(x), -1e3, dtype=np.float32)
        along, across = self.frame(x, y)
        if self.scene_class == "Port":
            return np.asarray(across - self.offset, dtype=np.float32)
        middle = self.offset + self.bend * np.sin(along / self.size * 5.5 + self.phase)
        return np.asarray(self.half_width - np.abs(across - middle), dtype=np.float32)

    def frame(self, x: Points | Floats, y: Points | Floats) -> tuple[Floats, Floats]:
        """Coordinates along and across the heading, px from the image centre."""
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        dx, dy = x - self.size / 2, y - self.size / 2
        return np.asarray(dx * cos + dy * sin, np.float32), np.asarray(dy * cos - dx * sin, np.float32)


def sample_ground(scene_class: str, size: int, rng: np.random.Generator) -> Ground:
    """Draws the layout for a scene class."""
    scale = size / REFERENCE
    port = scene_class == "Port"
    return Ground(
        scene_class=scene_class,
        size=size,
        heading=float(rng.uniform(0, 2 * math.pi)),
        offset=float(rng.uniform(-8, 6) if port else rng.uniform(-16, 16)) * scale,
        bend=float(rng.uniform(4, 11)) * scale,
        phase=float(rng.uniform(0, 2 * math.pi)),
        half_width=float(rng.uniform(14, 19)) * scale,
    )


def fractal(rng: np.random.Generator, size: int, cells: tuple[int, ...] = (4, 9, 21)) -> Floats:
    """Smooth noise (size, size), mean about 0, mostly within ±1: ever finer random grids added up."""
    total = np.zeros((1, 1), dtype=np.float32)
    for octave, count in enumerate(cells):
        grid = rng.uniform(-1, 1, (count, count)).astype(np.float32) * np.float32(0.6**octave)
        total = _blow_up(total, count) + grid
    return _blow_up(total, size)


def _blow_up(grid: Floats, size: int) -> Floats:
    image = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image, dtype=np.float32)


_BASE: dict[str, list[RGB]] = {
    "Farmland": [(128, 140, 74), (166, 148, 92), (98, 128, 66), (186, 172, 116), (116, 98, 68)],
    "Forest": [(52, 82, 46)],
    "River": [(112, 128, 78), (134, 122, 86), (96, 116, 72)],
    "Port": [(150, 148, 142), (136, 130, 122)],
    "Parking": [(112, 112, 114), (96, 98, 102)],
    "DenseResidential": [(150, 138, 118), (138, 134, 124)],
    "Airport": [(124, 138, 90), (140, 140, 102)],
    "StorageTanks": [(174, 164, 142), (158, 154, 146)],
}


def ground_texture(ground: Ground, rng: np.random.Generator) -> Floats:
    """The ground's colour (size, size, 3), levels 0..255, before marks and objects."""
    size, name, scale = ground.size, ground.scene_class, ground.size / REFERENCE
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) + np.float32(0.5)
    noise = fractal(rng, size)
    bases = np.array(_BASE[name], dtype=np.float32)
    if name == "Farmland":
        along, across = ground.frame(x, y)
        wide, high = rng.uniform(24, 44, 2) * scale
        column = np.floor(along / wide).astype(int) % 7
        row = np.floor(across / high).astype(int) % 7
        field = rng.integers(0, len(bases), (7, 7))[column, row]
        furrow = np.where(rng.random((7, 7)) < 0.5, 1, 0)[column, row]
        step = rng.uniform(0.9, 1.5) / scale
        stripe = np.where(furrow == 1, np.sin(along * step), np.sin(across * step))
        image = bases[field] + (stripe * 11 + noise * 7)[..., None]
        edge = (np.minimum(along % wide, across % high) < 1.5 * scale)[..., None]
        image = np.where(edge, image * 0.5 + np.float32(0.5) * np.array(BANK, np.float32), image)
    else:
        image = bases[rng.integers(len(bases))] + rng.uniform(-10, 10, 3).astype(np.float32) + noise[..., None] * 11
    depth = ground.depth(x, y)
    if depth.max() > -100:
        wave = WATER + noise[..., None] * 5 + np.clip(depth, 0, 14)[..., None] * -0.9
        shore = np.array((190, 186, 176) if name == "Port" else BANK, dtype=np.float32)
        image = np.where((depth > 0)[..., None], wave, np.where((depth > -2.5 * scale)[..., None], shore, image))
    return np.asarray(image, dtype=np.float32)


def ground_canvas(ground: Ground, rng: np.random.Generator) -> Image.Image:
    """The ground with its marks on a canvas of OVERSAMPLE times the image's size, before ponds and objects."""
    wide = ground.size * OVERSAMPLE
    texture = np.clip(ground_texture(ground, rng), 0, 255).astype(np.uint8)
    canvas = Image.fromarray(texture).resize((wide, wide), Image.Resampling.BILINEAR)
    paint_marks(ImageDraw.Draw(canvas), ground, rng)
    return canvas


def neighbour_mask(ground: Ground, share: float, rng: np.random.Generator) -> Image.Image:
    """Where a neighbour's land is: one ragged side of the canvas, `share` of the image, never on water."""
    size, heading = ground.size, float(rng.uniform(0, 2 * math.pi))
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) + np.float32(0.5)
    side = x * math.cos(heading) + y * math.sin(heading) + fractal(rng, size, (3, 7)) * (size / 12)
    inside = (side > np.quantile(side, 1 - share)) & (ground.depth(x, y) < -3 * size / REFERENCE)
    wide = size * OVERSAMPLE
    return Image.fromarray(inside).convert("L").resize((wide, wide), Image.Resampling.BILINEAR)


def paint_marks(draw: ImageDraw.ImageDraw, ground: Ground, rng: np.random.Generator) -> None:
    """Draws what marks the class besides its texture: crowns, piers, lots, roads, runway, pipes."""
    size, name, scale = ground.size, ground.scene_class, ground.size / REFERENCE
    reach = size * 0.75

    middle_of_image = (size / 2, size / 2)

    def strip(along: tuple[float, float], across: tuple[float, float], fill: RGB) -> None:
        corners = _rectangle(along[0], across[0], along[1], across[1])
        _polygon(draw, _place(corners, middle_of_image, ground.heading, 1.0, 1.0), _shade(fill, 1.0))

    if name == "Forest":
        for cx, cy, radius, level in rng.uniform((0, 0, 2.2, 0.65), (size, size, 5.0, 1.45), (130, 4)).tolist():
            blob(draw, cx, cy, radius * scale, (50 * level, 84 * level, 44 * level))
    elif name == "Port":
        for along in np.arange(-reach, reach, float(rng.uniform(26, 38)) * scale).tolist():
            width = float(rng.uniform(2.5, 4.0)) * scale
            strip(
                (along, along + width),
                (ground.offset - scale, ground.offset + rng.uniform(10, 22) * scale),
                (176, 170, 158),
            )
    elif name == "Parking":
        pitch, row = float(rng.uniform(6.5, 8.5)) * scale, float(rng.uniform(26, 32)) * scale
        for across in np.arange(-reach, reach, row).tolist():
            strip((-reach, reach), (across - 0.45 * scale, across + 0.45 * scale), (206, 206, 200))
            for along in np.arange(-reach, reach, pitch).tolist():
                strip((along, along + 0.8 * scale), (across - 7 * scale, across + 7 * scale), (200, 200, 194))
    elif name == "DenseResidential":
        block, road = float(rng.uniform(30, 40)) * scale, float(rng.uniform(3.0, 4.2)) * scale
        shift = rng.uniform(0, block, 2).tolist()
        for along in np.arange(-reach, reach, block / 3).tolist():
            for across in np.arange(-reach, reach, block / 2).tolist():
                tint = float(rng.uniform(0.75, 1.1))
                lawn = (
                    (104 * tint, 124 * tint, 78 * tint) if rng.random() < 0.55 else (160 * tint, 148 * tint, 130 * tint)
                )
                inset = 0.8 * scale
                strip((along + inset, along + block / 3 - inset), (across + inset, across + block / 2 - inset), lawn)
        for middle in np.arange(-reach, reach, block).tolist():
            strip((-reach, reach), (middle + shift[0] - road, middle + shift[0] + road), (98, 98, 100))
            strip((middle + shift[1] - road, middle + shift[1] + road), (-reach, reach), (98, 98, 100))
            strip((-reach, reach), (middle + shift[0] - 0.3 * scale, middle + shift[0] + 0.3 * scale), (190, 186, 160))
    elif name == "Airport":
        half = float(rng.uniform(7, 10)) * scale
        strip((-reach, reach), (ground.offset - half, ground.offset + half), (92, 92, 96))
        for edge in (-half + scale, half - scale):
            strip(
                (-reach, reach),
                (ground.offset + edge - 0.4 * scale, ground.offset + edge + 0.4 * scale),
                (196, 196, 192),
            )
        for along in np.arange(-reach, reach, 12 * scale).tolist():
            strip(
                (along, along + 6 * scale), (ground.offset - 0.6 * scale, ground.offset + 0.6 * scale), (214, 214, 210)
            )
        taxi = ground.offset + float(rng.choice([-1, 1])) * float(rng.uniform(22, 30)) * scale
        strip((-reach, reach), (taxi - 2.5 * scale, taxi + 2.5 * scale), (116, 114, 112))
        link = float(rng.uniform(-25, 25)) * scale
        strip((link - 2.5 * scale, link + 2.5 * scale), tuple(sorted((ground.offset, taxi))), (116, 114, 112))  # type: ignore[arg-type]
    elif name == "StorageTanks":
        bund = float(rng.uniform(28, 36)) * scale
        shift = rng.uniform(0, bund, 2).tolist()
        for middle in np.arange(-reach, reach, bund).tolist():
            for a, b in ((0.0, 1.1), (2.4, 3.0), (3.8, 4.4)):
                strip((-reach, reach), (middle + shift[0] + a * scale, middle + shift[0] + b * scale), (122, 112, 100))
            strip((middle + shift[1], middle + shift[1] + 1.1 * scale), (-reach, reach), (206, 200, 186))


def blob(draw: ImageDraw.ImageDraw, cx: float, cy: float, radius: float, fill: RGB) -> None:
    """A small disc on the oversampled canvas; centre and radius in image pixels."""
    x, y, r = cx * OVERSAMPLE - 0.5, cy * OVERSAMPLE - 0.5, radius * OVERSAMPLE
    draw.ellipse((x - r, y - r, x + r, y + r), fill=_shade(fill, 1.0))


def paint_pond(draw: ImageDraw.ImageDraw, box: tuple[float, float, float, float], rng: np.random.Generator) -> None:
    """A rounded pool that holds `box` (xyxy px), with a sandy rim."""
    cx, cy = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    turn = np.linspace(0, 2 * math.pi, 28, endpoint=False)
    wobble = 1.28 + 0.07 * np.sin(turn * 3 + rng.uniform(0, 6)) + 0.05 * np.sin(turn * 5 + rng.uniform(0, 6))
    ring = np.stack([np.cos(turn) * (box[2] - box[0]) / 2, np.sin(turn) * (box[3] - box[1]) / 2], axis=1)
    for grow, fill in ((1.12, BANK), (1.0, WATER)):
        _polygon(draw, ring * wobble[:, None] * grow + (cx, cy), _shade(fill, 1.0))


def paint_clutter(draw: ImageDraw.ImageDraw, size: int, count: int, rng: np.random.Generator) -> None:
    """Trees, rocks and paint marks: small things that no question is about."""
    scale = size / REFERENCE
    for cx, cy, what, radius in rng.uniform((0, 0, 0, 1.0), (size, size, 1, 2.4), (count, 4)).tolist():
        if what < 0.55:
            blob(draw, cx + 0.9 * scale, cy + 0.9 * scale, radius * scale, (38, 44, 36))
            blob(draw, cx, cy, radius * scale, (60 + 20 * what, 92, 52))
        elif what < 0.8:
            blob(draw, cx, cy, radius * 0.7 * scale, (128, 120, 108))
        else:
            tilt = radius * 7
            corners = _rectangle(-0.5, -0.5, 0.5, 0.5)
            _polygon(draw, _place(corners, (cx, cy), tilt, 4.5 * scale, 1.1 * scale), (196, 194, 186))


def paint_shadows(
    canvas: Image.Image, silhouettes: list[tuple[str, list[Points], float]], sun: float, dark: float
) -> None:
    """Darkens the canvas where the objects' shadows fall. Silhouettes: (kind, polygons, length in px)."""
    mask = Image.new("L", canvas.size, 0)
    draw = ImageDraw.Draw(mask)
    for kind, polygons, length in silhouettes:
        reach = HEIGHT[kind] * min(length, 20 * canvas.size[0] / OVERSAMPLE / REFERENCE)
        for step in (0.5, 1.0):
            shift = np.array([math.cos(sun), math.sin(sun)]) * reach * step
            for polygon in polygons:
                _polygon(draw, polygon + shift, int(255 * dark))
    canvas.paste((12, 14, 20), (0, 0, *canvas.size), mask)


def sensor(image: Image.Image, rng: np.random.Generator, hard: bool) -> npt.NDArray[np.uint8]:
    """Haze, illumination, blur and noise: the finished image (H, W, 3) uint8."""
    size = image.size[0]
    pixels = np.asarray(image, dtype=np.float32)
    if rng.random() < (0.4 if hard else 0.15):
        veil = np.clip(fractal(rng, size, (3, 6)) * 0.3 + 0.12, 0, 0.42 if hard else 0.32)[..., None]
        pixels = pixels * (1 - veil) + 232 * veil
    swing = 1.6 if hard else 1.0
    gain = 1 + swing * rng.uniform(-0.16, 0.10)
    gamma = 1 + swing * rng.uniform(-0.12, 0.14)
    cast = 1 + swing * rng.uniform(-0.035, 0.035, 3)
    contrast = rng.uniform(0.68, 0.85) if hard else rng.uniform(0.88, 1.0)
    level = np.arange(256, dtype=np.float32)
    curve = 255 * (level / 255) ** gamma
    curve = (curve - 118) * contrast + 118
    lookup = np.clip(curve[:, None] * (gain * cast)[None, :], 0, 255).astype(np.uint8)
    index = np.clip(pixels, 0, 255).astype(np.uint8)
    mapped = np.stack([lookup[index[..., channel], channel] for channel in range(3)], axis=-1)
    blurred = Image.fromarray(mapped).filter(
        ImageFilter.GaussianBlur(float(rng.uniform(0.35, 0.8) if hard else rng.uniform(0.0, 0.5)) * size / REFERENCE)
    )
    sigma = rng.uniform(7, 12) if hard else rng.uniform(2, 5)
    noisy = np.asarray(blurred, dtype=np.float32) + rng.standard_normal((size, size, 3), dtype=np.float32) * np.float32(
        sigma
    )
    return np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
