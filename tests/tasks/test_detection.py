"""Detection: lists of boxes in text, one-to-one matching beside brute force, and scores worked by hand."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Sample
from geozero.evaluation.evaluate import evaluate
from geozero.tasks import get, validate
from geozero.tasks.boxes import CONVENTIONS, Convention, format_boxes, iou, parse_box_list
from geozero.tasks.detection import f1, matches

TASK = get("detection")
TWO = "[[10, 10, 30, 30], [50, 50, 90, 90]]"


def make(answer: str = TWO, **more: Any) -> Sample:
    return Sample("1", "detection", "s", "train", "i", "k", "Find every ship.", answer, width=100, height=100, **more)


# --- text -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "boxes"),
    [
        ("[]", []),
        ("There are none: [ ]", []),
        ("[[]]", []),
        ("[1, 2, 3, 4]", [(1, 2, 3, 4)]),
        ("[[1, 2, 3, 4], [5,6,7,8.5]]", [(1, 2, 3, 4), (5, 6, 7, 8.5)]),
        ("[1,2,3,4] and [5,6,7,8]", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "ship 7"}]', [(1, 2, 3, 4)]),
        ("[[1, 2, 3, 4], [5, 6", [(1, 2, 3, 4)]),
        ("[[1, 2, 3, 4], [5, 6]]", None),
        ("[1, 2, 3, 4, 5, 6, 7, 8]", None),
        ("[ship]", None),
        ("none", None),
        ("1, 2, 3, 4", [(1, 2, 3, 4)]),
        ("1, 2, 3, 4\n5, 6, 7, 8", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("<ref>ships</ref><box>[[1, 2, 3, 4], [5, 6, 7, 8]]</box>", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        ("{<1><2><3><4>|<0>}<delim>{<5><6><7><8>|<9>}", [(1, 2, 3, 4), (5, 6, 7, 8)]),
        (
            "<|box_start|>(1,2),(3,4)<|box_end|><|box_start|>(5,6),(7,8)<|box_end|>",
            [(1, 2, 3, 4), (5, 6, 7, 8)],
        ),
        ("```json\n[]\n```", []),
        ("[" + "9" * 400 + ", 1, 2, 3]", None),
        ("", None),
    ],
)
def test_lists_of_boxes(text: str, boxes: list[tuple[float, ...]] | None) -> None:
    assert parse_box_list(text) == boxes


corners = st.tuples(*[st.integers(0, 99)] * 4)
lists = st.lists(corners, max_size=6)


@given(lists)
def test_a_written_list_is_read_again(boxes: list[tuple[int, ...]]) -> None:
    assert parse_box_list(format_boxes(boxes)) == boxes


def test_a_text_of_bare_brackets_is_read_in_no_time() -> None:
    assert parse_box_list("[" * 1_000_000) is None
    assert parse_box_list("[]" * 100_000) == []


# --- matching and reward ----------------------------------------------------------------------------------


def plain_matches(a: list[tuple[int, ...]], b: list[tuple[int, ...]]) -> int:
    """The best of all one-to-one pairings, one by one."""
    few, many = sorted((a, b), key=len)
    pairings = permutations(range(len(many)), len(few))
    return max(sum(iou(box, many[k]) >= 0.5 for box, k in zip(few, chosen, strict=True)) for chosen in pairings)


near = st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(8, 12), st.integers(8, 12))


@given(st.lists(near, max_size=4), st.lists(near, max_size=4))
def test_matching_is_the_best_there_is(a: list[tuple[int, ...]], b: list[tuple[int, ...]]) -> None:
    left, right = (np.array(boxes, dtype=float).reshape(-1, 4) for boxes in (a, b))
    assert matches(left, right) == matches(right, left) == plain_matches(a, b)
    assert f1(left, right) == (2 * plain_matches(a, b) / (len(a) + len(b)) if a or b else 1.0)


def test_a_greedy_matching_would_find_less() -> None:
    """The first prediction fits the second truth best, but only it fits the first at all."""
    true = np.array([[0, 0, 10, 10], [4, 0, 14, 10]], dtype=float)
    predicted = np.array([[3, 0, 13, 10], [5, 0, 15, 10]], dtype=float)
    assert iou(predicted[0], true[1]) > iou(predicted[0], true[0]) >= 0.5 > iou(predicted[1], true[0])
    assert matches(predicted, true) == 2


@pytest.mark.parametrize(
    ("answer", "reward"),
    [
        (TWO, 1),
        ("[[50, 50, 90, 90], [10, 10, 30, 30]]", 1),
        ("[[10, 10, 30, 30]]", 2 / 3),
        ("[[10, 10, 30, 30], [10, 10, 30, 30]]", 1 / 2),  # a box counts once
        ("[[10, 10, 30, 30], [50, 50, 90, 90], [1, 1, 2, 2]]", 4 / 5),
        ("[[30, 30, 10, 10], [50, 50, 90, 90]]", 1 / 2),  # corners the wrong way round
        ("[]", 0),
        ("two ships", 0),
    ],
)
def test_what_a_list_earns(answer: str, reward: float) -> None:
    assert TASK.reward(answer, make(), "direct", "pixels") == pytest.approx(reward)
    assert TASK.reward(f"I look. <answer>{answer}</answer>", make(), "tagged", "pixels") == pytest.approx(reward)
    assert TASK.succeeds(TASK.reward(answer, make(), "direct", "pixels")) is (reward >= 0.5)


@pytest.mark.parametrize(("answer", "reward"), [("[]", 1), ("[[1, 2, 30, 40]]", 0), ("none", 0), ("", 0)])
def test_where_there_is_nothing_no_boxes_are_right(answer: str, reward: float) -> None:
    assert TASK.reward(answer, make("[]"), "direct") == reward
    assert TASK.target(validate(make("[]"))) == "[]"


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_what_is_taught_is_right(convention: Convention) -> None:
    assert TASK.reward(TASK.target(make(), convention), make(), "direct", convention) == 1
    assert TASK.shown_truth(make(), convention) == TASK.target(make(), convention)


def test_the_stored_answer_has_one_order() -> None:
    boxes = [(50.0, 50.0, 90.0, 90.0), (30.126, 10.0, 40.0, 20.0), (10.0, 10.0, 30.0, 30.0)]
    assert TASK.truth("", (), boxes) == ("[[10, 10, 30, 30], [30.13, 10, 40, 20], [50, 50, 90, 90]]", None)
    assert TASK.truth("[]", (), []) == ("[]", None)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("two ships", "boxes_unreadable"),
        ("[[1, 2, 101, 9]]", "box_outside_image"),
        ("[[5, 5, 5, 9]]", "box_degenerate"),
    ],
)
def test_a_sample_with_a_bad_box_is_refused(answer: str, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        validate(make(answer))


# --- scores -----------------------------------------------------------------------------------------------


def record(text: str, label: str = TWO, kind: str = "ship", **more: Any) -> dict[str, Any]:
    return {"raw_output": text, "label": label, "question_type": kind, "width": 100, "height": 100, **more}


ROWS = [
    record("<answer>[[100, 100, 300, 300], [0, 0, 50, 50]]</answer>"),  # one of two found, one invented
    record("[]", "[]", "car"),
    record("[[500, 500, 900, 900]]", "[]", "car"),
    record("no idea", "[[10, 10, 30, 30]]", "car"),
    record("[]", "broken"),
]


def test_strict_scores() -> None:
    found = evaluate("detection", "strict", ROWS, resamples=20)
    assert found["metrics"] == {
        "precision": pytest.approx(1 / 3),
        "recall": pytest.approx(1 / 3),
        "f1": pytest.approx(2 / 6),
        "AP_nc": pytest.approx(1 / 9),
        "mean_f1": pytest.approx((1 / 2 + 1 + 0 + 0) / 4),
        "mAP_nc": pytest.approx((1 / 4 + 0) / 2),
        "n_evaluated": 4,
        "n_invalid_gt": 1,
        "n_unparsable_pred": 1,
        "n_boxes_pred": 3,
        "n_boxes_gt": 3,
    }
    assert found["boxes"] == "norm1000" and found["mAP_nc"] == pytest.approx((1 / 4 + 0) / 2)
    assert found["groups"]["question_type"]["car"]["metrics"]["recall"] == 0
    assert found["groups"]["question_type"]["ship"]["metrics"]["AP_nc"] == pytest.approx(1 / 4)


def test_ap_without_confidences_is_the_area_of_one_point() -> None:
    """All-point interpolation over predictions of one confidence, which enter the curve together."""
    rows = [record("[[100, 100, 300, 300], [1, 1, 2, 2], [3, 3, 5, 5]]"), record("[[500, 500, 900, 900]]")]
    metrics = evaluate("detection", "strict", rows, resamples=20)["metrics"]
    assert (metrics["precision"], metrics["recall"]) == (0.5, 0.5) and metrics["AP_nc"] == 0.25
    assert evaluate("detection", "strict", [record("[]")], resamples=20)["metrics"]["AP_nc"] == 0


def test_a_convention_that_fits_far_better_is_named() -> None:
    found = evaluate("detection", "strict", [record(TWO)] * 3, resamples=20)
    assert found["diagnosis"]["conventions"]["pixels"]["f1"] == 1 and "--boxes pixels" in found["notes"][0]
    assert evaluate("detection", "strict", [record(TWO)] * 3, boxes="pixels", resamples=20)["notes"] == []


def test_a_record_without_its_image_size_is_wrong_and_listed() -> None:
    found = evaluate("detection", "strict", [record(TWO, width=0)], resamples=20)
    assert found["metrics"]["f1"] == 0 and found["problems"]["reasons"] == {"image_size_missing": 1}


def test_several_lists_vote_for_the_one_in_the_middle() -> None:
    texts = ["[[100, 100, 300, 300], [500, 500, 900, 900]]", "[[100, 100, 300, 310], [510, 500, 900, 900]]", "[]"]
    rows = [record(text, id=f"q/{i}", sample="q") for i, text in enumerate(texts)]
    found = evaluate("detection", "strict", rows, resamples=20)["self_consistency"]
    assert found["vote"]["value"] == 1 and found["pass_at_k"]["1"]["value"] == pytest.approx(2 / 3)


def test_the_published_script_does_not_know_it() -> None:
    with pytest.raises(InputError, match="the published script does not know detection"):
        evaluate("detection", "official", ROWS)
