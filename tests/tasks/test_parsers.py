"""The parsers that reward and score share: answers, normalisation, boxes one by one and by the column."""

from __future__ import annotations

import math
import re
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.tasks.boxes import (
    CONVENTIONS,
    Convention,
    bracketed,
    from_model,
    from_model_rows,
    iou,
    iou_rows,
    parse_box,
    parse_boxes,
    published_boxes,
)
from geozero.tasks.text import extract_answer, normalise, same_answer

BLOCK = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
PIECES = ["<answer>", "</answer>", " ", "\n", "a", "<ANSWER>", "<answer", "é", "[1]"]
BOX_PIECES = ["[", "]", ".", "-", "+", "1", "23", "4.5", ".5", "5.", " ", ", ", "e", "٥", "７", "\n", "-0"]
BOX_PIECES += ["[1, 2, 3, 4]", "12345678901234567890", "9" * 400]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("", ""),
        (" yes \n", "yes"),
        ("so <answer> yes </answer> or <answer>no</answer>", "yes"),
        ("<answer></answer><answer> \n</answer> x <answer>no</answer>", "no"),
        ("I look. <answer></answer>", ""),
        ("<answer><answer>park</answer></answer>", "<answer>park"),
        ("I will use <answer> tags. <answer>park</answer>", "tags. <answer>park"),
        ("<ANSWER>park</ANSWER>", "<ANSWER>park</ANSWER>"),
        ("<answer>park", "<answer>park"),
        ("</answer>park<answer>", "</answer>park<answer>"),
    ],
)
def test_extract_answer(text: str, answer: str) -> None:
    assert extract_answer(text) == answer


@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join))
def test_extract_answer_is_the_published_expression(text: str) -> None:
    blocks = [block.strip() for block in BLOCK.findall(text)]
    assert extract_answer(text) == (next(filter(None, blocks), "") if blocks else text.strip())


@pytest.mark.parametrize("text", ["<answer>", "</answer>", "<answer></answer>", "<answer> "])
def test_extract_answer_takes_a_second_at_most_on_ten_megabytes(text: str) -> None:
    start = time.process_time()
    extract_answer(text * (10_000_000 // len(text)))
    assert time.process_time() - start < 5  # the published expression would take hours


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" Dense-Residential. ", "denseresidential"),
        ("airport .", "airport "),
        ("a - b", "a b"),
        ("a\t\n b", "a b"),
        ("under_score", "under_score"),
        ("Café。", "café"),
    ],
)
def test_normalise(text: str, normal: str) -> None:
    assert normalise(text) == normal


@given(st.text())
def test_normalise_twice_is_normalise_once(text: str) -> None:
    once = normalise(text).strip()
    assert normalise(once).strip() == once


def test_an_empty_answer_is_never_right() -> None:
    assert not same_answer("...", "---")
    assert same_answer("Airport .", "airport")


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("[1, 2, 3, 4]", (1, 2, 3, 4)),
        ("[.5, +1, -2.25, 3.]", (0.5, 1, -2.25, 3)),
        ("[50-60-350-360]", (50, -60, -350, -360)),
        ("[1e2, 3, 4]", (1, 2, 3, 4)),
        ("[1.2.3, 4, 5]", (1.2, 0.3, 4, 5)),
        ("[[1, 2, 3, 4]]", (1, 2, 3, 4)),
        ("[٥٠, ٦٠, 350, 360]", (50, 60, 350, 360)),
        ("box [1]: [1, 2, 3, 4]", None),
        ("(1, 2, 3, 4)", None),
        ("1, 2, 3, 45", None),
        ("]1, 2, 3, 4[", None),
        ("[1, 2, 3]", None),
        ("", None),
        ("[" + "9" * 400 + ", 1, 2, 3]", None),
    ],
)
def test_the_published_rule(text: str, box: tuple[float, ...] | None) -> None:
    values, parsed = published_boxes([text, "x", text])
    if box is None:
        assert not (parsed & np.isfinite(values).all(axis=1)).any()
    else:
        assert values[0].tolist() == values[2].tolist() == list(box)
        assert parsed.tolist() == [True, False, True]


@given(st.lists(st.lists(st.sampled_from(BOX_PIECES), max_size=12).map("".join), max_size=20))
def test_published_boxes_is_the_pattern_on_every_row(texts: list[str]) -> None:
    values, parsed = published_boxes(texts)
    for text, row, good in zip(texts, values.tolist(), parsed.tolist(), strict=True):
        numbers = [float(n) for n in re.findall(r"[-+]?\d*\.?\d+", bracketed(text))]
        assert good == (len(numbers) == 4)
        if good:
            assert [(v, math.copysign(1, v)) for v in row] == [(v, math.copysign(1, v)) for v in numbers]


@given(st.lists(st.decimals(-10_000, 10_000, places=9).map("{:f}".format), min_size=4, max_size=4))
def test_decimals_are_read_to_the_last_bit(numbers: list[str]) -> None:
    values, _ = parse_boxes([f"[{', '.join(numbers)}]"])
    assert tuple(values[0]) == parse_box(f"[{', '.join(numbers)}]")


boxes = st.tuples(*[st.floats(-2000, 2000) for _ in range(4)])
sizes = st.tuples(st.integers(10, 2000), st.integers(10, 2000))


@given(st.lists(st.tuples(boxes, boxes, sizes), min_size=1, max_size=8), st.sampled_from(CONVENTIONS))
def test_rows_equal_single_boxes(rows: list[tuple[Any, Any, tuple[int, int]]], name: Convention) -> None:
    a, b, size = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    pixels, overlap = from_model_rows(a, size, name), iou_rows(a, b)
    for k, (box, other, (width, height)) in enumerate(rows):
        assert pixels[k].tolist() == list(from_model(box, width, height, name))
        assert overlap[k] == iou(box, other)


def test_a_image_without_a_frame_gives_nan() -> None:
    box = np.array([[1.0, 2.0, 3.0, 4.0]])
    assert np.isnan(from_model_rows(box, np.array([[2000.0, 9.0]]), "resized28")).all()
    assert np.isnan(from_model_rows(box, np.array([[0.0, 9.0]]), "norm1000")).all()
    assert from_model_rows(box, np.array([[0.0, 0.0]]), "pixels").tolist() == box.tolist()
