"""Image captioning: one sentence about the image, judged against several references.

Example: question "Describe the image in one sentence.", references five sentences, reward the mean of
ROUGE-L F1 and smoothed sentence BLEU-4 against them, in [0, 1] (METHOD, A²GRPO 1, our choice).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Sample, stable_choice
from geozero.metrics import captions
from geozero.metrics.captions import BLEU_NAMES, N_BLEU_COLUMNS, ORDERS, bleu_columns, ngram_statistics
from geozero.metrics.records import OFFICIAL_HINT, RecordList
from geozero.metrics.scores import Floats, Scores, ratio
from geozero.tasks.base import Task, scored_answers
from geozero.tasks.boxes import Convention
from geozero.tasks.text import extract_answer, normalise, words

FEW_CAPTIONS = 30  # [ours] below, CIDEr's weights of words are mostly chance


class Captioning(Task):
    name = "caption"
    title = "Captioning"
    tags = ("caption", "ic")
    hub_category = "image-to-text"
    headline = "ROUGE-L"
    official_headline = "CIDEr"
    reported = (*BLEU_NAMES, "METEOR", "ROUGE-L", "CIDEr", "CIDEr-D")
    many_references = True
    success_reward = None  # a caption is neither right nor wrong; selection compares it with its source's median
    templates = (
        "Describe the image in one sentence.",
        "Write one sentence that captions this image.",
        "Give a one-sentence caption of the image.",
    )

    def validate(self, sample: Sample) -> Sample:
        super().validate(sample)
        if not sample.references:
            raise BadRecord("references_missing")
        return sample

    def true_answers(self, label: Any) -> list[str]:
        return list(dict.fromkeys(texts_of(label))) or [""]

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        return str(stable_choice(sample.references, sample.id, salt="reference"))

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        hypothesis = words(answer)
        references = [tokens for tokens in map(words, sample.references) if tokens]
        if not hypothesis or not references:
            return 0.0
        return (captions.rouge_l_f1(hypothesis, references) + captions.sentence_bleu(hypothesis, references)) / 2

    def strict(self, records: RecordList, boxes: Convention = "norm1000") -> Scores:
        """Corpus BLEU-1..4 without smoothing, ROUGE-L (β 1.2), CIDEr-D and plain CIDEr (×10).

        Blank references are dropped; a record without any reference is left out and counted.
        """
        n = len(records)
        predictions = scored_answers(records)
        hypotheses = [words(text) for text in predictions]
        references = [[t for t in map(words, texts_of(label)) if t] for label in records.labels]
        kept = [i for i in range(n) if references[i]]
        for i in sorted(set(range(n)) - set(kept)):
            records.report(i, "reference_missing", "left out")
        statistics = np.zeros((n, N_BLEU_COLUMNS + 4))
        if kept:
            chosen, truths = [hypotheses[i] for i in kept], [references[i] for i in kept]
            grams = ngram_statistics(chosen, truths)
            rouge = [captions.rouge_l_beta(h, r) for h, r in zip(chosen, truths, strict=True)]
            columns = [bleu_columns(grams), np.ones(len(kept)), np.array(rouge), grams.cider_d, grams.cider]
            statistics[kept] = np.column_stack(columns)
        evaluated, rouge_l, cider_d, cider = statistics[:, N_BLEU_COLUMNS:].T
        return Scores(
            statistics=statistics,
            finish=_finish_strict,
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
            notes=_notes(chosen, truths) if kept else [],
        )

    def official(self, records: RecordList, headline_only: bool = False) -> Scores:
        """BLEU-1..4 (method-1 smoothing), CIDEr (pycocoevalcap's, ×10), ROUGE-1/L (rouge 1.0.1), METEOR (nltk's).

        Best reference a record for ROUGE and METEOR, which takes half of the time and may be left out. ROUGE leaves
        out records without a score and says how many; an empty prediction counts 0. A reference list that is one text
        is taken character by character, as the script does.
        """
        if not len(records):
            raise InputError("no records to score as captions", hint=OFFICIAL_HINT)
        predictions = list(map(extract_answer, records.texts))
        hypotheses = [normalise(text).split() for text in predictions]
        references = [_official_references(records, i) for i in range(len(records))]
        if not any(tokens for group in references for tokens in group):
            raise InputError("every reference of every record is blank", records.place(0), OFFICIAL_HINT)
        grams = ngram_statistics(hypotheses, references)
        rouges = [_best_rouge(h, r) for h, r in zip(hypotheses, references, strict=True)]
        scored = np.array([pair is not None for pair in rouges], dtype=np.float64)
        rouge_1, rouge_l = np.array([pair or (0.0, 0.0) for pair in rouges]).T
        for i in np.flatnonzero(scored == 0).tolist():
            records.report(i, "rouge_skipped", "no reference that rouge can score")
        columns = [bleu_columns(grams), np.ones(len(records)), grams.cider_d, scored, rouge_1, rouge_l]
        found = Scores(
            statistics=np.zeros((0, 0)),
            finish=_finish_official,
            counts={"ROUGE_skipped_samples": int((scored == 0).sum())},
            per_record={"pred": predictions, "CIDEr": grams.cider_d, "ROUGE-1": rouge_1, "ROUGE-L": rouge_l},
        )
        if headline_only:
            found.missing["METEOR"] = "left out on request"
        else:
            try:
                found.per_record["METEOR"] = captions.meteor(hypotheses, references)
                columns.append(found.per_record["METEOR"])
            except LookupError:
                found.missing["METEOR"] = captions.NO_WORDNET
                stems = captions.meteor(hypotheses, references, synonyms=False)
                found.diagnosis["METEOR_without_synonym_stage"] = float(stems.mean())
        found.statistics = np.column_stack(columns)
        return found

    def official_warnings(self, records: Sequence[Mapping[str, Any]], drawn: bool) -> list[str]:
        return ["the published beam search is not reproduced"] if drawn else []


def texts_of(label: object) -> list[str]:
    """The references that a label holds for strict: a list's texts, or one text; what is no text is left out."""
    if isinstance(label, str):
        return [label]
    return [item for item in label if isinstance(item, str)] if isinstance(label, Sequence) else []


def _notes(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[Sequence[str]]]) -> list[str]:
    """Metrics of these tokenised captions that can say nothing."""
    n, notes = len(hypotheses), []
    sets = [{word for reference in group for word in reference} for group in references]
    if n > 1 and set.union(*sets) == set.intersection(*sets):
        notes.append("CIDEr is 0 where all records have the same reference: no word is rare")
    elif n < FEW_CAPTIONS:
        few = f"{n} records say" if n > 1 else "1 record says"
        notes.append(f"CIDEr weighs words by how rare they are among the records: {few} little")
    if not any(len(words) >= ORDERS for words in hypotheses):
        notes.append(f"BLEU-{ORDERS} is 0 because no caption has {ORDERS} words")
    return notes


def _finish_strict(sums: Floats) -> dict[str, Floats]:
    evaluated = sums[..., N_BLEU_COLUMNS]
    scores = [np.where(evaluated > 0, bleu, np.nan) for bleu in captions.bleu(sums[..., :N_BLEU_COLUMNS], False)]
    result = dict(zip(BLEU_NAMES, scores, strict=True))
    for offset, name in enumerate(("ROUGE-L", "CIDEr-D", "CIDEr"), start=1):
        result[name] = ratio(sums[..., N_BLEU_COLUMNS + offset], evaluated)
    return result


def _finish_official(sums: Floats) -> dict[str, Floats]:
    n, cider, scored, rouge_1, rouge_l = np.moveaxis(sums[..., N_BLEU_COLUMNS : N_BLEU_COLUMNS + 5], -1, 0)
    result = dict(zip(BLEU_NAMES, captions.bleu(sums[..., :N_BLEU_COLUMNS], True), strict=True))
    result["CIDEr"] = ratio(cider, n)
    result["ROUGE-1"] = rouge_1 / np.maximum(scored, 1)
    result["ROUGE-L"] = rouge_l / np.maximum(scored, 1)
    result["ROUGE_valid_coverage"] = ratio(scored, n)
    if sums.shape[-1] > N_BLEU_COLUMNS + 5:
        result["METEOR"] = ratio(sums[..., -1], n)
    return result


def _official_references(records: RecordList, record: int) -> list[list[str]]:
    label = records.labels[record]
    if not isinstance(label, list | str) or not label:
        what = "an empty list of references" if label == [] else f"{repr(label)[:60]} instead of a list of references"
        raise InputError(what, records.place(record), OFFICIAL_HINT)
    return [normalise(records.required_text(record, reference)).split() for reference in label]


def _best_rouge(hypothesis: list[str], references: list[list[str]]) -> tuple[float, float] | None:
    """Best ROUGE-1 and best ROUGE-L over the references; None where none can be scored, 0 for an empty hypothesis."""
    if not hypothesis:
        return 0.0, 0.0
    pairs = [pair for reference in references if reference and (pair := captions.rouge(hypothesis, reference))]
    return (max(pair[0] for pair in pairs), max(pair[1] for pair in pairs)) if pairs else None
