"""A user's image file as engines read it: PNG and JPEG as they are, (Geo)TIFF through rasterio (the extra `geo`)."""

from __future__ import annotations

import io
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from geozero.common.errors import BadRecord
from geozero.corpus.images import MAX_PIXELS, decode, read_file, shrunk, size_of
from geozero.corpus.raster import TIFF, Stretch, choose_bands, to_rgb
from geozero.corpus.sample import Box

NEEDS_RASTERIO = "a GeoTIFF that is not 8-bit RGB needs rasterio: pip install 'geozero[geo]'"


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Encoded bytes that an engine reads, their size in pixels, and for GeoTIFF its coordinate system."""

    data: bytes
    width: int
    height: int
    crs: str | None = None
    transform: tuple[float, ...] | None = None  # a, b, c, d, e, f of rasterio's affine: column, row → map

    def on_map(self, box: Box) -> Box | None:
        """A box in pixels as a box in the coordinate system; None if there is no such system."""
        if self.transform is None:
            return None
        a, b, c, d, e, f = self.transform
        x1, y1, x2, y2 = box
        corners = [(a * x + b * y + c, d * x + e * y + f) for x in (x1, x2) for y in (y1, y2)]
        xs, ys = zip(*corners, strict=True)
        return min(xs), min(ys), max(xs), max(ys)


def read_image(path: Path, max_pixels: int | None = None) -> ImageFile:
    """Read a file; the pixels of PNG, JPEG and the like are left to the engine, those of an image beyond its limit are
    scaled down (`width` and `height` stay those of the file).

    Raises:
        BadRecord: it is no image, has more than `max_pixels` pixels (64 million), or is a GeoTIFF that needs rasterio.
    """
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    if not path.is_file():
        raise BadRecord("image_missing", "no such file")
    found = _read(path, max_pixels)
    if found.width * found.height > max_pixels:
        raise BadRecord("image_too_large", f"{found.width}x{found.height}")
    if found.width * found.height > MAX_PIXELS:
        return replace(found, data=shrunk(found.data, max_pixels))
    return found


def _read(path: Path, max_pixels: int) -> ImageFile:
    if path.suffix.lower() not in TIFF:
        data = read_file(path, max_pixels)
        return ImageFile(data, *size_of(data))
    try:
        return _through_rasterio(path, max_pixels)
    except ModuleNotFoundError:
        pass
    try:
        image = decode(read_file(path, max_pixels), max_pixels)
    except BadRecord as bad:
        raise bad if bad.reason == "image_too_large" else BadRecord(bad.reason, NEEDS_RASTERIO) from None
    return ImageFile(_png(image), image.width, image.height)


def _through_rasterio(path: Path, max_pixels: int) -> ImageFile:
    """The first three bands (a single one three times), each stretched to 8 bits unless they are.

    Raises:
        ModuleNotFoundError: rasterio is not installed.
        BadRecord: not readable, or too large.
    """
    import numpy as np
    import rasterio

    try:
        with rasterio.open(path) as source:
            if source.width * source.height > max_pixels:
                raise BadRecord("image_too_large", f"{source.width}x{source.height}: cut it into tiles first")
            bands = source.read(list(choose_bands(source.count)), masked=True)
            crs = None if source.crs is None else str(source.crs)
            transform = tuple(source.transform)[:6] if crs else None
    except rasterio.errors.RasterioError as error:
        raise BadRecord("image_unreadable", " ".join(str(error).split())[:200]) from None
    stretch = Stretch(kind="none" if bands.dtype == np.uint8 else "percentile")
    image = Image.fromarray(to_rgb(bands, stretch.limits(bands)))
    return ImageFile(_png(image), image.width, image.height, crs, transform)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
