"""Closed questions: an answer is right or wrong, word for word. What classes, questions and choices share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np

from geozero.corpus.sample import Sample
from geozero.metrics.baselines import baselines, confusion
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Bools, Scores, ratio
from geozero.tasks.base import Task, scored_answers
from geozero.tasks.boxes import Convention
from geozero.tasks.text import closed_reading, extract_answer, normalise, same_answer, same_reading


class ClosedTask(Task):
    """A task whose answers are compared after the published normalisation."""

    headline = "accuracy"
    official_headline: ClassVar[str | None] = "accuracy_percent"
    reported: ClassVar[tuple[str, ...]] = ("accuracy",)
    closed = True
    official_substrings: ClassVar[bool] = False  # the published script accepts a substring either way
    unread: ClassVar[tuple[str, str]] = ("n_empty_pred", "n_empty_label")  # counts of those that say nothing

    def conflict_key(self, sample: Sample, text: str) -> tuple[str, str] | None:
        return normalise(text).strip(), normalise(sample.answer).strip()

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        return sample.answer

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        return float(same_answer(answer, sample.answer))

    def readings(self, records: RecordList, texts: Sequence[str]) -> list[str]:
        """What each answer or label says (n,): equal ones agree, empty ones say nothing."""
        return list(map(closed_reading, texts))

    def says_the_same(self, answer: str, truth: str) -> bool:
        """Whether an answer is right, from what it and the label say."""
        return same_reading(answer, truth)

    def strict(self, records: RecordList, boxes: Convention = "norm1000") -> Scores:
        """`accuracy` (0-1): equality after normalising and trimming, numbers as numbers, empty is wrong.

        Where the label is a list, each of its texts is right.
        """
        predictions = scored_answers(records)
        truths = self.readings(records, records.label_texts())
        answers = self.readings(records, predictions)
        pairs = list(zip(answers, truths, strict=True))
        right = {pair: self.says_the_same(*pair) for pair in set(pairs)}  # short answers repeat
        hit = [right[pair] for pair in pairs]
        for i, texts in records.alternatives().items():
            hit[i] = hit[i] or any(self.says_the_same(answers[i], self.readings(records, [t])[0]) for t in texts)
        scores = self._scores("accuracy", 1.0, np.array(hit, dtype=bool), predictions, answers, truths)
        scores.counts = dict(zip(self.unread, (answers.count(""), truths.count("")), strict=True))
        return scores

    def official(self, records: RecordList, headline_only: bool = False) -> Scores:
        """`accuracy_percent` (0-100): equality after normalising; VQA also accepts a substring either way."""
        if self.official_headline is None:
            return super().official(records)
        plain = cache(normalise)
        predictions = list(map(extract_answer, records.texts))
        answers, truths = ([plain(text) for text in t] for t in (predictions, records.required_label_texts()))
        pairs = zip(answers, truths, strict=True)
        hit = [a == t or a in t or t in a for a, t in pairs] if self.official_substrings else [a == t for a, t in pairs]
        right = np.array(hit, dtype=bool) & records.readable
        return self._scores("accuracy_percent", 100.0, right, predictions, answers, truths)

    def _scores(
        self, metric: str, unit: float, hit: Bools, predictions: list[str], answers: list[str], truths: list[str]
    ) -> Scores:
        classes = {"class": np.array([truth or None for truth in truths], dtype=object)}
        return Scores(
            statistics=np.column_stack([np.ones(len(hit)), hit]),
            finish=lambda sums: {metric: ratio(sums[..., 1], sums[..., 0]) * unit},
            per_record={"pred": predictions, "hit": hit.astype(np.float64), "answer": answers, "truth": truths},
            groups=classes if self.answers_are_classes else {},
            correct=hit,
        )

    def details(self, records: RecordList, scores: Scores, boxes: str) -> dict[str, Any]:
        """Chance and majority answer, and for classes the confusion matrix."""
        answers, truths = scores.per_record["answer"], scores.per_record["truth"]
        found = {"baselines": baselines([t.strip() for t in truths], records.question_types, self.chances(records))}
        return found | ({"confusion": confusion(answers, truths)} if self.answers_are_classes else {})

    def chances(self, records: RecordList) -> list[float] | None:
        """How often an even draw is right (n,); None: it is drawn from the labels of the question's type."""
        return None

    def agreement(self, scores: Scores, group: list[int]) -> tuple[float, int | None]:
        """The share of the most common answer (Wang et al., 2022): the first given wins a tie, empty ones never win."""
        answers = [scores.per_record["answer"][i].strip() for i in group]
        voted, share = majority_vote(answers)
        return share, group[answers.index(voted)] if voted else None


def majority_vote(answers: Sequence[str]) -> tuple[str, float]:
    """The most common of K normalised answers to one question and its share: the self-consistency of the model.

    Of equally common ones the first given wins; empty answers are counted in K and never win. ("", 0.0) without any.
    """
    counts = Counter(answer for answer in answers if answer)
    if not counts:
        return "", 0.0
    answer, count = counts.most_common(1)[0]
    return answer, count / len(answers)
