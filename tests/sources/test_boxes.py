"""Boxes as annotations write them: four finite numbers, or a reason."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
from fixtures.make_own_data import coco

from geozero.common.errors import BadRecord
from geozero.sources import Rejected, get, open_tree
from geozero.sources.readers.boxes import four_numbers, from_corner, voc_box, voc_size, whole_number
from geozero.sources.readers.conversations import box_in

HUGE = 10**400


@pytest.mark.parametrize("values", [[1, 2, 3.5, 4], (1, 2, 3.5, 4)])
def test_four_numbers(values: Any) -> None:
    assert four_numbers(values) == (1.0, 2.0, 3.5, 4.0) and from_corner(values) == (1.0, 2.0, 4.5, 6.0)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([1, 2, 3], "box_malformed"),
        ([1, 2, 3, "4"], "box_malformed"),
        ([True, 2, 3, 4], "box_malformed"),
        ({}, "box_malformed"),
        ("1234", "box_malformed"),
        ([1, 2, 3, math.nan], "box_not_finite"),
        ([1, 2, 3, math.inf], "box_not_finite"),
        ([1, 2, 3, HUGE], "box_not_finite"),
        ([1, 2, 3, -HUGE], "box_not_finite"),
    ],
)
def test_what_are_no_four_numbers(values: Any, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        four_numbers(values)
    with pytest.raises(BadRecord, match="box_malformed"):
        from_corner(values)


def test_numbers_of_several_hundred_digits_cost_their_record(tmp_path: Path) -> None:
    coco(tmp_path)
    path = tmp_path / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = HUGE
    path.write_text(json.dumps(content))
    with open_tree(tmp_path) as tree:
        rejects = [item for item in get("coco").records(tree) if isinstance(item, Rejected)]
    assert ("annotations/instances_val.json/annotations[0]", "box_malformed") in [(r.key, r.reason) for r in rejects]
    with pytest.raises(BadRecord, match=r"box_not_finite|box_missing"):
        box_in("{<" + "9" * 401 + "><1><2><3>}", (64, 64), "norm100", clamp=True)


def test_vocs_boxes_by_tag_and_by_place() -> None:
    by_tag = "<b><ymin>2</ymin><xmin>1</xmin><ymax>4</ymax><xmax>3.5</xmax></b>"
    assert (
        voc_box(fromstring(by_tag))
        == (1, 2, 3.5, 4)
        == voc_box(fromstring("<b><a>1</a><a>2</a><a>3.5</a><a>4</a></b>"))
    )
    for text in ("<b/>", "<b><xmin>1</xmin></b>", by_tag.replace("3.5", "3,5"), by_tag.replace("3.5", "9" * 401)):
        with pytest.raises(BadRecord, match=r"box_malformed|box_not_finite"):
            voc_box(fromstring(text))


@pytest.mark.parametrize(
    ("width", "size"), [("800", (800, 600)), (" 800.0 ", (800, 600)), ("0", None), ("", None), ("9" * 5_000, None)]
)
def test_the_size_that_an_annotation_states(width: str, size: tuple[int, int] | None) -> None:
    assert voc_size(fromstring(f"<a><size><width>{width}</width><height>600</height></size></a>")) == size


@pytest.mark.parametrize("text", [None, "", "-1", "1.5", "²", "1e3", "0x1"])
def test_what_is_no_whole_number(text: str | None) -> None:
    assert whole_number(text) is None
