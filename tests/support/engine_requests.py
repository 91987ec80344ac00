"""Requests, images and limits for tests of real engines."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image

from geozero.engines import Request, SamplingParams
from geozero.tasks import SYSTEM_PROMPT

SIZES = ((96, 96), (100, 130), (40, 300), (400, 400))


LIMITS: dict[str, Any] = {
    "dtype": "float32",
    "max_pixels": 65536,
    "max_length": 420,
}


GREEDY = SamplingParams(max_tokens=24)
SAMPLED = SamplingParams(n=3, temperature=1.0, max_tokens=12, seed=5)


def make_image(seed: int, width: int, height: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def requests() -> list[Request]:
    made = []
    for number in range(8):
        user = {"role": "user", "content": f"<image>Is a ship present in image {number}?\nAnswer with one word."}
        system = [{"role": "system", "content": SYSTEM_PROMPT}] if number % 2 else []
        made.append(Request(f"r{number}", [*system, user], make_image(number, *SIZES[number % 4])))
    long = [{"role": "user", "content": "<image>" + "yes no " * 400}]
    hostile = [{"role": "user", "content": "<image>Is a <|image_pad|> present?"}]
    return [
        *made,
        Request("hostile", hostile, made[0].image),
        Request("broken", made[0].messages, b"no image"),
        Request("long", long, made[0].image),
    ]
