"""Images are hostile until decoded: safe decoding, stored form, content hash, perceptual hash."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from geozero.errors import BadRecord
from geozero.phash import phash
from geozero.sample import digest

MAX_PIXELS = 16_000 * 16_000 // 4  # 64 megapixels: above any tile of the field, far below a decompression bomb
ALLOWED_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
KEPT_AS_IS = ("JPEG", "PNG")  # what every engine reads; other formats are stored anew as PNG
DEEP_FORMATS = ("PNG", "TIFF")  # those that can hold 16 bits a channel
EIGHT_BIT_MODES = ("RGB", "L", "P", "RGBA", "CMYK", "LA", "1", "YCbCr")


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image as the corpus keeps it: encoded bytes (8-bit RGB JPEG or PNG), their hash and their size in pixels."""

    image_id: str
    data: bytes
    width: int
    height: int
    phash: str


def decode(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the whole picture to 8-bit RGB.

    Raises:
        BadRecord: not an image, truncated, more than `max_pixels` pixels, 16-bit or otherwise not 8-bit.
    """
    image = _open(data, max_pixels)
    return image if image.mode == "RGB" else image.convert("RGB")


def store(data: bytes, max_pixels: int = MAX_PIXELS) -> StoredImage:
    """The form in which a corpus stores `data`: JPEG and PNG in RGB keep their bytes, the rest becomes PNG in RGB.

    Raises:
        BadRecord: as `decode`.
    """
    image = _open(data, max_pixels)
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    if image.format not in KEPT_AS_IS or image.mode != "RGB":
        buffer = io.BytesIO()
        rgb.save(buffer, "PNG")
        data = buffer.getvalue()
    return StoredImage(digest(data), data, rgb.width, rgb.height, phash(rgb))


def thumbnail(image: Image.Image, side: int = 256, quality: int = 80) -> bytes:
    """JPEG bytes of the picture scaled down so that its longer side is at most `side` pixels."""
    small = image.copy()
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def _open(data: bytes, max_pixels: int) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of bombs; the limit below refuses them
            image = Image.open(io.BytesIO(data), formats=ALLOWED_FORMATS)
            if image.width * image.height > max_pixels:
                raise BadRecord("image_too_large", f"{image.width}x{image.height}")
            layout = str([tile.args for tile in image.tile])  # gone once the pixels are loaded
            image.load()
    except BadRecord:
        raise
    except Image.DecompressionBombError as error:
        raise BadRecord("image_too_large", str(error)[:200]) from None
    except UnidentifiedImageError:
        raise BadRecord("image_unreadable", "not a JPEG, PNG, TIFF, BMP or WebP file") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise BadRecord("image_broken", str(error)[:200]) from None
    # Pillow keeps the upper byte of 16-bit colours without a word: reflectances up to 10,000 would turn black
    deep = image.format in DEEP_FORMATS and ";16" in layout
    if deep or image.mode not in EIGHT_BIT_MODES:
        raise BadRecord(
            "image_not_8bit", f"{'16 bits a channel' if deep else f'mode {image.mode}'}: stretch it to 8-bit RGB first"
        )
    return image
