"""Large images: read above Pillow's own limit, at a fraction where that will do, and stored as smaller copies."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT
from PIL import Image

from geozero.common.errors import BadRecord
from geozero.corpus import images
from geozero.corpus.images import Reduction, decode, size_of, store

BOX = (200, 120, 440, 360)  # a red field in a blue image of 803x605


def marked(kind: str, mode: str = "RGB", orientation: int = 1, size: tuple[int, int] = (803, 605)) -> bytes:
    """An image that, seen upright, has a red field at BOX."""
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[..., 2] = 200
    pixels[BOX[1] : BOX[3], BOX[0] : BOX[2]] = (220, 0, 0)
    image = Image.fromarray(pixels)
    undo = {1: None, 3: Image.Transpose.ROTATE_180, 6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}
    how = undo[orientation]
    image = image if how is None else image.transpose(how)
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings: dict[str, Any] = {"quality": 95} if kind == "JPEG" else {}
    image.convert(mode).save(buffer, kind, exif=exif, **settings)
    return buffer.getvalue()


def red_field(data: bytes) -> tuple[float, ...]:
    """Where the red field lies, in pixels."""
    pixels = np.asarray(decode(data), np.int16)
    rows, columns = np.nonzero(pixels[..., 0] > 110)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize(
    ("kind", "mode"), [("JPEG", "RGB"), ("PNG", "RGB"), ("PNG", "P"), ("PNG", "RGBA"), ("TIFF", "RGB")]
)
@pytest.mark.parametrize(
    "reduction", [Reduction(side=320), Reduction(pixels=50_000), Reduction(side=801), Reduction(100)]
)
def test_a_reduced_copy_shows_the_same_at_the_scaled_place(
    kind: str, mode: str, orientation: int, reduction: Reduction
) -> None:
    data = marked(kind, mode, orientation)
    stored = store(data, reduction=reduction)
    assert (stored.width, stored.height) == reduction.size(803, 605) == size_of(stored.data)
    assert stored.original == (803, 605) == size_of(data)
    expected = [v * s for v, s in zip(BOX, (stored.width / 803, stored.height / 605) * 2, strict=True)]
    assert np.abs(np.subtract(red_field(stored.data), expected)).max() <= 1.0
    with Image.open(io.BytesIO(stored.data)) as image:
        assert image.format == ("JPEG" if kind == "JPEG" else "PNG") and image.mode == "RGB"


def test_an_image_within_the_limits_keeps_its_bytes() -> None:
    data = marked("JPEG")
    for reduction in (Reduction(), Reduction(side=803), Reduction(pixels=803 * 605), Reduction(2000, 10**7)):
        stored = store(data, reduction=reduction)
        assert stored == store(data) and stored.data is data and stored.original is None


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 3000), st.integers(1, 10**7))
def test_a_copy_is_within_both_limits(width: int, height: int, side: int, pixels: int) -> None:
    wide, high = Reduction(side, pixels).size(width, height)
    assert 1 <= wide <= width and 1 <= high <= height
    assert max(wide, high) <= side and (wide * high <= pixels or 1 in (wide, high))
    if max(width, height) > side and side * side <= pixels:
        assert max(wide, high) == side


def test_damage_is_noticed_in_a_reduced_copy_too() -> None:
    for kind in ("JPEG", "PNG"):
        with pytest.raises(BadRecord, match="image_broken"):
            store(marked(kind)[:-2000], reduction=Reduction(side=100))


@pytest.fixture
def small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 megapixels are 100,000 here."""
    monkeypatch.setattr(images, "MAX_PIXELS", 100_000)


@pytest.mark.usefixtures("small_limits")
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF"])
def test_the_user_s_limit_counts_above_pillow_s(kind: str) -> None:
    data = marked(kind)
    with pytest.raises(BadRecord, match="image_too_large"):
        store(data, 400_000)
    stored = store(data, 803 * 605)
    assert (stored.width, stored.height) == (803, 605)
    assert stored.data == data if kind != "TIFF" else stored.data[:4] == b"\x89PNG"
    assert decode(stored.data, images.STORED_PIXELS).size == (803, 605)


@pytest.mark.usefixtures("small_limits")
def test_a_large_jpeg_is_decoded_at_a_fraction_and_damage_is_seen() -> None:
    loaded: list[tuple[int, int]] = []
    real = images._loaded

    def watched(image: Any, turn: bool = True) -> Image.Image:
        found = real(image, turn)
        loaded.append(found.size)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_loaded", watched)
        stored = store(marked("JPEG"), 10**6)
    assert loaded == [(402, 303)] and (stored.width, stored.height) == (803, 605)
    with pytest.raises(BadRecord, match="image_broken"):
        store(marked("JPEG")[:-2000], 10**6)


MAKE = """
import sys
import numpy as np
from PIL import Image
side, kind, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
ramp = np.tile(np.arange(side, dtype=np.uint16).astype(np.uint8), (side // 8, 1))
strip = Image.fromarray(np.dstack([ramp, ramp, ramp]))
image = Image.new("RGB", (side, side))
for row in range(8):
    image.paste(strip, (0, row * (side // 8)))
image.save(path, kind)
"""
READ = """
import json, resource, sys
from geozero.corpus.images import Reduction, store
data = open(sys.argv[1], "rb").read()
stored = store(data, 1 << 29, Reduction(side=int(sys.argv[2])))
print(json.dumps([stored.width, stored.height, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("reduced", [0, 1024])
@pytest.mark.parametrize(("side", "kind"), [(8_000, "JPEG"), (8_000, "PNG"), (20_000, "JPEG"), (20_000, "PNG")])
def test_large_scenes_are_read_within_two_gigabytes(tmp_path: Any, side: int, kind: str, reduced: int) -> None:
    file = str(tmp_path / "scene")
    subprocess.run([sys.executable, "-c", MAKE, str(side), kind, file], check=True, cwd=ROOT)
    done = subprocess.run([sys.executable, "-c", READ, file, str(reduced)], check=True, cwd=ROOT, capture_output=True)
    width, height, peak = json.loads(done.stdout)
    assert (width, height) == ((reduced or side),) * 2
    print(f"{side} {kind} reduced to {reduced}: {peak / 1e6:.0f} MB")
    assert peak < 2e9
