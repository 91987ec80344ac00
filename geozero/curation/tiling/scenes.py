"""Large scenes: cut into tiles, boxes mapped both ways, read a part at a time.

`open_scene` reads GeoTIFF through rasterio (the extra `geo`), one window at a time, and other images through Pillow.
`geozero.corpus.raster` turns their bands into RGB.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import decode
from geozero.corpus.raster import TIFF, Pixels
from geozero.corpus.sample import Box

LOOK_SIDE = 1024  # pixels of the reduced view that a scene's stretch is computed from
NEEDS_RASTERIO = "images with 16 bits per channel or many bands need rasterio: pip install 'geozero[geo]'"
# GDAL goes by a file's bytes, and some formats name other files and addresses to read from (VRT). These hold their own
# pixels only. No side files, no network.
DRIVER_OF_TIFF, DRIVER_OF_DEEP = "GTiff", "PNG"  # COG is read by the former
GDAL_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_HTTP_TIMEOUT": "1",
    "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": "{noext}",
    "CPL_VSIL_CURL_ALLOWED_FILENAME": "/nowhere",
}
_DEEP = "image_not_8bit"  # why Pillow's reader refuses what rasterio's reads

# --- tiles ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Tile:
    """A part of a scene: pixels from (x, y), `width` and `height` of them."""

    x: int
    y: int
    width: int
    height: int

    def box_into(self, box: Box) -> Box | None:
        """A box of the scene in pixels of this tile, cut at its edges; None if they do not overlap."""
        x1, y1 = max(box[0] - self.x, 0.0), max(box[1] - self.y, 0.0)
        x2, y2 = min(box[2] - self.x, float(self.width)), min(box[3] - self.y, float(self.height))
        return (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None

    def box_out_of(self, box: Box) -> Box:
        """A box of this tile in pixels of the scene."""
        return box[0] + self.x, box[1] + self.y, box[2] + self.x, box[3] + self.y

    def part_of(self, box: Box) -> float:
        """The share of a box's area that lies in this tile."""
        inside = self.box_into(box)
        return 0.0 if inside is None else _area(inside) / _area(box)


def tiles(width: int, height: int, side: int, overlap: int = 0) -> list[Tile]:
    """Tiles of `side` pixels that cover a scene, row by row; neighbours share at least `overlap` pixels.

    All have full size if the scene is large enough: the last tile of a row is shifted back rather than cut, so it may
    overlap more. Every box whose sides are at most `overlap` lies completely in some tile.

    Raises:
        InputError: the side is not positive, or the overlap is not below it.
    """
    if side < 1 or not 0 <= overlap < side:
        raise InputError(f"tiles of {side} px with an overlap of {overlap}", hint="0 ≤ overlap < side")
    return [
        Tile(x, y, min(side, width), min(side, height))
        for y in _starts(height, side, overlap)
        for x in _starts(width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: int) -> list[int]:
    if length <= side:
        return [0]
    steps = -(-(length - side) // (side - overlap))
    starts = [round(n * (length - side) / steps) for n in range(steps + 1)]
    assert all(b - a <= side - overlap for a, b in pairwise(starts))
    return starts


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


# --- scenes on disk ---------------------------------------------------------------------------------------


class Scene(Protocol):
    """An image that is read in parts: size in pixels, number of bands."""

    width: int
    height: int
    count: int

    def look(self, bands: tuple[int, ...]) -> Pixels:
        """A reduced view of these bands (from 1), at most `LOOK_SIDE` pixels long; shape (bands, height, width)."""

    def read(self, bands: tuple[int, ...], tile: Tile) -> Pixels:
        """These bands of a part at full size."""


@contextmanager
def open_scene(path: Path) -> Iterator[Scene]:
    """Open a TIFF, or an image that Pillow cannot read as 8-bit colours, through rasterio; any other through Pillow.

    Without rasterio, Pillow also reads 8-bit TIFF.

    Raises:
        InputError: missing, unreadable, or rasterio is needed and not installed.
    """
    if not path.is_file():
        raise InputError("no such scene", str(path), "give an image")
    rasterio = _rasterio()
    plain: _Plain | None = None
    is_tiff = path.suffix.lower() in TIFF
    if rasterio is None or not is_tiff:
        try:
            plain = _Plain(path.read_bytes())
        except BadRecord as bad:
            if not is_tiff and bad.reason != _DEEP:
                raise InputError(str(bad), str(path), "give a JPEG, PNG, BMP, WebP or (Geo)TIFF") from None
    if plain is not None:
        yield plain
        return
    if rasterio is None:
        raise InputError(NEEDS_RASTERIO, str(path))
    with warnings.catch_warnings(), rasterio.Env(**GDAL_OPTIONS):
        warnings.simplefilter("ignore")  # of scenes that lie nowhere on earth, or say twice what is no data
        try:
            source = rasterio.open(path.resolve(), driver=DRIVER_OF_TIFF if is_tiff else DRIVER_OF_DEEP)
        except rasterio.errors.RasterioError as error:
            raise _unreadable(error, path) from None
        with source:
            try:
                yield _Raster(source)
            except rasterio.errors.RasterioError as error:
                raise _unreadable(error, path) from None


def _rasterio() -> Any:
    """The module, or None if it is not installed."""
    try:
        import rasterio
    except ModuleNotFoundError:
        return None
    return rasterio


def _unreadable(error: Exception, path: Path) -> InputError:
    return InputError(f"unreadable: {' '.join(str(error).split())[:200]}", str(path), "give a GeoTIFF")


class _Plain:
    def __init__(self, data: bytes) -> None:
        self._bands = np.asarray(decode(data)).transpose(2, 0, 1)
        self.count, self.height, self.width = self._bands.shape

    def look(self, bands: tuple[int, ...]) -> Pixels:
        step = -(-max(self.width, self.height) // LOOK_SIDE)
        return self._bands[np.array(bands) - 1, ::step, ::step]

    def read(self, bands: tuple[int, ...], tile: Tile) -> Pixels:
        return self._bands[np.array(bands) - 1, tile.y : tile.y + tile.height, tile.x : tile.x + tile.width]


class _Raster:
    def __init__(self, source: Any) -> None:
        self._source = source
        self.width, self.height, self.count = int(source.width), int(source.height), int(source.count)

    def look(self, bands: tuple[int, ...]) -> Pixels:
        scale = min(1.0, LOOK_SIDE / max(self.width, self.height))
        shape = (len(bands), max(1, round(self.height * scale)), max(1, round(self.width * scale)))
        view: Pixels = self._source.read(list(bands), out_shape=shape, masked=True)
        return view

    def read(self, bands: tuple[int, ...], tile: Tile) -> Pixels:
        window = ((tile.y, tile.y + tile.height), (tile.x, tile.x + tile.width))
        part: Pixels = self._source.read(list(bands), window=window, masked=True)
        return part
