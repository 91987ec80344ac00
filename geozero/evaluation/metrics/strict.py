"""The protocol `strict` (our choice, METHOD Evaluation): no substrings, no smoothing, the box convention explicit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geozero.common.lenient_json import as_text
from geozero.corpus.sample import TaskName
from geozero.evaluation.metrics.bleu import BLEU_NAMES, N_BLEU_COLUMNS, bleu_columns, bleu_plain, texts_of
from geozero.evaluation.metrics.ngrams import ngram_statistics
from geozero.evaluation.metrics.rouge import rouge_l_beta
from geozero.evaluation.metrics.scores import Floats, Scores, ratio
from geozero.evaluation.records import RecordList, image_sizes
from geozero.tasks.boxes import CONVENTIONS, Convention
from geozero.tasks.boxes_vectorized import from_model_rows, iou_rows, parse_boxes
from geozero.tasks.text import extract_answer, normalise, words

SIZE_LIMITS = (32.0**2, 96.0**2)  # px², the limits of S, M and L in the published script (and in COCO)
SIZE_NAMES = ("S", "M", "L")
# Our choice of when another convention "fits far better": so much more accuracy, and so many times as much.
FAR_BETTER = (0.10, 1.5)


def score_strict(task: TaskName, records: RecordList, boxes: Convention = "norm1000") -> Scores:
    """Score `records` under `strict`; `boxes` is the convention of predicted boxes (grounding only)."""
    if task == "grounding":
        return score_grounding(records, boxes)
    return score_captions(records) if task == "caption" else score_closed(task, records)


def score_closed(task: TaskName, records: RecordList) -> Scores:
    """Scene classification and VQA: `accuracy` (0-1), equality after normalising and trimming, empty is wrong."""
    cache: dict[str, str] = {}

    def plain(text: str) -> str:
        if text not in cache:
            cache[text] = normalise(text).strip()
        return cache[text]

    predictions = [extract_answer(text) for text in records.texts]
    labels = [_label_text(records, i) for i in range(len(records))]
    truths = [plain(label) for label in labels]
    answers = [plain(prediction) for prediction in predictions]
    hit = np.array([bool(a) and a == t for a, t in zip(answers, truths, strict=True)], dtype=np.float64)
    return Scores(
        statistics=np.column_stack([np.ones(len(hit)), hit]),
        finish=lambda sums: {"accuracy": ratio(sums[..., 1], sums[..., 0])},
        counts={"n_empty_pred": answers.count(""), "n_empty_label": truths.count("")},
        per_record={"pred": predictions, "hit": hit, "answer": answers, "truth": truths},
        groups={"class": np.array([truth or None for truth in truths], dtype=object)} if task == "scene_cls" else {},
    )


def score_captions(records: RecordList) -> Scores:
    """Corpus BLEU-1..4 without smoothing, ROUGE-L (β 1.2), CIDEr-D and plain CIDEr (×10).

    Blank references are dropped; a record without any reference is left out and counted.
    """
    n = len(records)
    predictions = [extract_answer(text) for text in records.texts]
    hypotheses = [words(text) for text in predictions]
    references = [[t for t in map(words, texts_of(label)) if t] for label in records.labels]
    kept = [i for i in range(n) if references[i]]
    for i in sorted(set(range(n)) - set(kept)):
        records.report(i, "reference_missing", "left out")
    statistics = np.zeros((n, N_BLEU_COLUMNS + 4))
    if kept:
        chosen, truths = [hypotheses[i] for i in kept], [references[i] for i in kept]
        grams = ngram_statistics(chosen, truths)
        rouge = [rouge_l_beta(h, r) for h, r in zip(chosen, truths, strict=True)]
        statistics[kept] = np.column_stack([bleu_columns(grams), np.ones(len(kept)), rouge, grams.cider_d, grams.cider])
    evaluated, rouge_l, cider_d, cider = statistics[:, N_BLEU_COLUMNS:].T
    return Scores(
        statistics=statistics,
        finish=_finish_captions,
        counts={
            "n_evaluated": len(kept),
            "n_without_reference": n - len(kept),
            "n_empty_pred": sum(not hypotheses[i] for i in kept),
        },
        per_record={
            "pred": predictions,
            "evaluated": evaluated > 0,
            "ROUGE-L": rouge_l,
            "CIDEr-D": cider_d,
            "CIDEr": cider,
        },
    )


def _finish_captions(sums: Floats) -> dict[str, Floats]:
    evaluated = sums[..., N_BLEU_COLUMNS]
    scores = [np.where(evaluated > 0, bleu, np.nan) for bleu in bleu_plain(sums[..., :N_BLEU_COLUMNS])]
    result = dict(zip(BLEU_NAMES, scores, strict=True))
    for offset, name in enumerate(("ROUGE-L", "CIDEr-D", "CIDEr"), start=1):
        result[name] = ratio(sums[..., N_BLEU_COLUMNS + offset], evaluated)
    return result


def score_grounding(records: RecordList, boxes: Convention = "norm1000") -> Scores:
    """`acc@0.5`, `acc@0.7` and `mean_iou` (0-1) over the records with a valid true box.

    A prediction that holds no four finite numbers, or a degenerate box, has IoU 0; a truth without four finite
    numbers and a positive width and height is left out and counted. Nothing is rounded or clipped.
    """
    sizes = np.column_stack(image_sizes(records))
    predictions = [extract_answer(text) for text in records.texts]
    truth, label_parsed = parse_boxes([_label_text(records, i) for i in range(len(records))])
    pred, parsed = parse_boxes(predictions)
    parsed &= np.isfinite(pred).all(axis=1)
    with np.errstate(invalid="ignore"):
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
    iou = readings[boxes]
    diagnosis, notes = _diagnosis(readings, valid, boxes)
    size = np.array([*SIZE_NAMES, None], dtype=object)[np.where(valid, np.searchsorted(SIZE_LIMITS, area), -1)]
    return Scores(
        statistics=np.column_stack([valid, iou >= 0.5, iou >= 0.7, iou]).astype(np.float64),
        finish=_finish_grounding,
        counts={
            "n_evaluated": int(valid.sum()),
            "n_invalid_gt": int((~valid).sum()),
            "n_unparsable_pred": int((valid & ~parsed).sum()),
            "n_degenerate_pred": int((valid & degenerate).sum()),
            "n_gt_out_of_image": int((valid & outside).sum()),
        },
        per_record={"pred": predictions, "evaluated": valid, "iou": iou, "pred_box": pixels, "true_box": truth},
        groups={"size": size},
        diagnosis=diagnosis,
        notes=notes,
    )


def _finish_grounding(sums: Floats) -> dict[str, Floats]:
    return {name: ratio(sums[..., k], sums[..., 0]) for k, name in enumerate(("acc@0.5", "acc@0.7", "mean_iou"), 1)}


def _overlap(pixels: Floats, truth: Floats, compared: NDArray[np.bool_]) -> Floats:
    """IoU (n,) of the compared rows; 0 elsewhere, and where a prediction has no place in its image."""
    result = np.zeros(len(pixels))
    result[compared] = np.nan_to_num(iou_rows(pixels[compared], truth[compared]))
    return result


def _has_area(box: Floats) -> NDArray[np.bool_]:
    result: NDArray[np.bool_] = (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])
    return result


def _diagnosis(
    readings: dict[Convention, Floats], valid: NDArray[np.bool_], boxes: Convention
) -> tuple[dict[str, Any], list[str]]:
    """The same predictions in every convention, and a note where another fits far better. Never a choice."""
    if not valid.any():
        return {}, []
    rates = {
        name: {"acc@0.5": float((iou[valid] >= 0.5).mean()), "mean_iou": float(iou[valid].mean())}
        for name, iou in readings.items()
    }
    best = max(rates, key=lambda name: (rates[name]["acc@0.5"], rates[name]["mean_iou"]))
    ours, theirs = rates[boxes]["acc@0.5"], rates[best]["acc@0.5"]
    notes = []
    if theirs - ours >= FAR_BETTER[0] and theirs >= FAR_BETTER[1] * ours:
        notes.append(
            f"the predicted boxes fit far better as {best} (acc@0.5 {theirs:.3f}) than as {boxes} ({ours:.3f}); "
            f"if the model writes {best}, score it under strict with --boxes {best}"
        )
    return {"read_as": boxes, "conventions": rates}, notes


def _label_text(records: RecordList, record: int) -> str:
    label = records.labels[record]
    if isinstance(label, str):
        return label
    text = as_text(label)
    if text is None:
        records.report(record, "label_missing", f"label is {type(label).__name__}")
    return text or ""
