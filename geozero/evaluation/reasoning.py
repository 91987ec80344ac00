"""Statistics of the reasoning before answers: how many completions have any, how long and how varied it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geozero.tasks.text import has_thought, thought, words

MAX_THOUGHTS = 5_000  # distinct-n is a share of a corpus and falls with its size, so the size is bounded


def reasoning(closed: bool, completions: Sequence[str], answers: Sequence[str] = ()) -> dict[str, Any]:
    """Statistics of the thoughts in n completions; `answers` are the extracted answers, in the same order.

    `share_with_thought`: completions with words before the first `<answer>`, or in thought tags of their own (a
    completion without any tag is an answer, not a thought). `words`: mean, median and 95th percentile over
    thoughts. `distinct_n`: distinct n-grams by n-grams over the first 5,000 thoughts (Li et al., 2016).
    `agreement`, closed answers only: share of thoughts that name their own answer as whole words. None where there
    are no thoughts.
    """
    before = [thought(text) if has_thought(text) else "" for text in completions]
    thoughts = [words(text) if text else [] for text in before]
    present = [tokens for tokens in thoughts if tokens]
    lengths = np.array([len(tokens) for tokens in present], dtype=np.float64)
    result: dict[str, Any] = {
        "n": len(completions),
        "n_with_thought": len(present),
        "share_with_thought": len(present) / len(completions) if completions else None,
        "words": None,
        "distinct_n": None,
        "agreement": None,
    }
    if not present:
        return result
    result["words"] = {
        "mean": float(lengths.mean()),
        "median": float(np.median(lengths)),
        "p95": float(np.quantile(lengths, 0.95)),
    }
    result["distinct_n"] = {str(n): distinct(present[:MAX_THOUGHTS], n) for n in (1, 2, 3)}
    if closed and len(answers) == len(completions):
        named = [_names(tokens, words(answer)) for tokens, answer in zip(thoughts, answers, strict=True) if tokens]
        result["agreement"] = sum(named) / len(named)
    return result


def distinct(texts: Sequence[Sequence[str]], n: int) -> float | None:
    """Distinct n-grams divided by all n-grams of tokenised texts; None where there is no n-gram."""
    seen: set[tuple[str, ...]] = set()
    total = 0
    for tokens in texts:
        grams = list(zip(*(tokens[i:] for i in range(n)), strict=False))
        seen.update(grams)
        total += len(grams)
    return len(seen) / total if total else None


def _names(tokens: list[str], answer: list[str]) -> bool:
    """Whether `answer` stands in `tokens` as whole words in a row."""
    return bool(answer) and f" {' '.join(answer)} " in f" {' '.join(tokens)} "
