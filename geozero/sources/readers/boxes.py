"""Boxes as annotations write them: four numbers, or Pascal VOC's XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Box

EDGES = ("xmin", "ymin", "xmax", "ymax")
_SIDES = ({"w", "h"}, {"width", "height"})  # tags of a box that is no pair of corners
_MOST_DIGITS = 9
_ENOUGH = 20  # boxes from which on their form shows [ours]


def four_numbers(values: Any, not_finite: str = "box_not_finite") -> Box:
    """Four finite numbers of a box, in whatever form.

    Args:
        not_finite: the reason that an infinite number is refused with.

    Raises:
        BadRecord: not a list of four numbers, or one is infinite, no number, or beyond any float.
    """
    if not isinstance(values, Sequence) or len(values) != 4 or not all(type(v) in (int, float) for v in values):
        raise BadRecord("box_malformed", str(values)[:80])
    try:
        a, b, c, d = map(float, values)
    except OverflowError:
        raise BadRecord(not_finite, "a number of several hundred digits") from None
    if not all(map(math.isfinite, (a, b, c, d))):
        raise BadRecord(not_finite, str(values)[:80])
    return a, b, c, d


def from_corner(values: Any) -> Box:
    """x, y, width, height as xyxy.

    Raises:
        BadRecord: as `four_numbers`, or a box without an area.
    """
    x, y, width, height = four_numbers(values, "box_malformed")
    if min(width, height) <= 0:
        raise BadRecord("box_degenerate", str(values)[:80])
    return x, y, x + width, y + height


class CornerSigns:
    """Whether boxes that are read as x, y, width, height are the corners x1, y1, x2, y2: then the second pair of
    numbers exceeds the first in every box, and some of the boxes, read so, reach out of their images."""

    def __init__(self) -> None:
        self._boxes, self._outside, self._sides = 0, 0, False

    def add(self, values: Sequence[float], size: tuple[float, float]) -> None:
        """Count a box as it is written, in an image of this width and height."""
        x, y, width, height = values
        self._boxes += 1
        self._sides |= width <= x or height <= y
        self._outside += x + width > size[0] * 1.01 or y + height > size[1] * 1.01

    def found(self) -> bool:
        return self._boxes >= _ENOUGH and not self._sides and self._outside > 0


def voc_box(box: Element) -> Box:
    """The edges of a `<bndbox>`, xyxy in pixels, by tag or, without these tags, by position.

    Raises:
        BadRecord: an edge is missing or no finite number.
    """
    texts = [box.findtext(edge) for edge in EDGES]
    tags = {str(edge.tag).lower() for edge in box}
    if None in texts and any(sides <= tags for sides in _SIDES):
        raise BadRecord("box_malformed", f"corners expected, found {', '.join(sorted(tags))}"[:80])
    if None in texts and len(box) == len(EDGES):
        texts = [edge.text for edge in box]
    try:
        return four_numbers([float(text or "") for text in texts])
    except ValueError:
        raise BadRecord("box_malformed", str(texts)[:80]) from None


def voc_size(annotation: Element) -> tuple[int, int] | None:
    """Width and height of the image that the boxes were drawn on; None where the annotation does not state them."""
    wide, high = (whole_number(annotation.findtext(f"size/{side}")) for side in ("width", "height"))
    return (wide, high) if wide and high else None


def whole_number(text: str | None) -> int | None:
    """A number from 0 on as digits (`800`, `800.0`), None for any other text."""
    digits = (text or "").strip().removesuffix(".0")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) <= _MOST_DIGITS else None
