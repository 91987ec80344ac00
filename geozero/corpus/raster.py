"""Bands of any number type to 8-bit RGB: which become red, green and blue, and which values black and white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geozero.common.errors import BadRecord, InputError

TIFF = (".tif", ".tiff", ".gtiff")
EIGHT_BIT = 255.0

Pixels = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Which values become black and white [ours].

    Attributes:
        kind: `percentile`: `low` and `high` are percentiles of a scene's own values; `range`: they are values, such as
            0 and 3000 for reflectances times 10,000; `none`: 8-bit values stay as they are, others are refused.
        joint: one stretch for all bands, which keeps their colours; else each band its own.
    """

    kind: Literal["percentile", "range", "none"] = "percentile"
    low: float = 2.0
    high: float = 98.0
    joint: bool = False

    def __post_init__(self) -> None:
        within = self.kind != "percentile" or (self.low >= 0 and self.high <= 100)
        if not (self.low < self.high and within):
            raise InputError(f"stretch {self.low}-{self.high}", hint="low below high; percentiles from 0 to 100")

    def limits(self, bands: Pixels) -> list[tuple[float, float]]:
        """(black, white) of each band of an array of shape (bands, height, width); NaN and masked pixels count for
        nothing.

        Raises:
            BadRecord: `none`, and the values are not 8-bit.
        """
        if self.kind == "none":
            if bands.dtype != np.uint8:
                raise BadRecord("image_not_8bit", f"{bands.dtype}: choose a stretch")
            return [(0.0, EIGHT_BIT)] * len(bands)
        if self.kind == "range":
            return [(self.low, self.high)] * len(bands)
        if self.joint:
            return [_percentiles(bands, self.low, self.high)] * len(bands)
        return [_percentiles(band, self.low, self.high) for band in bands]


def to_rgb(bands: Pixels, limits: list[tuple[float, float]]) -> npt.NDArray[np.uint8]:
    """8-bit RGB, shape (height, width, 3), of one band (grey) or three; masked and NaN pixels become black.

    Args:
        bands: shape (1 or 3, height, width), any number type, masked or not.
        limits: (black, white) of each band; what lies beyond is cut.
    """
    channels = []
    for band, (low, high) in zip(bands, limits, strict=True):
        values, counted = _counted(band)
        scaled = np.clip((np.where(counted, values, low) - low) / ((high - low) or 1.0), 0, 1)
        channels.append(np.where(counted, np.round(scaled * EIGHT_BIT), 0).astype(np.uint8))
    return np.stack(channels * (3 if len(channels) == 1 else 1), axis=-1)


def choose_bands(count: int, requested: tuple[int, ...] = ()) -> tuple[int, ...]:
    """Which bands, counted from 1, become red, green and blue: those requested, else the first three, or a single one.

    Raises:
        InputError: not one or three, or the scene has fewer bands.
    """
    chosen = requested or ((1, 2, 3) if count >= 3 else (1,))
    if len(chosen) not in (1, 3):
        raise InputError(f"{len(chosen)} bands", "--bands", "one (grey) or three (red, green, blue)")
    if not all(1 <= band <= count for band in chosen):
        raise InputError(f"bands {', '.join(map(str, chosen))} of a scene with {count}", "--bands", "counted from 1")
    return chosen


def _percentiles(values: Pixels, low: float, high: float) -> tuple[float, float]:
    plain, counted = _counted(values)
    if not counted.any():
        return 0.0, 1.0
    black, white = np.percentile(plain[counted], [low, high])
    return float(black), float(white)


def _counted(values: Pixels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """The values, and which of them are neither masked nor infinite nor NaN."""
    plain = np.asarray(np.ma.getdata(values), np.float64)  # type: ignore[no-untyped-call]
    masked = np.broadcast_to(np.ma.getmaskarray(values), plain.shape)  # type: ignore[no-untyped-call]
    return plain, np.isfinite(plain) & ~masked
