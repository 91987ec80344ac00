"""Several answers per question: pass@k, the vote, how well agreement predicts accuracy, and when to abstain."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geozero.evaluation.statistics import (
    LEVEL,
    MIN_MARKED,
    RESAMPLES,
    SEED,
    calibration,
    cluster_ids,
    intervals,
    pass_at_k,
    renumbered,
)
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Floats, Scores
from geozero.tasks import Task

MAX_K = 1024  # pass@k is given up to here
RISK = 0.1  # share of wrong answers among those given


def self_consistency(
    task: Task, records: RecordList, scores: Scores, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Any] | None:
    """What k answers per question show beyond one; None where every question was answered once, and for tasks that know
    no right and wrong.

    Records with the same `sample` are answers to one question. `pass_at_k` (Chen et al., 2021): chance that one of k
    is right, over the questions with at least k answers. `vote`: accuracy of what the answers agree on
    (`Task.agreement`). `calibration`: how much they agree against the vote's accuracy. `abstention`: how many can be
    answered at a chosen risk.
    """
    questions: dict[str, list[int]] = defaultdict(list)
    kept = np.asarray(scores.per_record.get("evaluated", np.ones(len(records))), dtype=bool)
    for i in np.flatnonzero(kept).tolist():
        questions[records.samples[i]].append(i)
    groups = list(questions.values())
    drawn = np.array([len(group) for group in groups], dtype=np.int64)
    right = scores.correct
    if right is None or not len(drawn) or drawn.max() < 2:
        return None
    correct = np.array([right[group].sum() for group in groups])
    clusters = cluster_ids([records.image_paths[group[0]] for group in groups])
    result: dict[str, Any] = {"n_questions": len(groups), "k": [int(drawn.min()), int(drawn.max())], "pass_at_k": {}}
    for k in _powers(min(int(drawn.max()), MAX_K)):
        values = pass_at_k(drawn, correct, k)
        result["pass_at_k"][str(k)] = _mean(values, clusters, resamples, seed)
    votes = [task.agreement(scores, group) for group in groups]
    agreement = np.array([share for share, _ in votes])
    hit = np.array([voted is not None and right[voted] for _, voted in votes], dtype=np.float64)
    result["vote"] = _mean(hit, clusters, resamples, seed)
    result["calibration"] = calibration(agreement, hit)
    result["abstention"] = abstention(agreement, hit, clusters, resamples, seed)
    return result


def abstention(
    agreement: Floats, right: Floats, clusters: NDArray[np.int64] | None, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Any]:
    """How many questions (n,) can be answered if at most `RISK` of the answers may be wrong, and no others are given.

    Answers are given from an agreement on. It is lowered as long as the 95 % upper bound of the share of wrong answers
    stays below the risk (Geifman and El-Yaniv, 2017); `agreement` None: no level of agreement is that safe.
    """
    from scipy import stats

    threshold = None
    for level in np.unique(agreement)[::-1]:
        given = right[agreement >= level]
        bound = stats.binomtest(int((given == 0).sum()), len(given), alternative="less").proportion_ci(LEVEL).high
        if bound > RISK:
            if threshold is not None or len(given) >= MIN_MARKED:
                break
            continue
        threshold = float(level)
    answered = agreement >= (np.inf if threshold is None else threshold)
    result: dict[str, Any] = {"risk": RISK, "agreement": threshold}
    result["answered"] = _mean(answered.astype(np.float64), clusters, resamples, seed)
    if answered.any():
        inside = renumbered(clusters, answered)
        result["wrong"] = _mean(1.0 - right[answered], inside, resamples, seed)
    return result


def _powers(most: int) -> list[int]:
    """1, 2, 4, … and the largest number itself."""
    return sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})


def _mean(values: Floats, clusters: NDArray[np.int64] | None, resamples: int, seed: int) -> dict[str, Any]:
    known = np.isfinite(values)
    columns, inside = np.column_stack([np.ones(int(known.sum())), values[known]]), renumbered(clusters, known)
    bounds = intervals(columns, lambda sums: {"mean": sums[..., 1] / sums[..., 0]}, inside, resamples, seed)
    return {"value": float(values[known].mean()), "interval": bounds.get("mean"), "n": int(known.sum())}
