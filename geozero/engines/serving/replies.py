"""What a server's choice means: the model's whole answer, one that was cut off, or none at all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from geozero.engines.base import Completion

STOPPED = ("stop", "eos_token")  # the model ended by itself; the second is text-generation-inference's word
REASONING = ("reasoning_content", "reasoning")  # where a reasoning parser puts what it takes for thought
THOUGHT_END = "</think>"  # between the two where it found both


def completion_of(
    choice: Mapping[str, Any], n_tokens: int, budget: int, seed: int | None, exact: bool = True
) -> Completion:
    """The completion that a choice is, as the server itself puts it: only `stop`, and `length` at the budget that was
    asked for, are answers.

    Args:
        n_tokens: of the choice, its end token included, as far as the server counts them.
        budget: the most tokens that were asked for.
        exact: whether `n_tokens` is the server's own count, not one of the text.
    """
    reason, text = choice.get("finish_reason"), text_of(choice["message"])
    shown = text or ""
    if reason == "length":
        if n_tokens >= (budget if exact else budget * 9 // 10):  # a text may be written in fewer tokens than it had
            return Completion(shown, "length", budget if exact else min(n_tokens, budget), seed)
        return Completion(shown, "length", n_tokens, seed, f"cut off by the server: {n_tokens} of {budget} tokens")
    if reason not in STOPPED:
        words = str(reason) if reason else "unknown"
        return Completion(shown, words, n_tokens, seed, f"the server says finish_reason {reason or 'null'}")
    length = max(0, n_tokens - 1)
    if text is None and length > 0:
        return Completion("", "error", length, seed, f"the server sends no text though it counts {length} tokens")
    # some servers say stop where the budget is used up
    return Completion(shown, "length" if length >= budget else "stop", length, seed)


def text_of(message: Mapping[str, Any]) -> str | None:
    """What the model wrote, parts and a reasoning parser's pieces put together again; None where there is nothing."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    content = content if isinstance(content, str) else None
    thought = next((message[name] for name in REASONING if message.get(name)), None)
    if thought is None:
        return content
    return f"{thought}{THOUGHT_END}{content}" if content else str(thought)
