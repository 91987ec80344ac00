"""Boxes in text: the forms that public models write, what is none, and properties of the grammar."""

from __future__ import annotations

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.corpus.sample import Sample
from geozero.evaluation.evaluate import evaluate
from geozero.tasks import get
from geozero.tasks.box_text import parse_box, parse_box_list, read_box_text
from geozero.tasks.boxes import from_model, parse_boxes

BOX = (100.0, 150.0, 500.0, 650.0)
FORMS = {
    "plain": "[100, 150, 500, 650]",
    "no spaces": "[100,150,500,650]",
    "Qwen2.5/3-VL": '[{"bbox_2d": [100, 150, 500, 650], "label": "ship"}]',
    "Qwen, fenced": '```json\n[\n\t{"bbox_2d": [100, 150, 500, 650], "label": "ship 2"}\n]\n```',
    "Qwen, label first": '{"label": "T-72", "bbox_2d": [100, 150, 500, 650]}',
    "Qwen, other keys": '{"bbox_2d": [100, 150, 500, 650], "point_2d": [300, 300], "confidence": 0.9, "id": 7}',
    "Qwen, cut in the label": '[{"bbox_2d": [100, 150, 500, 650], "lab',
    "Qwen2-VL": "<|box_start|>(100,150),(500,650)<|box_end|>",
    "Qwen2-VL, cut": "<|box_start|>(100,150),(500,650)",
    "Qwen2-VL, with its reference": "<|object_ref_start|>ship 2<|object_ref_end|>"
    "<|box_start|>(100,150),(500,650)<|box_end|>",
    "Qwen-VL": "<ref>the 3 ships</ref><box>(100,150),(500,650)</box>",
    "Qwen2-VL without special tokens": "(100,150),(500,650)",
    "DeepSeek-VL2": "<|ref|>ship [1]<|/ref|><|det|>[[100, 150, 500, 650]]<|/det|>",
    "GLM-4.5V": "The ship 2 is at <|begin_of_box|>[[100,150,500,650]]<|end_of_box|>.",
    "MiniCPM-V": "<ref>ship 2</ref><box>100 150 500 650</box>",
    "InternVL": "<ref>ship 2</ref><box>[[100, 150, 500, 650]]</box>",
    "GeoChat": "{<100><150><500><650>|<0>}",
    "GeoChat, rotated": "<p>ship 7</p> {<100><150><500><650>|<45>}",
    "VRSBench": "{<100><150><500><650>}",
    "VRSBench without braces": "<100><150><500><650>",
    "VRSBench, escaped": "{&lt;100&gt;&lt;150&gt;&lt;500&gt;&lt;650&gt;}",
    "PaliGemma": "<loc0150><loc0100><loc0650><loc0500> ship",
    "Florence-2": "ship<loc_100><loc_150><loc_500><loc_650>",
    "names": "x1=100, y1=150, x2=500, y2=650",
    "names in brackets": "[x1=100, y1=150, x2=500, y2=650]",
    "names, min and max": "xmin: 100, xmax: 500, ymin: 150, ymax: 650",
    "names as JSON": '{"x_min": 100, "y_min": 150, "x_max": 500, "y_max": 650}',
    "names, point by point": "top left (x1: 100, y1: 150), bottom right (x2: 500, y2: 650)",
    "names as tags": "<x1>100</x1><y1>150</y1><x2>500</x2><y2>650</y2>",
    "names as attributes": '<box x1="100" y1="150" x2="500" y2="650"/>',
    "names, line by line": "- xmin: 100\n- ymin: 150\n- xmax: 500\n- ymax: 650\n",
    "edges": "left=100, top=150, right=500, bottom=650",
    "corner and size": '{"x": 100, "y": 150, "width": 400, "height": 500}',
    "corners as JSON": '{"top_left": [100, 150], "bottom_right": [500, 650]}',
    "a call": "Box(x1=100, y1=150, x2=500, y2=650)",
    "names before a list": "[x1, y1, x2, y2] = [100, 150, 500, 650]",
    "names before numbers": "x1, y1, x2, y2 = 100, 150, 500, 650",
    "in a sentence": "The ship is at [100,150,500,650].",
    "with a reference": "[100, 150, 500, 650] (see [1])",
    "numbered": "1. object [2] at [100, 150, 500, 650]",
    "twice": "[100, 150, 500, 650] or maybe [100, 150, 500, 650]",
    "parentheses": "(100, 150, 500, 650)",
    "two points": "[100, 150], [500, 650]",
    "two points in a list": "[[100, 150], [500, 650]]",
    "points in words": "from the top left (100, 150) to the bottom right (500, 650)",
    "nested": "[[[100, 150, 500, 650]]]",
    "bare": "100 150 500 650",
    "bare in a sentence": "The box is 100, 150, 500, 650.",
    "bare after a label": "ship 2: 100, 150, 500, 650",
    "label with a number": "[ship 2, 100, 150, 500, 650]",
    "label in the list": '["T-72", 100, 150, 500, 650]',
    "label as key": '{"red ship 3": [100, 150, 500, 650]}',
    "Python": "{'bbox': [100, 150, 500, 650], 'label': 'ship 2'}",
    "quoted numbers": '{"bbox": ["100", "150", "500", "650"]}',
    "a quoted list": '{"bbox": "[100, 150, 500, 650]"}',
    "deep in an object": '{"objects": [{"class": "ship", "box": {"coordinates": [100, 150, 500, 650]}}]}',
    "width and height by name": '{"bbox_xywh": [100, 150, 400, 500]}',
    "units": "[100px, 150 px, 500 pixels, 650px]",
    "per cent": "100%, 150%, 500%, 650%",
    "exponents": "[1e2, 1.5E+2, 5.0e2, 650.]",
    "dashes": "[100-150-500-650]",
    "semicolons": "[100; 150; 500; 650]",
    "Markdown": "**[100, 150, 500, 650]**",
    "TeX": "\\boxed{[100, 150, 500, 650]}",
    "other tags": "<bbox>100 150 500 650</bbox>",
    "size of the image": "In this 512x512 image: [100, 150, 500, 650]",
    "an apostrophe": "the ship's box is [100, 150, 500, 650], it's large",
    "inches": 'a 5" gun at [100, 150, 500, 650] and a 6" gun',
    "Chinese": "左上角(100,150),右下角(500,650)",
    "angle brackets": "<100, 150, 500, 650>",
    "leading zeros": "[[0100,0150,0500,0650]]",
    "full width": "（１００，１５０），（500，650）",
    "Gemini, y first": '```json\n[{"box_2d": [150, 100, 650, 500], "label": "ship 2"}]\n```',
    "Gemini, nested": '{"box_2d": [[150, 100, 650, 500]]}',
    "Gemini, Markdown": "- **box_2d**: [150, 100, 650, 500]",
    "Gemini, code": "`box_2d`: [150, 100, 650, 500]",
    "ranges by named axis": "X-axis: [100, 500]; Y-axis: [150, 650]",
    "ranges across and down": "horizontal: [100, 500], vertical: [150, 650]",
    "size by a word": "bbox (xywh): [100, 150, 400, 500]",
    "COCO": "In COCO format: [100, 150, 400, 500]",
    "Detectron": '{"bbox_mode": "XYWH_ABS", "bbox": [100, 150, 400, 500]}',
    "centre by its head": "(x_center, y_center, width, height): (300, 400, 400, 500)",
    "YOLO by name": "YOLO format: 300 400 400 500",
    "lower left first": "lower left (100, 650) and upper right (500, 150)",
    "points with their heads": "Upper-left corner (x, y): (100, 150)\nLower-right corner (x, y): (500, 650)",
    "size of the image as a point": "The image (1000, 1000) has a ship at (100, 150), (500, 650)",
    "Gemini, quoted": '{"label": "ship", "box_2d": "[150, 100, 650, 500]"}',
    "y first by its key": '{"bbox_yxyx": [150, 100, 650, 500]}',
    "y first by its head": "[ymin, xmin, ymax, xmax]: [150, 100, 650, 500]",
    "y first by the head after it": "[150, 100, 650, 500] as (y1, x1, y2, x2)",
    "top, left, bottom, right": "[top, left, bottom, right] = [150, 100, 650, 500]",
    "x first, then y": "(x1, x2, y1, y2) = (100, 500, 150, 650)",
    "size by its head": "(x, y, w, h) = (100, 150, 400, 500)",
    "size by its format": '{"bbox": [100, 150, 400, 500], "format": "xywh"}',
    "centre by its key": '{"bbox_cxcywh": [300, 400, 400, 500]}',
    "a table, y first": "| | ymin | xmin | ymax | xmax |\n|---|---|---|---|---|\n| ship | 150 | 100 | 650 | 500 |",
    "a table": "| label | x1 | y1 | x2 | y2 |\n|---|---|---|---|---|\n| ship | 100 | 150 | 500 | 650 |",
    "a table of names": "| Name | |\n|---|---|\n| x_min | 100 |\n| y_min | 150 |\n| x_max | 500 |\n| y_max | 650 |",
    "ranges by axis": "x: [100, 500], y: [150, 650]",
    "ranges by axis as JSON": '{"y_range": [150, 650], "x_range": [100, 500]}',
    "other corners": '{"top_right": [500, 150], "bottom_left": [100, 650]}',
    "bottom right first": "bottom right (500, 650), top left (100, 150)",
    "MiniCPM-V with its quad": "<box>100 150 500 650</box><quad>1 2 3 4 5 6 7 8</quad>",
    "CogVLM": "a ship [[100,150,500,650]] beside 2 docks",
    "SkySenseGPT": "<rbox>({<100><150><500><650>|<30>})</rbox>",
    "XML": "<bndbox><xmin>100</xmin><ymin>150</ymin><xmax>500</xmax><ymax>650</ymax></bndbox>",
    "YAML": "bbox:\n  - 100\n  - 150\n  - 500\n  - 650",
    "lenticular brackets": "\u3010100\uff0c150\uff0c500\uff0c650\u3011",
    "Arabic digits": "[\u0661\u0660\u0660, \u0661\u0665\u0660, \u0665\u0660\u0660, \u0666\u0665\u0660]",
    "NumPy": "array([[100., 150., 500., 650.]])",
    "LaTeX brackets": r"\left[100, 150, 500, 650\right]",
    "a hedge and a tolerance": "approximately [~100, ~150, ~500, ~650] (± 5 px)",
    "a date before it": "Captured on 2023-05-14: [100, 150, 500, 650]",
    "closing tag alone": "[100, 150, 500, 650]</answer>",
}
NONE = {
    "empty": "",
    "words": "the ship",
    "a count": "There are 3 ships",
    "three numbers": "[1, 2, 3]",
    "five numbers": "[1, 2, 3, 4, 5]",
    "two boxes": "[1, 2, 3, 4] or [5, 6, 7, 8]",
    "cut in a number": "[100, 150, 500, 65",
    "cut in a named number": '{"x1": 100, "y1": 150, "x2": 500, "y2": 65',
    "cut before the end": '[{"bbox_2d": [100, 150, 500',
    "a polygon": "[[1, 2], [3, 4], [5, 6], [7, 8]]",
    "a point": '{"point_2d": [1, 2], "label": "3 4"}',
    "no numbers": "[1.2.3, 4, 5, a]",
    "too large": "[" + "9" * 400 + ", 1, 2, 3]",
    "Molmo's points": '<points x1="10" y1="15" x2="50" y2="65" alt="ships">ships</points>',
    "one point of Molmo": '<point x="10.5" y="15.2" alt="ship 3">ship 3</point>',
    "points in tags": "<point>(1, 2)</point><point>(3, 4)</point>",
    "a quad": "<quad>(100,150),(500,150),(500,650),(100,650)</quad>",
    "a flat polygon": '{"polygon": [100, 150, 500, 150, 500, 650, 100, 650]}',
    "GeoJSON": '{"type": "Polygon", "coordinates": [[[1, 2], [3, 2], [3, 4], [1, 4], [1, 2]]]}',
    "corner points of a quad": '{"points": [{"x": 1, "y": 2}, {"x": 3, "y": 2}, {"x": 3, "y": 4}, {"x": 1, "y": 4}]}',
    "a box and its angle": "<rbox>[[100, 150, 500, 650, 30]]</rbox>",
    "ranges without names": "[100-500, 150-650]",
    "ranges in words": "[100 to 500, 150 to 650]",
    "centre and size as points": "center (300, 400), size (400, 500)",
    "centre and a corner": "The center is [300, 400] and the corner is [100, 150]",
    "keypoints": "keypoints (100, 150) and (500, 650)",
    "a line": "a line from (100,150) to (500,650)",
    "a slice": "image[150:650, 100:500]",
    "a tolerance in each number": "[100±5, 150±5, 500±5, 650±5]",
    "decimal commas": "[0,1; 0,15; 0,5; 0,65]",
    "thousands": "[1,000, 1,500, 5,000, 6,500]",
    "two scales": "[0.1, 0.15, 0.5, 0.65], in pixels [100, 150, 500, 650]",
    "cut after three places": "<loc_100><loc_150><loc_500>",
    "null": '{"bbox_2d": null}',
    "not a number": "[NaN, 150, 500, 650]",
    "YOLO": "0 0.3 0.4 0.4 0.5",
    "a grid of cells": "<patch_index_0044><patch_index_0863>",
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_is_read(name: str) -> None:
    assert parse_box(FORMS[name]) == BOX
    assert parse_boxes([FORMS[name]])[0].tolist() == [list(BOX)]


@pytest.mark.parametrize("name", NONE)
def test_what_names_no_box_or_several(name: str) -> None:
    assert parse_box(NONE[name]) is None
    assert not parse_boxes([NONE[name]])[1].any()


@pytest.mark.parametrize("name", FORMS)
def test_score_reward_and_detection_read_the_same(name: str) -> None:
    """In every task and convention the right box of every form scores 1."""
    for convention, scale in (("norm1000", 1.0), ("pixels", 1.0), ("norm1024", 1000 / 1024)):
        truth = [v * scale for v in BOX]
        sample = Sample("1", "grounding", "s", "train", "i", "k", "q", "a", box=tuple(truth), width=1000, height=1000)  # type: ignore[arg-type]
        assert get("grounding").reward(FORMS[name], sample, "direct", convention) == pytest.approx(1)  # type: ignore[arg-type]
        row = {"raw_output": FORMS[name], "label": str(truth), "width": 1000, "height": 1000}
        found = evaluate("grounding", "strict", [row], boxes=convention, resamples=5)
        assert found["metrics"]["mean_iou"] == pytest.approx(1) and found["notes"] == []
    if name != "twice":  # of a list of objects, the second one is an object too many
        assert parse_box_list(FORMS[name]) == [BOX]


def test_fractions_are_a_convention_of_their_own() -> None:
    row = {"raw_output": "[0.1, 0.15, 0.5, 0.65]", "label": "[100, 150, 500, 650]", "width": 1000, "height": 1000}
    found = evaluate("grounding", "strict", [row] * 20, boxes="norm1", resamples=5)
    assert found["metrics"]["mean_iou"] == pytest.approx(1)
    wrong = evaluate("grounding", "strict", [row] * 20, resamples=5)
    assert wrong["metrics"]["mean_iou"] < 0.1 and "fit far better as norm1 " in wrong["notes"][0]
    sample = Sample("1", "grounding", "s", "train", "i", "k", "q", "a", box=(10, 20, 33, 40), width=90, height=60)
    assert get("grounding").target(sample, "norm1") == "[0.111, 0.333, 0.367, 0.667]"


def test_what_cannot_be_read_is_counted_and_noted() -> None:
    good = {"raw_output": "[100, 150, 500, 650]", "label": "[100, 150, 500, 650]", "width": 1000, "height": 1000}
    bad = [good | {"raw_output": text} for text in ("somewhere", "", "[1, 2, 3, 4] [5, 6, 7, 8]")]
    found = evaluate("grounding", "strict", [good] * 50 + bad, resamples=5)
    assert found["metrics"]["n_unparsable_pred"] == 3
    assert found["notes"] == [
        "3 of 53 answers hold no box that can be read and count as wrong (1 name several boxes, 1 are empty), "
        "the first: 'somewhere'"
    ]
    assert evaluate("grounding", "strict", [good] * 50 + bad[:1], resamples=5)["notes"] == []


def test_labels_may_be_lists_or_have_a_form_of_their_own() -> None:
    for label in ([100, 150, 500, 650], [[100, 150, 500, 650]], FORMS["Qwen2.5/3-VL"], {"bbox": [100, 150, 500, 650]}):
        row = {"raw_output": FORMS["plain"], "label": label, "width": 1000, "height": 1000}
        assert evaluate("grounding", "strict", [row], resamples=5)["metrics"]["acc@0.5"] == 1, label
        assert evaluate("detection", "strict", [row], resamples=5)["metrics"]["f1"] == 1, label


# --- properties -------------------------------------------------------------------------------------------

numbers = st.one_of(
    st.integers(-2000, 2000).map(str), st.decimals(-2000, 2000, places=3, allow_nan=False).map("{:f}".format)
)
four = st.lists(numbers, min_size=4, max_size=4)
words = st.lists(st.sampled_from(["the", "ship", "T-72", "bbox_2d", "2nd", "B52", "it's", "-", ",", "3D"]), max_size=5)
labels = st.text(st.characters(codec="ascii", exclude_characters='"\\', categories=["L", "N", "Zs"]), max_size=12)
writers = st.sampled_from(
    [
        lambda n, label: f"[{', '.join(n)}]",
        lambda n, label: json.dumps([{"label": label, "bbox_2d": [float(v) for v in n]}]),
        lambda n, label: f"<ref>{label}</ref><box>[[{', '.join(n)}]]</box>",
        lambda n, label: f"<|box_start|>({n[0]},{n[1]}),({n[2]},{n[3]})<|box_end|>",
        lambda n, label: "{" + "".join(f"<{v}>" for v in n) + "|<3>}",
        lambda n, label: f"({n[0]}, {n[1]}), ({n[2]}, {n[3]})",
        lambda n, label: ", ".join(f"{name}={v}" for name, v in zip(("x1", "y1", "x2", "y2"), n, strict=True)),
    ]
)


@given(four, labels, words, words, writers)
def test_a_written_box_is_read_whatever_stands_around_it(
    values: list[str], label: str, before: list[str], after: list[str], write: object
) -> None:
    text = " ".join([*before, write(values, label), *after])  # type: ignore[operator]
    assert parse_box(text) == tuple(float(v) for v in values)


@given(st.lists(four, min_size=1, max_size=5), labels)
def test_a_list_of_objects_is_read_in_its_order(boxes: list[list[str]], label: str) -> None:
    expected = [tuple(float(v) for v in box) for box in boxes]
    rows = [{"bbox_2d": [float(v) for v in box], "label": label} for box in boxes]
    assert parse_box_list(json.dumps(rows)) == expected
    assert parse_box_list(json.dumps(rows, indent=2)) == expected
    assert parse_box_list(str([list(box) for box in expected])) == expected


@given(st.lists(four, min_size=1, max_size=4), st.data())
def test_a_list_that_breaks_off_holds_its_whole_boxes(boxes: list[list[str]], data: st.DataObject) -> None:
    pieces = [f'{{"bbox_2d": [{", ".join(box)}]' for box in boxes]
    text = "[" + ', "label": "ship 2"}, '.join(pieces)
    cut = data.draw(st.integers(len("[" + pieces[0]), len(text)))
    whole = [tuple(float(v) for v in box) for box in boxes]
    found = read_box_text(text[:cut]).boxes
    assert found == whole[: len(found)] and len(found) >= 1


pieces = [*"[](){}<>|\"',:;=-.0159e% \n\\/", "box", "</box>", "<box>", "<ref>", "x1", "<loc0001>", "bbox_2d"]


@given(st.lists(st.sampled_from(pieces), max_size=30).map("".join))
def test_no_text_is_too_odd(text: str) -> None:
    found = read_box_text(text)
    assert all(len(box) == 4 for box in found.boxes)


@pytest.mark.parametrize(
    "piece",
    [
        "[",
        "(",
        "<box>",
        "<ref>",
        '"',
        '"\\',
        "'a ",
        "9",
        "1 ",
        "x1=1,",
        "a-",
        "<1>",
        "{'",
        "format ",
        "top ",
        "x,",
        "<point ",
    ],
)
def test_time_is_linear(piece: str) -> None:
    started = time.process_time()
    parse_box(piece * (200_000 // len(piece)))
    assert time.process_time() - started < 4


def test_pixels_do_not_depend_on_the_form() -> None:
    assert from_model(BOX, 500, 200) == (50, 30, 250, 130)
