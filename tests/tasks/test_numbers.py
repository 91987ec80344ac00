"""Numbers in answers: which are the same, in the strict score and in the reward, and how counts are graded."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.corpus.sample import Sample
from geozero.evaluation.evaluate import evaluate
from geozero.metrics.records import parse_records
from geozero.params import A2grpo
from geozero.tasks import get
from geozero.tasks.numbers import count_of, number_of, quantity
from geozero.tasks.text import closed_reading, normalise, same_answer
from geozero.training.grpo.rewards import answer_rewards

VQA = get("vqa")
SAME = [
    *[("5.0", "5"), ("1,234", "1234"), ("1,234,567.50", "1234567.5"), ("1e3", "1000"), ("007", "7"), ("-0", "0")],
    *[
        ("−5", "-5"),
        (".5", "0.5"),
        ("+5", "5"),
        ("(3)", "3"),
        ("**3**", "3"),
        ("3.", "3"),
        ("- 10", "10"),
        ("3。", "3"),
    ],
    *[("Two", "2"), ("twenty-one", "21"), ("twenty one", "21"), ("one hundred and five", "105"), ("a hundred", "100")],
    *[("a dozen", "12"), ("half a dozen", "6"), ("two dozen", "24"), ("3 million", "3,000,000"), ("zero", "0")],
    *[("two hundred thousand", "200000"), ("nineteen ships", "19"), ("5 ships", "5"), ("5 small ships", "5")],
    *[("none", "0"), ("no ships", "0"), ("There are no ships.", "0"), ("nothing", "0"), ("None", "zero")],
    *[("1-2", "1 to 2"), ("1–2", "from 1 to 2"), ("between 1 and 2", "1 - 2"), ("one to two", "1-2")],
    *[("0 to 10 m2", "between 0m2 and 10m2"), ("between 0 m² and 10 m²", "between 0m2 and 10m2")],
    *[("25 m2", "25m2"), ("25 m²", "25m2"), ("25 square metres", "25m2"), ("10 percent", "10%"), ("25", "25m2")],
    *[
        ("exactly three ships", "3"),
        ("only 3", "3"),
        ("three (3) ships", "3"),
        ("3 (three)", "3"),
        ("minus three", "-3"),
    ],
    *[("\u20133", "-3"), ("1\u00a0234", "1234"), ("1'234'567", "1234567"), (">3", "more than 3"), ("3+", "3 or more")],
    *[("3<|im_end|>", "3"), ("yes</s>", "yes"), ("\\boxed{3}", "3"), ("so \\boxed{\\text{yes}}.", "yes")],
    *[
        ("<|begin_of_box|>No<|end_of_box|>", "no"),
        ("\u0661\u0662", "12"),
        ("no visible ships", "0"),
        ("3\ufe0f\u20e3", "3"),
    ],
    *[("3.50 or 4", "3.5 or 4"), ("more than 1,000m2", "more than 1000m2"), ("Yes.", "yes"), ("Airport .", "airport")],
]
DIFFERENT = [
    *[("3.5", "35"), ("-5", "5"), ("1-2", "12"), ("5.0", "50"), ("1.234", "1234"), ("1,23", "123"), ("5,6", "56")],
    *[("1/2", "12"), ("10:30", "1030"), ("5 6", "56"), ("1-2", "1"), ("1 to 2", "2"), ("25m2", "25km2"), ("5th", "5")],
    *[("about 5", "5"), ("5 or 6", "5"), ("5 or more", "5"), ("3D", "3"), ("several", "3"), ("twenty-one", "201")],
    *[("no", "0"), ("none", "1"), ("no idea", "0"), ("yes", "1"), ("", "0"), ("5 ships", "5 planes"), ("...", "---")],
    *[(sign + "3", "3") for sign in (">", "<", ">=", "\u2265", "~", "\u2248", "> ", "\u00b1", "at least ", "not ")],
    *[("3+", "3"), ("3+ ships", "3"), ("12 \u00b1 2", "12"), ("\u20133", "3"), ("minus 3", "3"), ("three (4)", "3")],
    *[
        ("two thirds", "2"),
        ("one half", "1"),
        ("3 quarters", "3"),
        ("2\u00bd", "2"),
        ("three pairs", "3"),
        ("3 k", "3"),
    ],
    *[("3 maybe", "3"), ("3 four", "3"), ("3 no", "3"), ("two or three", "3"), ("a few", "3"), ("3;4", "34")],
    *[("0,500", "500"), ("1.234.567", "1234567"), ("1 234", "1234"), ("1,5 million", "15000000"), ("0x3", "3")],
    *[
        (f"no {word}", "0")
        for word in ("way", "comment", "doubt", "information", "thanks", "it is not", "sorry", "yes")
    ],
    *[("2023-05-14", "20230514"), ("512x512", "512512"), ("\\boxed{3} or \\boxed{4}", "3"), ("not no", "no")],
    *[
        ("~three", "3"),
        (">three", "3"),
        ("three+", "3"),
        ("3 max", "3"),
        ("3 each", "3"),
        ("no two", "0"),
        ("5\u00b10", "5"),
    ],
    *[("no wait", "0"), ("no response", "0"), ("no ship; yes", "0"), ("no longer visible", "0"), ("non-zero", "0")],
    *[("yes and no", "yes"), ("Yes/No", "yes"), ("there is no ship but 3", "0"), ("1st", "1"), ("one and a half", "1")],
    *[("more than 1000m2", "1000m2"), ("3.5 or 4", "35 or 4"), ("runway -5", "runway 5"), ("5", "")],
]


@pytest.mark.parametrize(("a", "b"), SAME)
def test_the_same_number_written_otherwise(a: str, b: str) -> None:
    check(a, b, right=True)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_another_number_is_another_answer(a: str, b: str) -> None:
    check(a, b, right=False)


def check(a: str, b: str, right: bool) -> None:
    """Score and reward agree, whichever of the two is the label."""
    for answer, label in ((a, b), (b, a)):
        assert same_answer(answer, label) is right
        if label.strip():
            sample = Sample("1", "vqa", "s", "train", "i", "k", "How many?", label, width=9, height=9)
            assert VQA.reward(f"I count. <answer>{answer}</answer>", sample, "tagged") == (right if answer else 0)
        found = evaluate("vqa", "strict", [{"raw_output": answer, "label": label}], resamples=5)
        assert found["metrics"]["accuracy"] == right


def test_the_published_rules_stay() -> None:
    rows = [{"raw_output": a, "label": b} for a, b in [("3.5", "35"), ("-5", "5"), ("twenty-one", "21"), ("", "4")]]
    assert VQA.official(parse_records(rows)).per_record["hit"].tolist() == [1, 1, 0, 1]


@given(st.text(st.characters(exclude_categories=["Nd", "Cs"])))
def test_without_numbers_the_published_normalisation_holds(text: str) -> None:
    if quantity(text) is None:
        assert closed_reading(text) == normalise(text).strip()


@given(st.text(max_size=30))
def test_a_reading_is_read_as_itself(text: str) -> None:
    once = closed_reading(text)
    assert same_answer(once, once) is bool(once)
    assert closed_reading(once) == once or quantity(text) is None


@given(st.decimals(-(10**9), 10**9, places=3), st.decimals(-(10**9), 10**9, places=3))
def test_numbers_are_equal_where_their_values_are(a: Decimal, b: Decimal) -> None:
    assert same_answer(f"{a:f}", f"{b:f}") is (a == b)
    assert same_answer(f"{a:,f}", f"{a:f}")


@given(st.integers(0, 10**9))
def test_words_say_the_same_number(n: int) -> None:
    assert number_of(in_words(n)) == n


def in_words(n: int) -> str:
    small = [
        "zero",
        "one",
        "two",
        "three",
        "four",
        "five",
        "six",
        "seven",
        "eight",
        "nine",
        "ten",
        "eleven",
        "twelve",
        "thirteen",
        "fourteen",
        "fifteen",
        "sixteen",
        "seventeen",
        "eighteen",
        "nineteen",
    ]
    tens = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
    for scale, name in ((10**9, "billion"), (10**6, "million"), (1000, "thousand"), (100, "hundred")):
        if n >= scale:
            rest = f" and {in_words(n % scale)}" if n % scale and scale == 100 else f" {in_words(n % scale)}"
            return f"{in_words(n // scale)} {name}{rest if n % scale else ''}"
    return small[n] if n < 20 else tens[n // 10] + (f"-{small[n % 10]}" if n % 10 else "")


@pytest.mark.parametrize(
    ("label", "count"),
    [("7", 7), ("7 ships", 7), ("0", 0), ("25m2", None), ("1-2", None), ("yes", None), ("10%", None)],
)
def test_what_is_a_count(label: str, count: float | None) -> None:
    assert count_of(label) == count


# --- counts as metrics and in the reward ------------------------------------------------------------------


def row(answer: str, label: str, kind: str | None = None) -> dict[str, Any]:
    return {"raw_output": answer, "label": label, "question_type": kind}


def test_counts_are_scored_exactly_nearly_and_by_their_error() -> None:
    rows = [
        row("10", "10"),
        row("9.0", "10"),
        row("eight", "10"),
        row("many", "10"),
        row("none", "0"),
        row("yes", "yes"),
    ]
    metrics = evaluate("vqa", "strict", rows, resamples=5)["metrics"]
    assert metrics["count_accuracy"] == 2 / 5 and metrics["count_within_10_percent"] == 3 / 5
    assert metrics["count_mae"] == pytest.approx((0 + 1 + 2 + 0) / 4)
    assert metrics["n_counts"] == 5 and metrics["n_counts_without_number"] == 1
    assert "count_mae" not in evaluate("vqa", "strict", [row("yes", "yes")], resamples=5)["metrics"]


def test_means_over_types_with_and_without_counts() -> None:
    rows = [row("3", "4", "count"), *[row("yes", "yes", "presence")] * 6, *[row("no", "yes", "comp")] * 3]
    metrics = evaluate("vqa", "strict", rows, resamples=5)["metrics"]
    assert metrics["accuracy"] == 6 / 10 and metrics["accuracy_without_counts"] == 6 / 9
    assert metrics["accuracy_mean_of_types"] == pytest.approx(1 / 3)
    assert metrics["accuracy_mean_of_types_without_counts"] == 1 / 2


@pytest.mark.parametrize(
    ("answer", "label", "exact", "graded"),
    [
        *[("10", "10", 1, 1), ("9", "10", 0, 0.9), ("nine", "10", 0, 0.9), ("30", "10", 0, 0), ("1", "0", 0, 0)],
        *[("none", "0", 1, 1), ("many", "10", 0, 0), ("no", "yes", 0, 0), ("24m2", "25m2", 0, 0), ("9-11", "10", 0, 0)],
    ],
)
def test_a_count_that_is_nearly_right_earns_part_of_it_if_asked_for(
    answer: str, label: str, exact: float, graded: float
) -> None:
    sample = Sample("1", "vqa", "s", "train", "i", "k", "How many?", label, width=9, height=9).to_json()
    text = f"I count. <answer>{answer}</answer>"
    assert answer_rewards([text], [sample], "norm1000") == [exact]
    assert answer_rewards([text], [sample], "norm1000", graded=True) == [pytest.approx(graded)]
    assert answer_rewards([answer], [sample], "norm1000", graded=True) == [0]


def test_grading_is_off_by_default() -> None:
    assert A2grpo(steps=1).graded_counts is False
