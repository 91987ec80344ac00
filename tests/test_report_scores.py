"""The score tables and headline figures."""

from __future__ import annotations

from typing import Any

import pytest

from geozero.evaluation.report_inputs import Baseline, Score
from geozero.evaluation.report_markdown import scores_markdown
from geozero.evaluation.report_scores import factor, worlds

ROW = {"model": "base", "mode": "tagged", "split": "test_hard", "world": "toy", "task": "vqa", "metric": "accuracy"}


def score(**values: Any) -> Score:
    return Score.model_validate({**ROW, "value": 0.5, "low": 0.45, "high": 0.55, "n": 100, **values})


def baseline(**values: Any) -> Baseline:
    row = {k: ROW[k] for k in ("split", "world", "task", "metric")}
    return Baseline.model_validate({**row, "n": 100, "chance": 0.4, "majority": 0.45, **values})


def test_columns_follow_the_training_order_and_worlds_stay_apart() -> None:
    rows = [
        score(model="a2grpo", value=0.7),
        score(model="base"),
        score(model="base", mode="direct"),
        score(world="neon", split="test", model="base", n=9),
    ]
    toy, neon = worlds(rows, [])
    assert toy.tables[0].columns == [("Base", "direct"), ("Base", "tagged"), ("A²GRPO", "tagged")]
    assert (neon.name, neon.tables[0].columns) == ("neon", [("Base", "tagged")])
    (row,) = toy.tables[0].groups[0].rows
    assert [c.text if c else None for c in row.cells] == ["50.0", "50.0", "70.0"]
    assert [c.best if c else None for c in row.cells] == [False, False, True]
    assert row.cells[0] is not None and row.cells[0].interval == "45.0–55.0"


def test_parts_are_details_and_stand_in_where_there_is_no_overall_score() -> None:
    parts = [score(question_type=t) for t in ("presence", "count")]
    (toy,) = worlds([score(), *parts], [])
    group = toy.tables[0].groups[0]
    assert ([r.label for r in group.rows], [r.label for r in group.details]) == (["accuracy"], ["count", "presence"])
    (toy,) = worlds(parts, [])
    group = toy.tables[0].groups[0]
    assert ([r.label for r in group.rows], group.details) == (["count", "presence"], [])
    assert len(toy.headlines) == 1


@pytest.mark.parametrize(
    ("after", "verdict"),
    [
        ({"value": 0.70, "low": 0.65, "high": 0.75}, "up"),
        ({"value": 0.56, "low": 0.51, "high": 0.61}, "level"),
        ({"value": 0.30, "low": 0.25, "high": 0.35}, "down"),
        ({"value": 0.70, "low": None, "high": None}, "level"),
    ],
)
def test_the_headline_compares_with_sft_in_the_same_mode(after: dict[str, Any], verdict: str) -> None:
    rows = [score(value=0.1), score(model="sft", mode="direct", value=0.9), score(model="sft")]
    (toy,) = worlds([*rows, score(model="a2grpo", **after), score(split="test", model="a2grpo")], [])
    (headline,) = toy.headlines
    assert (headline.against, headline.verdict, headline.split) == ("SFT, tagged", verdict, "Hard test split")
    assert headline.change == f"{(after['value'] - 0.5) * 100:+.1f}".replace("-", "−")


def test_baselines_go_to_the_samples_they_were_made_on() -> None:
    rows = [score(), score(source="toy_rsvqa_lr"), score(question_type="count")]
    guesses = [
        baseline(),
        baseline(question_type="count", chance=0.1, majority=None),
        baseline(split="val", chance=0.9),
    ]
    (toy,) = worlds(rows, guesses)
    group = toy.tables[0].groups[0]
    assert [(r.label, r.chance, r.majority) for r in (*group.rows, *group.details)] == [
        ("accuracy", "40.0", "45.0"),
        ("toy_rsvqa_lr", "40.0", "45.0"),  # the only source of the task: the same samples
        ("count", "10.0", "–"),
    ]
    (toy,) = worlds([*rows, score(source="rsvqa_hr")], guesses)
    assert {r.label: r.chance for r in toy.tables[0].groups[0].details}["toy_rsvqa_lr"] == "–"


def test_a_missing_value_is_a_dash_and_never_zero() -> None:
    rows = [score(task="caption", metric="METEOR", value=None), score(task="caption", metric="METEOR", model="sft")]
    (toy,) = worlds(rows, [])
    (row,) = toy.tables[0].groups[0].rows
    assert [c.text if c else None for c in row.cells] == [None, "50.0"]
    assert Score.model_validate({**ROW, "value": float("nan")}).value is None


def test_shares_are_percent_and_counts_are_not() -> None:
    assert (factor("accuracy"), factor("n_empty_pred"), factor("thought_words")) == (100.0, 1.0, 1.0)


def test_markdown_cells_stay_cells() -> None:
    (toy, *_) = worlds([score(question_type="a|b\n<b>"), score()], [baseline()])
    lines = [line for line in scores_markdown([toy]).splitlines() if line.startswith("|")]
    assert lines[2] == "| Question answering | all | accuracy | 100 | 40.0 | 45.0 | 50.0 [45.0–55.0] |"
    assert "a\\|b &lt;b>" in lines[3]
