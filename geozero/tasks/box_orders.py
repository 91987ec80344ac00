"""What four numbers of a box are: the corners in one of several orders, or a corner or the centre and the size."""

from __future__ import annotations

import re
from collections.abc import Sequence

from geozero.corpus.sample import Box

CORNERS = (
    ("x0", "y0", "x1", "y1"),
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
SIZES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_ORDERS = (  # that the name of a list may state; Gemini's `box_2d` begins with y
    ("cxcywh", ("cx", "cy", "w", "h")),
    ("xywh", ("x", "y", "w", "h")),
    ("yxyx", ("y1", "x1", "y2", "x2")),
    ("box2d", ("y1", "x1", "y2", "x2")),  # not in "bbox2d"
)
_STYLES = {"coco": "xywh", "yolo": "cxcywh"}
_STATED = re.compile(  # "format": "xywh"; COCO format; [ymin, xmin, ymax, xmax]; | x1 | y1 | x2 | y2 |
    r"(?<![a-z])(?P<key>cxcywh|xywh|yxyx)(?![a-z])|\b(?P<style>coco|yolo)(?=[ -](?:format|style))|(?<![\w-])"
    + r"['\"`*]{0,2}\s?[,;|]\s?['\"`*]{0,2}".join(
        [
            r"([xy]_?(?:min|max|[0-2])?|left|top|right|bottom|w(?:idth)?|h(?:eight)?|c_?[xy]|[xy]_?c(?:ent(?:er|re))?"
            r"|cent(?:er|re)_?[xy])"
        ]
        * 4
    )
    + r"(?![\w-])",
    re.IGNORECASE,
)
_HINT = re.compile(r"ywh|yxyx|coco|yolo|[|,;]['\"`* ]{0,3}(?:[xy]|left|top|w|h|c)", re.IGNORECASE)
_SCHEMES = (
    *[(scheme, CORNERS[1]) for scheme in CORNERS],
    *[(scheme, ("x", "y", "w", "h")) for scheme in SIZES],
    (("cx", "cy", "w", "h"), ("cx", "cy", "w", "h")),
    (("cx", "cy", "width", "height"), ("cx", "cy", "w", "h")),
)


def corners_of(numbers: Sequence[float], order: Sequence[str]) -> Box:
    """Four numbers in an order that `order_of` or `stated_order` found as x1, y1, x2, y2."""
    named = dict(zip(order, numbers, strict=True))
    if "cx" in named:
        (x, y), (w, h) = (named["cx"], named["cy"]), (named["w"], named["h"])
        return x - w / 2, y - h / 2, x + w / 2, y + h / 2
    if "w" in named:
        return named["x"], named["y"], named["x"] + named["w"], named["y"] + named["h"]
    return named["x1"], named["y1"], named["x2"], named["y2"]


def order_of(key: str) -> tuple[str, ...]:
    """The order that a key states, if any; Qwen's `bbox_2d` is x1, y1, x2, y2."""
    return next((names for name, names in _ORDERS if name in key and f"b{name}" not in key), ())


def stated_order(text: str) -> tuple[str, ...]:
    """The order of four numbers that a text states, x1, y1, x2, y2 where it states none; the last one counts."""
    order: tuple[str, ...] = CORNERS[1]
    if not _HINT.search(text):  # most texts, ten times as fast
        return order
    for match in _STATED.finditer(text):
        if match["key"] or match["style"]:
            order = dict(_ORDERS)[(match["key"] or _STYLES[match["style"].lower()]).lower()]
            continue
        names = [_centre(plain_name(name)) for name in match.groups()[2:]]
        for scheme, standard in _SCHEMES:
            if sorted(names) == sorted(scheme):
                order = tuple(standard[scheme.index(name)] for name in names)
    return order


def _centre(name: str) -> str:
    """`xcenter` and the like as `cx`."""
    short = name.replace("center", "c").replace("centre", "c")
    return {"xc": "cx", "yc": "cy"}.get(short, short)


def plain_name(text: str) -> str:
    """A key without case, spaces, dashes and underscores."""
    return "".join(c for c in text.lower() if c.isalnum())
