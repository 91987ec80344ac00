"""The goals of a run, on rows made by hand."""

from __future__ import annotations

from typing import Any

from geozero.evaluation.goals import method_goals, resource_goals

GUESSES = [
    {"source": "toy_aid", "task": "scene_cls", "question_type": None, "chance": 0.125, "majority": 0.15},
    {"source": "toy_rsvqa_lr", "task": "vqa", "question_type": "presence", "chance": 0.5, "majority": 0.55},
    {"source": "toy_rsvqa_lr", "task": "vqa", "question_type": None, "chance": 0.3, "majority": 0.5},
    {"source": "toy_rsvqa_lr", "task": "vqa", "question_type": "count", "chance": 0.1, "majority": 0.2},
]


def row(model: str, value: float, **more: Any) -> dict[str, Any]:
    return {
        "model": model,
        "mode": "direct",
        "split": "test",
        "world": "toy",
        "task": "scene_cls",
        "source": "toy_aid",
        "question_type": None,
        "metric": "accuracy",
        "headline": True,
        "value": value,
        "n": 10,
        **more,
    }


def goal(key: str, rows: list[dict[str, Any]]) -> tuple[bool | None, str, str]:
    found = next(g for g in method_goals(rows, GUESSES) if g.key == key)
    return found.ok, found.reached, found.note


def test_the_base_must_stay_near_chance_on_every_closed_type() -> None:
    presence = {"task": "vqa", "source": "toy_rsvqa_lr", "question_type": "presence"}
    rows = [row("base", 0.15), row("base", 0.54, **presence)]
    noise = [
        row("base", 0.9, task="vqa", source="toy_rsvqa_lr"),  # all question types together
        row("base", 0.9, **presence | {"question_type": "count"}),  # not closed
        row("base", 0.9, mode="tagged"),
        row("base", 0.9, world="neon", source="neon"),
        row("base", 0.9, source=None),  # over all sources: the same records once more
        row("base", 0.9, headline=False),
        row("sft", 0.9),
    ]
    note = "largest of 2 margins: presence test. All: presence test +4.0, scene test +2.5"
    assert goal("base", rows + noise) == (True, "+4.0 points", note)
    ok, reached, note = goal("base", [*rows, row("base", 0.2)])
    assert (ok, reached) == (False, "+7.5 points") and "largest of 3 margins: scene test." in note


def test_sft_must_clear_the_majority_answer_on_the_worst_type() -> None:
    presence = {"task": "vqa", "source": "toy_rsvqa_lr", "question_type": "presence"}
    assert goal("sft", [row("sft", 0.5), row("sft", 0.81, **presence)])[:2] == (True, "+26.0 points")
    ok, reached, note = goal("sft", [row("sft", 0.12), row("sft", 0.81, **presence)])
    assert (ok, reached) == (False, "−3.0 points") and "smallest of 2 margins: scene test." in note


def test_rl_is_compared_with_sft_on_the_hard_split_of_the_toy_world() -> None:
    where = {"mode": "tagged", "split": "test_hard"}
    sft, rl = row("sft", 0.50, **where), row("a2grpo", 0.54, **where)
    assert goal("rl", [sft, rl]) == (True, "+4.0 points", "mean over tasks 50.0 → 54.0")
    assert goal("rl", [sft, row("a2grpo", 0.52, **where)])[0] is False
    doubled = [{**r, "source": None, "value": 0.9} for r in (sft, rl)]
    assert goal("rl", [sft, rl, *doubled]) == goal("rl", [sft, rl])
    assert goal("rl_over_direct", [sft, rl]) == (None, "–", "")
    assert goal("rl_over_direct", [row("sft", 0.54, split="test_hard"), rl])[0] is True  # no loss is enough
    assert goal("rl_over_direct", [row("sft", 0.55, split="test_hard"), rl])[0] is False


def test_form_and_thoughts_are_averaged_by_their_number() -> None:
    common = {"mode": "tagged", "headline": False}
    rows = [
        row("a2grpo", 1.0, metric="well_formed", **common | {"n": 30}),
        row("a2grpo", 0.9, metric="well_formed", **common | {"n": 10}),
        row("a2grpo", 0.0, metric="well_formed", world="neon", **common),
        row("a2grpo", 0.0, metric="well_formed", **common | {"source": None}),
        row("sft", 0.0, metric="well_formed", **common),
        row("a2grpo", 7.9, metric="thought_words", **common),
    ]
    assert goal("well_formed", rows) == (False, "97.5%", "")
    assert goal("thought_words", rows) == (False, "7.9 words", "")
    assert goal("well_formed", rows[:1])[:2] == (True, "100.0%")


def test_nothing_measured_is_neither_met_nor_missed() -> None:
    assert {g.ok for g in method_goals([], [])} == {None}
    assert {g.reached for g in method_goals([], [])} == {"–"}


def test_time_and_memory() -> None:
    assert [(g.ok, g.reached) for g in resource_goals({"data": 600.0, "sft": 120.0}, 6_000_000_000)] == [
        (True, "12.0 min"),
        (True, "6.0 GB"),
    ]
    assert [g.ok for g in resource_goals({"data": 721.0}, 6_100_000_000)] == [False, False]
