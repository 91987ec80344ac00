"""Which features of thoughts go with right answers: read from what RL wrote down, group by group."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.thoughts import features, groups

SETTINGS = {"thought_words": 4, "thought_words_max": 80}


def test_groups_of_the_wanted_steps_are_read_in_order(tmp_path: Path) -> None:
    prompt = "<|im_start|>user\n<image>Are there ships?\nOne word.<|im_end|>\n<|im_start|>assistant\n"
    rows = [
        {"step": [step] * 4, "prompt": [prompt] * 4, "completion": list("abcd"), "AnswerReward": ["0", "1", "1", "0"]}
        for step in ("1", "2", "3")
    ]
    (tmp_path / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = list(groups(tmp_path, 2, 2, 2))
    assert found == [
        ("Are there ships?\nOne word.", ["a", "b"], [0.0, 1.0]),
        ("Are there ships?\nOne word.", ["c", "d"], [1.0, 0.0]),
    ]


def test_features_are_those_of_the_thought_alone() -> None:
    completions = [
        "Of ships there are two. <answer>yes</answer>",
        "A rural scene. <answer>ships</answer>",
        "<answer>no</answer>",
    ]
    found = features("Are there any ships?\nAnswer with one word.", completions, SETTINGS)
    assert found["words"] == [5.0, 3.0, 0.0]
    assert found["names what is asked"] == [1.0, 0.0, 0.0]  # "there" and "ships"
    assert found["S_t"] == [pytest.approx(1.0), pytest.approx(0.75), 0.0]
    assert found["like the others"] == [0.0, 0.0, 0.0]
