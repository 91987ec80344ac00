"""Notes beside a score: answers cut off, two readings, two protocols, questions of different kinds."""

from __future__ import annotations

from typing import Any

import pytest

from geozero.evaluation.evaluate import evaluate

CUT = {"finish_reason": "length", "n_tokens": 2048, "width": 1000, "height": 1000}


def scored(task: str, *rows: dict[str, Any], protocol: str = "strict") -> dict[str, Any]:
    return evaluate(task, protocol, list(rows), resamples=5)


@pytest.mark.parametrize(
    ("task", "text", "label", "metric"),
    [
        (
            "grounding",
            "The ship might be at [100, 100, 500, 500] but I should check",
            "[100, 100, 500, 500]",
            "acc@0.5",
        ),
        ("detection", "Ships are at [[100, 100, 500, 500], [1, 1, 2, 2", "[[100, 100, 500, 500]]", "f1"),
        ("vqa", "yes", "yes", "accuracy"),
        ("vqa", "<answer>yes", "yes", "accuracy"),
        ("vqa", "<think>Is there a ship? yes", "yes", "accuracy"),
        ("scene_cls", "port", "port", "accuracy"),
        ("multiple_choice", "B", "B", "accuracy"),
        ("caption", "there are many planes parked near the", ["there are many planes parked near the"], "BLEU-1"),
    ],
)
def test_what_was_cut_off_before_an_answer_is_wrong_and_counted(task: str, text: str, label: Any, metric: str) -> None:
    found = scored(task, {**CUT, "raw_output": text, "label": label})
    assert found["metrics"][metric] == 0 and found["problems"]["reasons"]["cut_off"] == 1
    assert any("1 of 1 completions were cut off before an answer" in note for note in found["notes"])
    block = scored(
        task,
        {**CUT, "raw_output": f"So: <answer>{label if task != 'caption' else label[0]}</answer> T", "label": label},
    )
    assert block["metrics"][metric] == 1 and "cut_off" not in block["problems"]["reasons"]


def test_the_published_protocol_knows_no_cut() -> None:
    found = scored("vqa", {**CUT, "raw_output": "yes", "label": "yes"}, protocol="official")
    assert found["metrics"]["accuracy_percent"] == 100 and found["problems"]["n"] == 0


def test_a_thought_in_its_own_tags_is_no_answer() -> None:
    found = scored("vqa", {"raw_output": "<think>no ship</think>\n\nyes", "label": "yes"})
    assert found["metrics"]["accuracy"] == 1 and found["reasoning"]["n_with_thought"] == 1


def test_the_two_readings_stand_side_by_side() -> None:
    rows = [
        {"raw_output": text, "label": "yes"} for text in ("yes", "<answer>yes</answer>", "<answer>no</answer>", "no")
    ]
    found = scored("vqa", *rows)
    assert found["readings"] == {"metric": "accuracy", "n_differ": 2, "score": 0.5, "reward": 0.25}
    assert found["notes"] == [
        "2 of 4 completions have no well-formed answer block: the score reads them (accuracy 50.0 %), "
        "the reward gives them 0 (25.0 %)"
    ]
    direct = scored("vqa", *rows[::3])  # nobody asked for tags
    assert direct["readings"]["reward"] == 0 and direct["notes"] == []
    tagged = scored("vqa", *rows[1:3])
    assert tagged["readings"] == {"metric": "accuracy", "n_differ": 0, "score": 0.5, "reward": 0.5}


def test_a_model_that_answers_in_sentences_has_both_protocols_and_the_reason() -> None:
    rows = [{"raw_output": "Yes, there are several ships in it.", "label": "yes"}] * 9 + [
        {"raw_output": "", "label": "no"}
    ]
    found = scored("vqa", *rows)
    assert found["protocols"] == {"strict": 0.0, "official": 100.0}
    assert found["notes"] == [
        "accuracy is 0.0 % under strict and 100.0 % under official, which alone counts as right: 9 answers with the "
        "label among other words; 1 answer without a word"
    ]
    short = scored("vqa", *[{"raw_output": "yes", "label": "yes"}] * 4)
    assert short["protocols"] == {"strict": 100.0, "official": 100.0} and short["notes"] == []


def test_every_answer_that_only_official_counts_is_in_the_reason() -> None:
    """However short it is: "No, not here." is no sentence of more than five words."""
    texts = ["No, not here."] * 4 + ["river bank"] * 2 + ["n"] * 3 + ["The answer is no.", "no"]
    found = scored("vqa", *[{"raw_output": text, "label": "no"} for text in texts])
    assert found["notes"] == [
        "accuracy is 9.1 % under strict and 81.8 % under official, which alone counts as right: 5 answers with the "
        "label among other words; 3 answers with only a part of the label"
    ]


def test_a_stray_answer_block_among_direct_answers_is_no_second_reading() -> None:
    rows = [{"raw_output": "yes", "label": "yes"}] * 99 + [{"raw_output": "<answer>yes</answer>", "label": "yes"}]
    assert scored("vqa", *rows)["notes"] == []
    assert len(scored("vqa", *rows[90:])["notes"]) == 1


def test_a_mean_over_counts_and_closed_questions_says_so() -> None:
    rows = [{"raw_output": "0", "label": "0"}] * 3 + [{"raw_output": "no", "label": "yes"}] * 7
    assert scored("vqa", *rows)["notes"] == [
        "10 of 10 records have no question_type, so scores by type are without them",
        "accuracy is a mean over 3 counts and 7 other questions; papers on RSVQA leave counts out",
    ]
    assert scored("vqa", *[row | {"question_type": "presence"} for row in rows[3:]])["notes"] == []


def test_records_without_labels_are_noted() -> None:
    found = scored("vqa", {"raw_output": "yes", "label": ""}, {"raw_output": "yes", "label": "yes"})
    assert "1 of 2 records have no label and count as wrong" in found["notes"]


def test_one_of_several_right_answers_is_right() -> None:
    rows = [{"raw_output": text, "label": ["lake", "pond", "2"]} for text in ("Pond.", "lake", "two", "river")]
    assert scored("vqa", *rows)["metrics"]["accuracy"] == 0.75


def caption(text: str, label: str) -> dict[str, Any]:
    return {"raw_output": text, "label": [label]}


def test_cider_and_bleu_that_say_nothing_are_noted() -> None:
    one = scored("caption", caption("a plane near the terminal", "a plane near the terminal"))
    assert one["metrics"]["CIDEr-D"] == 0 and "CIDEr" in one["notes"][0] and "1 record" in one["notes"][0]
    same = scored("caption", *[caption("a plane near the terminal", "a plane near the terminal")] * 20)
    assert same["metrics"]["CIDEr-D"] == 0 and "CIDEr" in same["notes"][0]
    short = scored("caption", *[caption("a plane", "a plane")] * 5, caption("a ship", "a ship"))
    assert short["metrics"]["BLEU-4"] == 0 and any("BLEU-4" in note for note in short["notes"])
    many = [caption(f"many planes are near terminal {i}", f"many planes are near terminal {i}") for i in range(40)]
    assert scored("caption", *many)["notes"] == []
