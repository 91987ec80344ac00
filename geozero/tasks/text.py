"""Reading a model's text: the answer in a completion, normalisation, tokens.

A completion has three readings. What is read is then parsed and compared by the task in one way:

- **the reward's reading** (`read_answer`): in tagged mode exactly one well-formed block, else there is no answer and
  R_a is 0. Training must not pay for a broken form.
- **the score's reading** (`scored_answer`), under `strict`: what stands after the thought of a reasoning model
  (`<think>…</think>`, `<reasoning>…</reasoning>`), there the first block that is not empty, else the whole text. A
  thought that never ends holds no answer, and neither does a completion that the token limit cut off without a
  finished block.
- **the published extraction** (`extract_answer`), under `official`: the first block that is not empty, else the whole
  text.

So "yes" without tags earns nothing in tagged mode and scores 1: a score has to compare with models that were never
taught the form. Results say by how much the two readings differ; on well-formed completions without a thought in tags
of its own they agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from geozero.tasks.numbers import keep_numbers, quantity, same_quantity, spelled_out

Mode = Literal["direct", "tagged"]

OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
_THOUGHT = r"(?:think|thinking|thought|reasoning)>"
_THOUGHT_OPENS = re.compile(rf"\s*<{_THOUGHT}", re.IGNORECASE)
_THOUGHT_CLOSES = re.compile(rf"</{_THOUGHT}", re.IGNORECASE)
_THOUGHT_TAG = re.compile(rf"</?{_THOUGHT}", re.IGNORECASE)
_PUNCTUATION = re.compile(r"[^\w\s]")
_SPACE = re.compile(r"\s+")
_END_TOKENS = re.compile(r"(?:\s*(?:<\|(?!end_of_box)[^|<>\s]{1,40}\|>|</s>|<eos>|<end_of_\w{1,20}>))+\s*\Z")
_BOXED = re.compile(
    r"<\|begin_of_box\|>(.{1,200}?)<\|end_of_box\|>|\\boxed\{(?:\\text\{)?([^{}\\]{1,200})\}", re.DOTALL
)


def is_well_formed(completion: str) -> bool:
    """Exactly one `<answer>…</answer>`, the opening tag before the closing one, with something inside."""
    return tagged_answer(completion) is not None


def tagged_answer(completion: str) -> str | None:
    """The answer in tagged mode: what one well-formed block holds, stripped; None without exactly one (METHOD, 1)."""
    if completion.count(OPEN_TAG) != 1 or completion.count(CLOSE_TAG) != 1:
        return None
    start, end = completion.index(OPEN_TAG) + len(OPEN_TAG), completion.index(CLOSE_TAG)
    answer = completion[start:end].strip() if start <= end else ""
    return answer or None


def read_answer(completion: str, mode: Mode) -> str | None:
    """The reward's reading: None where there is no answer (empty, or not well formed in tagged mode)."""
    return tagged_answer(completion) if mode == "tagged" else (completion.strip() or None)


def thought(completion: str) -> str:
    """All that stands before the first `<answer>`, else in a model's own thought tags; the whole text without both."""
    before, opened, _ = completion.partition(OPEN_TAG)
    ends = list(_THOUGHT_CLOSES.finditer(before)) if "</" in before else []
    if not opened and ends:
        before = before[: ends[-1].start()]
    if "<" in before:
        before = _THOUGHT_CLOSES.sub(" ", _THOUGHT_OPENS.sub("", before, count=1))
    return before.strip()


def has_thought(completion: str) -> bool:
    """Whether there is a mark that divides a thought from an answer."""
    return OPEN_TAG in completion or ("</" in completion and _THOUGHT_CLOSES.search(completion) is not None)


def scored_answer(completion: str, cut: bool = False) -> str:
    """The score's reading under `strict`; "" where there is no answer.

    Args:
        cut: the token limit ended the completion (finish_reason "length"): only a finished block is an answer.
    """
    if "<" not in completion:
        return "" if cut else completion.strip()
    ends = list(_THOUGHT_CLOSES.finditer(completion))
    rest = completion[ends[-1].end() :] if ends else completion
    unfinished = not ends and _THOUGHT_OPENS.match(completion) is not None
    if not rest.strip():
        rest, unfinished = completion, True
    return "" if (cut or unfinished) and not has_block(rest) else extract_answer(rest)


def scored_answers(completions: Sequence[str], cut: Sequence[bool] = ()) -> list[str]:
    """`scored_answer` of many completions; of none that was cut off where `cut` is empty."""
    if not any(cut) and _THOUGHT_TAG.search("\n".join(completions)) is None:
        return list(map(extract_answer, completions))
    return list(map(scored_answer, completions, cut or [False] * len(completions)))


def has_block(text: str) -> bool:
    """Whether an answer block was closed."""
    _, opened, rest = text.partition(OPEN_TAG)
    return bool(opened) and CLOSE_TAG in rest


def extract_answer(completion: str) -> str:
    """The published extraction: first non-empty block, else the whole text, stripped.

    Where blocks were written and all of them are empty, the answer is empty (the published rule). A block runs
    from an opening tag to the nearest closing one; the scan is linear in the text, also for a text of bare tags.
    """
    start = completion.find(OPEN_TAG)
    end = completion.find(CLOSE_TAG, start + len(OPEN_TAG)) if start >= 0 else -1
    if end < 0:
        return completion.strip()
    if block := completion[start + len(OPEN_TAG) : end].strip():
        return block
    rest, position = completion[start + len(OPEN_TAG) :], 0
    while not block:
        start = rest.find(OPEN_TAG, rest.index(CLOSE_TAG, position) + len(CLOSE_TAG))
        position = start + len(OPEN_TAG)
        end = rest.find(CLOSE_TAG, position) if start >= 0 else -1
        if end < 0:
            break
        block = rest[position:end].strip()
    return block


def normalise(text: str) -> str:
    """The published normalisation: strip, lower case, drop punctuation, one space for any white space.

    The order matters: `_` stays, `-` joins its words, and a space before a final full stop is left over.
    """
    return _SPACE.sub(" ", _PUNCTUATION.sub("", text.strip().lower()))


@lru_cache(maxsize=65_536)
def closed_reading(text: str) -> str:
    """What a short answer says under `strict`: a quantity in digits (`geozero.tasks.numbers`), else the published
    normalisation, trimmed, in which numbers keep their sign and their point."""
    text = spelled_out(unwrapped(text))
    if (found := quantity(text)) is not None:
        return str(found)
    if not any(map(str.isdigit, text)):
        return normalise(text).strip()
    return _SPACE.sub(" ", keep_numbers(text.strip().lower(), _PUNCTUATION)).strip()


def unwrapped(text: str) -> str:
    """A short answer without the marks that models write around it: `\\boxed{…}`, box tags, tokens of the end."""
    if "<" not in text and "\\boxed" not in text:
        return text
    text = _END_TOKENS.sub("", text)
    boxed = {match[1] or match[2] for match in _BOXED.finditer(text)}
    return boxed.pop() if len(boxed) == 1 else text


@lru_cache(maxsize=65_536)
def same_reading(answer: str, truth: str) -> bool:
    """Whether two `closed_reading`s say the same; an empty answer says nothing."""
    return bool(answer) and (answer == truth or same_quantity(answer, truth))


def same_answer(prediction: str, truth: str) -> bool:
    """Strict equality of two short answers; an empty prediction is never right (METHOD, strict)."""
    return same_reading(closed_reading(prediction), closed_reading(truth))


def words(text: str) -> list[str]:
    """Tokens of the caption metrics: published normalisation, split on white space."""
    return normalise(text).split()
