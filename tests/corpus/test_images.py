"""Images: every format that sets come in, hostile ones included, becomes 8-bit RGB or a reason."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fixtures.make_sources import encoded, make_image
from PIL import Image, ImageOps

from geozero.common.errors import BadRecord
from geozero.corpus.images import StoredImage, decode, size_of, store, thumbnail
from geozero.corpus.sample import digest


def save(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png(width: int, height: int, depth: int = 8, colour: int = 2, pixels: bytes | None = None) -> bytes:
    """A PNG written by hand: Pillow writes no 16-bit colours, and no header that lies about the size."""
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
    rows = b"".join(b"\0" + bytes(width * samples * depth // 8) for _ in range(height)) if pixels is None else pixels

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(bands: int, width: int = 4, height: int = 3, bits: int = 16) -> bytes:
    """A TIFF of 16-bit bands as satellites' products come, written by hand for the same reason."""
    data = np.full((height, width, bands), 3_000 % (1 << bits), f"<u{bits // 8}").tobytes()
    tags = [(256, width), (257, height), (258, 0), (259, 1), (262, 2), (273, 0), (277, bands), (278, height)]
    depths = struct.pack(f"<{bands}H", *[bits] * bands)
    end = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b""
    for tag, value in [*tags, (279, len(data))]:
        count, value = (bands, end) if tag == 258 else (1, end + len(depths) if tag == 273 else value)
        entries += struct.pack("<HHII", tag, 3 if tag == 258 else 4, count, value)
    return b"II*\0" + struct.pack("<IH", 8, len(tags) + 1) + entries + struct.pack("<I", 0) + depths + data


TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # of a TIFF's values


def tiff_with_tag(tag: int, kind: int, count: int) -> bytes:
    """A sound 8-bit RGB TIFF with one more tag, of any type and number of values."""
    pixels, extra = bytes(range(36)), bytes((7 * k + 1) % 256 for k in range(TYPE_BYTES[kind] * count))
    end = 8 + 2 + 12 * 10 + 4  # of the directory
    place = end + 6 if len(extra) > 4 else int.from_bytes(extra.ljust(4, b"\0"), "little")
    rows = [(256, 4, 1, 4), (257, 4, 1, 3), (258, 3, 3, end), (259, 3, 1, 1), (262, 3, 1, 2), (277, 3, 1, 3)]
    rows += [(278, 4, 1, 3), (273, 4, 1, end + 6 + len(extra)), (279, 4, 1, len(pixels)), (tag, kind, count, place)]
    entries = b"".join(struct.pack("<HHII", *row) for row in sorted(rows))
    directory = struct.pack("<IH", 8, len(rows)) + entries + struct.pack("<I", 0) + struct.pack("<3H", 8, 8, 8)
    return b"II*\0" + directory + extra + pixels


# --- what is kept and what is stored anew -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_jpeg_and_png_keep_their_bytes(kind: str) -> None:
    data = encoded(make_image(1), kind)
    kept = store(data)
    assert kept.data == data and kept.image_id == digest(data)
    assert (kept.width, kept.height) == decode(data).size == (48, 40)


LOSSLESS: dict[str, Callable[[Image.Image], bytes]] = {
    "TIFF": lambda image: save(image, "TIFF"),
    "TIFF LZW": lambda image: save(image, "TIFF", compression="tiff_lzw"),
    "BMP": lambda image: save(image, "BMP"),
    "WebP": lambda image: save(image, "WEBP", lossless=True),
    "PNG with alpha": lambda image: save(image.convert("RGBA"), "PNG"),
}


@pytest.mark.parametrize("kind", LOSSLESS)
def test_other_formats_become_png_pixel_by_pixel(kind: str) -> None:
    data = LOSSLESS[kind](make_image(2))
    kept = store(data)
    again = Image.open(io.BytesIO(kept.data))
    assert (again.format, again.mode) == ("PNG", "RGB") and again.tobytes() == make_image(2).tobytes()
    assert kept.image_id == digest(kept.data) != digest(data)
    assert store(kept.data) == kept  # its own form is kept as it is


@pytest.mark.parametrize("mode", ["L", "P", "LA", "1", "CMYK", "YCbCr"])
def test_every_8_bit_mode_becomes_rgb(mode: str) -> None:
    kind = "JPEG" if mode in ("CMYK", "YCbCr") else "PNG"
    image = make_image(3).convert(mode)
    data = save(image, kind)
    kept = Image.open(io.BytesIO(store(data).data))
    assert kept.mode == "RGB" and kept.size == (48, 40)
    plain = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float)
    assert (np.asarray(decode(data), dtype=float) == plain).all()
    if mode in ("P", "CMYK", "YCbCr"):  # colours are still there
        assert np.abs(plain - np.asarray(make_image(3), dtype=float)).mean() < 40


def test_the_same_pixels_look_the_same_in_any_format() -> None:
    hashes = {store(make(make_image(4))).phash for make in LOSSLESS.values()}
    assert hashes == {store(encoded(make_image(4), "PNG")).phash} and len(hashes.pop()) == 16


# --- what is refused --------------------------------------------------------------------------------------


def refused(data: bytes, max_pixels: int = 1_000_000) -> str:
    for read in (decode, store):
        with pytest.raises(BadRecord) as caught:
            read(data, max_pixels)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("data", [b"", b"no image", b"GIF89a" + bytes(50), b"%!PS-Adobe-3.0 EPSF-3.0\n", b"\xff\xd8"])
def test_what_is_no_image_of_a_known_format(data: bytes) -> None:
    assert refused(data).startswith("image_unreadable: not a JPEG, PNG, TIFF, BMP or WebP file")


def test_a_format_that_pillow_knows_and_we_do_not_want() -> None:
    for kind in ("GIF", "PPM", "TGA", "ICO"):
        assert refused(save(make_image(1), kind)).startswith("image_unreadable")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_truncated_file(kind: str, share: float) -> None:
    data = encoded(make_image(1, (200, 160)), kind)
    assert refused(data[: int(len(data) * share)]).startswith(("image_broken", "image_unreadable"))


def test_a_flipped_byte_in_packed_pixels() -> None:
    data = bytearray(encoded(make_image(1), "PNG"))
    data[len(data) // 2] ^= 0xFF
    assert refused(bytes(data)).startswith("image_broken")


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    assert refused(encoded(make_image(1), "PNG"), max_pixels=48 * 40 - 1) == "image_too_large: 48x40"
    assert decode(encoded(make_image(1), "PNG"), max_pixels=48 * 40).size == (48, 40)
    assert refused(png(60_000, 10_000, pixels=b""), 64_000_000).startswith("image_too_large")
    assert refused(png(10_000, 10_000, pixels=b""), 64_000_000) == "image_too_large: 10000x10000"


@pytest.mark.parametrize("colour", [0, 2, 4, 6])
def test_16_bit_png_is_refused(colour: int) -> None:
    assert refused(png(4, 3, 16, colour)).startswith("image_not_8bit")
    decode(png(4, 3, 8, colour))


@pytest.mark.parametrize("bands", [3, 4])
def test_16_bit_colours_in_a_tiff_do_not_turn_black(bands: int) -> None:
    assert refused(tiff16(bands)) == (
        "image_not_8bit: 16 bits a channel: stretch it to 8-bit RGB first, as `geozero tile` does"
    )


@pytest.mark.parametrize("kind", ["float32", "uint16", "int32"])
def test_one_band_of_more_than_8_bits_is_refused(kind: str) -> None:
    assert refused(save(Image.fromarray(np.ones((4, 4), kind)), "TIFF")).startswith("image_not_8bit: ")


def test_no_damage_raises_anything_but_a_bad_record() -> None:
    rng = random.Random(7)
    whole = [make(make_image(5)) for make in LOSSLESS.values()] + [encoded(make_image(5), "JPEG"), tiff16(3)]
    for _ in range(400):
        data = bytearray(rng.choice(whole))
        for _ in range(rng.randint(1, 5)):
            data[int(rng.random() ** 3 * len(data))] = rng.choice([0, 1, 255, rng.randrange(256)])
        try:
            assert isinstance(store(bytes(data), 100_000), StoredImage)
        except BadRecord as bad:
            assert bad.reason in ("image_unreadable", "image_broken", "image_too_large", "image_not_8bit")


# --- thumbnails -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "expected"), [((400, 200), (100, 50)), ((30, 60), (30, 60)), ((1, 900), (1, 100))])
def test_a_thumbnail_is_scaled_down_and_never_up(size: tuple[int, int], expected: tuple[int, int]) -> None:
    image = make_image(1, size)
    small = Image.open(io.BytesIO(thumbnail(image, side=100)))
    assert (small.format, small.size, image.size) == ("JPEG", expected, size)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_image_is_stored_upright_as_viewers_show_it(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x112] = orientation
    data = save(make_image(5), kind, exif=exif)
    with Image.open(io.BytesIO(data)) as opened:
        shown = ImageOps.exif_transpose(opened)
        assert size_of(data) == shown.size
    kept = store(data)
    stored = Image.open(io.BytesIO(kept.data))
    assert np.array_equal(np.asarray(stored), np.asarray(shown)) and (kept.width, kept.height) == shown.size
    assert stored.getexif().get(0x112, 1) == 1 and (kept.data == data) == (orientation == 1)
    assert np.array_equal(np.asarray(decode(data)), np.asarray(shown))


def test_damaged_metadata_does_not_cost_the_image() -> None:
    data = save(make_image(5), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert store(data).data == data


@pytest.mark.parametrize("bands", [5, 13])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_tiff_of_many_bands_says_so(bands: int, bits: int) -> None:
    assert refused(tiff16(bands, bits=bits)).startswith(f"image_not_8bit: a TIFF of {bands} bands of {bits} bits: ")
    assert refused(b"II*\0" + b"\0" * 99).startswith("image_unreadable")


@pytest.mark.parametrize("kind", TYPE_BYTES)
@pytest.mark.parametrize("tag", [34_675, 700, 34_665, 33_723, 34_377, 338, 339])  # ICC, XMP, EXIF, IPTC, Photoshop, …
def test_an_odd_tag_of_a_tiff_is_no_fault_of_ours(tag: int, kind: int) -> None:
    for count in (0, 1, 2, 100):
        data = tiff_with_tag(tag, kind, count)
        for read in (store, size_of):
            try:
                read(data)
            except BadRecord as bad:
                assert bad.reason in ("image_broken", "image_unreadable")
    if tag == 34_675:  # a profile of another type is dropped, and the pixels are kept
        assert decode(store(tiff_with_tag(tag, kind, 100)).data).getpixel((0, 0)) == (0, 1, 2)


def test_a_git_lfs_pointer_is_named() -> None:
    assert refused(b"version https://git-lfs.github.com/spec/v1\noid x\n") == (
        "image_unreadable: a Git LFS pointer, not the file itself"
    )
