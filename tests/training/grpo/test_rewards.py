"""Rewards of A²GRPO: the tasks' own parser, the gate, and the group."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
from reward_samples import make

from geozero.corpus.sample import Sample
from geozero.params import A2grpo
from geozero.tasks import get
from geozero.training.grpo.objective import gate, thinking_score
from geozero.training.grpo.rewards import (
    AnswerReward,
    ThinkingReward,
    answer_rewards,
    by_source,
    thinking_rewards,
)

SETTINGS, BOXES = A2grpo(steps=1, thought_words=5, thought_words_max=50), "norm1000"
ARGUMENTS = SimpleNamespace(**SETTINGS.arguments(of_method=True), boxes=BOXES)

VQA = make("vqa").to_json()
BOX = make("grounding", "b", box=(10.0, 10.0, 50.0, 50.0), answer="[10, 10, 50, 50]").to_json()


def test_answer_reward_is_the_tasks_in_tagged_mode() -> None:
    completions = [
        "a ship <answer>yes</answer>",
        "yes",
        "<answer>yes</answer><answer>yes</answer>",
        "x <answer></answer>",
    ]
    assert answer_rewards(completions, [VQA] * 4, "norm1000") == [1.0, 0.0, 0.0, 0.0]
    half = "here <answer>[100, 100, 500, 300]</answer>"
    assert answer_rewards([half], [BOX], "norm1000") == [pytest.approx(0.5)]
    assert answer_rewards(["<answer>[10, 10, 50, 30]</answer>"], [BOX], "pixels") == [pytest.approx(0.5)]
    for text in (VQA, BOX):
        sample = Sample.from_json(text)
        for completion in [*completions, half]:
            expected = get(sample.task).reward(completion, sample, "tagged", "norm1000")
            assert answer_rewards([completion], [text], "norm1000") == [expected]


def test_a_wrong_answer_earns_nothing_for_its_thought() -> None:
    thought = "one two three four five six "
    completions = [thought + "<answer>no</answer>", thought + "<answer>yes</answer>"]
    wrong, right = thinking_rewards(completions, [VQA] * 2, SETTINGS, BOXES)
    assert wrong == 0.0
    assert right == 0.0  # the same thought as its neighbour: no diversity
    completions[0] = "something else was seen here today <answer>no</answer>"
    assert thinking_rewards(completions, [VQA] * 2, SETTINGS, BOXES) == [0.0, 1.0]
    assert thinking_rewards(["all wrong <answer>no</answer>"] * 8, [VQA] * 8, SETTINGS, BOXES) == [0.0] * 8


def test_the_group_is_the_sample_not_the_question() -> None:
    other = make("vqa", "another").to_json()  # the same words about another image
    text = "one two three four five six <answer>yes</answer>"
    assert thinking_rewards([text, text], [VQA, VQA], SETTINGS, BOXES) == [0.0, 0.0]
    assert thinking_rewards([text, text], [VQA, other], SETTINGS, BOXES) == [1.0, 1.0]
    mixed = [text, text, "six five four three two one <answer>yes</answer>"]
    assert thinking_rewards(mixed, [VQA, other, VQA], SETTINGS, BOXES) == [1.0, 1.0, 1.0]


def test_graded_rewards_open_the_gate_by_degrees() -> None:
    completions = ["one two three <answer>[100, 100, 500, 300]</answer>", "four five six <answer>none</answer>"]
    reward, nothing = thinking_rewards(completions, [BOX, BOX], SETTINGS, BOXES)
    assert reward == pytest.approx(gate(0.5) * thinking_score("one two three", ["four five six"], 5, 50))
    assert nothing == 0.0


def test_the_plug_ins_take_what_ms_swift_gives() -> None:
    columns = {"sample": [VQA], "prompt_id": ["p"], "trainer_state": None, "messages": [[]]}
    assert AnswerReward(args=ARGUMENTS)(["<answer>yes</answer>"], **columns) == [1.0]
    assert ThinkingReward(args=ARGUMENTS)(["a b c d e <answer>yes</answer>"], **columns) == [1.0]


def test_what_an_ablation_puts_in_the_gate_s_place() -> None:
    completions = ["one two three four five <answer>no</answer>", "six seven eight nine ten <answer>yes</answer>"]
    opened = SETTINGS.model_copy(update={"gate": "open"})
    assert thinking_rewards(completions, [VQA] * 2, opened, BOXES) == [1.0, 1.0]
    sigmoid = SETTINGS.model_copy(update={"gate": "sigmoid"})
    wrong, right = thinking_rewards(completions, [VQA] * 2, sigmoid, BOXES)
    assert wrong == pytest.approx(1 / (1 + math.exp(5))) and right == pytest.approx(1 - wrong)
    assert thinking_rewards(completions, [VQA] * 2, SETTINGS, BOXES) == [0.0, 1.0]


def test_the_form_of_the_thinking_score_comes_from_the_parameters() -> None:
    twice = ["one two three four five <answer>yes</answer>"] * 2
    assert thinking_rewards(twice, [VQA] * 2, SETTINGS, BOXES) == [0.0, 0.0]
    by_length = SETTINGS.model_copy(update={"thinking_score": "length"})
    assert thinking_rewards(twice, [VQA] * 2, by_length, BOXES) == [1.0, 1.0]


def test_rewards_are_also_meant_by_source() -> None:
    assert by_source(["a", "b", "a"], [1.0, 0.5, 0.0]) == {"a": 0.5, "b": 0.5} and by_source([], []) == {}
