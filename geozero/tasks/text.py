"""Reading a model's text: the answer in a completion, normalisation, tokens.

A completion is read in two ways, and what is read is then parsed and compared by the task in one:

- **the reward's reading** (`read_answer`): in tagged mode exactly one well-formed block, else there is no answer and
  R_a is 0. Training must not pay for a broken form.
- **the score's extraction** (`extract_answer`): the published script's rule for both protocols, the first block that is
  not empty, else the whole text. A score has to compare with published numbers, also for a model that was never taught
  the form; the share of well-formed completions is reported beside it.

So "yes" without tags earns nothing in tagged mode and scores 1; on well-formed completions the two agree.
"""

from __future__ import annotations

import re
from typing import Literal

Mode = Literal["direct", "tagged"]

OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"
_PUNCTUATION = re.compile(r"[^\w\s]")
_SPACE = re.compile(r"\s+")


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
    """All that stands before the first `<answer>`; the whole text where there is no tag."""
    return completion.split(OPEN_TAG, 1)[0].strip()


def extract_answer(completion: str) -> str:
    """The score's extraction, both protocols: first non-empty block, else the whole text, stripped.

    Where blocks were written and all of them are empty, the answer is empty (the published rule). A block runs
    from an opening tag to the nearest closing one; the scan is linear in the text, also for a text of bare tags.
    """
    _, opened, rest = completion.partition(OPEN_TAG)
    block, closed, _ = rest.partition(CLOSE_TAG)
    if not (opened and closed):
        return completion.strip()
    block, position = block.strip(), 0
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


def same_answer(prediction: str, truth: str) -> bool:
    """Strict equality: published normalisation, then trimmed; an empty prediction is never right (METHOD, strict)."""
    left = normalise(prediction).strip()
    return bool(left) and left == normalise(truth).strip()


def words(text: str) -> list[str]:
    """Tokens of the caption metrics: published normalisation, split on white space."""
    return normalise(text).split()
