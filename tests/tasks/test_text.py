"""Reading a completion: what counts as the answer that a reward compares, in either mode."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.tasks.text import (
    extract_answer,
    has_thought,
    is_well_formed,
    read_answer,
    scored_answer,
    tagged_answer,
    thought,
    words,
)

pieces = st.lists(st.sampled_from(["<answer>", "</answer>", " ", "\n", "a", "<ANSWER>", "<answer"]), max_size=10)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("I see water. <answer> yes </answer>", "yes"),
        ("<answer>yes</answer>", "yes"),
        ("<answer>two\nlines</answer> and more", "two\nlines"),
        ("<answer> a </b> <c> </answer>", "a </b> <c>"),
        ("yes", None),
        ("", None),
        ("<answer></answer>", None),
        ("<answer> \n </answer>", None),
        ("<answer>yes", None),
        ("yes</answer>", None),
        ("</answer>yes<answer>", None),
        ("<answer>no</answer> <answer>yes</answer>", None),
        ("<answer><answer>yes</answer>", None),
        ("<answer>yes</answer></answer>", None),
        ("I write <answer> and then <answer>yes</answer>", None),
        ("<ANSWER>yes</ANSWER>", None),
        ("< answer >yes</ answer >", None),
    ],
)
def test_one_well_formed_block(completion: str, answer: str | None) -> None:
    assert tagged_answer(completion) == read_answer(completion, "tagged") == answer
    assert is_well_formed(completion) == (answer is not None)


@given(pieces.map("".join))
def test_exactly_one_block_with_something_in_it(text: str) -> None:
    found = re.fullmatch(r"(?s)((?!</?answer>).)*<answer>(((?!</?answer>).)*)</answer>((?!</?answer>).)*", text)
    assert tagged_answer(text) == ((found.group(2).strip() or None) if found else None)


@given(st.text())
def test_direct_mode_takes_everything(text: str) -> None:
    assert read_answer(text, "direct") == (text.strip() or None)


def test_direct_mode_knows_no_tags() -> None:
    assert read_answer("<answer>yes</answer>", "direct") == "<answer>yes</answer>"


@pytest.mark.parametrize(
    ("completion", "before"),
    [
        (" I see water.\n<answer>yes</answer> indeed", "I see water."),
        ("no tag at all ", "no tag at all"),
        ("<answer>yes</answer>", ""),
        ("a <answer>b</answer> c <answer>d</answer>", "a"),
        ("</answer> a <answer>", "</answer> a"),
        ("<think>I see water.</think>\n\nyes", "I see water."),
        ("I see water.</think>yes", "I see water."),
        ("<think> I see water. </think><answer>yes</answer>", "I see water."),
        ("<reasoning>a</reasoning> <answer>b</answer>", "a"),
        ("", ""),
    ],
)
def test_the_thought_is_what_stands_before_the_first_tag(completion: str, before: str) -> None:
    assert thought(completion) == before


@given(pieces.map("".join))
def test_where_a_completion_is_well_formed_reward_and_score_read_the_same(text: str) -> None:
    if is_well_formed(text):
        assert read_answer(text, "tagged") == extract_answer(text)


@pytest.mark.parametrize(
    ("completion", "cut", "answer"),
    [
        ("<think>no ship</think>\n\nyes", False, "yes"),
        ("no ship</think>\n\nyes", False, "yes"),  # the opening tag stood in the prompt
        ("<Reasoning>no ship</Reasoning> yes", False, "yes"),
        ("<thinking>a</thinking><think>b</think> yes", False, "yes"),
        ("<think><answer>no</answer>?</think> <answer>yes</answer>", False, "yes"),
        ("<think>so <answer>yes</answer></think>", False, "yes"),
        ("<think>no ship", False, ""),
        ("<think>no ship</think>", False, ""),
        ("<think>no <answer>yes", False, ""),
        ("I <think> it is a ship", False, "I <think> it is a ship"),
        ("there may be a ship", True, ""),
        ("<answer>yes", True, ""),
        ("<think>no ship</think> yes, bec", True, ""),
        ("It is. <answer>yes</answer> For", True, "yes"),
        ("<answer>yes</answer> <answer>n", True, "yes"),
        ("yes", False, "yes"),
        ("", True, ""),
    ],
)
def test_the_score_reads_what_stands_after_the_thought(completion: str, cut: bool, answer: str) -> None:
    assert scored_answer(completion, cut) == answer


@given(pieces.map("".join))
def test_without_thought_tags_the_score_reads_as_published(text: str) -> None:
    assert scored_answer(text) == extract_answer(text)
    assert scored_answer(text, cut=True) in ("", extract_answer(text))


def test_a_tag_divides_thought_and_answer() -> None:
    assert has_thought("a <answer>b</answer>") and has_thought("a </think> b")
    assert not has_thought("a b </answer>") and not has_thought("")


@pytest.mark.parametrize(
    ("completion", "scored"),
    [("yes", "yes"), ("<answer>yes</answer> or <answer>no</answer>", "yes"), ("<answer>yes", "<answer>yes")],
)
def test_a_broken_form_earns_nothing_and_is_scored(completion: str, scored: str) -> None:
    assert read_answer(completion, "tagged") is None
    assert extract_answer(completion) == scored


def test_words() -> None:
    assert words(" Many planes, parked\tnear-by .\n") == ["many", "planes", "parked", "nearby"]
    assert words("...") == words("") == []
