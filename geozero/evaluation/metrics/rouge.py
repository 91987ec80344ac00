"""ROUGE-1 and ROUGE-L as the PyPI package rouge 1.0.1 computes them, and ROUGE-L with β = 1.2 for strict.

That package counts distinct words, rebuilds one particular longest common subsequence by recursion and so gives up
on pairs whose path is too long; the published script drops such a pair. All of it is reproduced here without
recursion: the bit rows of Hyyrö's algorithm (2004) hold the whole table, a word of the longer text each.
"""

from __future__ import annotations

from collections.abc import Sequence

from geozero.tasks.caption import longest_common_subsequence

BETA = 1.2  # of the COCO caption evaluation (Chen et al., 2015)
SMOOTHING = 1e-8  # in the F1 of rouge 1.0.1
# Python's recursion limit less the frames that the published script and the package stand on when recursion starts.
MAX_STEPS = 992

Tokens = Sequence[str]


def rouge(hypothesis: Tokens, reference: Tokens) -> tuple[float, float] | None:
    """ROUGE-1 and ROUGE-L F1 of two texts with at least one word each; None where the package's recursion ends."""
    left, right = set(hypothesis), set(reference)
    unique = len(left) == len(hypothesis) or len(right) == len(reference)
    if unique and len(hypothesis) + len(reference) <= MAX_STEPS:
        common: int | None = longest_common_subsequence(reference, hypothesis)  # no word can be on the path twice
    else:
        common = _distinct_common_words(hypothesis, reference)
    if common is None:
        return None
    return _f1(len(left & right), len(left), len(right)), _f1(common, len(left), len(right))


def rouge_l_beta(hypothesis: Tokens, references: Sequence[Tokens]) -> float:
    """ROUGE-L of the COCO caption evaluation: best precision and best recall over the references, F with β = 1.2."""
    precision = recall = 0.0
    if not hypothesis:
        return 0.0
    for reference in references:
        common = longest_common_subsequence(reference, hypothesis)
        precision = max(precision, common / len(hypothesis))
        recall = max(recall, common / len(reference))
    if precision == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _f1(common: int, n_hypothesis: int, n_reference: int) -> float:
    precision, recall = common / n_hypothesis, common / n_reference
    return 2.0 * ((precision * recall) / (precision + recall + SMOOTHING))


def _distinct_common_words(hypothesis: Tokens, reference: Tokens) -> int | None:
    """Distinct words on the package's path through the table, walked back from the end.

    Bit i of row j is 0 where word i of the reference lengthens the subsequence of the first j hypothesis words.
    """
    positions: dict[str, int] = {}
    for i, word in enumerate(reference):
        positions[word] = positions.get(word, 0) | 1 << i
    full = (1 << len(reference)) - 1
    row, rows = full, [full]
    for word in hypothesis:
        matches = positions.get(word)
        if matches:
            common = row & matches
            row = ((row + common) | (row - common)) & full
        rows.append(row)
    i, j, steps, words = len(reference), len(hypothesis), 0, set()
    while i and j:
        steps += 1
        if steps > MAX_STEPS:
            return None
        word = reference[i - 1]
        if word == hypothesis[j - 1]:
            words.add(word)
            i, j = i - 1, j - 1
            continue
        here, left, below = rows[j], rows[j - 1], (1 << i) - 1
        if here == left or (here & below).bit_count() == (left & below).bit_count():
            j -= 1
        else:
            i -= 1
    return len(words)
