"""Requests, images and limits for tests of real engines."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from geozero.engines import SamplingParams

SIZES = ((96, 96), (100, 130), (40, 300), (400, 400))


LIMITS: dict[str, Any] = {
    "dtype": "float32",
    "max_pixels": 65536,
    "max_length": 420,
    "template": "geozero_qwen3_vl",
}


GREEDY = SamplingParams(max_tokens=24)


def make_image(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()
