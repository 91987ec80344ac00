"""Image captioning: one sentence about the image, judged against several references.

Example: question "Describe the image in one sentence.", references five sentences, reward the mean of
ROUGE-L F1 and smoothed sentence BLEU-4 against them, in [0, 1] (METHOD, A²GRPO 1, our choice).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from geozero.corpus.sample import Sample, stable_choice
from geozero.tasks.base import Task
from geozero.tasks.boxes import Convention
from geozero.tasks.text import words

BLEU_ORDER = 4
BLEU_EPSILON = 0.1  # method 1 of Chen and Cherry (2014), as the published script smooths


class Captioning(Task):
    name = "caption"
    tag = "[caption]"
    headline = "ROUGE-L"
    templates = (
        "Describe the image in one sentence.",
        "Write one sentence that captions this image.",
        "Give a one-sentence caption of the image.",
    )

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        return str(stable_choice(sample.references, sample.id, salt="reference"))

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        hypothesis = words(answer)
        references = [tokens for tokens in map(words, sample.references) if tokens]
        if not hypothesis or not references:
            return 0.0
        return (rouge_l_f1(hypothesis, references) + sentence_bleu(hypothesis, references)) / 2

    def succeeds(self, reward: float) -> bool | None:
        return None  # a caption is neither right nor wrong; selection compares it with its source's median


def rouge_l_f1(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Best F1 of the longest common subsequence over the references (Lin, 2004)."""
    best = 0.0
    for reference in references:
        common = longest_common_subsequence(hypothesis, reference)
        if common:
            best = max(best, 2 * common / (len(hypothesis) + len(reference)))
    return best


def longest_common_subsequence(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence; bit-parallel (Hyyrö, 2004), one integer operation a word of `b`."""
    positions: dict[str, int] = {}
    for i, word in enumerate(a):
        positions[word] = positions.get(word, 0) | 1 << i
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matches = positions.get(word, 0)
        common = row & matches
        row = ((row + common) | (row - common)) & full
    return len(a) - row.bit_count()


def sentence_bleu(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Sentence BLEU-4 with method-1 smoothing (an order without a match counts `BLEU_EPSILON` matches)."""
    logs = 0.0
    for order in range(1, BLEU_ORDER + 1):
        grams = _ngrams(hypothesis, order)
        ceiling: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            ceiling |= _ngrams(reference, order)
        matches: float = sum((grams & ceiling).values())
        if order == 1 and matches == 0:
            return 0.0
        logs += math.log((matches or BLEU_EPSILON) / max(1, sum(grams.values())))
    closest = min((len(r) for r in references), key=lambda n: (abs(n - len(hypothesis)), n))
    brevity = 1.0 if len(hypothesis) > closest else math.exp(1 - closest / len(hypothesis))
    return min(1.0, brevity * math.exp(logs / BLEU_ORDER))


def _ngrams(tokens: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(order)), strict=False))
