"""The forms of S_t, the score of a thought: one function each, registered in `THINKING_SCORES`.

`a2grpo.thinking_score` names the form. A new one is a function below and its line in the registry (CONTRIBUTING.md, "A
thinking score"). A form takes a `Thought`, the other thoughts of its group, L0, L_max and the decay past L_max (None:
half of L_max), and returns a number in [0, 1], 0 for an empty thought. The paper leaves S_t open: all forms are ours.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from geozero.tasks.text import words

NGRAM = 3
NOVELTY_ALPHA = 0.5  # RS-HyRe-R1: how much of the similarity is taken off
NOVELTY_CHARACTERS = 10  # RS-HyRe-R1: a thought that is no longer is none
NOVELTY_THOUGHTS = 3  # RS-HyRe-R1: among fewer, none is novel
LONG = 3  # letters: shorter words of a question name nothing
# Words of questions that name nothing which a thought could look up
_FUNCTION_WORDS = frozenset((
    "caption",  # not a task
    "all", "and", "any", "are", "area", "can", "captions", "choose", "class", "classes", "classify", "count",
    "describe", "detect", "does", "each", "every", "fewer", "find", "fits", "following", "for", "from", "give",
    "how", "image", "into", "less", "locate", "look", "many", "more", "number", "object", "objects", "one",
    "onesentence", "only", "out", "picture", "please", "position", "present", "say", "scene", "see", "sentence",
    "show", "tell", "than", "that", "the", "there", "these", "this", "those", "together", "what", "where", "which",
    "who", "with", "write", "you", "your",
))  # fmt: skip


class Thought(NamedTuple):
    """A thought as the forms of S_t see it: its text, its words and trigrams counted, and what it belongs to.

    Attributes:
        question: what was asked, without the classes that it offers.
        right: whether its answer opens the gate.
        batch: the thoughts of all completions that this process scores in the step, itself included; where it is empty,
            the group is all there is.
    """

    text: str
    n_words: int
    n_grams: int
    distinct: frozenset[tuple[str, ...]]
    question: str = ""
    right: bool = True
    batch: Sequence[Any] = ()

    @classmethod
    def read(cls, text: str, question: str = "", right: bool = True, batch: Sequence[Any] = ()) -> Thought:
        tokens = words(text)
        grams = ngrams(tokens)
        return cls(text, len(tokens), len(grams), frozenset(grams), question, right, batch)


Form = Callable[[Thought, Sequence[Thought], int, int, float | None], float]


def product(thought: Thought, others: Sequence[Thought], l0: int, l_max: int, decay: float | None = None) -> float:
    """Adequacy (`length`) × non-repetition × diversity.

    Non-repetition is the share of distinct word trigrams, diversity 1 − the mean trigram Jaccard similarity to the
    other thoughts of the group.
    """
    if not thought.n_words:
        return 0.0
    score = length(thought, others, l0, l_max, decay) * len(thought.distinct) / thought.n_grams
    return score * (1 - sum(jaccard(thought.distinct, o.distinct) for o in others) / len(others)) if others else score


def length(thought: Thought, others: Sequence[Thought], l0: int, l_max: int, decay: float | None = None) -> float:
    """`min(1, words / l0)`, past `l_max` times `exp(−(words − l_max) / decay)`."""
    adequacy = min(1.0, thought.n_words / l0)
    if thought.n_words > l_max:
        adequacy *= math.exp((l_max - thought.n_words) / (decay or l_max / 2))
    return adequacy


def coverage(thought: Thought, others: Sequence[Thought], l0: int, l_max: int, decay: float | None = None) -> float:
    """Share of the words that name what is asked which stand in the thought, plurals and singulars alike.

    Past `l_max` it decays as `length` does. A question that names nothing ("Describe the image.") leaves `length`.
    """
    adequacy, asked = length(thought, others, l0, l_max, decay), named(thought.question)
    if not asked or not thought.n_words:
        return adequacy
    found = len(asked & {_stem(word) for word in words(thought.text)}) / len(asked)
    return found * (adequacy if thought.n_words > l_max else 1.0)


def novelty(thought: Thought, others: Sequence[Thought], l0: int, l_max: int, decay: float | None = None) -> float:
    """RS-HyRe-R1 (arXiv 2604.17504): 1 − half the mean similarity to the batch's other thoughts with right answers.

    0 for a wrong answer, for a thought of at most ten characters, and where fewer than three thoughts count. Theirs
    is the cosine of sentence embeddings; ours is that of word counts, so that no second model has to be served.
    """
    batch = thought.batch or (thought, *others)
    counted = [one.text for one in batch if one.right and len(one.text) > NOVELTY_CHARACTERS]
    if not thought.right or len(thought.text) <= NOVELTY_CHARACTERS or len(counted) < NOVELTY_THOUGHTS:
        return 0.0
    alike = sum(cosine(thought.text, text) for text in counted) - 1.0  # itself
    return min(1.0, max(0.0, 1 - NOVELTY_ALPHA * alike / (len(counted) - 1)))


THINKING_SCORES: dict[str, Form] = {
    "product": product,
    "length": length,
    "coverage": coverage,
    "novelty": novelty,
}


def ngrams(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    """Word trigrams in order; a text of one or two words is one gram, an empty one has none."""
    n = min(NGRAM, len(tokens))
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)] if n else []


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Share of the n-grams of two texts that both have; 1 where neither has any."""
    common = len(a & b)
    return common / (len(a) + len(b) - common) if a or b else 1.0


@lru_cache(maxsize=4096)
def named(question: str) -> frozenset[str]:
    """The words of a question's first line that name something, without a plural's s."""
    line = question.strip().partition("\n")[0]
    return frozenset(_stem(word) for word in words(line) if len(word) >= LONG and word not in _FUNCTION_WORDS)


def cosine(first: str, second: str) -> float:
    """Cosine of two texts' word counts; 0 where one has no words."""
    (a, norm_a), (b, norm_b) = _counted(first), _counted(second)
    return sum(n * b[word] for word, n in a.items()) / (norm_a * norm_b) if norm_a and norm_b else 0.0


@lru_cache(maxsize=4096)
def _counted(text: str) -> tuple[Counter[str], float]:
    counts = Counter(words(text))
    return counts, math.sqrt(sum(n * n for n in counts.values()))


def _stem(word: str) -> str:
    return word.rstrip("s")
