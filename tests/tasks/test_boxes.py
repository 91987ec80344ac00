"""Boxes between pixels and a model's numbers: what rounding costs, and what two boxes have in common."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import InputError
from geozero.corpus.sample import Box, Sample
from geozero.tasks import get
from geozero.tasks.boxes import (
    CONVENTIONS,
    RESIZE_FACTOR,
    RESIZE_MAX_PIXELS,
    RESIZE_MIN_PIXELS,
    Convention,
    format_box,
    frame,
    from_model,
    iou,
    parse_box,
    smart_resize,
    to_model,
)

sides = st.integers(8, 5_000)


@st.composite
def boxes_in_images(draw: Any) -> tuple[Box, int, int]:
    width, height = draw(sides), draw(sides)
    x1, x2 = sorted(draw(st.lists(st.floats(0, width), min_size=2, max_size=2, unique=True)))
    y1, y2 = sorted(draw(st.lists(st.floats(0, height), min_size=2, max_size=2, unique=True)))
    return (x1, y1, x2, y2), width, height


def random_box(rng: random.Random) -> tuple[Box, int, int]:
    width, height = rng.randint(32, 4_000), rng.randint(32, 4_000)
    while True:
        x1, x2 = sorted((rng.uniform(0, width), rng.uniform(0, width)))
        y1, y2 = sorted((rng.uniform(0, height), rng.uniform(0, height)))
        if rng.random() < 0.5:  # half of them on whole pixels, as annotations are
            x1, y1, x2, y2 = map(round, (x1, y1, x2, y2))
        if x1 < x2 and y1 < y2:
            return (float(x1), float(y1), float(x2), float(y2)), width, height


def check_conversion(box: Box, width: int, height: int, convention: Convention) -> None:
    """Rounding costs half a unit of the convention at most, there and back."""
    written = to_model(box, width, height, convention)
    frames = frame(convention, width, height) * 2
    for value, unit, back, side, whole in zip(
        box, written, from_model(written, width, height, convention), (width, height) * 2, frames, strict=True
    ):
        step = 0.001 if convention == "norm1" else 1
        assert isinstance(unit, int if step == 1 else float) and 0 <= unit <= whole
        assert abs(value / side * whole - unit) <= 0.5 * step + 1e-9
        assert abs(value - back) <= 0.5 * step * side / whole + 1e-9


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_ten_thousand_boxes_lose_half_a_unit_at_most(convention: Convention) -> None:
    rng = random.Random(2511)
    for _ in range(10_000):
        check_conversion(*random_box(rng), convention)


@given(boxes_in_images(), st.sampled_from(CONVENTIONS))
def test_no_box_loses_more_than_half_a_unit(case: tuple[Box, int, int], convention: Convention) -> None:
    _, width, height = case
    if convention != "resized28" or max(width, height) <= 200 * min(width, height):
        check_conversion(*case, convention)


@pytest.mark.parametrize(
    ("convention", "written"),
    [
        ("norm1000", (125, 417, 312, 542)),  # the example of geozero/tasks/grounding.py
        ("norm100", (12, 42, 31, 54)),
        ("pixels", (12, 40, 30, 52)),
        ("resized28", (10, 35, 26, 46)),  # 96 becomes 84
        ("norm1", (0.125, 0.417, 0.312, 0.542)),
        ("norm1024", (128, 427, 320, 555)),
    ],
)
def test_one_box_in_every_convention(convention: Convention, written: tuple[int, ...]) -> None:
    assert to_model((12, 40, 30, 52), 96, 96, convention) == written


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("mode", ["direct", "tagged"])
def test_what_is_taught_is_rewarded(convention: Convention, mode: Any) -> None:
    """The reward of a target falls short of 1 by no more than rounding every edge costs."""
    rng, task = random.Random(7), get("grounding")
    for _ in range(500):
        box, width, height = random_box(rng)
        sample = Sample("1", "grounding", "s", "train", "i", "k", "q", "a", box=box, width=width, height=height)
        target = task.target(sample, convention)
        text = target if mode == "direct" else f"I see it. <answer>{target}</answer>"
        frames = frame(convention, width, height)
        w, h = (box[k + 2] - box[k] for k in range(2))
        step = 0.001 if convention == "norm1" else 1
        dx, dy = (step * side / whole for side, whole in zip((width, height), frames, strict=True))
        worst = max(0, w - dx) * max(0, h - dy) / ((w + dx) * (h + dy))
        assert task.reward(text, sample, mode, convention) >= worst - 1e-9
        if worst > 0.5:
            assert task.succeeds(task.reward(text, sample, mode, convention))


def test_conventions_are_not_mixed_up() -> None:
    sample = Sample("1", "grounding", "s", "train", "i", "k", "q", "a", box=(10, 10, 30, 30), width=800, height=800)
    target = get("grounding").target(sample, "norm1000")
    right = {c for c in CONVENTIONS if get("grounding").reward(target, sample, "direct", c) > 0.5}
    assert right == {"norm1000", "norm1024"}  # which differ by 2.4 % of a coordinate


def test_an_unknown_convention_is_named() -> None:
    with pytest.raises(InputError, match=r"unknown coordinate convention 'norm' \(one of norm1000, pixels, "):
        frame("norm", 10, 10)  # type: ignore[arg-type]


# --- the published resize ---------------------------------------------------------------------------------


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_the_resized_frame(width: int, height: int) -> None:
    if max(width, height) > 200 * min(width, height):
        with pytest.raises(ValueError, match="aspect ratio"):
            smart_resize(width, height)
        return
    new = smart_resize(width, height)
    assert all(side >= RESIZE_FACTOR and side % RESIZE_FACTOR == 0 for side in new)
    assert RESIZE_MIN_PIXELS <= new[0] * new[1] <= RESIZE_MAX_PIXELS


@pytest.mark.parametrize(
    ("size", "new"),
    [((800, 800), (812, 812)), ((256, 256), (252, 252)), ((20, 20), (56, 56)), ((600, 400), (588, 392))],
)
def test_sizes_after_the_resize(size: tuple[int, int], new: tuple[int, int]) -> None:
    assert smart_resize(*size) == new


# --- text and overlap -------------------------------------------------------------------------------------


@given(st.tuples(*[st.floats(-9_999, 9_999)] * 4))
def test_a_written_box_is_read_again(box: Box) -> None:
    again = parse_box(format_box(box))
    assert again is not None
    assert max(abs(value - read) for value, read in zip(box, again, strict=True)) < 0.0051


def test_how_boxes_are_written() -> None:
    assert format_box((1, 2.0, 3.5, 4.129)) == "[1, 2, 3.5, 4.13]"
    assert format_box((0.001, 123_456, 1_234_567.4, 99_999)) == "[0, 123456, 1234567, 99999]"


small = st.tuples(*[st.integers(-3, 9)] * 4)


@given(small, small)
def test_iou_counts_common_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    def pixels(box: tuple[int, ...]) -> set[tuple[int, int]]:
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    together = pixels(a) | pixels(b)
    plain = len(pixels(a) & pixels(b)) / len(together) if pixels(a) and pixels(b) else 0.0
    assert iou(a, b) == iou(b, a) == pytest.approx(plain, abs=1e-12)


def test_iou_at_the_edges() -> None:
    assert iou((0, 0, 2, 2), (0, 0, 2, 2)) == 1
    assert iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0  # they touch
    assert iou((2, 2, 0, 0), (2, 2, 0, 0)) == 0  # corners the wrong way round are no box
    assert iou((0, 0, 1e308, 1e308), (0, 0, 1, 1)) == 0 and not math.isnan(iou((-1e308, 0, 1e308, 9), (0, 0, 1, 1)))
