"""Object detection: all objects of a named class, the answer is the list of their boxes.

Example: question "Find every ship in the image.\nAnswer with the list of their bounding boxes [[x1, y1, x2, y2], ...],
or [] if there is none.", answer (pixels) "[[12, 40, 30, 52], [60, 8, 71, 30]]", reward the F1 of the boxes at IoU 0.5.

A sample keeps its boxes as text in `answer`, in pixels: `box` is the column of one box, and no column is added for
several, so that corpora of any age have the same ones. `question_type` may hold the class, for scores by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Box, Sample, check_box
from geozero.metrics.records import RecordList, image_sizes
from geozero.metrics.scores import Bools, Floats, Scores, finite, ratio
from geozero.tasks.base import Task, scored_answers
from geozero.tasks.boxes import (
    CONVENTIONS,
    Convention,
    better_convention,
    format_boxes,
    from_model,
    from_model_rows,
    iou_matrix,
    is_degenerate,
    medoid,
    parse_box_list,
    to_model,
    unread_notes,
)

MATCH_IOU = 0.5
SUCCESS_F1 = 0.5  # [ours] as a box is right from IoU 0.5 on
_FORM = "Answer with the list of their bounding boxes [[x1, y1, x2, y2], ...], or [] if there is none."
MAX_VOTES = 64  # lists of one question that vote; every pair of them is matched


class ObjectDetection(Task):
    name = "detection"
    title = "Object detection"
    tags = ("detection", "det")
    hub_category = "object-detection"
    headline = "f1"
    reported = ("precision", "recall", "f1", "AP_nc", "mAP_nc")
    success_reward = SUCCESS_F1
    answers_are_boxes = True
    templates = (
        f"Find every {{text}} in the image.\n{_FORM}",
        f"Detect all objects of the class: {{text}}.\n{_FORM}",
        f"Locate each {{text}}.\n{_FORM}",
    )

    def truth(self, answer: str, references: Sequence[str], boxes: Sequence[Box]) -> tuple[str, Box | None]:
        """The boxes from top to bottom, then from left to right, so that there is one right order to learn."""
        return format_boxes(sorted(boxes, key=lambda box: (box[1], box[0]))), None

    def validate(self, sample: Sample) -> Sample:
        super().validate(sample)
        boxes = parse_box_list(sample.answer)
        if boxes is None:
            raise BadRecord("boxes_unreadable", sample.answer[:80])
        for box in boxes:
            check_box(box, sample.width, sample.height)
        return sample

    def true_boxes(self, sample: Sample) -> list[Box]:
        return parse_box_list(sample.answer) or []

    def read_boxes(self, answer: str) -> list[Box] | None:
        return parse_box_list(answer)

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        return format_boxes([to_model(box, sample.width, sample.height, boxes) for box in self.true_boxes(sample)])

    def shown_truth(self, sample: Sample, boxes: Convention) -> str:
        return self.target(sample, boxes)

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        """F1 at IoU 0.5; no boxes are right where there are none."""
        found = parse_box_list(answer)
        if found is None:
            return 0.0
        predicted = [from_model(box, sample.width, sample.height, boxes) for box in found]
        return f1(_array(predicted), _array(self.true_boxes(sample)))

    def strict(self, records: RecordList, boxes: Convention = "norm1000") -> Scores:
        """`precision`, `recall`, `f1` and `AP_nc` (0-1) at IoU 0.5, boxes of all records pooled; `mean_f1` per record.

        Matching is one to one and optimal in each record. `AP_nc` is average precision without confidences, as
        RSCoVLM's mAP_nc: all predictions are equally sure, so the curve has one point, precision up to that recall, and
        its area is precision · recall. No boxes where there are none add nothing to the pooled metrics, and 1 to
        `mean_f1`. An answer that cannot be read holds no boxes, and its F1 is 0. A truth that cannot be read, or that
        holds a degenerate box, is left out and counted.
        """
        sizes = np.column_stack(image_sizes(records))
        predictions = scored_answers(records)
        read = [parse_box_list(text) for text in predictions]
        truths = [parse_box_list(text) for text in records.label_texts(boxes=True)]
        valid = np.array([t is not None and not any(map(is_degenerate, t)) for t in truths], dtype=bool)
        readable = np.array([boxes is not None for boxes in read], dtype=bool)
        true = [_array(t or []) for t in truths]
        readings = {name: [_pixels(p or [], s, name) for p, s in zip(read, sizes, strict=True)] for name in CONVENTIONS}
        statistics = {name: _statistics(pred, true, valid, readable) for name, pred in readings.items()}
        for i in np.flatnonzero(valid).tolist():
            if np.isnan(readings[boxes][i]).any():
                reason = "image_size_missing" if 0 in sizes[i] else "aspect_ratio_above_200"
                records.report(i, reason, "counted wrong")
        found = statistics[boxes]
        rates = {name: {"f1": float(_finish(s.sum(axis=0))["f1"])} for name, s in statistics.items()}
        unread = [predictions[i] for i in np.flatnonzero(valid & ~readable)]
        known = all(np.isfinite(rate["f1"]) for rate in rates.values())
        return Scores(
            statistics=found,
            finish=_finish,
            counts={
                "n_evaluated": int(valid.sum()),
                "n_invalid_gt": int((~valid).sum()),
                "n_unparsable_pred": int((valid & ~readable).sum()),
                "n_boxes_pred": int(found[:, 2].sum()),
                "n_boxes_gt": int(found[:, 3].sum()),
            },
            per_record={
                "pred": predictions,
                "evaluated": valid,
                "f1": found[:, 4],
                "pred_boxes": readings[boxes],
                "true_boxes": true,
            },
            correct=valid & (found[:, 4] >= SUCCESS_F1),
            diagnosis={"read_as": boxes, "conventions": rates} if known else {},
            notes=[*(better_convention(rates, boxes) if known else []), *unread_notes(unread, int(valid.sum()))],
            aggregates=_mean_over_classes(found, records.question_types),
        )

    def details(self, records: RecordList, scores: Scores, boxes: str) -> dict[str, Any]:
        """`mAP_nc`, which stands among the metrics, too."""
        return {"boxes": boxes, "mAP_nc": finite(scores.aggregates).get("mAP_nc")}

    def agreement(self, scores: Scores, group: list[int]) -> tuple[float, int | None]:
        """[ours] The mean F1 of all pairs, and the list with the largest mean F1 to the others (the first 64)."""
        lists = [scores.per_record["pred_boxes"][i] for i in group[:MAX_VOTES]]
        agreement, voted = medoid(np.array([[f1(a, b) for b in lists] for a in lists]))
        return agreement, group[voted]


def matches(predicted: Floats, true: Floats) -> int:
    """The most pairs of a predicted (n, 4) and a true box (m, 4) with IoU ≥ 0.5, each box in one pair at most."""
    if not len(predicted) or not len(true):
        return 0
    from scipy.optimize import linear_sum_assignment

    hits = iou_matrix(predicted, true) >= MATCH_IOU
    if 1 in hits.shape:
        return int(hits.any())
    return int(hits[linear_sum_assignment(hits, maximize=True)].sum())


def f1(predicted: Floats, true: Floats) -> float:
    """F1 of predicted boxes (n, 4) against true ones (m, 4); 1 where there are none of either."""
    n = len(predicted) + len(true)
    return 2 * matches(predicted, true) / n if n else 1.0


def _array(boxes: Sequence[Sequence[float]]) -> Floats:
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def _pixels(written: Sequence[Box], size: Floats, convention: Convention) -> Floats:
    return from_model_rows(_array(written), np.tile(size, (len(written), 1)), convention)


def _statistics(predicted: Sequence[Floats], true: Sequence[Floats], valid: Bools, readable: Bools) -> Floats:
    """Per record (n, 5): whether it counts, matches, predicted and true boxes, F1."""
    rows = np.zeros((len(true), 5))
    for i in np.flatnonzero(valid).tolist():
        hits, n_pred, n_true = matches(predicted[i], true[i]), len(predicted[i]), len(true[i])
        score = 2 * hits / (n_pred + n_true) if n_pred + n_true else float(readable[i])
        rows[i] = 1, hits, n_pred, n_true, score
    return rows


def _mean_over_classes(statistics: Floats, question_types: Sequence[str | None]) -> dict[str, float]:
    """`mAP_nc`: the mean of AP_nc over classes, where the question's type is the class."""
    kinds = np.array(question_types, dtype=object)
    names = sorted({kind for kind in question_types if kind is not None})
    rates = [float(_finish(statistics[kinds == name].sum(axis=0))["AP_nc"]) for name in names]
    known = [rate for rate in rates if np.isfinite(rate)]
    return {"mAP_nc": float(np.mean(known))} if known else {}


def _finish(sums: Floats) -> dict[str, Floats]:
    n, hits, n_pred, n_true, score = np.moveaxis(sums, -1, 0)
    return {
        "precision": ratio(hits, n_pred),
        "recall": ratio(hits, n_true),
        "f1": ratio(2 * hits, n_pred + n_true),
        "AP_nc": ratio(hits * hits, np.maximum(n_pred, 1) * n_true),
        "mean_f1": ratio(score, n),
    }
