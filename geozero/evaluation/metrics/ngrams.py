"""N-gram statistics of a whole caption corpus at once: what BLEU and CIDEr are made of.

Sentences become arrays of word numbers, n-grams arrays of n-gram numbers; every count is a sort, every match a
search in a sorted array. One pass serves both protocols.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from geozero.evaluation.metrics.scores import Floats

ORDERS = 4
CIDER_SIGMA = 6.0  # width of CIDEr-D's length penalty (Vedantam et al., 2015)
CIDER_SCALE = 10.0

Ints = NDArray[np.int64]
Tokens = Sequence[str]


@dataclass
class NgramStatistics:
    """Per record: clipped `matches` and `totals` (n, 4), lengths in words, CIDEr-D and plain CIDEr (×10) (n,).

    `reference_length` is that of the reference closest in length, the shorter of two equally close ones.
    """

    matches: Floats
    totals: Floats
    length: Floats
    reference_length: Floats
    cider_d: Floats
    cider: Floats


def ngram_statistics(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]]) -> NgramStatistics:
    """Statistics of n tokenised hypotheses against their references (at least one each, blank ones allowed).

    BLEU: Papineni et al. (2002). CIDEr and CIDEr-D: Vedantam et al. (2015), idf from the references of this very
    corpus (`log n − log df`), mean over the references and over the orders 1 to 4, times 10; lengths of the penalty
    are counted in bigrams, as pycocoevalcap's `Cider` does.
    """
    n = len(hypotheses)
    owner = np.repeat(np.arange(n), [len(group) for group in references])
    sentences = [*hypotheses, *chain.from_iterable(references)]
    lengths = np.array([len(s) for s in sentences], dtype=np.int64)
    matches, totals = np.zeros((n, ORDERS)), np.zeros((n, ORDERS))
    similarity_d, similarity = np.zeros(len(owner)), np.zeros(len(owner))
    bigrams = np.maximum(lengths - 1, 0)
    penalty = np.exp(-((bigrams[:n][owner] - bigrams[n:]) ** 2) / (2 * CIDER_SIGMA**2))
    for order, (sentence, gram, count) in enumerate(_counts(sentences, lengths)):
        split = int(np.searchsorted(sentence, n))
        hyp_row, hyp_gram, hyp_count = sentence[:split], gram[:split], count[:split]
        ref_row, ref_gram, ref_count = sentence[split:] - n, gram[split:], count[split:]
        width = int(gram.max(initial=0)) + 1
        ref_key = owner[ref_row] * width + ref_gram
        found, at = _look_up(hyp_row * width + hyp_gram, ref_key)

        ceiling = np.zeros(split, dtype=np.int64)
        np.maximum.at(ceiling, at, ref_count[found])
        matches[:, order] = np.bincount(hyp_row, np.minimum(hyp_count, ceiling), n)
        totals[:, order] = np.bincount(hyp_row, hyp_count, n)

        documents = np.bincount(_distinct(ref_key) % width, minlength=width)
        idf = np.log(max(n, 1)) - np.log(np.maximum(1.0, documents))
        hyp_weight, ref_weight = hyp_count * idf[hyp_gram], ref_count * idf[ref_gram]
        hyp_norm = np.sqrt(np.bincount(hyp_row, hyp_weight**2, n))
        ref_norm = np.sqrt(np.bincount(ref_row, ref_weight**2, len(owner)))
        norms = hyp_norm[owner] * ref_norm
        norms[norms == 0] = 1.0  # then every product below is 0, too
        of_hyp, of_ref = hyp_weight[at], ref_weight[found]
        clipped = np.bincount(ref_row[found], np.minimum(of_hyp, of_ref) * of_ref, len(owner))
        similarity_d += clipped / norms * penalty
        similarity += np.bincount(ref_row[found], of_hyp * of_ref, len(owner)) / norms
    n_references = np.maximum(1, np.bincount(owner, minlength=n))
    scale = CIDER_SCALE / ORDERS / n_references
    return NgramStatistics(
        matches,
        totals,
        lengths[:n].astype(np.float64),
        _closest_lengths(lengths[:n], lengths[n:], owner),
        np.bincount(owner, similarity_d, n) * scale,
        np.bincount(owner, similarity, n) * scale,
    )


def _counts(sentences: Sequence[Tokens], lengths: Ints) -> list[tuple[Ints, Ints, Ints]]:
    """For the orders 1 to 4 the sentence, the n-gram's number and how often it occurs there; sorted by sentence."""
    vocabulary: dict[str, int] = {}
    for word in chain.from_iterable(sentences):
        vocabulary.setdefault(word, len(vocabulary))
    words = np.fromiter(map(vocabulary.__getitem__, chain.from_iterable(sentences)), np.int64, int(lengths.sum()))
    sentence = np.repeat(np.arange(len(sentences)), lengths)
    room = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(words))  # words from here to the sentence's end
    position, gram, result = np.arange(len(words)), words, []
    for order in range(1, ORDERS + 1):
        if order > 1:
            keep = room[position] >= order
            position = position[keep]
            pair = gram[keep] * len(vocabulary) + words[position + order - 1]
            gram = np.unique(pair, return_inverse=True)[1].astype(np.int64)
        width = int(gram.max(initial=0)) + 1
        key, count = np.unique(sentence[position] * width + gram, return_counts=True)
        result.append((key // width, key % width, count.astype(np.int64)))
    return result


def _distinct(keys: Ints) -> Ints:
    """`np.unique` by sorting; numpy's hashing is several times slower on so many distinct keys."""
    ordered = np.sort(keys)
    return ordered[np.diff(ordered, prepend=-1) > 0]


def _look_up(keys: Ints, wanted: Ints) -> tuple[Ints, Ints]:
    """Which of `wanted` occur in the sorted `keys`, and where there."""
    if not len(keys):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found = np.flatnonzero(keys[place] == wanted)
    return found, place[found]


def _closest_lengths(hypothesis: Ints, reference: Ints, owner: Ints) -> Floats:
    """Length of each record's reference closest in length; the shorter one of a tie."""
    distance = np.abs(reference - hypothesis[owner])
    order = np.lexsort((reference, distance, owner))
    first = np.unique(owner[order], return_index=True)[1]
    result = np.zeros(len(hypothesis))
    result[owner[order][first]] = reference[order][first]
    return result
