"""The perceptual hash is imagehash's, bit by bit, in every shape, and for images whose cosines are all alike."""

from __future__ import annotations

import imagehash
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from geozero.corpus import phash as module
from geozero.corpus.phash import SIDE, phash

KINDS = ("noise", "smooth", "flat", "bars", "black and white")


def make_image(kind: str, width: int, height: int, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    if kind == "smooth":
        coarse = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
        return coarse.resize((width, height), Image.Resampling.BICUBIC)
    if kind == "flat":
        return Image.new("RGB", (width, height), tuple(rng.integers(0, 256, 3).tolist()))
    pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if kind == "bars":
        pixels[:] = pixels[0]
    return Image.fromarray(pixels // 128 * 255 if kind == "black and white" else pixels)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(KINDS), st.integers(1, 300), st.integers(1, 300), st.integers(0, 99))
@example("noise", 38, 46, 0)  # Pillow shrinks its rows first
@example("smooth", 600, 600, 0)
@example("flat", 150, 150, 0)
@example("bars", 150, 150, 0)
@example("noise", 1, 1, 0)
def test_it_is_imagehash_to_the_bit(kind: str, width: int, height: int, seed: int) -> None:
    image = make_image(kind, width, height, seed)
    assert phash(image) == str(imagehash.phash(image))


@pytest.mark.parametrize("n", [1, 5, 31, 32, 33, 64, 100, 150, 256, 600, 800, 1000])
def test_shrinking_is_that_of_pillow_to_the_pixel(n: int) -> None:
    """Black and white noise: the sharpest edges, which overshoot."""
    grey = make_image("black and white", n, max(n - n // 5, 1)).convert("L")
    expected = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    assert np.array_equal(module._shrunk(grey), expected)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK"])
def test_other_modes(mode: str) -> None:
    image = make_image("smooth", 60, 50).convert(mode)
    assert phash(image) == str(imagehash.phash(image))


def test_a_large_image_is_left_to_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = phash(make_image("smooth", 200, 100))
    monkeypatch.setattr(module, "_MOST_PIXELS", 100)
    monkeypatch.delattr(module, "_weights")
    assert phash(make_image("smooth", 200, 100)) == expected
