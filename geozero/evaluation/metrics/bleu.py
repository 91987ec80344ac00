"""Caption corpora: tokens and BLEU from n-gram statistics, as nltk smooths it and as sacrebleu leaves it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from geozero.evaluation.metrics.ngrams import ORDERS, NgramStatistics
from geozero.evaluation.metrics.scores import Floats

BLEU_NAMES = tuple(f"BLEU-{order}" for order in range(1, ORDERS + 1))
EPSILON = 0.1  # method 1 of Chen and Cherry (2014), nltk's default

# Columns of `bleu_columns`: what both forms of BLEU need to have summed.
N_BLEU_COLUMNS = 3 * ORDERS + 2


def bleu_columns(statistics: NgramStatistics) -> Floats:
    """Per record (n, 14): matches, totals, totals of at least 1 as nltk counts them, length, reference length."""
    return np.column_stack(
        [
            statistics.matches,
            statistics.totals,
            np.maximum(1.0, statistics.totals),
            statistics.length,
            statistics.reference_length,
        ]
    )


def bleu_smoothed(sums: Floats) -> list[Floats]:
    """BLEU-1..4 from summed columns (…, 14) as nltk's `corpus_bleu` with method-1 smoothing; 0 without any match.

    An order without a match counts 0.1 matches; each hypothesis adds at least 1 to every denominator.
    """
    matches, _, totals, length, reference_length = _split(sums)
    with np.errstate(all="ignore"):
        precision = np.where(matches == 0, EPSILON, matches) / totals
        logs = np.cumsum(np.log(precision), axis=-1) / np.arange(1, ORDERS + 1)
        brevity = np.where(length > reference_length, 1.0, np.exp(1 - reference_length / length))
        score = brevity[..., None] * np.exp(logs)
    score = np.where((matches[..., :1] == 0) | (length[..., None] == 0), 0.0, score)
    return [score[..., order] for order in range(ORDERS)]


def bleu_plain(sums: Floats) -> list[Floats]:
    """BLEU-1..4 from summed columns (…, 14) without smoothing, as sacrebleu: 0 where an order has no match."""
    matches, totals, _, length, reference_length = _split(sums)
    with np.errstate(all="ignore"):
        logs = np.cumsum(np.log(matches / totals), axis=-1) / np.arange(1, ORDERS + 1)
        brevity = np.where(length >= reference_length, 1.0, np.exp(1 - reference_length / length))
        score = brevity[..., None] * np.exp(logs)
    score = np.where(np.minimum.accumulate(matches, axis=-1) == 0, 0.0, score)
    return [score[..., order] for order in range(ORDERS)]


def _split(sums: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    return (
        sums[..., :ORDERS],
        sums[..., ORDERS : 2 * ORDERS],
        sums[..., 2 * ORDERS : 3 * ORDERS],
        sums[..., -2],
        sums[..., -1],
    )


def texts_of(label: object) -> list[str]:
    """The references that a label holds for strict: a list's texts, or one text; what is no text is left out."""
    if isinstance(label, str):
        return [label]
    return [item for item in label if isinstance(item, str)] if isinstance(label, Sequence) else []
