"""Several answers to one question: pass@k, the vote of the answers, and whether their agreement can be trusted."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geozero.corpus.sample import TaskName
from geozero.evaluation.metrics.scores import Floats, Scores
from geozero.evaluation.records import RecordList
from geozero.evaluation.statistics import RESAMPLES, SEED, calibration, cluster_ids, intervals, majority_vote, pass_at_k
from geozero.tasks.boxes_vectorized import iou_rows

HIT_IOU = 0.5  # a box is right from here on, as in acc@0.5
MAX_K = 1024  # pass@k is given up to here
MAX_VOTES = 256  # boxes of one question that vote; every pair of them is compared


def self_consistency(
    task: TaskName, records: RecordList, scores: Scores, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Any] | None:
    """What k answers a question tell beyond one; None where every question was answered once, and for captions,
    which are neither right nor wrong.

    Records with the same `sample` are answers to one question. `pass_at_k` (Chen et al., 2021): chance that one of k
    is right, over the questions with at least k answers. `vote`: accuracy of the most common normalised answer (Wang
    et al., 2022); of boxes the one with the largest mean IoU to the others [ours]. `calibration`: the share of the
    answers that agree with the vote, for boxes the mean IoU of all pairs [ours], against the vote's accuracy.
    """
    questions: dict[str, list[int]] = defaultdict(list)
    kept = np.asarray(scores.per_record.get("evaluated", np.ones(len(records))), dtype=bool)
    for i in np.flatnonzero(kept).tolist():
        questions[records.samples[i]].append(i)
    groups = list(questions.values())
    drawn = np.array([len(group) for group in groups], dtype=np.int64)
    if task == "caption" or not len(drawn) or drawn.max() < 2:
        return None
    right = _right(scores)
    correct = np.array([right[group].sum() for group in groups])
    clusters = cluster_ids([records.image_paths[group[0]] for group in groups])
    result: dict[str, Any] = {"n_questions": len(groups), "k": [int(drawn.min()), int(drawn.max())], "pass_at_k": {}}
    for k in _powers(min(int(drawn.max()), MAX_K)):
        values = pass_at_k(drawn, correct, k)
        result["pass_at_k"][str(k)] = _mean(values, clusters, resamples, seed)
    votes = [_vote(task, group, scores, right) for group in groups]
    agreement, hit = (np.array(column, dtype=np.float64) for column in zip(*votes, strict=True))
    result["vote"] = _mean(hit, clusters, resamples, seed)
    result["calibration"] = calibration(agreement, hit)
    return result


def _right(scores: Scores) -> NDArray[np.bool_]:
    if "hit" in scores.per_record:
        return np.asarray(scores.per_record["hit"], dtype=bool)
    return np.asarray(np.nan_to_num(scores.per_record["iou"]) >= HIT_IOU)


def _powers(most: int) -> list[int]:
    """1, 2, 4, … and the largest number itself."""
    return sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})


def _mean(values: Floats, clusters: NDArray[np.int64] | None, resamples: int, seed: int) -> dict[str, Any]:
    known = np.isfinite(values)
    inside = None if clusters is None else np.unique(clusters[known], return_inverse=True)[1]
    columns = np.column_stack([np.ones(int(known.sum())), values[known]])
    bounds = intervals(columns, lambda sums: {"mean": sums[..., 1] / sums[..., 0]}, inside, resamples, seed)
    found = bounds.get("mean")
    return {
        "value": float(values[known].mean()),
        "interval": None if found is None else list(found),
        "n": int(known.sum()),
    }


def _vote(task: TaskName, group: list[int], scores: Scores, right: NDArray[np.bool_]) -> tuple[float, float]:
    """Agreement of one question's answers, and whether what they agree on is right."""
    if task == "grounding":
        group = group[:MAX_VOTES]
        boxes = scores.per_record["pred_box"][group]
        n = len(boxes)
        with np.errstate(all="ignore"):
            pairs = np.nan_to_num(iou_rows(np.repeat(boxes, n, axis=0), np.tile(boxes, (n, 1))).reshape(n, n))
        np.fill_diagonal(pairs, 0.0)
        near = pairs.sum(axis=1) / max(1, n - 1)
        return min(1.0, float(near.mean())), float(right[group[int(near.argmax())]])
    answers = [scores.per_record["answer"][i] for i in group]
    voted, share = majority_vote(answers)
    first = next((i for i, answer in zip(group, answers, strict=True) if voted and answer.strip() == voted), None)
    return share, 0.0 if first is None else float(right[first])
