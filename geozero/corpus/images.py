"""Images are hostile until decoded: safe decoding, stored form, content hash, perceptual hash."""

from __future__ import annotations

import io
import math
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import ExifTags, Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from geozero.common.errors import BadRecord
from geozero.common.file_kinds import HEAD_BYTES, kind_of
from geozero.corpus.phash import phash
from geozero.corpus.sample import digest

MAX_PIXELS = 16_000 * 16_000 // 4  # 64 megapixels: above any tile of the field, far below a decompression bomb
SHRUNK_PIXELS = 2048 * 2048  # of what is larger than MAX_PIXELS; models read at most a quarter of it
BYTES_PER_PIXEL = 16  # of an uncompressed image of four 32-bit bands: no file of an image that is read is larger
STORED_PIXELS = 1 << 29  # of an image in a corpus, which was let in with a limit of the user's own
REDUCED_QUALITY = 95  # of the JPEG that a JPEG is reduced to
_SHARPNESS = 2.0  # a JPEG is decoded at no less than this multiple of the size it is reduced to
ALLOWED_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
KEPT_AS_IS = ("JPEG", "PNG")  # what every engine reads; other formats are stored anew as PNG
DEEP_FORMATS = ("PNG", "TIFF")  # those that can hold 16 bits a channel
EIGHT_BIT_MODES = ("RGB", "L", "P", "RGBA", "CMYK", "LA", "1", "YCbCr")
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UPRIGHT = {  # EXIF orientation → what turns the image upright; those from 5 on exchange width and height
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = 5
_ENDS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}
_END_BYTES = 64  # of a file, in which its end mark stands
_ROUNDING = 1e-6  # pixels
_COARSE = 4  # pixels a side that are one for the perceptual hash of an image of more than MAX_PIXELS
_STRETCH = "stretch it to 8-bit RGB first, as `geozero tile` does"

# Pillow warns of large images, which are refused here, and of odd metadata, which nobody reads. Once for all:
# filters that are changed and put back at every image are felt in ingest.
warnings.filterwarnings("ignore", module=r"PIL\.")
# Its own limit would stop at 179 megapixels whatever a caller allows; ours holds before any pixel is decoded.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as the corpus keeps it: encoded bytes (8-bit RGB JPEG or PNG), their hash and their size in pixels.

    `original` is the size that it had before it was reduced; None if it was not.
    """

    image_id: str
    data: bytes
    width: int
    height: int
    phash: str
    original: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Reduction:
    """The most that is stored of an image: pixels of its longer side, and pixels in all; 0: any number."""

    side: int = 0
    pixels: int = 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """The size of the stored copy: the same ratio, within both limits; unchanged if it is within them."""
        scale = min(1.0, (self.side or max(width, height)) / max(width, height))
        scale = min(scale, math.sqrt((self.pixels or width * height) / (width * height)))
        if scale == 1.0:
            return width, height
        return max(1, int(width * scale + _ROUNDING)), max(1, int(height * scale + _ROUNDING))


WHOLE = Reduction()


def read_file(path: Path, max_pixels: int = MAX_PIXELS) -> bytes:
    """The bytes of an image file.

    Raises:
        BadRecord: it cannot be read, or is larger than an image of `max_pixels` pixels can be.
    """
    try:
        size, most = path.stat().st_size, BYTES_PER_PIXEL * max_pixels
        if size > most:
            raise BadRecord("image_too_large", f"a file of {size} bytes, of {most} allowed")
        return path.read_bytes()
    except OSError as error:
        raise BadRecord("image_unreadable", error.strerror or str(error)) from None
    except MemoryError:
        raise BadRecord("image_unreadable", "not enough memory") from None


def shrunk(data: bytes, max_pixels: int) -> bytes:
    """An image of up to `max_pixels` pixels as a PNG of at most `SHRUNK_PIXELS`.

    Raises:
        BadRecord: as `decode`.
    """
    image = decode(data, max_pixels)
    scale = min(1.0, math.sqrt(SHRUNK_PIXELS / (image.width * image.height)))
    size = max(1, math.floor(image.width * scale)), max(1, math.floor(image.height * scale))
    buffer = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0).save(buffer, "PNG")
    return buffer.getvalue()


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the whole image to 8-bit RGB, turned upright where its EXIF orientation says so, as viewers show it.

    Raises:
        BadRecord: not an image, truncated, more than `max_pixels` pixels, 16-bit or otherwise not 8-bit.
    """
    image = _open(data, max_pixels)
    return image if image.mode == "RGB" else image.convert("RGB")


def store(data: bytes, max_pixels: int = MAX_PIXELS, reduction: Reduction = WHOLE) -> StoredImage:
    """The form in which a corpus stores `data`: JPEG and PNG in RGB keep their bytes, the rest becomes PNG in RGB.

    An image with an EXIF orientation is stored upright and without it: readers differ in whether they heed it, and a
    box can be right in one of the two frames alone. A larger image than `reduction` allows becomes a smaller copy: JPEG
    of JPEG, else PNG. A JPEG of more than `MAX_PIXELS` that keeps its bytes is decoded at a fraction of its size, which
    tells damage as well and takes a fraction of the memory; its perceptual hash is that of the fraction.

    Raises:
        BadRecord: as `decode`.
    """
    with _bad_records(data):
        image, size = _begun(data, max_pixels)
        target = reduction.size(*size)
        if target != size:
            return _reduced(image, size, target)
        keeps = image.format in KEPT_AS_IS and image.mode == "RGB" and _orientation(image) == 1
        share = math.sqrt(MAX_PIXELS / (size[0] * size[1]))
        if keeps and share < 1:
            image.draft("RGB", (int(size[0] * share), int(size[1] * share)))
        loaded = _loaded(image)
        rgb = loaded if loaded.mode == "RGB" else loaded.convert("RGB")
        if not keeps:
            data, size = _png(rgb), rgb.size
        looks = phash(rgb.reduce(_COARSE) if rgb.width * rgb.height > MAX_PIXELS else rgb)
    return StoredImage(digest(data), data, *size, looks)


def _reduced(image: ImageFile.ImageFile, size: tuple[int, int], target: tuple[int, int]) -> StoredImage:
    """The smaller copy of an image that is not loaded yet; `size` and `target` are those of the upright image."""
    kind, turned = image.format, _orientation(image) >= _SIDEWAYS
    wide, high = (target[1], target[0]) if turned else target
    drafted = image.draft(image.mode, (int(wide * _SHARPNESS), int(high * _SHARPNESS)))  # of JPEG alone
    box = drafted[1] if drafted else None  # a fraction of a size that it does not divide is rounded up
    loaded = _loaded(image, turn=False)
    small = loaded.convert("RGB") if loaded.mode in ("P", "1") else loaded
    small = small.resize((wide, high), Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    turn = _UPRIGHT.get(_orientation(image))
    upright = small if turn is None else small.transpose(turn)
    rgb = upright if upright.mode == "RGB" else upright.convert("RGB")
    data = _png(rgb) if kind != "JPEG" else _jpeg(rgb)
    return StoredImage(digest(data), data, *target, phash(rgb), size)


def _png(rgb: Image.Image) -> bytes:
    if not isinstance(rgb.info.get("icc_profile"), bytes):  # a tag of another type, which no PNG can hold
        rgb.info.pop("icc_profile", None)
    buffer = io.BytesIO()
    rgb.save(buffer, "PNG")
    return buffer.getvalue()


def _jpeg(rgb: Image.Image) -> bytes:
    buffer = io.BytesIO()
    rgb.save(buffer, "JPEG", quality=REDUCED_QUALITY, subsampling=0)
    return buffer.getvalue()


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of an encoded image as `decode` gives it, read from its header alone.

    Raises:
        BadRecord: not an image, or a damaged header.
    """
    with _bad_records(data):
        return _begun(data, sys.maxsize)[1]


def plain_size(data: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG or PNG file that every reader decodes to the pixels of `decode`: upright, whole, 8-bit
    RGB without transparency; None for any other. Reads the header and the end alone.
    """
    try:
        with Image.open(io.BytesIO(data), formats=KEPT_AS_IS) as image:
            plain = image.mode == "RGB" and ";16" not in str([tile.args for tile in image.tile])
            whole = _ENDS[image.format or ""] in data[-_END_BYTES:]
            if plain and whole and "transparency" not in image.info and _orientation(image) == 1:
                return image.size
    except Exception:  # whatever is wrong, `decode` will say it
        pass
    return None


def thumbnail(image: Image.Image, side: int = 256, quality: int = 80) -> bytes:
    """JPEG bytes of the image scaled down so that its longer side is at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    with _bad_records(data):
        return _loaded(_begun(data, max_pixels)[0])


def _begun(data: bytes, max_pixels: int) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    """An image whose header alone is read, and its size as `decode` gives it.

    Raises:
        BadRecord: more than `max_pixels` pixels.
    """
    image = Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
    width, height = image.size
    if width * height > max_pixels:
        raise BadRecord("image_too_large", f"{width}x{height}")
    return image, (height, width) if _orientation(image) >= _SIDEWAYS else (width, height)


def _loaded(image: ImageFile.ImageFile, turn: bool = True) -> Image.Image:
    """The pixels of an image, upright unless told otherwise.

    Raises:
        BadRecord: 16-bit or otherwise not 8-bit.
    """
    layout = str([tile.args for tile in image.tile])  # gone once the pixels are loaded
    image.load()
    # Pillow keeps the upper byte of 16-bit colours without a word: reflectances up to 10,000 would turn black
    deep = image.format in DEEP_FORMATS and ";16" in layout
    if deep or image.mode not in EIGHT_BIT_MODES:
        raise BadRecord("image_not_8bit", f"{'16 bits a channel' if deep else f'mode {image.mode}'}: {_STRETCH}")
    how = _UPRIGHT.get(_orientation(image)) if turn else None
    return image if how is None else image.transpose(how)


@contextmanager
def _bad_records(data: bytes) -> Iterator[None]:
    """Turn what Pillow raises for `data` into BadRecord."""
    try:
        yield
    except Image.DecompressionBombError as error:
        raise BadRecord("image_too_large", str(error)[:200]) from None
    except UnidentifiedImageError:
        raise _unidentified(data) from None
    except BadRecord:
        raise
    except Exception as error:  # damaged data fails anywhere in Pillow's readers, with whatever comes
        raise BadRecord("image_broken", f"{error}"[:200] or type(error).__name__) from None


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation from 1 (upright) to 8; a TIFF's is heeded by Pillow itself."""
    if "exif" not in image.info or image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # damaged metadata fails anywhere in its parser, with whatever comes; the pixels are sound
        return 1
    return int(value) if value in _UPRIGHT else 1


def _unidentified(data: bytes) -> BadRecord:
    """Why Pillow does not know a file: a TIFF of many or deep bands is an image, but not one to be asked about."""
    if data[:4] in _TIFF_MAGIC:
        try:
            directory = TiffImagePlugin.ImageFileDirectory_v2(data[:8])
            file = io.BytesIO(data)
            file.seek(directory.next)
            directory.load(file)
            bands = int(directory.get(TiffImagePlugin.SAMPLESPERPIXEL, 1))
            bits = directory.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
            deepest = max(bits) if isinstance(bits, tuple) else int(bits)
        except Exception:  # as above
            bands, deepest = 1, 1
        if bands > 4 or deepest > 8:
            return BadRecord("image_not_8bit", f"a TIFF of {bands} bands of {deepest} bits: {_STRETCH}")
    kind = kind_of(data[:HEAD_BYTES])
    return BadRecord("image_unreadable", kind[0] if kind else "not a JPEG, PNG, TIFF, BMP or WebP file")
