"""The score tables and headline figures."""

from __future__ import annotations

from typing import Any

import pytest

from geozero.evaluation.metric_names import METRICS, MetricFormat, metric_format
from geozero.evaluation.report.exports import scores_markdown
from geozero.evaluation.report.schema import Baseline, Comparison, Score
from geozero.evaluation.report.scores import overviews, worlds
from geozero.evaluation.report.tables import Cell, Row
from geozero.tasks import TASKS

ROW = {"model": "base", "mode": "tagged", "split": "test_hard", "world": "toy", "task": "vqa", "metric": "accuracy"}


def score(**values: Any) -> Score:
    return Score.model_validate({**ROW, "value": 0.5, "low": 0.45, "high": 0.55, "n": 100, **values})


def baseline(**values: Any) -> Baseline:
    row = {k: ROW[k] for k in ("split", "world", "task", "metric")}
    return Baseline.model_validate({**row, "n": 100, "chance": 0.4, "majority": 0.45, **values})


def cells(row: Row) -> list[Cell]:
    """The scores in a row."""
    return [cell for cell in row.cells if isinstance(cell, Cell)]


def compared(first: Score, second: Score, low: float, high: float, **values: Any) -> Comparison:
    """Second minus first."""
    row = {**ROW, "first": {"model": first.model, "mode": first.mode}, "n": 100, "p_value": 0.04, **values}
    row |= {"second": {"model": second.model, "mode": second.mode}, "before": first.value, "after": second.value}
    return Comparison.model_validate(row | {"difference": (low + high) / 2, "low": low, "high": high})


def test_columns_follow_the_training_order_and_worlds_stay_apart() -> None:
    rows = [
        score(model="a2grpo", value=0.7),
        score(model="base"),
        score(model="base", mode="direct"),
        score(world="neon", split="test", model="base", n=9),
    ]
    toy, neon = worlds(rows, [])
    assert toy.tables[0].head[4:] == [("Base", "direct"), ("Base", "tagged"), ("A²GRPO", "tagged")]
    assert (neon.name, neon.tables[0].head[4:]) == ("neon", [("Base", "tagged")])
    (row,) = toy.tables[0].groups[0].rows
    assert [cell.text for cell in cells(row)] == ["50.0", "50.0", "70.0"]
    assert [cell.best for cell in cells(row)] == [False, False, False]  # nothing was compared pair by pair
    assert cells(row)[0].interval == "45.0–55.0"


def test_parts_are_details_and_stand_in_where_there_is_no_overall_score() -> None:
    parts = [score(question_type=t) for t in ("presence", "count")]
    (toy,) = worlds([score(), *parts], [])
    group = toy.tables[0].groups[0]
    assert ([r.label for r in group.rows], [r.label for r in group.details]) == (["accuracy"], ["count", "presence"])
    (toy,) = worlds(parts, [])
    group = toy.tables[0].groups[0]
    assert ([r.label for r in group.rows], group.details) == (["count", "presence"], [])
    assert len(toy.headlines) == 1


def test_only_what_is_surely_above_every_other_score_is_bold() -> None:
    first, second, third = score(), score(model="sft", value=0.6), score(model="a2grpo", value=0.7)
    sure = [compared(first, third, 0.1, 0.3), compared(third, second, -0.18, -0.02)]
    for pairs, bold in ((sure, True), (sure[:1], False), ([sure[0], compared(second, third, -0.01, 0.2)], False)):
        (toy,) = worlds([first, second, third], [], pairs)
        assert cells(toy.tables[0].groups[0].rows[0])[2].best is bold


@pytest.mark.parametrize(("lower_is_better", "best"), [(True, "base"), (False, "a2grpo")])
def test_a_metric_says_which_direction_is_better(
    lower_is_better: bool, best: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "MAE", MetricFormat("mean error", 1.0, None, lower_is_better=lower_is_better))
    rows = [score(task="new", metric="MAE", model=m, value=v) for m, v in (("base", 1.0), ("a2grpo", 2.0))]
    (toy,) = worlds(rows, [], [compared(*rows, 0.5, 1.5, task="new", metric="MAE")])
    (row,) = toy.tables[0].groups[0].rows
    assert row.label == ("mean error (lower is better)" if lower_is_better else "mean error")
    before, after = cells(row)
    assert (after.mark, after.tone) == ("up", "worse" if lower_is_better else "better")
    assert [cell.score.model for cell in (before, after) if cell.best] == [best]
    (headline,) = toy.headlines
    assert (headline.cell.verdict, headline.cell.tone) == ("up", after.tone)


def test_the_headlines_of_tasks_are_better_where_they_are_higher() -> None:
    """Goals and the promotion of models take them so."""
    for task in TASKS.values():
        for protocol in ("strict", "official"):
            assert not metric_format(task.main_metric(protocol)).lower_is_better, task.name


@pytest.mark.parametrize(
    ("low", "high", "mark"),
    [(0.01, 0.2, "up"), (-0.2, -0.01, "down"), (-0.01, 0.2, ""), (0.0, 0.2, ""), (-0.2, 0.0, "")],
)
def test_a_difference_is_marked_only_where_its_interval_excludes_0(low: float, high: float, mark: str) -> None:
    rows = [score(value=0.1), score(model="sft", mode="direct", value=0.9), score(model="sft")]
    after = score(model="a2grpo", value=0.9)
    for pair in (compared(rows[2], after, low, high), compared(after, rows[2], -high, -low)):  # whichever came first
        (toy,) = worlds([*rows, after, score(split="test", model="a2grpo")], [], [pair])
        (headline,) = toy.headlines
        assert (headline.cell.before, headline.split) == ("SFT, tagged", "Hard test split")
        assert (headline.change, headline.cell.verdict) == ("+40.0", mark or "level")
        own = cells(toy.tables[0].groups[0].rows[0])
        assert [cell.mark for cell in own] == ["", "", "", mark]
        assert (own[3].before, own[3].verdict) == ("SFT, tagged", mark or "level")


def test_without_a_comparison_nothing_is_said_of_a_difference() -> None:
    (toy,) = worlds([score(), score(model="sft", value=0.9, low=0.85, high=0.95)], [])
    assert toy.headlines[0].cell.verdict == "unknown"
    assert not any(cell.mark or cell.best for cell in cells(toy.tables[0].groups[0].rows[0]))


def test_baselines_go_to_the_samples_they_were_made_on() -> None:
    rows = [score(), score(source="toy_rsvqa_lr"), score(question_type="count")]
    guesses = [
        baseline(),
        baseline(question_type="count", chance=0.1, majority=None),
        baseline(split="val", chance=0.9),
    ]
    (toy,) = worlds(rows, guesses)
    group = toy.tables[0].groups[0]
    assert [(r.label, *r.cells[1:3]) for r in (*group.rows, *group.details)] == [
        ("accuracy", "40.0", "45.0"),
        ("toy_rsvqa_lr", "40.0", "45.0"),  # the only source of the task: the same samples
        ("count", "10.0", "–"),
    ]
    (toy,) = worlds([*rows, score(source="rsvqa_hr")], guesses)
    assert {r.label: r.cells[1] for r in toy.tables[0].groups[0].details}["toy_rsvqa_lr"] == "–"


def test_a_missing_value_is_a_dash_and_never_zero() -> None:
    rows = [score(task="caption", metric="METEOR", value=None), score(task="caption", metric="METEOR", model="sft")]
    (toy,) = worlds(rows, [])
    (row,) = toy.tables[0].groups[0].rows
    assert row.cells[3] is None and [cell.text for cell in cells(row)] == ["50.0"]
    assert Score.model_validate({**ROW, "value": float("nan")}).value is None


@pytest.mark.parametrize(
    ("metric", "factor", "best"),
    [
        ("accuracy", 100.0, 1.0),
        ("a_new_metric", 100.0, 1.0),
        ("accuracy_percent", 1.0, 100.0),
        ("level_S_precision_percent", 1.0, 100.0),
        ("n_empty_pred", 1.0, None),
        ("level_S_count", 1.0, None),
        ("thought_words", 1.0, None),
    ],
)
def test_shares_are_printed_in_percent_and_counts_are_not(metric: str, factor: float, best: float | None) -> None:
    assert metric_format(metric)[1:3] == (factor, best)


def test_markdown_cells_stay_cells() -> None:
    (toy, *_) = worlds([score(question_type="a|b\n<b>"), score()], [baseline()])
    lines = [line for line in scores_markdown(toy.tables).splitlines() if line.startswith("|")]
    assert lines[2] == "| Question answering | accuracy | 100 | 40.0 | 45.0 | 50.0 [45.0–55.0] |"
    assert "a\\|b &lt;b>" in lines[3]


@pytest.mark.parametrize(("sources", "marks"), [(("toy_a",), ["", "up"]), (("toy_a", "toy_b"), ["", ""])])
def test_a_comparison_over_all_sources_marks_the_score_of_the_only_one(
    sources: tuple[str, ...], marks: list[str]
) -> None:
    first, second = score(), score(model="sft", value=0.7)
    rows = [s.model_copy(update={"source": name}) for name in sources for s in (first, second)]
    (table,) = overviews(rows, [], [compared(first, second, 0.1, 0.3)])
    assert [cell.mark for group in table.groups for row in group.rows for cell in cells(row)[:1]] == marks
