"""Boxes: parse them from text, convert between a model's convention and pixels, compare them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from geozero.common.errors import InputError
from geozero.corpus.sample import Box

Convention = Literal["norm1000", "pixels", "resized28", "norm100"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

# Our choice of when another convention "fits far better": so much more, and so many times as much.
FAR_BETTER = (0.10, 1.5)
RESIZE_FACTOR = 28
RESIZE_MIN_PIXELS = 4 * RESIZE_FACTOR**2
RESIZE_MAX_PIXELS = 16_384 * RESIZE_FACTOR**2
RESIZE_MAX_RATIO = 200

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
NUMBER = re.compile(r"[-+]?\d*\.?\d+")  # the published pattern: `.5` and `+5` are numbers, `1e5` is two of them


def parse_box(text: str) -> Box | None:
    """Four numbers between the first `[` and the last `]`; None where there are not exactly four finite ones."""
    numbers = NUMBER.findall(bracketed(text))
    if len(numbers) != 4:
        return None
    x1, y1, x2, y2 = (float(n) for n in numbers)
    return (x1, y1, x2, y2) if all(math.isfinite(v) for v in (x1, y1, x2, y2)) else None


def bracketed(text: str) -> str:
    """From the first `[` to the last `]`; empty where there is no such span."""
    start, end = text.find("["), text.rfind("]")
    return text[start : end + 1] if 0 <= start < end else ""


def parse_box_list(text: str) -> list[Box] | None:
    """Every `[x1, y1, x2, y2]` of a text, in its order; none for `[]`.

    None where the text has no brackets, or where innermost brackets hold something else than nothing or four finite
    numbers. Of a list that breaks off, the boxes before the break count.
    """
    groups = _INNERMOST.findall(text)
    boxes = [parse_box(f"[{group}]") for group in groups if group.strip()]
    found = [box for box in boxes if box is not None]
    return found if groups and len(found) == len(boxes) else None


def format_boxes(boxes: Sequence[Sequence[float]]) -> str:
    """`[[x1, y1, x2, y2], …]`, `[]` for none."""
    return "[" + ", ".join(map(format_box, boxes)) + "]"


def format_box(box: Sequence[float]) -> str:
    """`[x1, y1, x2, y2]`; whole numbers without a decimal point, others with at most two decimals."""
    return "[" + ", ".join(f"{round(v, 2):g}" if abs(v) < 1e5 else str(round(v)) for v in box) + "]"


def smart_resize(width: float, height: float) -> tuple[int, int]:
    """Width and height after the published resize to multiples of 28 (METHOD, official protocol).

    Raises:
        ValueError: the sides' ratio is above 200.
    """
    if max(width, height) / min(width, height) > RESIZE_MAX_RATIO:
        raise ValueError(
            f"absolute aspect ratio must be smaller than {RESIZE_MAX_RATIO}, "
            f"got {max(width, height) / min(width, height)}"
        )
    new_h = max(RESIZE_FACTOR, round(height / RESIZE_FACTOR) * RESIZE_FACTOR)
    new_w = max(RESIZE_FACTOR, round(width / RESIZE_FACTOR) * RESIZE_FACTOR)
    if new_h * new_w > RESIZE_MAX_PIXELS:
        scale = math.sqrt(height * width / RESIZE_MAX_PIXELS)
        new_h = max(RESIZE_FACTOR, math.floor(height / scale / RESIZE_FACTOR) * RESIZE_FACTOR)
        new_w = max(RESIZE_FACTOR, math.floor(width / scale / RESIZE_FACTOR) * RESIZE_FACTOR)
    elif new_h * new_w < RESIZE_MIN_PIXELS:
        scale = math.sqrt(RESIZE_MIN_PIXELS / (height * width))
        new_h = math.ceil(height * scale / RESIZE_FACTOR) * RESIZE_FACTOR
        new_w = math.ceil(width * scale / RESIZE_FACTOR) * RESIZE_FACTOR
    return new_w, new_h


def frame(convention: Convention, width: float, height: float) -> tuple[float, float]:
    """The width and height in which a model of this convention writes its coordinates."""
    if convention == "norm1000":
        return 1000.0, 1000.0
    if convention == "norm100":
        return 100.0, 100.0
    if convention == "pixels":
        return float(width), float(height)
    if convention == "resized28":
        new_w, new_h = smart_resize(width, height)
        return float(new_w), float(new_h)
    raise InputError(f"unknown coordinate convention '{convention}'", hint=f"one of {', '.join(CONVENTIONS)}")


def to_model(box: Box, width: int, height: int, convention: Convention = "norm1000") -> tuple[int, int, int, int]:
    """Pixels to the integers a model writes; at most half a unit of the convention is lost per coordinate."""
    frame_w, frame_h = frame(convention, width, height)
    x1, y1, x2, y2 = box
    return (
        round(x1 / width * frame_w),
        round(y1 / height * frame_h),
        round(x2 / width * frame_w),
        round(y2 / height * frame_h),
    )


def from_model(box: Sequence[float], width: int, height: int, convention: Convention = "norm1000") -> Box:
    """What a model wrote to pixels, neither rounded nor clipped (METHOD, strict).

    Relative conventions are read as `x / 1000 * width`, the resized frame as `x * width / frame`: the order of the
    operations decides boxes whose IoU is exactly one half, and the golden values were computed so.
    """
    frame_w, frame_h = frame(convention, width, height)
    x1, y1, x2, y2 = box
    if convention == "pixels":
        return (x1, y1, x2, y2)
    if convention == "resized28":
        return (x1 * width / frame_w, y1 * height / frame_h, x2 * width / frame_w, y2 * height / frame_h)
    return (x1 / frame_w * width, y1 / frame_h * height, x2 / frame_w * width, y2 / frame_h * height)


def better_convention(rates: Mapping[Convention, Mapping[str, float]], boxes: Convention) -> list[str]:
    """A note where predictions fit far better in another convention than in `boxes`, by the first metric of each
    convention's `rates`. Never a choice."""
    metric = next(iter(rates[boxes]))
    best = max(rates, key=lambda name: tuple(rates[name].values()))
    ours, theirs = rates[boxes][metric], rates[best][metric]
    if theirs - ours < FAR_BETTER[0] or theirs < FAR_BETTER[1] * ours:
        return []
    return [
        f"the predicted boxes fit far better as {best} ({metric} {theirs:.3f}) than as {boxes} ({ours:.3f}); "
        f"if the model writes {best}, score it under strict with --boxes {best}"
    ]


def is_degenerate(box: Sequence[float]) -> bool:
    return box[2] <= box[0] or box[3] <= box[1]


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union of two xyxy boxes in one frame; 0 where either is degenerate."""
    if is_degenerate(a) or is_degenerate(b):
        return 0.0
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    overlap = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union
