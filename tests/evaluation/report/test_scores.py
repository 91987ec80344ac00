"""The tables of scores and of two models: each score once, and nothing called significant that is not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from geozero.evaluation.metric_names import METRICS, MetricFormat, metric_format
from geozero.evaluation.report.exports import scores_markdown
from geozero.evaluation.report.schema import Baseline, Comparison, ReportInputs, Score, correct
from geozero.evaluation.report.scores import Sheet, pairs_of_models, ranking, score_table
from geozero.evaluation.report.tables import NONE, Cell, Row, mark, reverse, sample_link, verdict

ROW = {"model": "base", "mode": "tagged", "split": "test_hard", "world": "toy", "task": "vqa", "metric": "accuracy"}


def score(**values: Any) -> Score:
    return Score.model_validate({**ROW, "value": 0.5, "low": 0.45, "high": 0.55, "n": 100, **values})


def baseline(**values: Any) -> Baseline:
    row = {k: ROW[k] for k in ("split", "world", "task", "metric")}
    return Baseline.model_validate({**row, "n": 100, "chance": 0.4, "majority": 0.45, **values})


def sheet(scores: list[Score], baselines: Sequence[Baseline] = (), comparisons: Sequence[Comparison] = ()) -> Sheet:
    """The sheet of a page that holds these."""
    parts = {"scores": scores, "baselines": list(baselines), "comparisons": correct(comparisons)}
    return Sheet(ReportInputs(**parts))


def values(row: Row) -> list[Cell | None]:
    """The models' scores in a row of the score table: behind metric, n, chance and majority."""
    return list(row.cells[4:])


def texts(row: Row) -> list[str]:
    return [NONE if cell is None else cell.text for cell in values(row)]


def compared(first: Score, second: Score, low: float, high: float, p: float = 0.001, **values: Any) -> Comparison:
    """Second minus first, of a headline metric."""
    row = {**ROW, "first": {"model": first.model, "mode": first.mode}, "n": 100, "p_value": p, "headline": True}
    row |= {"second": {"model": second.model, "mode": second.mode}, "before": first.value, "after": second.value}
    row |= {"split": first.split, **values}
    return Comparison.model_validate(row | {"difference": (low + high) / 2, "low": low, "high": high})


def test_columns_follow_the_training_order_and_worlds_stay_apart() -> None:
    rows = [
        score(model="a2grpo", value=0.7),
        score(model="base"),
        score(model="base", mode="direct"),
        score(world="neon", split="test", model="base", n=9),
    ]
    table = score_table(sheet(rows))
    assert table.head[5:] == [("Base", "direct"), ("Base", "tagged"), ("A²GRPO", "tagged")]
    toy, neon = table.groups
    assert (toy.title, neon.title) == (
        "Rendered toy world · hard test split",
        "Real aerial imagery (NEON) · test split",
    )
    assert texts(toy.rows[0]) == ["50.0", "50.0", "70.0"] and texts(neon.rows[0]) == [NONE, "50.0", NONE]
    assert not any(cell.best for cell in values(toy.rows[0]) if cell)  # nothing was compared pair by pair
    assert toy.rows[0].cells[4] is not None and toy.rows[0].cells[4].small == "45.0–55.0"


def test_question_types_and_other_metrics_are_folded_away() -> None:
    parts = [score(question_type=t) for t in ("presence", "count")]
    (group,) = score_table(sheet([score(), score(metric="well_formed"), *parts])).groups
    assert [(r.label.text, r.kind) for r in group.rows] == [
        ("Question answering", ""),
        ("Question answering", "detail"),
        ("count", "detail"),
        ("presence", "detail"),
    ]


def test_one_source_stands_for_its_whole_and_several_are_parts_of_it() -> None:
    one = [score(), score(source="toy_a")]
    (group,) = score_table(sheet(one)).groups
    assert [(r.label.text, r.kind) for r in group.rows] == [("Question answering · toy_a", "")]
    (group,) = score_table(sheet([*one, score(source="toy_b")])).groups
    assert [(r.label.text.split(" · ")[-1], r.kind) for r in group.rows] == [
        ("Question answering", ""),
        ("toy_a", "detail"),
        ("toy_b", "detail"),
    ]


def test_the_validation_split_is_folded_and_no_result() -> None:
    rows = [score(split=split, model=model) for split in ("val", "test") for model in ("base", "sft")]
    pairs = [compared(rows[2], rows[3], 0.1, 0.3), compared(rows[0], rows[1], 0.1, 0.3, split="val")]
    pairs[0] = pairs[0].model_copy(update={"split": "test"})
    own = sheet(rows, comparisons=pairs)
    assert [(g.title.split(" · ")[1], g.folded) for g in score_table(own).groups] == [
        ("test split", False),
        ("validation split", True),
    ]
    assert pairs_of_models(own)[0].lead == "SFT, tagged is significantly better than Base, tagged on 1 of 1 test set."


def test_only_what_is_significantly_better_than_every_other_score_is_bold() -> None:
    first, second, third = score(), score(model="sft", value=0.6), score(model="a2grpo", value=0.7)
    sure = [compared(first, third, 0.1, 0.3), compared(third, second, -0.18, -0.02)]
    for pairs, bold in ((sure, True), (sure[:1], False), ([sure[0], compared(second, third, 0, 0.2, 0.2)], False)):
        (group,) = score_table(sheet([first, second, third], comparisons=pairs)).groups
        assert [cell.best for cell in values(group.rows[0]) if cell] == [False, False, bold]


@pytest.mark.parametrize(
    ("p", "more", "said"),
    [
        (0.001, {}, "significantly better"),
        (0.04, {}, "significantly better"),
        (0.06, {}, "no significant difference"),
        (0.001, {"units": 19}, "too few to tell (fewer than 20)"),
        (0.001, {"units": None, "n": 19}, "too few to tell (fewer than 20)"),
        (0.001, {"split": "val"}, "not tested"),
    ],
)
def test_a_difference_is_significant_by_its_p_value_and_its_n(p: float, more: dict[str, Any], said: str) -> None:
    before, after = score(), score(model="sft", value=0.7)
    (c,) = correct([compared(before, after, 0.1, 0.3, p, **more)])
    assert verdict(c) == said and (mark(c) == "better") is said.endswith("better")
    assert mark(reverse(c)) == ("worse" if mark(c) else "")


def test_many_comparisons_are_corrected_and_question_types_are_not_tested() -> None:
    pairs = [compared(score(), score(model=f"m{i}", value=0.7), 0.1, 0.3, 0.02) for i in range(3)]
    pairs.append(compared(score(), score(model="m"), 0.1, 0.3, 0.0001, question_type="count"))
    pairs.append(compared(score(), score(model="m"), 0.1, 0.3, 0.0001, headline=False))
    found = correct(pairs)
    assert [c.p_corrected for c in found] == pytest.approx([0.06, 0.06, 0.06, None, None])
    assert not any(map(mark, found))


def test_three_of_three_against_none_is_never_called_better() -> None:
    before, after = score(value=0.0, n=3), score(model="sft", value=1.0, n=3)
    own = sheet([before, after], comparisons=[compared(before, after, 0.3, 1.0, 0.0001, n=3, units=3)])
    (pair,) = pairs_of_models(own)
    assert pair.lead == "Too few questions to tell SFT, tagged from Base, tagged."
    assert not any(cell.best for group in score_table(own).groups for cell in values(group.rows[0]) if cell)


def test_less_of_an_error_is_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "mae", MetricFormat("MAE", 1.0, None, lower_is_better=True))
    before, after = score(metric="mae", value=3.0), score(metric="mae", model="sft", value=2.0)
    own = sheet([before, after], comparisons=[compared(before, after, -1.5, -0.5, 0.001, metric="mae")])
    (pair,) = pairs_of_models(own)
    assert "significantly better" in pair.lead
    (group,) = score_table(own).groups
    assert group.rows[0].cells[0] == Cell("MAE", "lower is better")
    assert [cell.best for cell in values(group.rows[0]) if cell] == [False, True]


def test_every_two_models_are_a_pair_and_the_page_opens_with_the_last_step_of_training() -> None:
    names = [("base", "direct"), ("base", "tagged"), ("sft", "tagged"), ("a2grpo", "tagged")]
    own = sheet([score(model=model, mode=mode) for model, mode in names])
    pairs = pairs_of_models(own)
    assert len(pairs) == 6 and (pairs[0].first, pairs[0].second) == (2, 3)
    assert pairs[0].lead == "A²GRPO, tagged and SFT, tagged were not compared question by question."


def test_without_rl_the_page_opens_with_the_two_that_win_most() -> None:
    scores = [score(model=name, mode="", value=value) for name, value in (("x", 0.9), ("y", 0.2), ("z", 0.5))]
    pairs = [compared(a, b, *sorted((0.9 * (b.value - a.value), 1.1 * (b.value - a.value)))) for a, b in
             ((scores[0], scores[1]), (scores[0], scores[2]), (scores[1], scores[2]))]  # fmt: skip
    found = pairs_of_models(sheet(scores, comparisons=pairs))
    assert (found[0].first, found[0].second) == (0, 2)
    assert ranking(found) == [(0, 2, 0), (2, 1, 1), (1, 0, 2)]


def test_baselines_go_to_the_samples_they_were_made_on() -> None:
    rows = [score(), score(source="toy_rsvqa_lr"), score(question_type="count")]
    guesses = [
        baseline(),
        baseline(question_type="count", chance=0.1, majority=None),
        baseline(split="val", chance=0.9),
    ]

    def shown(rows: list[Score]) -> dict[str, list[str]]:
        (group,) = score_table(sheet(rows, guesses)).groups
        return {r.label.text.split(" · ")[-1]: [c.text for c in r.cells[2:4] if c] for r in group.rows}

    assert shown(rows) == {"toy_rsvqa_lr": ["40.0", "45.0"], "count": ["10.0", NONE]}  # its only source
    assert shown([*rows, score(source="rsvqa_hr")])["toy_rsvqa_lr"] == [NONE, NONE]


def test_what_is_not_clearly_better_than_guessing_says_so() -> None:
    """Above chance is not enough: always giving the most common answer gets 45."""
    scores = [score(low=0.44), score(model="sft", low=0.46), score(model="a2grpo", low=0.45)]
    guesses = [baseline()]
    (group,) = score_table(sheet(scores, guesses)).groups
    assert [cell and cell.mark for cell in values(group.rows[0])] == ["guess", "", "guess"]
    pairs = {(p.first, p.second): p.guessing for p in pairs_of_models(sheet(scores, guesses))}
    assert pairs == {(0, 1): [], (1, 2): [], (0, 2): ["Question answering · hard test split"]}
    assert not any(p.guessing for p in pairs_of_models(sheet(scores)))  # nobody knows what guessing gets


def test_a_missing_value_is_a_dash_and_never_zero() -> None:
    rows = [score(task="caption", metric="METEOR", value=None), score(task="caption", metric="METEOR", model="sft")]
    (group,) = score_table(sheet(rows)).groups
    assert texts(group.rows[0]) == [NONE, "50.0"]
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


def test_an_address_holds_any_text() -> None:
    assert sample_link(kind="a&b \ud800", task=None) == "#kind=a%26b+%3F&view=gallery"


def test_markdown_cells_stay_cells() -> None:
    table = score_table(sheet([score(question_type="a|b\n<b>"), score()], [baseline()]))
    lines = [line for line in scores_markdown([table]).splitlines() if line.startswith("|")]
    where = "Rendered toy world · hard test split"
    assert lines[2] == f"| {where} | Question answering | accuracy | 100 | 40.0 | 45.0 | 50.0 [45.0–55.0] |"
    assert "a\\|b &lt;b>" in lines[3]


@pytest.mark.parametrize(("sources", "found"), [(("toy_a",), "better"), (("toy_a", "toy_b"), "")])
def test_a_comparison_over_all_sources_marks_the_score_of_the_only_one(sources: tuple[str, ...], found: str) -> None:
    first, second = score(), score(model="sft", value=0.7)
    rows = [s.model_copy(update={"source": name}) for name in sources for s in (first, second)]
    own = sheet(rows, comparisons=[compared(first, second, 0.1, 0.3)])
    marks = {mark(own.pairs.between(a, b)) for a, b in zip(rows[::2], rows[1::2], strict=True)}
    (pair,) = pairs_of_models(own)
    assert found in marks and bool(pair.better) is (found == "better")
