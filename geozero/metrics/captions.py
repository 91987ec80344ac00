"""Caption metrics: BLEU, CIDEr, ROUGE and METEOR, of a whole corpus at once where they are computed over one.

N-grams: sentences become arrays of word numbers, n-grams arrays of n-gram numbers; every count is a sort, every match
a search in a sorted array. One pass serves both protocols.

ROUGE of the published script is that of the PyPI package rouge 1.0.1, which counts distinct words, rebuilds one
particular longest common subsequence by recursion and so gives up on pairs whose path is too long; that script drops
such a pair. All of it is reproduced here without recursion.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geozero.metrics.scores import Floats

ORDERS = 4
BLEU_NAMES = tuple(f"BLEU-{order}" for order in range(1, ORDERS + 1))
EPSILON = 0.1  # method 1 of Chen and Cherry (2014), nltk's default and the published script's
N_BLEU_COLUMNS = 3 * ORDERS + 2  # of `bleu_columns`
CIDER_SIGMA = 6.0  # width of CIDEr-D's length penalty (Vedantam et al., 2015)
CIDER_SCALE = 10.0
ROUGE_BETA = 1.2  # of the COCO caption evaluation (Chen et al., 2015)
ROUGE_SMOOTHING = 1e-8  # in the F1 of rouge 1.0.1
# Python's recursion limit less the frames that the published script and the package stand on when recursion starts.
MAX_STEPS = 992
NO_WORDNET = (
    "WordNet is not installed for nltk (python -m nltk.downloader wordnet, or NLTK_DATA); METEOR is not computed"
)

Ints = NDArray[np.int64]
Tokens = Sequence[str]


# --- BLEU and CIDEr of a corpus ---------------------------------------------------------------------------


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


def _look_up(keys: Ints, sought: Ints) -> tuple[Ints, Ints]:
    """Which of `sought` occur in the sorted `keys`, and where there."""
    if not len(keys):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    place = np.minimum(np.searchsorted(keys, sought), len(keys) - 1)
    found = np.flatnonzero(keys[place] == sought)
    return found, place[found]


def _closest_lengths(hypothesis: Ints, reference: Ints, owner: Ints) -> Floats:
    """Length of each record's reference closest in length; the shorter one of a tie."""
    distance = np.abs(reference - hypothesis[owner])
    order = np.lexsort((reference, distance, owner))
    first = np.unique(owner[order], return_index=True)[1]
    result = np.zeros(len(hypothesis))
    result[owner[order][first]] = reference[order][first]
    return result


def bleu_columns(statistics: NgramStatistics) -> Floats:
    """Per record (n, 14): matches, totals, totals of at least 1 as nltk counts them, length, reference length."""
    totals = statistics.totals
    return np.column_stack(
        [statistics.matches, totals, np.maximum(1.0, totals), statistics.length, statistics.reference_length]
    )


def bleu(sums: Floats, smoothed: bool) -> list[Floats]:
    """BLEU-1..4 from summed columns (…, 14).

    Args:
        smoothed: as nltk's `corpus_bleu` with method 1: an order without a match counts 0.1 matches, each hypothesis
            adds at least 1 to every denominator, and only without any match it is 0. Else as sacrebleu without
            smoothing: 0 where an order has no match.
    """
    matches, totals, at_least_1 = (sums[..., k * ORDERS : (k + 1) * ORDERS] for k in range(3))
    length, reference_length = sums[..., -2], sums[..., -1]
    with np.errstate(all="ignore"):
        precision = np.where(matches == 0, EPSILON, matches) / at_least_1 if smoothed else matches / totals
        brevity = np.where(length >= reference_length, 1.0, np.exp(1 - reference_length / length))
        score = brevity[..., None] * np.exp(np.cumsum(np.log(precision), axis=-1) / np.arange(1, ORDERS + 1))
    none = matches[..., :1] == 0 if smoothed else np.minimum.accumulate(matches, axis=-1) == 0
    score = np.where(none, 0.0, score)
    return [score[..., order] for order in range(ORDERS)]


# --- one sentence -----------------------------------------------------------------------------------------


def sentence_bleu(hypothesis: Tokens, references: Sequence[Tokens]) -> float:
    """Sentence BLEU-4 with method-1 smoothing (an order without a match counts `EPSILON` matches)."""
    logs = 0.0
    for order in range(1, ORDERS + 1):
        grams = _grams(hypothesis, order)
        ceiling: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            ceiling |= _grams(reference, order)
        matches: float = sum((grams & ceiling).values())
        if order == 1 and matches == 0:
            return 0.0
        logs += math.log((matches or EPSILON) / max(1, sum(grams.values())))
    closest = min((len(r) for r in references), key=lambda n: (abs(n - len(hypothesis)), n))
    brevity = 1.0 if len(hypothesis) > closest else math.exp(1 - closest / len(hypothesis))
    return min(1.0, brevity * math.exp(logs / ORDERS))


def _grams(tokens: Tokens, order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[i:] for i in range(order)), strict=False))


def rouge_l_f1(hypothesis: Tokens, references: Sequence[Tokens]) -> float:
    """Best F1 of the longest common subsequence over the references (Lin, 2004)."""
    best = 0.0
    for reference in references:
        common = longest_common_subsequence(hypothesis, reference)
        if common:
            best = max(best, 2 * common / (len(hypothesis) + len(reference)))
    return best


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
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


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
    return _rouge_f1(len(left & right), len(left), len(right)), _rouge_f1(common, len(left), len(right))


def _rouge_f1(common: int, n_hypothesis: int, n_reference: int) -> float:
    precision, recall = common / n_hypothesis, common / n_reference
    return 2.0 * ((precision * recall) / (precision + recall + ROUGE_SMOOTHING))


def _distinct_common_words(hypothesis: Tokens, reference: Tokens) -> int | None:
    """Distinct words on the package's path through the table, walked back from the end."""
    rows = list(_subsequence_rows(reference, hypothesis))
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


def longest_common_subsequence(a: Tokens, b: Tokens) -> int:
    """Length of the longest common subsequence."""
    for row in _subsequence_rows(a, b):
        last = row
    return len(a) - last.bit_count()


def _subsequence_rows(a: Tokens, b: Tokens) -> Iterable[int]:
    """The table of the longest common subsequence, a row for each prefix of `b` from the empty one on, as bits.

    Bit i of row j is 0 where word i of `a` lengthens the subsequence of the first j words of `b`: Hyyrö's bit-parallel
    algorithm (2004), one integer operation for each word of `b`.
    """
    positions: dict[str, int] = {}
    for i, word in enumerate(a):
        positions[word] = positions.get(word, 0) | 1 << i
    full = row = (1 << len(a)) - 1
    yield row
    for word in b:
        matches = positions.get(word)
        if matches:
            common = row & matches
            row = ((row + common) | (row - common)) & full
        yield row


# --- METEOR -----------------------------------------------------------------------------------------------


def meteor(hypotheses: Sequence[Tokens], references: Sequence[Sequence[Tokens]], synonyms: bool = True) -> Floats:
    """METEOR (n,) in [0, 1] as nltk computes it (not the Java program's metric): best reference of each record.

    Args:
        synonyms: False leaves the synonym stage out, which needs no WordNet; that is a different, lower metric.

    Raises:
        LookupError: nltk finds no WordNet.
    """
    from nltk.stem.porter import PorterStemmer
    from nltk.translate.meteor_score import meteor_score

    stemmer = SimpleNamespace(stem=cache(PorterStemmer().stem))
    wordnet = SimpleNamespace(synsets=cache(wordnet_synsets() if synonyms else lambda word: ()))
    pairs = zip(hypotheses, references, strict=True)
    return np.array([meteor_score(group, text, stemmer=stemmer, wordnet=wordnet) for text, group in pairs])


def wordnet_synsets() -> Callable[[str], Any]:
    """A word's one-word synonyms, each once, in the form of one synset of nltk's WordNet.

    Raises:
        LookupError: nltk finds no WordNet.
    """
    from nltk.corpus import wordnet

    wordnet.ensure_loaded()

    def synsets(word: str) -> Any:
        names = {lemma.name() for synset in wordnet.synsets(word) for lemma in synset.lemmas()}
        lemmas = [SimpleNamespace(name=partial(str, name)) for name in names if "_" not in name]
        return [SimpleNamespace(lemmas=lambda: lemmas)]

    return synsets
