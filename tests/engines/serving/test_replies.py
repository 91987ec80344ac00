"""What a server's finish_reason and text mean: only a whole answer is one."""

from __future__ import annotations

from typing import Any

import pytest

from geozero.engines.base import Completion
from geozero.engines.serving.replies import completion_of


def said(reason: Any, content: Any = "forest", n_tokens: int = 3, budget: int = 40, **message: Any) -> Completion:
    choice = {"finish_reason": reason, "message": {"content": content, **message}}
    return completion_of(choice, n_tokens, budget, 7)


def test_a_whole_answer() -> None:
    assert said("stop") == Completion("forest", "stop", 2, 7)  # the end token is not counted
    assert said("eos_token").finish_reason == "stop"
    assert said("length", n_tokens=40) == Completion("forest", "length", 40, 7)
    assert said("stop", "", 1) == Completion("", "stop", 0, 7)  # the model ended at once


@pytest.mark.parametrize("reason", ["abort", "content_filter", "error", "tool_calls", "", None])
def test_what_is_no_answer_is_what_the_server_says(reason: Any) -> None:
    found = said(reason, "fore", 1)
    assert not found.is_answer and found.finish_reason == (reason or "unknown")
    assert found.error and f"finish_reason {reason or 'null'}" in found.error
    assert not completion_of({"message": {"content": "forest"}}, 3, 40, None).is_answer  # it says none


def test_a_servers_own_cap_is_no_answer() -> None:
    found = said("length", "a long answer that was", 8)
    assert (found.finish_reason, found.is_answer, found.n_tokens) == ("length", False, 8)
    assert found.error == "cut off by the server: 8 of 40 tokens"


def test_a_count_of_the_text_may_be_a_little_short() -> None:
    choice = {"finish_reason": "length", "message": {"content": "x"}}
    assert completion_of(choice, 37, 40, 7, exact=False).is_answer
    assert not completion_of(choice, 20, 40, 7, exact=False).is_answer


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_what_a_reasoning_parser_took_away_is_put_back(name: str) -> None:
    assert said("stop", None, 3, **{name: "forest"}) == Completion("forest", "stop", 2, 7)
    assert said("stop", "forest", 9, **{name: "Trees."}).text == "Trees.</think>forest"


def test_no_text_in_spite_of_tokens_is_no_empty_answer() -> None:
    found = said("stop", None, 9)
    assert found.finish_reason == "error" and "sends no text though it counts 8 tokens" in (found.error or "")
    assert said("stop", None, 1).is_answer
    for content in ({"text": "forest"}, 5, True):  # no text either
        assert said("stop", content, 9).finish_reason == "error"


def test_parts_are_joined() -> None:
    assert said("stop", [{"type": "text", "text": "for"}, {"type": "text", "text": "est"}]).text == "forest"
