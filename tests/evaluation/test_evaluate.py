"""The result that `geozero evaluate` writes: names, siblings, groups, diagnosis, comparison."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from paths import GOLDEN

from geozero.common.errors import InputError
from geozero.evaluation.evaluate import evaluate
from geozero.tasks.boxes import CONVENTIONS


def questions(n: int = 60) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{i}",
            "raw_output": f"I look at it. <answer>{'yes' if i % 3 else 'no'}</answer>",
            "label": "yes" if i % 2 else "no",
            "image_path": f"{i // 4}.png",
            "question_type": "presence" if i % 5 else "count",
        }
        for i in range(n)
    ]


def test_the_file_is_what_is_returned(tmp_path: Path) -> None:
    source, out = tmp_path / "records.json", tmp_path / "new" / "score.json"
    source.write_text(json.dumps(questions()))
    result = evaluate("vqa", "strict", source, out)
    assert json.loads(out.read_text()) == result
    assert [*result][:4] == ["task", "protocol", "n", "metrics"]
    metrics = {"accuracy": 0.5, "n_empty_pred": 0, "n_empty_label": 0}
    assert result["metrics"] == metrics | {"accuracy_mean_of_types": pytest.approx(0.5)}
    assert result["n_well_formed"] == 60 and result["well_formed_share"] == 1.0
    low, high = result["intervals"]["accuracy"]
    assert low < 0.5 < high
    assert result["interval_settings"]["clustered_by"] == "image_path"
    assert result["reasoning"]["share_with_thought"] == 1.0
    assert result["baselines"]["majority"] == 0.5
    assert len(result["records"]["blake2b"]) == 32
    assert [path.name for path in out.parent.iterdir()] == ["score.json"]


def test_groups_have_their_own_n_and_interval() -> None:
    groups = evaluate("vqa", "official", questions())["groups"]["question_type"]
    assert {name: group["n"] for name, group in groups.items()} == {"count": 12, "presence": 48}
    for group in groups.values():
        low, high = group["intervals"]["accuracy_percent"]
        assert low <= group["metrics"]["accuracy_percent"] <= high


def test_scenes_are_scored_by_class_with_a_confusion_matrix() -> None:
    rows = [{"raw_output": a, "label": b} for a, b in [("Port", "port"), ("park", "port"), ("park", "park")]]
    result = evaluate("scene_cls", "strict", rows)
    assert result["groups"]["class"]["port"]["metrics"]["accuracy"] == 0.5
    assert result["confusion"]["matrix"] == [[1, 0, 0], [1, 1, 0]]


def grounded(convention: str, n: int = 40) -> list[dict[str, Any]]:
    scale = {"norm1000": (1000 / 400, 1000 / 200), "pixels": (1, 1), "norm100": (0.25, 0.5)}[convention]
    rows = []
    for i in range(n):
        box = [i, i, i + 150 + i, i + 60 + i]
        pred = [round(v * scale[k % 2], 2) for k, v in enumerate(box)]
        row = {"raw_output": str(pred), "label": str(box), "width": 400, "height": 200}
        rows.append(row | {"convention": "resized28"})  # information only, never read
    return rows


@pytest.mark.parametrize("convention", ["norm1000", "pixels", "norm100"])
def test_the_convention_is_the_callers_and_a_better_one_is_only_named(convention: str) -> None:
    right = evaluate("grounding", "strict", grounded(convention), boxes=convention)
    assert right["metrics"]["acc@0.5"] == 1.0 and right["notes"] == []
    other = "pixels" if convention != "pixels" else "norm1000"
    wrong = evaluate("grounding", "strict", grounded(convention), boxes=other)
    assert wrong["metrics"]["acc@0.5"] < 0.5 and wrong["boxes"] == other
    assert any(f"fit far better as {convention}" in note for note in wrong["notes"])
    assert set(wrong["diagnosis"]["conventions"]) == set(CONVENTIONS)


def test_official_reads_its_own_frame_and_says_so() -> None:
    result = evaluate("grounding", "official", grounded("norm1000"), boxes="norm1000")
    assert result["boxes"] == "resized28"
    assert any("norm1000" in note for note in result["notes"])


def test_boxes_are_grouped_by_the_size_of_the_true_one() -> None:
    rows = [
        {"raw_output": f"[0, 0, {side}, {side}]", "label": f"[0, 0, {side}, {side}]", "width": 1000, "height": 1000}
        for side in (32, 33, 96, 97)
    ]
    groups = evaluate("grounding", "strict", rows)["groups"]["size"]
    assert {name: group["n"] for name, group in groups.items()} == {"S": 1, "M": 2, "L": 1}


def test_captions_without_any_record_have_no_score() -> None:
    result = evaluate("caption", "strict", [])
    assert result["metrics"]["BLEU-4"] is None and result["metrics"]["n_evaluated"] == 0
    with pytest.raises(InputError):
        evaluate("caption", "official", [])
    assert evaluate("scene_cls", "official", [])["metrics"] == {"accuracy_percent": None}


def test_caption_intervals_hold_the_score() -> None:
    rows = json.loads((GOLDEN / "caption_records.json").read_text())
    result = evaluate("caption", "strict", rows, resamples=200)
    for name, (low, high) in result["intervals"].items():
        assert low < result["metrics"][name] < high, name


@pytest.mark.parametrize(
    ("task", "protocol", "boxes"), [("x", "strict", "pixels"), ("vqa", "x", "pixels"), ("vqa", "strict", "x")]
)
def test_unknown_words_are_refused(task: str, protocol: str, boxes: str) -> None:
    with pytest.raises(InputError, match="unknown"):
        evaluate(task, protocol, [], boxes=boxes)


def compared(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = evaluate("vqa", "strict", second, against=first)["comparison"]["metrics"]["accuracy"]
    return found


def test_records_are_paired_by_id_whatever_the_order() -> None:
    first = questions()
    second = [row | {"raw_output": row["label"]} for row in reversed(first)]
    result = compared(first, second)
    assert result["first"] == 0.5 and result["second"] == 1.0
    assert result["low"] > 0 and result["p_value"] < 0.01 and result["n"] == 60
    assert compared(first, list(reversed(first)))["difference"] == 0.0


def test_lists_of_other_questions_are_not_compared() -> None:
    with pytest.raises(InputError, match="differ in 2 ids"):
        compared(questions(), [*questions()[1:], questions()[0] | {"id": "new"}])
    with pytest.raises(InputError):
        compared(questions(), [*questions(), questions()[0]])


def test_a_score_that_cannot_be_put_in_place_leaves_nothing_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "score.json").write_text("the old one")

    def refuse(*given: Any) -> None:
        raise PermissionError(13, "not allowed")

    monkeypatch.setattr("os.replace", refuse)
    with pytest.raises(PermissionError):
        evaluate("vqa", "strict", questions(4), tmp_path / "score.json")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("score.json", "the old one")]


def test_a_directory_is_never_taken_for_the_file_to_write(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="a directory stands where a file is expected"):
        evaluate("vqa", "strict", questions(4), tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_record_of_another_task_is_listed() -> None:
    rows = [row | {"task": task} for row, task in zip(questions(3), ("vqa", "grounding", 7), strict=True)]
    result = evaluate("vqa", "strict", rows)
    assert result["n"] == 3 and result["problems"]["reasons"] == {"other_task": 1}
    assert result["problems"]["first"][0]["id"] == "q1"


def test_a_label_beyond_all_numbers_costs_only_itself(recwarn: pytest.WarningsRecorder) -> None:
    good = {"raw_output": "[1, 2, 30, 40]", "label": "[1, 2, 30, 40]", "width": 1000, "height": 1000}
    rows = [good, good | {"label": [1e308, 1e308, -1e308, 5]}]
    found = evaluate("grounding", "strict", rows, resamples=5)["metrics"]
    assert (found["n_evaluated"], found["n_invalid_gt"], found["acc@0.5"]) == (1, 1, 1.0) and not list(recwarn)
