"""The perceptual hash: pHash's 64 bits, to the bit those of `imagehash.phash`, at about half its cost.

pHash (Zauner 2010, as in the imagehash library): the image in grey, shrunk to 32×32, its 8×8 lowest cosines, each
bit telling whether one lies above their median. What costs is the shrinking, which Pillow does number by number: here
it is two products of matrices with Pillow's own weights, so that every rounding is the same.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from PIL import Image

SIDE = 32  # pixels of the shrunk image
CORNER = 8  # cosines a side: 64 bits
_LOBES = 3.0  # of the Lanczos window
_UNIT = 1 << 22  # Pillow's weights are whole multiples of 1 / _UNIT, so that sums of grey values are exact in float64
_OUTPUTS = 8  # pixels made by one product: their weights lie in a part of the image's columns alone
_MOST_PIXELS = 1 << 20  # of an image whose pixels are held as float64; larger ones are left to Pillow
_SURE = 1e-6  # two ways of adding up a cosine, which is below a million, differ by less than a thousandth of this

Numbers = npt.NDArray[np.float64]


def phash(image: Image.Image) -> str:
    """16 hexadecimal digits of an image in any 8-bit mode, equal to `str(imagehash.phash(image))`."""
    small = _shrunk(image if image.mode == "L" else image.convert("L"))
    low = (_COSINES @ small @ _COSINES.T).ravel()
    above = low - _median(low)
    if np.abs(above).min() < _SURE:  # as in images of one colour: the sign is that of the reference's rounding
        from scipy.fft import dct

        low = dct(dct(small, axis=0), axis=1)[:CORNER, :CORNER].ravel()
        above = low - _median(low)
    return np.packbits(above > 0).tobytes().hex()


def _median(values: Numbers) -> float:
    ordered = sorted(values.tolist())
    half = len(ordered) // 2
    return float(ordered[half - 1] + ordered[half]) / 2


def _shrunk(grey: Image.Image) -> Numbers:
    """The image's 32×32 by Lanczos, as `Image.resize` makes it, whole numbers from 0 to 255."""
    if grey.height > grey.width or grey.width * grey.height > _MOST_PIXELS:  # Pillow takes some tall ones' rows first
        return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.LANCZOS), np.float64)
    pixels = np.frombuffer(grey.tobytes(), np.uint8).reshape(grey.height, grey.width).astype(np.float64)
    narrow = np.empty((grey.height, SIDE))
    for columns, made, weights in _weights(grey.width):
        narrow[:, made] = pixels[:, columns] @ weights
    _round(narrow)
    small = np.empty((SIDE, SIDE))
    for rows, made, weights in _weights(grey.height):
        small[made] = weights.T @ narrow[rows]
    _round(small)
    return small


def _round(greys: Numbers) -> None:
    """To 8-bit grey, in place."""
    greys += 0.5
    np.floor(greys, out=greys)
    np.maximum(greys, 0, out=greys)
    np.minimum(greys, 255, out=greys)


@lru_cache(maxsize=256)
def _weights(n: int) -> list[tuple[slice, slice, Numbers]]:
    """Pillow's Lanczos weights from `n` pixels to 32: (pixels taken, pixels made, weights)."""
    step = n / SIDE
    spread = max(step, 1.0)
    table = np.zeros((n, SIDE))
    for made in range(SIDE):
        centre = (made + 0.5) * step
        first, last = max(int(centre - _LOBES * spread + 0.5), 0), min(int(centre + _LOBES * spread + 0.5), n)
        at = (np.arange(first, last) - centre + 0.5) / spread
        weights = np.where(np.abs(at) < _LOBES, np.sinc(at) * np.sinc(at / _LOBES), 0.0)
        table[first:last, made] = np.trunc(weights / weights.sum() * _UNIT + np.copysign(0.5, weights)) / _UNIT
    parts = []
    for start in range(0, SIDE, _OUTPUTS):
        made_here = slice(start, start + _OUTPUTS)
        used = np.flatnonzero(table[:, made_here].any(axis=1))
        taken = slice(int(used[0]), int(used[-1]) + 1)
        parts.append((taken, made_here, np.ascontiguousarray(table[taken, made_here])))
    return parts


def _cosines() -> Numbers:
    """The lowest rows of the cosine transform (type II, as scipy scales it)."""
    row, pixel = np.arange(CORNER)[:, None], np.arange(SIDE)[None, :]
    wave: Numbers = 2 * np.cos(np.pi * row * (2 * pixel + 1) / (2 * SIDE))
    return wave


_COSINES = _cosines()
