"""Visual question answering: a closed or numeric question about one image.

Example: question "Is a ship present in the image?\nAnswer with a single word or phrase.", answer "yes",
reward 1 on normalised equality, else 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from geozero.corpus.sample import Sample
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Bools, Floats, Scores, ratio
from geozero.tasks.boxes import Convention
from geozero.tasks.closed import ClosedTask
from geozero.tasks.numbers import count_of, number_of, quantity

NEAR = 0.10  # of the true count, `count_within_10_percent`
_YES_NO = re.compile(r"\W*(?:yes|no)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\W*\d[\d.,]*\s*(?:m2|m²|km2|km²|square \w+|%)?\W*", re.IGNORECASE)
_SAYS_YES_OR_NO = re.compile(r"\b(?:yes or no|yes/no)\b", re.IGNORECASE)
_ASKS_YES_OR_NO = re.compile(r"(?:is|are|was|were|does|do|can|has|have)\b(?!.*\bor\b)[^\n]*\?", re.IGNORECASE)
_ASKS_A_NUMBER = re.compile(
    r"(?:how many|how much|what is the (?:number|amount|area|total area)(?! .*\bor\b))\b", re.IGNORECASE
)


class VisualQuestionAnswering(ClosedTask):
    name = "vqa"
    title = "Question answering"
    tags = ("vqa",)
    hub_category = "visual-question-answering"
    reported = (
        "accuracy",
        "accuracy_mean_of_types",
        "accuracy_without_counts",
        "accuracy_mean_of_types_without_counts",
        "count_accuracy",
        "count_within_10_percent",
        "count_mae",
    )
    by_question_type = True
    official_draws = True
    official_substrings = True
    templates = (
        "{text}\nAnswer with a single word or phrase.",
        "{text}\nGive a single word or phrase.",
        "{text}\nReply with one word or short phrase.",
    )

    def graded_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        """[ours] A count earns 1 − |answer − truth| / max(truth, 1), at least 0; all else as `answer_reward`."""
        truth, given = count_of(sample.answer), number_of(answer)
        if truth is None or given is None:
            return self.answer_reward(answer, sample, boxes)
        return max(0.0, 1.0 - abs(given - truth) / max(abs(truth), 1.0))

    def strict(self, records: RecordList, boxes: Convention = "norm1000") -> Scores:
        """As other closed tasks. Where labels are counts, over these `count_accuracy` and `count_within_10_percent`
        (0-1), and over those of them that are answered with a number `count_mae`, the mean absolute error.

        Where questions have types, `accuracy_mean_of_types`; where some of them are numeric, both accuracies
        without those, too (`…_without_counts`).
        """
        scores = super().strict(records, boxes)
        truths, answers = scores.per_record["truth"], scores.per_record["answer"]
        counts = {text: count_of(text) for text in set(truths)}
        truth = np.array([counts[text] for text in truths], dtype=np.float64)
        counted = np.isfinite(truth)
        given = np.full(len(truth), np.nan)  # what counts are answered with
        for i in np.flatnonzero(counted).tolist():
            number = number_of(answers[i])
            given[i] = np.nan if number is None else number
        error = np.abs(given - truth)
        answered, hit = counted & np.isfinite(error), scores.statistics[:, 1] > 0
        with np.errstate(invalid="ignore"):
            near = answered & (error <= NEAR * np.abs(truth))
        columns = [counted, counted & hit, near | (counted & hit), answered, np.where(answered, error, 0.0)]
        scores.statistics = np.column_stack([scores.statistics, *columns])  # of any list, so that two lists compare
        scores.finish = _finish_with_counts if counted.any() else _finish
        if counted.any():
            scores.counts["n_counts"] = int(counted.sum())
            scores.counts["n_counts_without_number"] = int((counted & ~answered).sum())
        scores.aggregates = _over_types(records.question_types, truths, hit)
        scores.notes += _mixture(records.question_types, counted, truths)
        return scores

    def contradicts(self, question: str, answer: str) -> bool:
        """A number or an area to a question for yes or no, or yes or no to a question for a number or an area.
        Careful: what is not plainly wrong is right."""
        yes_no = _YES_NO.match(answer) is not None
        if _SAYS_YES_OR_NO.search(question):
            return not yes_no
        if _ASKS_YES_OR_NO.match(question):
            return _NUMBER.fullmatch(answer) is not None
        return _ASKS_A_NUMBER.match(question) is not None and yes_no and len(answer.split()) == 1

    def official_warnings(self, records: Sequence[Mapping[str, Any]], drawn: bool) -> list[str]:
        what = "the official protocol counts an empty vqa prediction as right: fix what failed before using it"
        return [what] if any("error" in record for record in records) else []


def _finish(sums: Floats) -> dict[str, Floats]:
    return {"accuracy": ratio(sums[..., 1], sums[..., 0])}


def _finish_with_counts(sums: Floats) -> dict[str, Floats]:
    _, _, n_counts, exact, near, answered, error = np.moveaxis(sums, -1, 0)
    return _finish(sums) | {
        "count_accuracy": ratio(exact, n_counts),
        "count_within_10_percent": ratio(near, n_counts),
        "count_mae": ratio(error, answered),
    }


def _over_types(types: Sequence[str | None], truths: Sequence[str], hit: Bools) -> dict[str, float]:
    """Accuracies by question type, averaged; a type is numeric where most of its labels are quantities."""
    kinds = np.array(types, dtype=object)
    names = sorted({kind for kind in types if kind is not None})
    if len(names) < 2:
        return {}
    numeric = np.array([quantity(text) is not None for text in truths], dtype=bool)
    closed = [name for name in names if numeric[kinds == name].mean() <= 0.5]
    rates = {name: float(hit[kinds == name].mean()) for name in names}
    found = {"accuracy_mean_of_types": float(np.mean(list(rates.values())))}
    if 0 < len(closed) < len(names):
        found["accuracy_without_counts"] = float(hit[np.isin(kinds, closed)].mean())
        found["accuracy_mean_of_types_without_counts"] = float(np.mean([rates[name] for name in closed]))
    return found


def _mixture(types: Sequence[str | None], counted: Bools, truths: Sequence[str]) -> list[str]:
    """Notes where one accuracy stands for questions of different kinds."""
    n, n_counts, untyped = len(types), int(counted.sum()), sum(kind is None for kind in types)
    notes = []
    if untyped and (untyped < n or n_counts):
        notes.append(f"{untyped} of {n} records have no question_type, so scores by type are without them")
    if 0 < n_counts < n:
        others = f"{n - n_counts} other questions"
        notes.append(f"accuracy is a mean over {n_counts} counts and {others}; papers on RSVQA leave counts out")
    if missing := sum(not text for text in truths):
        notes.append(f"{missing} of {n} records have no label and count as wrong")
    return notes
