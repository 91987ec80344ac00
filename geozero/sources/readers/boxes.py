"""Boxes as annotations write them: four numbers, or Pascal VOC's XML."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import Element

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Box

EDGES = ("xmin", "ymin", "xmax", "ymax")
_MOST_DIGITS = 9


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


def voc_box(box: Element) -> Box:
    """The edges of a `<bndbox>`, xyxy in pixels, by tag or, without these tags, by position.

    Raises:
        BadRecord: an edge is missing or no finite number.
    """
    texts = [box.findtext(edge) for edge in EDGES]
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
