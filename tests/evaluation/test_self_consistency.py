"""Several answers to one question, worked by hand: pass@k, the vote, agreement against accuracy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from geozero.evaluation.evaluate import evaluate
from geozero.evaluation.self_consistency import abstention


def answers(question: str, texts: list[str], label: str, **more: Any) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{question}/{i}",
            "sample": question,
            "raw_output": text,
            "label": label,
            "image_path": question,
            **more,
        }
        for i, text in enumerate(texts)
    ]


def test_pass_at_k_the_vote_and_calibration() -> None:
    rows = [
        *answers("a", ["Yes", "yes.", "no", "yes"], "yes"),  # 3 of 4 right, the vote is right with 3/4
        *answers("b", ["no", "no", "no", "<answer></answer>"], "yes"),  # 0 of 4, the vote is wrong with 3/4
        *answers("c", ["1", "2", "2", "1"], "1"),  # 2 of 4; of two equally common ones the first wins: right with 1/2
    ]
    found = evaluate("vqa", "strict", rows)["self_consistency"]
    assert (found["n_questions"], found["k"]) == (3, [4, 4])
    passes = {k: value["value"] for k, value in found["pass_at_k"].items()}
    assert passes == {
        "1": pytest.approx((3 / 4 + 0 + 2 / 4) / 3),
        "2": pytest.approx((1 + 0 + 1 - 1 / 6) / 3),
        "4": pytest.approx(2 / 3),
    }
    assert passes["1"] == evaluate("vqa", "strict", rows)["metrics"]["accuracy"]
    assert found["vote"]["value"] == pytest.approx(2 / 3) and found["vote"]["n"] == 3
    bins = [(b["n"], b["confidence"], b["accuracy"]) for b in found["calibration"]["bins"]]
    assert bins == [(1, 0.5, 1.0), (2, 0.75, 0.5)]
    assert found["calibration"]["expected_calibration_error"] == pytest.approx((0.5 + 2 * 0.25) / 3)


def test_abstaining_keeps_the_risk() -> None:
    """Where 8 of 8 agree the vote is right; where 4 do it is right every other time."""
    agreement = np.repeat([1.0, 0.5], [100, 100])
    right = np.concatenate([np.ones(100), np.arange(100) % 2])
    found = abstention(agreement, right, None)
    assert (found["agreement"], found["answered"]["value"], found["wrong"]["value"]) == (1.0, 0.5, 0.0)
    assert found["wrong"]["interval"][1] < found["risk"] == 0.1
    assert abstention(agreement, np.ones(200), None)["answered"]["value"] == 1.0
    never = abstention(agreement, np.zeros(200), None)
    assert never["agreement"] is None and never["answered"]["value"] == 0.0 and "wrong" not in never
    assert abstention(np.ones(20), np.ones(20), None)["agreement"] is None  # too few to be sure of 10 %


def test_abstention_is_as_safe_as_it_says() -> None:
    """Where every level of agreement is wrong a little more often than the risk, answering is rarely called safe."""
    rng = np.random.default_rng(1)
    levels = rng.choice([0.5, 0.75, 1.0], size=(300, 200))
    safe = [abstention(row, (rng.random(200) > 0.11).astype(float), None)["agreement"] is not None for row in levels]
    assert np.mean(safe) < 0.1


def test_one_answer_a_question_has_none_of_it() -> None:
    rows = [{"id": str(i), "raw_output": "yes", "label": "yes"} for i in range(3)]
    assert "self_consistency" not in evaluate("vqa", "strict", rows)
    captions = answers("a", ["a road", "a ship"], "a road")
    assert "self_consistency" not in evaluate("caption", "strict", captions)  # neither right nor wrong
    assert "self_consistency" not in evaluate("vqa", "strict", [])


def test_boxes_vote_for_the_one_in_the_middle() -> None:
    near, far = "[100, 100, 500, 500]", "[600, 600, 900, 900]"
    rows = answers("a", [far, near, "[110, 100, 500, 500]", "nothing"], "[10, 10, 50, 50]", width=100, height=100)
    found = evaluate("grounding", "strict", rows)["self_consistency"]
    assert found["vote"]["value"] == 1.0
    assert found["pass_at_k"]["1"]["value"] == 0.5 and found["pass_at_k"]["4"]["value"] == 1.0
    (only,) = found["calibration"]["bins"]
    assert only["confidence"] == pytest.approx(2 * (390 / 400) / 12)  # one of six pairs overlaps


def test_records_without_a_valid_truth_are_not_asked_for_it() -> None:
    rows = answers("a", ["[1, 1, 9, 9]"] * 2, "[1, 1, 9, 9]", width=10, height=10) + answers(
        "b", ["[1, 1, 2, 2]"] * 2, "x"
    )
    assert evaluate("grounding", "strict", rows, boxes="pixels")["self_consistency"]["n_questions"] == 1


@pytest.mark.parametrize("sample", [None, 7, "", ["a"], float("nan")])
def test_what_is_no_name_of_a_question_is_none(sample: Any) -> None:
    rows = [{"id": str(i), "sample": sample, "raw_output": "yes", "label": "yes"} for i in range(4)]
    assert "self_consistency" not in evaluate("vqa", "strict", rows)


def test_answers_to_one_question_stand_together_in_intervals() -> None:
    rows = [row for i in range(40) for row in answers(f"q{i}", ["yes" if i % 2 else "no"] * 8, "yes")]
    for row in rows:
        row["image_path"] = ""
    result = evaluate("vqa", "strict", rows)
    low, high = result["intervals"]["accuracy"]
    assert result["interval_settings"]["clustered_by"] == "sample"
    assert high - low > 0.25  # 40 questions, not 320 answers


def test_thousands_of_answers_under_one_name_are_counted_and_not_compared_pair_by_pair() -> None:
    rows = answers("a", ["[100, 100, 500, 500]"] * 5000, "[10, 10, 50, 50]", width=100, height=100)
    found = evaluate("grounding", "strict", rows)["self_consistency"]
    assert found["k"] == [5000, 5000] and found["vote"]["value"] == 1.0
