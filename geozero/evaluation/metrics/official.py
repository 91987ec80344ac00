"""The protocol `official`: the rules of the published evaluation script to the letter, so that numbers compare.

Where that script stops with an exception on some record, this one raises an InputError that names the record.
A prediction that is missing altogether (the script never writes one) is counted wrong and listed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geozero.common.errors import InputError
from geozero.common.lenient_json import as_text
from geozero.corpus.sample import TaskName
from geozero.evaluation.metrics.bleu import BLEU_NAMES, N_BLEU_COLUMNS, bleu_columns, bleu_smoothed
from geozero.evaluation.metrics.meteor import MISSING, Meteor
from geozero.evaluation.metrics.ngrams import ngram_statistics
from geozero.evaluation.metrics.rouge import rouge
from geozero.evaluation.metrics.scores import Floats, Scores, ratio
from geozero.evaluation.metrics.strict import SIZE_LIMITS, SIZE_NAMES
from geozero.evaluation.records import RecordList, image_sizes
from geozero.tasks.boxes import RESIZE_MAX_RATIO, smart_resize
from geozero.tasks.boxes_vectorized import distinct_sizes, iou_rows, parse_boxes
from geozero.tasks.text import extract_answer, normalise

Strings = list[str]
HINT = "the published rules stop here; fix the record, or use --protocol strict"


def score_official(task: TaskName, records: RecordList) -> Scores:
    """Score `records` by the published rules.

    Raises:
        InputError: the published rules stop on a record, or on the whole list.
    """
    if task == "grounding":
        return score_grounding(records)
    return score_captions(records) if task == "caption" else score_closed(task, records)


def score_closed(task: TaskName, records: RecordList) -> Scores:
    """`accuracy_percent` (0-100): equality after normalising; VQA also accepts a substring either way."""
    cache: dict[str, str] = {}

    def plain(text: str) -> str:
        if text not in cache:
            cache[text] = normalise(text)
        return cache[text]

    predictions = [extract_answer(text) for text in records.texts]
    answers = [plain(prediction) for prediction in predictions]
    truths = [plain(label) for label in _label_texts(records)]
    pairs = zip(answers, truths, strict=True)
    hits = [a == t or a in t or t in a for a, t in pairs] if task == "vqa" else [a == t for a, t in pairs]
    hit = np.array(hits, dtype=bool) & records.readable
    return Scores(
        statistics=np.column_stack([np.ones(len(hit)), hit]),
        finish=lambda sums: {"accuracy_percent": ratio(sums[..., 1], sums[..., 0]) * 100},
        per_record={"pred": predictions, "hit": hit.astype(np.float64), "answer": answers, "truth": truths},
        groups={"class": np.array([truth or None for truth in truths], dtype=object)} if task == "scene_cls" else {},
    )


def score_captions(records: RecordList, meteor: bool = True) -> Scores:
    """BLEU-1..4 (method-1 smoothing), CIDEr (pycocoevalcap's, ×10), ROUGE-1/L (rouge 1.0.1), METEOR (nltk's).

    Best reference a record for ROUGE and METEOR. ROUGE leaves out records without a score and says how many; an empty
    prediction counts 0. A reference list that is one text is taken character by character, as the script does.
    """
    if not len(records):
        raise InputError("no records to score as captions", hint=HINT)
    predictions = [extract_answer(text) for text in records.texts]
    hypotheses = [normalise(text).split() for text in predictions]
    references = [_references(records, i) for i in range(len(records))]
    if not any(tokens for group in references for tokens in group):
        raise InputError("every reference of every record is blank", records.place(0), HINT)
    grams = ngram_statistics(hypotheses, references)
    rouges = [_best_rouge(h, r) for h, r in zip(hypotheses, references, strict=True)]
    scored = np.array([pair is not None for pair in rouges], dtype=np.float64)
    rouge_1, rouge_l = np.array([pair or (0.0, 0.0) for pair in rouges]).T
    for i in np.flatnonzero(scored == 0).tolist():
        records.report(i, "rouge_skipped", "no reference that rouge can score")
    columns = [bleu_columns(grams), np.ones(len(records)), grams.cider_d, scored, rouge_1, rouge_l]
    per_record: dict[str, Any] = {"pred": predictions, "CIDEr": grams.cider_d, "ROUGE-1": rouge_1, "ROUGE-L": rouge_l}
    missing, diagnosis = {}, {}
    if not meteor:
        missing["METEOR"] = "left out on request"
    else:
        try:
            per_record["METEOR"] = _meteor(Meteor(), hypotheses, references)
            columns.append(per_record["METEOR"])
        except LookupError:
            missing["METEOR"] = MISSING
            stems = _meteor(Meteor(synonyms=False), hypotheses, references)
            diagnosis["METEOR_without_synonym_stage"] = float(stems.mean())
    return Scores(
        statistics=np.column_stack(columns),
        finish=_finish_captions,
        counts={"ROUGE_skipped_samples": int((scored == 0).sum())},
        missing=missing,
        per_record=per_record,
        diagnosis=diagnosis,
    )


def _meteor(metric: Meteor, hypotheses: list[Strings], references: list[list[Strings]]) -> Floats:
    return np.array([metric.score(h, r) for h, r in zip(hypotheses, references, strict=True)])


def _finish_captions(sums: Floats) -> dict[str, Floats]:
    n, cider, scored, rouge_1, rouge_l = np.moveaxis(sums[..., N_BLEU_COLUMNS : N_BLEU_COLUMNS + 5], -1, 0)
    result = dict(zip(BLEU_NAMES, bleu_smoothed(sums[..., :N_BLEU_COLUMNS]), strict=True))
    result["CIDEr"] = ratio(cider, n)
    result["ROUGE-1"] = rouge_1 / np.maximum(scored, 1)
    result["ROUGE-L"] = rouge_l / np.maximum(scored, 1)
    result["ROUGE_valid_coverage"] = ratio(scored, n)
    if sums.shape[-1] > N_BLEU_COLUMNS + 5:
        result["METEOR"] = ratio(sums[..., -1], n)
    return result


def _references(records: RecordList, record: int) -> list[Strings]:
    label = records.labels[record]
    if not isinstance(label, list | str) or not label:
        what = "an empty list of references" if label == [] else f"{repr(label)[:60]} instead of a list of references"
        raise InputError(what, records.place(record), HINT)
    return [normalise(_text(records, record, reference)).split() for reference in label]


def _best_rouge(hypothesis: Strings, references: list[Strings]) -> tuple[float, float] | None:
    """Best ROUGE-1 and best ROUGE-L over the references; None where none can be scored, 0 for an empty hypothesis."""
    if not hypothesis:
        return 0.0, 0.0
    pairs = [pair for reference in references if reference and (pair := rouge(hypothesis, reference))]
    return (max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)) if pairs else None


def score_grounding(records: RecordList) -> Scores:
    """`precision_percent` (IoU ≥ 0.5, 0-100) overall and by size of the true box, over labels with four numbers.

    Predictions are read in the frame of a resize to multiples of 28 and rounded to whole pixels; both boxes are then
    divided by the image's sides. A degenerate label stays in the denominator and is always missed.
    """
    predictions = [extract_answer(text) for text in records.texts]
    truth, valid = parse_boxes(_label_texts(records))
    pred, parsed = parse_boxes(predictions)
    width, height = image_sizes(records)
    for i in np.flatnonzero(valid & ((width == 0) | (height == 0))).tolist():
        raise InputError("no image size: neither width and height nor a readable image_path", records.place(i), HINT)
    scored = valid & parsed
    pixels = _to_pixels(records, pred, scored, width, height)
    sides = np.tile(np.column_stack([width, height]), 2)
    iou = np.full(len(records), np.nan)
    with np.errstate(all="ignore"):
        iou[scored] = iou_rows(truth[scored] / sides[scored], pixels[scored] / sides[scored])
        area = (truth[:, 2] - truth[:, 0]) * (truth[:, 3] - truth[:, 1])
        hit = iou >= 0.5
        level = np.where(area > SIZE_LIMITS[1], 2, np.where(area > SIZE_LIMITS[0], 1, 0))
    in_level = [valid & (level == k) for k in range(len(SIZE_NAMES))]
    counts = {"n_invalid_label": int((~valid).sum()), "n_scored_pairs": int(scored.sum())}
    for name, inside in zip(SIZE_NAMES, in_level, strict=True):
        counts[f"level_{name}_count"] = int(inside.sum())
        counts[f"level_{name}_correct"] = int((inside & hit).sum())
    columns = [valid, hit, *in_level, *(inside & hit for inside in in_level)]
    return Scores(
        statistics=np.column_stack(columns).astype(np.float64),
        finish=_finish_grounding,
        counts=counts,
        per_record={
            "pred": predictions,
            "evaluated": valid,
            "iou": iou,
            "hit": hit,
            "pred_box": pixels,
            "true_box": truth,
            "level": np.array([*SIZE_NAMES, None], dtype=object)[np.where(valid, level, -1)],
        },
    )


def _finish_grounding(sums: Floats) -> dict[str, Floats]:
    result = {"precision_percent": ratio(sums[..., 1], sums[..., 0]) * 100}
    for k, name in enumerate(SIZE_NAMES, start=2):
        result[f"level_{name}_precision_percent"] = ratio(sums[..., k + len(SIZE_NAMES)], sums[..., k]) * 100
    return result


def _to_pixels(records: RecordList, pred: Floats, scored: NDArray[np.bool_], width: Floats, height: Floats) -> Floats:
    """Predicted boxes (n, 4) in whole pixels of the image: `round(x · (side / resized side))`, half to even."""
    sizes, first, inverse = distinct_sizes(width[scored], height[scored])
    scales = np.ones((len(sizes), 2))
    for k, (w, h) in enumerate(sizes):
        if max(w, h) / min(w, h) > RESIZE_MAX_RATIO:
            what = f"absolute aspect ratio must be smaller than {RESIZE_MAX_RATIO}, got {max(w, h) / min(w, h)}"
            raise InputError(what, records.place(int(np.flatnonzero(scored)[first[k]])), HINT)
        new_w, new_h = smart_resize(w, h)
        scales[k] = w / new_w, h / new_h
    scale = np.full((len(pred), 2), np.nan)
    scale[scored] = scales[inverse]
    with np.errstate(all="ignore"):
        pixels: Floats = np.rint(pred * np.tile(scale, 2))
    for i in np.flatnonzero(scored & ~np.isfinite(pixels).all(axis=1)).tolist():
        raise InputError("a predicted coordinate is too large for a pixel", records.place(i), HINT)
    return pixels


def _label_texts(records: RecordList) -> Strings:
    return [x if type(x) is str else _text(records, i, x) for i, x in enumerate(records.labels)]


def _text(records: RecordList, record: int, value: Any) -> str:
    """The label, or one of its references, as text; numbers are read as written."""
    if isinstance(value, str):
        return value
    text = as_text(value)
    if text is None:
        kind = "NaN" if isinstance(value, float) and math.isnan(value) else type(value).__name__
        raise InputError(f"the label is no text but {kind}", records.place(record), HINT)
    return text
