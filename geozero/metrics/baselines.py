"""What a score is worth: chance and the majority answer beside it, and which class is taken for which."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

OTHER = "(other)"  # the column of predictions that name no class of the truths
MAX_CLASSES = 200
SEED = 0


def baselines(
    labels: Sequence[str], question_types: Sequence[str | None], chances: Sequence[float] | None = None
) -> dict[str, Any]:
    """Accuracy (0-1, strict) of guessing, from the normalised labels (n,) of the very records that are scored.

    `majority` always gives the most common label, `majority_by_type` the most common label of the question's type;
    `chance` is the mean of `chances` (n,), or, without them, an even draw from the labels that the question's type has.
    Both know the scored labels, so they are upper bounds of what guessing reaches; None without labels.
    `by_question_type` holds the same numbers for each type.
    """
    result = _guess(labels, chances)
    rows: dict[str | None, list[int]] = defaultdict(list)
    for i, kind in enumerate(question_types):
        rows[kind].append(i)
    parts = {k: _guess([labels[i] for i in at], chances and [chances[i] for i in at]) for k, at in rows.items()}
    if labels and any(kind is not None for kind in parts):
        for name, source in (("majority_by_type", "majority"), ("chance", "chance")):
            result[name] = sum((part[source] or 0.0) * part["n"] for part in parts.values()) / len(labels)
        result["by_question_type"] = {str(kind): parts[kind] for kind in sorted(filter(None, parts))}
    return result


def _guess(labels: Sequence[str], chances: Sequence[float] | None) -> dict[str, Any]:
    counts = Counter(label for label in labels if label)
    if not counts:
        return {"n": len(labels), "majority": None, "majority_answer": None, "chance": None}
    answer, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    n = len(labels)
    chance = sum(chances) / n if chances else counts.total() / n / len(counts)
    return {"n": n, "majority": count / n, "majority_answer": answer, "chance": chance}


def confusion(answers: Sequence[str], truths: Sequence[str]) -> dict[str, Any]:
    """Confusion matrix of normalised answers: rows are true classes, columns the same classes and `(other)`.

    Records without a truth are left out; above 200 classes there is no matrix, only their number.
    """
    classes = sorted(set(truths) - {""})
    if len(classes) > MAX_CLASSES:
        return {"n_classes": len(classes)}
    number = {name: k for k, name in enumerate(classes)}
    matrix = np.zeros((len(classes), len(classes) + 1), dtype=np.int64)
    for answer, truth in zip(answers, truths, strict=True):
        if truth:
            matrix[number[truth], number.get(answer, len(classes))] += 1
    return {"classes": classes, "columns": [*classes, OTHER], "matrix": matrix.tolist()}


def most_common(truths: Sequence[Sequence[str]]) -> str:
    """The most common of the right answers to all records; empty where there is none."""
    counts = Counter(text for group in truths for text in group if text)
    return counts.most_common(1)[0][0] if counts else ""


def others(truths: Sequence[str]) -> list[str]:
    """For each record the truth of another one, drawn evenly."""
    rng = random.Random(SEED)
    n = len(truths)
    return [truths[(i + rng.randrange(1, n)) % n] if n > 1 else "" for i in range(n)]
