"""Two models on the same questions: what is paired with what, groups, refusals, and the rows of the page."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paired_records import questions
from typer.testing import CliRunner

from geozero.cli.app import app
from geozero.common.errors import InputError
from geozero.evaluation.comparison import common
from geozero.evaluation.evaluate import evaluate
from geozero.evaluation.report.schema import Comparison, Detail, Reasoning
from geozero.evaluation.report.tables import verdict
from geozero.evaluation.result_sets import EvalSlice
from geozero.evaluation.score_rows import comparison_rows, detail_rows, evaluation_parts, reasoning_rows
from geozero.evaluation.scored import ScoredRecords
from geozero.metrics.records import parse_records
from geozero.tasks import get


def part(model: str, mode: str, records: list[dict[str, Any]], source: str | None = "toy_rsvqa_lr") -> EvalSlice:
    scored = ScoredRecords(get("vqa"), parse_records(records))
    return EvalSlice(model, mode, "test", "toy", source, scored, scored.result(), records)


def test_against_gives_the_difference_with_its_groups(tmp_path: Path) -> None:
    (tmp_path / "before.json").write_text(json.dumps(questions(0.6)))
    result = evaluate("vqa", "strict", questions(0.9, seed=2), against=tmp_path / "before.json")
    found = result["comparison"]
    accuracy = found["metrics"]["accuracy"]
    assert found["against"]["n"] == found["n"] == accuracy["n"] == 200
    assert accuracy["second"] == result["metrics"]["accuracy"] and accuracy["low"] > 0
    assert accuracy["difference"] == pytest.approx(accuracy["second"] - accuracy["first"])
    kinds = found["groups"]["question_type"]
    assert {kind: group["accuracy"]["n"] for kind, group in kinds.items()} == {"presence": 100, "comp": 100}
    mean = sum(group["accuracy"]["difference"] for group in kinds.values()) / 2
    assert mean == pytest.approx(accuracy["difference"])


def test_against_may_hold_more_questions_but_not_others() -> None:
    listed = questions(0.9)
    found = evaluate("vqa", "strict", listed[:50], against=listed)["comparison"]
    assert found["n"] == 50 and found["metrics"]["accuracy"]["difference"] == 0.0
    with pytest.raises(InputError, match="differ in 150 ids"):
        evaluate("vqa", "strict", listed, against=listed[:50])


def test_the_same_ids_with_other_labels_are_refused() -> None:
    numbered = [{k: v for k, v in row.items() if k != "id"} for row in questions(0.9)]  # ids by place in the file
    with pytest.raises(InputError, match="200 records have another label in the second list in record 0"):
        evaluate("vqa", "strict", [*numbered[1:], numbered[0]], against=numbered)


def test_only_records_that_stand_once_in_both_are_common() -> None:
    first = parse_records([{"id": i, "label": "x"} for i in ("a", "b", "b", "c", "d")])
    second = parse_records(
        [{"id": i, "label": label} for i, label in (("d", "x"), ("c", "other"), ("b", "x"), ("a", "x"))]
    )
    assert [rows.tolist() for rows in common(first, second)] == [[0, 4], [3, 0]]


def test_rows_of_every_pair_in_one_place() -> None:
    parts = [part("base", "tagged", questions(0.5)), part("sft", "tagged", questions(0.8, seed=3))]
    parts += [part("sft", "tagged", questions(0.8), source="another"), part("sft", "forced", questions(0.6)[:100])]
    rows = list(comparison_rows(parts))
    pairs = {(r["first"]["model"], r["first"]["mode"], r["second"]["model"], r["second"]["mode"], r["n"]) for r in rows}
    assert pairs == {
        ("base", "tagged", "sft", "tagged", 200),
        ("base", "tagged", "sft", "tagged", 100),  # by question type
        ("base", "tagged", "sft", "forced", 100),
        ("base", "tagged", "sft", "forced", 50),
        ("sft", "tagged", "sft", "forced", 100),
        ("sft", "tagged", "sft", "forced", 50),
    }
    for row in rows:
        found = Comparison.model_validate(row)
        assert found.units == (25 if found.n < 200 and found.second.mode == "forced" else 50)  # images
        assert found.headline and found.low is not None and found.low <= (found.difference or 0.0)


def test_the_page_is_told_how_many_images_stand_behind_a_comparison() -> None:
    """80 questions about 8 images are too few to call anything significant, whatever their p-value."""
    models = [part(m, "direct", _about(questions(share)[:80], 8)) for m, share in (("base", 0.0), ("sft", 1.0))]
    row = next(row for row in comparison_rows(models) if row["question_type"] is None)
    found = Comparison.model_validate(row)
    assert (found.n, found.units) == (80, 8) and (found.difference or 0) > 0.9
    assert verdict(found.model_copy(update={"p_corrected": 0.001})) == "too few to tell (fewer than 20)"


def _about(records: list[dict[str, Any]], n_images: int) -> list[dict[str, Any]]:
    return [row | {"image_path": f"{i % n_images}.png"} for i, row in enumerate(records)]


def test_thinking_is_compared_with_the_answer_forced_at_once() -> None:
    thinks = questions(0.9, thought="The answer is yes, I see it. ")
    parts = [part("a2grpo", "tagged", thinks), part("a2grpo", "forced", questions(0.5, seed=5)[:120])]
    parts.append(part("sft", "tagged", thinks))  # not asked without a thought
    first, second = (Reasoning.model_validate(row) for row in reasoning_rows(parts))
    assert first.help is not None and second.help is None
    assert (first.help.first.mode, first.help.second.mode, first.help.n) == ("forced", "tagged", 120)
    assert first.help.low is not None and first.help.low > 0  # thinking helps
    assert first.share_with_thought == 1.0 and first.words is not None and first.words["mean"] == 7.0


def test_answers_that_change_without_the_thought_or_with_anothers_are_counted() -> None:
    thinks = questions(0.9, thought="The answer is yes, I see it. ")
    parts = [part("sft", "tagged", thinks), part("sft", "swapped", thinks)]
    other = [{**row, "raw_output": row["raw_output"].replace("yes", "YES!")} for row in thinks]
    for i, row in enumerate(other[:40]):
        row["raw_output"] = "<answer>perhaps</answer>" if i % 4 == 0 else row["raw_output"]
    parts.append(part("sft", "forced", other))
    found = evaluation_parts(parts)
    (row,) = (Reasoning.model_validate(row) for row in found["reasoning"])
    without, swapped = row.changed["without"], row.changed["swapped"]
    assert without is not None and swapped is not None
    assert (without.value, without.n, swapped.value) == (10 / 200, 200, 0.0)
    assert without.interval is not None and 0 < without.interval[0] < 0.05 < without.interval[1]
    assert not [row for row in found["scores"] if row["mode"] == "swapped"]  # no way of answering, only a test of one


def test_details_hold_what_the_score_is_made_of() -> None:
    rows = [{"raw_output": a, "label": b} for a, b in [("port", "port"), ("park", "port"), ("x", "park")]]
    scored = ScoredRecords(get("scene_cls"), parse_records([*rows, {}]))
    (row,) = detail_rows([EvalSlice("m", "", "", "strict", "aid", scored, scored.result())])
    detail = Detail.model_validate(row)
    assert detail.confusion is not None and detail.confusion.matrix == [[0, 0, 1], [1, 1, 0]]
    assert detail.groups["class"]["port"].n == 2 and detail.problems == {"label_missing": 1, "prediction_missing": 1}


def test_models_are_compared_over_all_sources_where_there_is_such_a_slice() -> None:
    models = [part(model, "tagged", questions(0.5, seed=seed)) for model, seed in (("base", 1), ("sft", 2))]
    whole = [replace(model, source=None) for model in models]
    for slices, source in ((models, "toy_rsvqa_lr"), ([*models, *whole], None)):
        parts = evaluation_parts(slices)
        assert {row["source"] for row in parts["comparisons"] + parts["details"]} == {source}
    assert (
        evaluation_parts([replace(model, rows=[]) for model in models])["comparisons"] == []
    )  # their records are gone


def test_the_command_line_says_the_difference_in_one_line(tmp_path: Path) -> None:
    for name, right in (("before", 0.5), ("after", 0.9)):
        (tmp_path / f"{name}.json").write_text(json.dumps([*questions(right), {"id": "broken"}]))
    words = ["evaluate", "--task", "vqa", "--records", "after.json", "--against", "before.json", "--out", "score.json"]
    done = CliRunner().invoke(app, [str(tmp_path / w) if w.endswith(".json") else w for w in words])
    assert done.exit_code == 0, done.output
    lines = dict(line.split("\t") for line in done.stdout.splitlines())
    assert lines["accuracy difference"].startswith("+0.") and "p 0.0" in lines["accuracy difference"]
    assert lines["problem prediction_missing"] == "1"
    assert 0 <= json.loads(lines["accuracy interval"])[0] <= float(lines["accuracy"]) and int(lines["n"]) > 1
