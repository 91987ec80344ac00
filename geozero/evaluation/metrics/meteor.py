"""METEOR as nltk computes it (not the Java program's metric), with stems and synonyms looked up once a word."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

ALPHA, BETA, GAMMA = 0.9, 3.0, 0.5  # nltk's defaults
Tokens = Sequence[str]
Pairs = list[tuple[int, int]]
MISSING = "WordNet is not installed for nltk (python -m nltk.downloader wordnet, or NLTK_DATA); METEOR is not computed"


class Meteor:
    """METEOR of Lavie and Agarwal (2007) in nltk's greedy form: exact words, then stems, then WordNet synonyms.

    `synonyms=False` leaves the last stage out, which needs no WordNet; that is a different, lower metric.

    Raises:
        LookupError: nltk finds no WordNet.
    """

    def __init__(self, synonyms: bool = True) -> None:
        from nltk.stem.porter import PorterStemmer

        if synonyms:
            from nltk.corpus import wordnet

            wordnet.ensure_loaded()
            self._wordnet = wordnet
        self._synonyms = synonyms
        self._known: dict[str, frozenset[str]] = {}
        self._stem = lru_cache(maxsize=None)(PorterStemmer().stem)

    def score(self, hypothesis: Tokens, references: Sequence[Tokens]) -> float:
        """Best score in [0, 1] of lower-case tokens over the references."""
        return max(self._single(hypothesis, reference) for reference in references)

    def _single(self, hypothesis: Tokens, reference: Tokens) -> float:
        left, right = dict(enumerate(hypothesis)), dict(enumerate(reference))
        matches = _take_equal(left, right)
        if left and right:
            left = {i: self._stem(word) for i, word in left.items()}
            right = {j: self._stem(word) for j, word in right.items()}
            matches += _take_equal(left, right)
        if self._synonyms and left and right:
            matches += self._take_synonyms(left, right)  # of stems: nltk looks the stems up, not the words
        if not matches:
            return 0.0
        matches.sort()
        precision, recall = len(matches) / len(hypothesis), len(matches) / len(reference)
        mean = (precision * recall) / (ALPHA * precision + (1 - ALPHA) * recall)
        penalty: float = GAMMA * (_chunks(matches) / len(matches)) ** BETA
        return (1 - penalty) * mean

    def _take_synonyms(self, left: dict[int, str], right: dict[int, str]) -> Pairs:
        """From the last word back, each takes the last free reference word that is one of its synonyms."""
        places = _places(right)
        matches = []
        for i in reversed(left):
            words = self._look_up(left[i]) & places.keys()
            if words:
                word = max(words, key=lambda w: places[w][-1])
                matches.append((i, places[word].pop()))
                if not places[word]:
                    del places[word]
        return matches

    def _look_up(self, word: str) -> frozenset[str]:
        """The word and every one-word lemma of its synsets."""
        if word not in self._known:
            names = {lemma.name() for synset in self._wordnet.synsets(word) for lemma in synset.lemmas()}
            self._known[word] = frozenset({name for name in names if "_" not in name} | {word})
        return self._known[word]


def _take_equal(left: dict[int, str], right: dict[int, str]) -> Pairs:
    """Match equal words from the last one back, the last free one first; what is matched leaves both sides."""
    places = _places(right)
    matches = []
    for i in reversed(list(left)):
        free = places.get(left[i])
        if free:
            matches.append((i, free.pop()))
    for i, j in matches:
        del left[i], right[j]
    return matches


def _places(words: dict[int, str]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = defaultdict(list)
    for j, word in words.items():
        places[word].append(j)
    return dict(places)


def _chunks(matches: Pairs) -> int:
    """Runs of sorted matches that are adjacent on both sides."""
    return 1 + sum(b[0] != a[0] + 1 or b[1] != a[1] + 1 for a, b in pairwise(matches))
