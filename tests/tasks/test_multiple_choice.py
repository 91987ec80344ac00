"""Multiple choice: which answers name an option, how options are read from a question, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Sample
from geozero.evaluation.evaluate import evaluate
from geozero.tasks import get, validate
from geozero.tasks.multiple_choice import choice, options_of

TASK = get("multiple_choice")
OPTIONS = {"A": "a lake", "B": "River", "C": "the sea", "D": "the sea."}
QUESTION = "What is it?\nA. a lake\nB. River\nC. the sea\nD. the sea."


def make(question: str = QUESTION, answer: str = "B", **more: Any) -> Sample:
    return Sample("1", "multiple_choice", "s", "train", "i", "k", question, answer, width=9, height=9, **more)


@pytest.mark.parametrize(
    "answer",
    [
        *["B", "b", "(B)", "(b).", "B.", "B)", "B:", " B \n", "B: river", "(B) River.", "river", "B!", "\\boxed{B}"],
        *[
            "**B**",
            "[B]",
            '"B"',
            "`B`",
            "$B$",
            "<|begin_of_box|>B<|end_of_box|>",
            "B<|im_end|>",
            "Option B",
            "option (B)",
        ],
        *["The answer is B.", "The correct answer is **B**.", "**Answer:** B", "Answer: B. River"],
    ],
)
def test_an_option_is_named_by_its_letter_or_its_text(answer: str) -> None:
    assert choice(answer, OPTIONS) == "B"
    assert TASK.reward(answer, make(), "direct") == 1


@pytest.mark.parametrize(
    "answer",
    [
        "A",
        "E",
        "A or B",
        "A, B",
        "B: a lake",
        "B. a river",
        "it is a river",
        "rive",
        "B river",
        "",
        "...",
        "ABC",
        *[
            "not B",
            "The answer is not B",
            "Answer: A or B",
            "B and not A",
            "A. a lake or B. River",
            "A/B",
            "B?",
            "Neither",
        ],
        "the sea",
    ],
)
def test_another_option_several_or_none_are_wrong(answer: str) -> None:
    assert TASK.reward(answer, make(), "direct") == TASK.reward(f"<answer>{answer}</answer>", make(), "tagged") == 0


def test_an_answer_that_may_mean_two_options_is_none() -> None:
    assert choice("the sea", OPTIONS) == ""  # C or D
    assert choice("D: the sea", OPTIONS) == "D"  # the letter settles it
    assert choice("A", {"A": "B", "B": "A"}) == ""  # the letter of one, the text of the other
    assert choice("B", {"A": "x", "B": "B"}) == "B"
    assert choice("A. a lake or B. River", {}) not in ("A", "B")  # nor where the options are not known


@pytest.mark.parametrize(
    ("question", "options"),
    [
        ("Which?\nA. x\nB. y z\nAnswer with the letter.", {"A": "x", "B": "y z"}),
        ("Which? (A) x (B) y, z", {"A": "x", "B": "y, z"}),
        ("Which? A) x B) y", {"A": "x", "B": "y"}),
        ("Which?\nA: x\nB: 3.5 m", {"A": "x", "B": "3.5 m"}),
        ("Is A. Smith there? A. yes B. no", {"A": "yes", "B": "no"}),
        ("Which?\nA. x", {}),
        ("Which?\nB. x\nC. y", {}),
        ("Is it in the U.S.A. or not?", {}),
        ("", {}),
    ],
)
def test_options_are_read_from_the_question(question: str, options: dict[str, str]) -> None:
    assert options_of(question) == options


words = st.sampled_from(["road", "river", "a", "no", "12 m", "sea", "sea,"])
texts = st.lists(words, min_size=1, max_size=4).map(" ".join)


@given(st.lists(texts, min_size=2, max_size=8, unique=True), st.integers(0, 7), st.integers(0, 20))
def test_what_is_asked_is_read_and_what_is_taught_is_right(options: list[str], right: int, number: int) -> None:
    question = TASK.question(f"id{number}", "What is it?", options)
    assert list(options_of(question).values()) == options
    answer = options[right % len(options)]
    sample = make(question, answer, classes=tuple(options))
    try:
        validate(sample)
    except BadRecord as bad:  # another option differs in punctuation alone, or is a letter
        assert bad.reason == "answer_not_an_option"
        assert "a" in options or any("sea," in option for option in options)
        return
    target = TASK.target(sample)
    assert target == "ABCDEFGH"[right % len(options)]
    assert TASK.reward(target, sample, "direct") == TASK.reward(answer, sample, "direct") == 1
    assert TASK.shown_truth(sample, "norm1000") == f"{target}. {answer}"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"question": "What is it?"}, "options_unreadable"),
        ({"classes": ("a lake", "River")}, "options_unreadable"),
        ({"answer": "E"}, "answer_not_an_option: E"),
        ({"answer": "the sea"}, "answer_not_an_option: the sea"),
        ({"answer": ""}, "answer_empty"),
        ({"question": "Which?\nA. road\nB. a", "answer": "A"}, "answer_not_an_option: A"),
    ],
)
def test_a_sample_that_cannot_be_answered_is_refused(changes: dict[str, Any], reason: str) -> None:
    assert validate(make())
    with pytest.raises(BadRecord, match=reason):
        validate(make(**changes))


def test_one_question_has_one_right_option_wherever_it_stands() -> None:
    key = TASK.conflict_key(make(), "What is it?")
    other = make("What is it?\nA. River\nB. the sea.\nC. a lake\nD. the sea", "A")
    assert key == TASK.conflict_key(other, "What is it?") != TASK.conflict_key(make(answer="A"), "What is it?")
    fewer = make("What is it?\nA. River\nB. a lake", "B")
    assert TASK.conflict_key(fewer, "What is it?") != TASK.conflict_key(make(answer="A"), "What is it?")


# --- scores -----------------------------------------------------------------------------------------------


def record(text: str, label: str = "B", question: str = QUESTION, **more: Any) -> dict[str, Any]:
    return {"raw_output": text, "label": label, "question": question, **more}


def test_strict_scores() -> None:
    rows = [
        record("I see water. <answer>river</answer>"),
        record("b", "River"),
        record("A or B"),
        record("A", "B. River", "What?\nA. a lake\nB. River"),
    ]
    found = evaluate("multiple_choice", "strict", rows, resamples=20)
    assert found["metrics"] == {"accuracy": 0.5, "n_no_choice_pred": 1, "n_no_choice_label": 0}
    assert found["baselines"]["majority"] == 1.0 and found["baselines"]["majority_answer"] == "B"
    assert found["baselines"]["chance"] == pytest.approx((3 / 4 + 1 / 2) / 4)
    assert found["reasoning"]["n_with_thought"] == 1


def test_without_the_question_letters_and_texts_are_compared_as_they_are() -> None:
    rows = [
        {"raw_output": text, "label": label}
        for text, label in (("B.", "(B) river"), ("river", "River"), ("B", "river"))
    ]
    found = evaluate("multiple_choice", "strict", rows, resamples=20)
    assert found["metrics"]["accuracy"] == pytest.approx(2 / 3)
    assert found["baselines"]["chance"] == pytest.approx(1 / 2)  # of the labels that occur


def test_several_answers_vote_by_letter() -> None:
    rows = [record(text, id=f"q/{i}", sample="q") for i, text in enumerate(["B", "river", "A"])]
    found = evaluate("multiple_choice", "strict", rows, resamples=20)["self_consistency"]
    assert found["vote"]["value"] == 1.0 and found["calibration"]["bins"][0]["confidence"] == pytest.approx(2 / 3)


def test_the_published_script_does_not_know_it() -> None:
    with pytest.raises(InputError) as caught:
        evaluate("multiple_choice", "official", [record("B")])
    assert "the published script does not know multiple_choice" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("A C", 1),
        ("C, A", 1),
        ("(A) (C)", 1),
        ("A and C", 1),
        ("A, C.", 1),
        ("A", 0),
        ("A or C", 0),
        ("A B C", 0),
        ("A E", 0),
    ],
)
def test_several_options_may_be_right_together(answer: str, right: float) -> None:
    asked = "Which are there?\nA. road\nB. river\nC. bridge"
    row = {"raw_output": answer, "label": "A, C", "question": asked}
    assert evaluate("multiple_choice", "strict", [row], resamples=5)["metrics"]["accuracy"] == right
    sample = Sample("1", "multiple_choice", "s", "train", "i", "k", asked, "A, C", width=9, height=9)
    assert get("multiple_choice").reward(answer, validate(sample), "direct") == right
    assert get("multiple_choice").shown_truth(sample, "norm1000") == "A. road, C. bridge"
