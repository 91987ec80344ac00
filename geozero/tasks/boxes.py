"""Boxes: convert between a model's convention and pixels, compare them, read and write them, singly and by column."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import repeat
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from geozero.common.errors import InputError
from geozero.corpus.sample import Box
from geozero.metrics.scores import Bools, Floats
from geozero.tasks.box_text import parse_box as parse_box
from geozero.tasks.box_text import parse_box_list as parse_box_list
from geozero.tasks.box_text import read_box_text

Ints = NDArray[np.int64]
Convention = Literal["norm1000", "pixels", "resized28", "norm100", "norm1", "norm1024"]
CONVENTIONS: tuple[Convention, ...] = get_args(Convention)

FULL = {"norm1000": 1000.0, "norm100": 100.0, "norm1": 1.0, "norm1024": 1024.0}  # what the image's whole side is
UNIT_DIGITS = 3  # decimals of a coordinate that is a fraction of its side

# Our choice of when another convention "fits far better": so much more, and so many times as much.
FAR_BETTER = (0.10, 1.5)
UNREAD_SHARE = 0.03  # of the answers; where more cannot be read, the result says so
RESIZE_FACTOR = 28
RESIZE_MIN_PIXELS = 4 * RESIZE_FACTOR**2
RESIZE_MAX_PIXELS = 16_384 * RESIZE_FACTOR**2
RESIZE_MAX_RATIO = 200

CHUNK = 16_384  # texts that are read at once
MAX_DIGITS = 15  # so many digits are an exact float, and dividing it by a power of ten rounds as `float` does

_PLAIN = re.compile(r"\[-?\d{1,9}+(?:\.\d{1,5}+)?(?:, ?-?\d{1,9}+(?:\.\d{1,5}+)?){3}\]", re.ASCII)
_IN_NUMBERS = b"0123456789.- "
NUMBER = re.compile(r"[-+]?\d*\.?\d+")  # the published pattern: `.5` and `+5` are numbers, `1e5` is two of them


def bracketed(text: str) -> str:
    """From the first `[` to the last `]`; empty where there is no such span."""
    start, end = text.find("["), text.rfind("]")
    return text[start : end + 1] if 0 <= start < end else ""


def format_boxes(boxes: Sequence[Sequence[float]]) -> str:
    """`[[x1, y1, x2, y2], …]`, `[]` for none."""
    return "[" + ", ".join(map(format_box, boxes)) + "]"


def format_box(box: Sequence[float]) -> str:
    """`[x1, y1, x2, y2]`; whole numbers without a point, others with at most two decimals, fractions with three."""
    digits = UNIT_DIGITS if all(0 <= v <= 1 for v in box) else 2
    return "[" + ", ".join(f"{round(v, digits):g}" if abs(v) < 1e5 else str(round(v)) for v in box) + "]"


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
    if convention in FULL:
        return FULL[convention], FULL[convention]
    if convention == "pixels":
        return float(width), float(height)
    if convention == "resized28":
        new_w, new_h = smart_resize(width, height)
        return float(new_w), float(new_h)
    raise InputError(f"unknown coordinate convention '{convention}'", hint=f"one of {', '.join(CONVENTIONS)}")


def to_model(
    box: Box, width: int, height: int, convention: Convention = "norm1000"
) -> tuple[float, float, float, float]:
    """Pixels to what a model writes, at most half a unit away per coordinate: whole numbers, or fractions of a side."""
    digits = UNIT_DIGITS if convention == "norm1" else None
    frame_w, frame_h = frame(convention, width, height)
    x1, y1, x2, y2 = box
    return (
        round(x1 / width * frame_w, digits),
        round(y1 / height * frame_h, digits),
        round(x2 / width * frame_w, digits),
        round(y2 / height * frame_h, digits),
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


def unread_notes(unread: Sequence[str], n: int) -> list[str]:
    """A note where more than a few percent of n answers hold no box that can be read; `unread` are these answers."""
    if len(unread) <= UNREAD_SHARE * n:
        return []
    several = sum(len(set(read_box_text(text).boxes)) > 1 for text in unread)
    empty = sum(not text.strip() for text in unread)
    reasons = [f"{count} {what}" for count, what in ((several, "name several boxes"), (empty, "are empty")) if count]
    first = next((f", the first: {text.strip()[:80]!r}" for text in unread if text.strip()), "")
    listed = f" ({', '.join(reasons)})" if reasons else ""
    return [f"{len(unread)} of {n} answers hold no box that can be read and count as wrong{listed}{first}"]


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


# --- by column: the same rules on arrays, row for row the same results ------------------------------------


def published_boxes(texts: Sequence[str]) -> tuple[Floats, Bools]:
    """The published rule on many texts: four numbers between the first `[` and the last `]`.

    Returns:
        Values (n, 4), NaN where there are not exactly four, and which texts have them (n,).

    A number too large for a float is infinite here and still counts as a number, as the published rules have it.
    """
    values = np.full((len(texts), 4), np.nan)
    spans = texts
    if not (all(map(str.startswith, texts, repeat("["))) and all(map(str.endswith, texts, repeat("]")))):
        spans = [bracketed(text) for text in texts]
    for k in range(0, len(spans), CHUNK):
        _parse_spans(spans[k : k + CHUNK], values[k : k + CHUNK])
    return values, ~np.isnan(values[:, 0])


def parse_boxes(texts: Sequence[str]) -> tuple[Floats, Bools]:
    """`parse_box` of many texts: values (n, 4), NaN where there is no box, and which texts hold one (n,).

    A plain `[x1, y1, x2, y2]`, as a trained model answers, means the same under the published rule, which is faster.
    """
    joined = "".join(texts)
    if joined.isascii() and joined.encode().translate(None, _IN_NUMBERS) == b"[,,,]" * len(texts):
        values, found = published_boxes(texts)
        if np.isfinite(values).all():
            return values, found
    other = [i for i, match in enumerate(map(_PLAIN.fullmatch, texts)) if match is None]
    plain = np.ones(len(texts), dtype=bool)
    plain[other] = False
    values, read = np.full((len(texts), 4), np.nan), cache(parse_box)
    values[plain] = published_boxes([texts[i] for i in np.flatnonzero(plain).tolist()])[0]
    for i in other:
        if (box := read(texts[i])) is not None:
            values[i] = box
    return values, ~np.isnan(values[:, 0])


def from_model_rows(boxes: Floats, sizes: Floats, convention: Convention = "norm1000") -> Floats:
    """`from_model` of boxes (n, 4) in images of sizes (n, 2) as width, height; NaN where a size has no frame.

    An image has no frame where its size is not positive, or its sides' ratio is above 200 under `resized28`.
    """
    if convention == "pixels":
        return boxes
    unique, _, inverse = distinct_sizes(sizes[:, 0], sizes[:, 1])
    frames = np.full((len(unique), 2), np.nan)
    for k, (width, height) in enumerate(unique):
        usable = width > 0 and height > 0
        if usable and (convention != "resized28" or max(width, height) / min(width, height) <= RESIZE_MAX_RATIO):
            frames[k] = frame(convention, width, height)
    frame_rows, size_rows = np.tile(frames[inverse], 2), np.tile(sizes, 2)
    with np.errstate(all="ignore"):
        pixels: Floats = boxes * size_rows / frame_rows if convention == "resized28" else boxes / frame_rows * size_rows
    return pixels


def distinct_sizes(
    width: Floats, height: Floats
) -> tuple[list[tuple[float, float]], NDArray[np.intp], NDArray[np.intp]]:
    """The distinct image sizes of (n,) widths and heights, where each comes first, and each row's number (n,)."""
    keys, first, inverse = np.unique(width + 1j * height, return_index=True, return_inverse=True)
    return list(zip(keys.real.tolist(), keys.imag.tolist(), strict=True)), first, inverse


def iou_rows(a: Floats, b: Floats) -> Floats:
    """`iou` of boxes row by row: (n, 4) and (n, 4) to (n,), the same operations in the same order."""
    with np.errstate(all="ignore"):  # infinite coordinates give NaN, which no threshold passes
        width = np.minimum(a[:, 2], b[:, 2]) - np.maximum(a[:, 0], b[:, 0])
        height = np.minimum(a[:, 3], b[:, 3]) - np.maximum(a[:, 1], b[:, 1])
        overlap = width * height
        union = (a[:, 2] - a[:, 0]) * (a[:, 3] - a[:, 1]) + (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) - overlap
        return np.where((width > 0) & (height > 0), overlap / union, 0.0)


def iou_matrix(a: Floats, b: Floats) -> Floats:
    """`iou` of every two boxes: (n, 4) and (m, 4) to (n, m); 0 where a coordinate is NaN or infinite."""
    pairs = iou_rows(np.repeat(a, len(b), axis=0), np.tile(b, (len(a), 1)))
    return np.nan_to_num(pairs.reshape(len(a), len(b)))


def medoid(likeness: Floats) -> tuple[float, int]:
    """Of n answers that are alike (n, n) in [0, 1]: the mean over all pairs, and the answer most like the others."""
    others = np.where(np.eye(len(likeness), dtype=bool), 0.0, likeness)
    near = others.sum(axis=1) / max(1, len(likeness) - 1)
    return min(1.0, float(near.mean())), int(near.argmax())


def _parse_spans(spans: Sequence[str], values: Floats) -> None:
    """Fill `values` (n, 4) from bracketed spans.

    In ASCII a number of the pattern is a run of digits with at most one point, negative where a `-` touches it. The
    few spans with anything else (other scripts' digits, two points in a run, many digits) go to the pattern itself.
    """
    odd = np.zeros(len(spans), dtype=bool)
    joined = "".join(spans)
    if not joined.isascii():
        odd = np.array([not span.isascii() for span in spans])
        joined = "".join(span if span.isascii() else "[]".ljust(len(span)) for span in spans)
    data = np.frombuffer(joined.encode("ascii"), dtype=np.uint8)
    digits, point = data - np.uint8(ord("0")), data == ord(".")
    edges = np.flatnonzero(np.diff((digits < 10) | point)) + 1  # never at the ends, where the brackets are
    starts, lengths = edges[::2], edges[1::2] - edges[::2]
    negative = data[starts - 1] == ord("-")
    bounds = np.cumsum(np.fromiter(map(len, spans), np.int64, len(spans)))
    counts = np.diff(np.searchsorted(starts, bounds), prepend=0)
    if not odd.any() and not point.any() and (counts == 4).all() and lengths.max(initial=0) <= MAX_DIGITS:
        values[:] = _read_runs(digits, starts, lengths, negative).reshape(
            -1, 4
        )  # whole numbers only: what models write
        return
    owner = np.repeat(np.arange(len(spans)), counts)
    points = np.flatnonzero(point)
    run_of_point = np.searchsorted(starts, points, side="right") - 1
    n_points = np.bincount(run_of_point, minlength=len(starts))
    decimals = np.zeros(len(starts), dtype=np.int64)
    decimals[run_of_point] = (starts + lengths - 1)[run_of_point] - points
    n_digits = lengths - n_points
    odd[owner[(n_points > 1) | (n_digits > MAX_DIGITS)]] = True
    boxed = (np.bincount(owner[n_digits > 0], minlength=len(spans)) == 4) & ~odd
    chosen = np.flatnonzero((n_digits > 0) & boxed[owner])
    whole = _read_runs(digits, starts[chosen], lengths[chosen], negative[chosen])
    values[boxed] = (whole / 10.0 ** decimals[chosen]).reshape(-1, 4)
    for i in np.flatnonzero(odd).tolist():
        numbers = NUMBER.findall(spans[i])
        if len(numbers) == 4:
            values[i] = [float(text) for text in numbers]


def _read_runs(digits: NDArray[np.uint8], starts: Ints, lengths: Ints, negative: Bools) -> Floats:
    """Runs of digits (values up to 9; anything else is a point and skipped) as signed whole numbers (n,)."""
    whole = digits[starts].astype(np.int64)
    whole[whole > 9] = 0
    for k in range(1, int(lengths.max(initial=0))):
        live = np.flatnonzero(lengths > k)
        digit = digits[starts[live] + k]
        live, digit = live[digit < 10], digit[digit < 10]
        whole[live] = whole[live] * 10 + digit
    return np.where(negative, -whole.astype(np.float64), whole)
