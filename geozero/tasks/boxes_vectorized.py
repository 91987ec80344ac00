"""Boxes by the hundred thousand: the rules of `boxes` on arrays, row for row the same results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from geozero.tasks.boxes import NUMBER, RESIZE_MAX_RATIO, Convention, bracketed, frame

CHUNK = 16_384  # texts that are read at once
MAX_DIGITS = 15  # so many digits are an exact float, and dividing it by a power of ten rounds as `float` does

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


def parse_boxes(texts: Sequence[str]) -> tuple[Floats, Bools]:
    """`parse_box` of many texts: values (n, 4), NaN where unparsable, and which texts hold four numbers (n,).

    A number too large for a float is infinite here and still counts as a number, as the published rules have it.
    """
    values = np.full((len(texts), 4), np.nan)
    spans = texts
    if not (all(map(str.startswith, texts, repeat("["))) and all(map(str.endswith, texts, repeat("]")))):
        spans = [bracketed(text) for text in texts]
    for k in range(0, len(spans), CHUNK):
        _parse_spans(spans[k : k + CHUNK], values[k : k + CHUNK])
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
