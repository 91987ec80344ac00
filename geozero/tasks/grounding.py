"""Visual grounding: an expression singles out one object, the answer is its box.

Example: question "Locate: the red ship\nAnswer with its bounding box [x1, y1, x2, y2].", box (12, 40, 30, 52) in
an image of 96×96 pixels, target for Qwen3-VL "[125, 417, 312, 542]" (relative 0–1000), reward the IoU.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Box, Sample, check_box
from geozero.metrics.records import OFFICIAL_HINT, RecordList, image_sizes
from geozero.metrics.scores import Bools, Floats, Scores, ratio
from geozero.tasks.base import Task, scored_answers
from geozero.tasks.boxes import (
    CONVENTIONS,
    Convention,
    better_convention,
    distinct_sizes,
    format_box,
    from_model,
    from_model_rows,
    iou,
    iou_matrix,
    iou_rows,
    medoid,
    parse_box,
    parse_boxes,
    published_boxes,
    smart_resize,
    to_model,
    unread_notes,
)
from geozero.tasks.text import extract_answer

SUCCESS_IOU = 0.5
SIZE_LIMITS = (32.0**2, 96.0**2)  # px², the limits of S, M and L in the published script (and in COCO)
SIZE_NAMES = ("S", "M", "L")
_BRACKET = re.compile(r"[\[({<=]")
MAX_VOTES = 256  # boxes of one question that vote; every pair of them is compared


class VisualGrounding(Task):
    name = "grounding"
    title = "Visual grounding"
    tags = ("refer", "grounding", "vg")
    hub_category = "object-detection"
    headline = "acc@0.5"
    official_headline = "precision_percent"
    reported = ("acc@0.5", "acc@0.7", "mean_iou")
    success_reward = SUCCESS_IOU
    answers_are_boxes = True
    official_draws = True
    official_guesses = False  # labels are pixels, and that protocol reads answers in the frame of a resize
    templates = (
        "Locate: {text}\nAnswer with its bounding box [x1, y1, x2, y2].",
        "Find {text} in the image.\nAnswer with its bounding box [x1, y1, x2, y2].",
        "Give the position of {text}.\nAnswer with its bounding box [x1, y1, x2, y2].",
    )

    def truth(self, answer: str, references: Sequence[str], boxes: Sequence[Box]) -> tuple[str, Box | None]:
        return (format_box(boxes[0]), boxes[0]) if boxes else (answer, None)

    def validate(self, sample: Sample) -> Sample:
        super().validate(sample)
        check_box(sample.box, sample.width, sample.height)
        return sample

    def read_boxes(self, answer: str) -> list[Box] | None:
        box = parse_box(answer)
        return None if box is None else [box]

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        if sample.box is None:
            raise BadRecord("box_missing", sample.id)
        return format_box(to_model(sample.box, sample.width, sample.height, boxes))

    def shown_truth(self, sample: Sample, boxes: Convention) -> str:
        return sample.answer if sample.box is None else self.target(sample, boxes)

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        parsed = parse_box(answer)
        if parsed is None or sample.box is None:
            return 0.0
        return iou(from_model(parsed, sample.width, sample.height, boxes), sample.box)

    def strict(self, records: RecordList, boxes: Convention = "norm1000") -> Scores:
        """`acc@0.5`, `acc@0.7` and `mean_iou` (0-1) over the records with a valid true box.

        A prediction that names no box, several different ones, or a degenerate one has IoU 0; a truth without four
        finite numbers and a positive width and height is left out and counted. Nothing is rounded or clipped.
        """
        sizes = np.column_stack(image_sizes(records))
        predictions = scored_answers(records)
        truth, label_parsed = _label_boxes(records.label_texts(boxes=True))
        pred, parsed = parse_boxes(predictions)
        parsed &= np.isfinite(pred).all(axis=1)
        with np.errstate(invalid="ignore", over="ignore"):
            valid = label_parsed & np.isfinite(truth).all(axis=1) & _has_area(truth)
            degenerate = parsed & ~_has_area(pred)
            outside = (truth < 0).any(axis=1) | ((truth[:, 2:] > sizes) & (sizes > 0)).any(axis=1)
            area = (truth[:, 2] - truth[:, 0]) * (truth[:, 3] - truth[:, 1])
        readings: dict[Convention, Floats] = {
            name: _overlap(from_model_rows(pred, sizes, name), truth, parsed & valid) for name in CONVENTIONS
        }
        pixels = from_model_rows(pred, sizes, boxes)
        for i in np.flatnonzero(parsed & valid & np.isnan(pixels).any(axis=1)).tolist():
            records.report(i, "image_size_missing" if 0 in sizes[i] else "aspect_ratio_above_200", "counted wrong")
        overlap = readings[boxes]
        diagnosis, notes = _diagnosis(readings, valid, boxes)
        unread = valid & ~parsed & ~(records.cut if len(records.cut) else np.zeros(len(records), dtype=bool))
        notes += unread_notes([predictions[i] for i in np.flatnonzero(unread)], int(valid.sum()))
        size = np.array([*SIZE_NAMES, None], dtype=object)[np.where(valid, np.searchsorted(SIZE_LIMITS, area), -1)]
        return Scores(
            statistics=np.column_stack([valid, overlap >= 0.5, overlap >= 0.7, overlap]).astype(np.float64),
            finish=_finish_strict,
            counts={
                "n_evaluated": int(valid.sum()),
                "n_invalid_gt": int((~valid).sum()),
                "n_unparsable_pred": int((valid & ~parsed).sum()),
                "n_degenerate_pred": int((valid & degenerate).sum()),
                "n_gt_out_of_image": int((valid & outside).sum()),
            },
            per_record={
                "pred": predictions,
                "evaluated": valid,
                "iou": overlap,
                "pred_box": pixels,
                "true_box": truth,
            },
            groups={"size": size},
            correct=overlap >= SUCCESS_IOU,
            diagnosis=diagnosis,
            notes=notes,
        )

    def official(self, records: RecordList, headline_only: bool = False) -> Scores:
        """`precision_percent` (IoU ≥ 0.5, 0-100) overall and by size of the true box, over labels with four numbers.

        Predictions are read in the frame of a resize to multiples of 28 and rounded to whole pixels; both boxes are
        then divided by the image's sides. A degenerate label stays in the denominator and is always missed.
        """
        predictions = list(map(extract_answer, records.texts))
        truth, valid = published_boxes(records.required_label_texts())
        pred, parsed = published_boxes(predictions)
        width, height = image_sizes(records)
        for i in np.flatnonzero(valid & ((width == 0) | (height == 0))).tolist():
            what = "no image size: neither width and height nor a readable image_path"
            raise InputError(what, records.place(i), OFFICIAL_HINT)
        scored = valid & parsed
        pixels = _official_pixels(records, pred, scored, width, height)
        sides = np.tile(np.column_stack([width, height]), 2)
        overlap = np.full(len(records), np.nan)
        with np.errstate(all="ignore"):
            overlap[scored] = iou_rows(truth[scored] / sides[scored], pixels[scored] / sides[scored])
            area = (truth[:, 2] - truth[:, 0]) * (truth[:, 3] - truth[:, 1])
            hit = overlap >= 0.5
            level = np.where(area > SIZE_LIMITS[1], 2, np.where(area > SIZE_LIMITS[0], 1, 0))
        in_level = [valid & (level == k) for k in range(len(SIZE_NAMES))]
        counts = {"n_invalid_label": int((~valid).sum()), "n_scored_pairs": int(scored.sum())}
        for name, inside in zip(SIZE_NAMES, in_level, strict=True):
            counts[f"level_{name}_count"] = int(inside.sum())
            counts[f"level_{name}_correct"] = int((inside & hit).sum())
        columns = [valid, hit, *in_level, *(inside & hit for inside in in_level)]
        scores = Scores(
            statistics=np.column_stack(columns).astype(np.float64),
            finish=_finish_official,
            counts=counts,
            per_record={
                "pred": predictions,
                "evaluated": valid,
                "iou": overlap,
                "hit": hit,
                "pred_box": pixels,
                "true_box": truth,
                "level": np.array([*SIZE_NAMES, None], dtype=object)[np.where(valid, level, -1)],
            },
            correct=hit,
        )
        if not headline_only:  # the conventions side by side; under this protocol the published one is always read
            beside = self.strict(dataclasses.replace(records, problems=[]), "resized28")
            scores.diagnosis = beside.diagnosis
            if "conventions" in beside.diagnosis:  # its other notes are on what strict reads otherwise
                scores.notes = better_convention(beside.diagnosis["conventions"], "resized28")
        return scores

    def details(self, records: RecordList, scores: Scores, boxes: str) -> dict[str, Any]:
        return {"boxes": boxes}

    def agreement(self, scores: Scores, group: list[int]) -> tuple[float, int | None]:
        """[ours] The mean IoU of all pairs, and the box with the largest mean IoU to the others (the first 256)."""
        boxes = scores.per_record["pred_box"][group[:MAX_VOTES]]
        agreement, voted = medoid(iou_matrix(boxes, boxes))
        return agreement, group[voted]

    def constant_answer(self, truths: Sequence[Sequence[str]]) -> str:
        """The median box."""
        parsed = [box for group in truths if (box := parse_box(group[0]))]
        middle = [sorted(side)[len(side) // 2] for side in zip(*parsed, strict=True)]
        return format_box(middle) if middle else ""

    def official_warnings(self, records: Sequence[Mapping[str, Any]], drawn: bool) -> list[str]:
        what = "the official protocol stops at an image of unknown size: fix what failed before using it"
        return [what] if any("width" not in record for record in records) else []


def _label_boxes(texts: Sequence[str]) -> tuple[Floats, Bools]:
    """The boxes of labels: by the published rule, else as answers are read; numbers without any bracket are none."""
    values, found = published_boxes(texts)
    for i in np.flatnonzero(~found).tolist():
        if _BRACKET.search(texts[i]) and (box := parse_box(texts[i])) is not None:
            values[i], found[i] = box, True
    return values, found


def _finish_strict(sums: Floats) -> dict[str, Floats]:
    return {name: ratio(sums[..., k], sums[..., 0]) for k, name in enumerate(("acc@0.5", "acc@0.7", "mean_iou"), 1)}


def _finish_official(sums: Floats) -> dict[str, Floats]:
    result = {"precision_percent": ratio(sums[..., 1], sums[..., 0]) * 100}
    for k, name in enumerate(SIZE_NAMES, start=2):
        result[f"level_{name}_precision_percent"] = ratio(sums[..., k + len(SIZE_NAMES)], sums[..., k]) * 100
    return result


def _overlap(pixels: Floats, truth: Floats, compared: Bools) -> Floats:
    """IoU (n,) of the compared rows; 0 elsewhere, and where a prediction has no place in its image."""
    result = np.zeros(len(pixels))
    result[compared] = np.nan_to_num(iou_rows(pixels[compared], truth[compared]))
    return result


def _has_area(box: Floats) -> Bools:
    result: Bools = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    return result


def _diagnosis(readings: dict[Convention, Floats], valid: Bools, boxes: Convention) -> tuple[dict[str, Any], list[str]]:
    """The same predictions in every convention, and a note where another fits far better. Never a choice."""
    if not valid.any():
        return {}, []
    rates = {
        name: {"acc@0.5": float((overlap[valid] >= 0.5).mean()), "mean_iou": float(overlap[valid].mean())}
        for name, overlap in readings.items()
    }
    return {"read_as": boxes, "conventions": rates}, better_convention(rates, boxes)


def _official_pixels(records: RecordList, pred: Floats, scored: Bools, width: Floats, height: Floats) -> Floats:
    """Predicted boxes (n, 4) in whole pixels of the image: `round(x · (side / resized side))`, half to even."""
    sizes, first, inverse = distinct_sizes(width[scored], height[scored])
    scales = np.ones((len(sizes), 2))
    for k, (w, h) in enumerate(sizes):
        try:
            new_w, new_h = smart_resize(w, h)
        except ValueError as error:
            place = records.place(int(np.flatnonzero(scored)[first[k]]))
            raise InputError(str(error), place, OFFICIAL_HINT) from None
        scales[k] = w / new_w, h / new_h
    scale = np.full((len(pred), 2), np.nan)
    scale[scored] = scales[inverse]
    with np.errstate(all="ignore"):
        pixels: Floats = np.rint(pred * np.tile(scale, 2))
    for i in np.flatnonzero(scored & ~np.isfinite(pixels).all(axis=1)).tolist():
        raise InputError("a predicted coordinate is too large for a pixel", records.place(i), OFFICIAL_HINT)
    return pixels
