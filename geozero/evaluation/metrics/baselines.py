"""What a score is worth: chance and the majority answer beside it, and which class is taken for which."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from geozero.corpus.sample import TaskName
from geozero.tasks.text import normalise

OTHER = "(other)"  # the column of predictions that name no class of the truths
MAX_CLASSES = 200


def baselines(
    task: TaskName,
    labels: Sequence[str],
    question_types: Sequence[str | None] | None = None,
    classes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Accuracy (0-1, strict) of guessing, from the true labels (n,) of the very records that are scored.

    `majority` always gives the most common label, `majority_by_type` the most common label of the question's type;
    `chance` draws evenly from `classes`, or, without them, from the labels that the question's type has. Both know the
    scored labels, so they are upper bounds of what guessing reaches. None for captions and boxes, and without labels.
    `by_question_type` holds the same numbers a type.
    """
    if task not in ("scene_cls", "vqa"):
        return {"n": len(labels), "majority": None, "chance": None}
    known = {label: normalise(label).strip() for label in set(labels)}
    plain = [known[label] for label in labels]
    result = _guess(plain, classes)
    types = question_types or [None] * len(plain)
    by_type: dict[str | None, list[str]] = defaultdict(list)
    for kind, label in zip(types, plain, strict=True):
        by_type[kind].append(label)
    parts = {kind: _guess(group, classes) for kind, group in by_type.items()}
    if plain and any(kind is not None for kind in parts):
        for name, source in (("majority_by_type", "majority"), ("chance", "chance")):
            result[name] = sum((part[source] or 0.0) * part["n"] for part in parts.values()) / len(plain)
        result["by_question_type"] = {str(kind): parts[kind] for kind in sorted(filter(None, parts))}
    return result


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


def _guess(labels: list[str], classes: Sequence[str] | None) -> dict[str, Any]:
    counts = Counter(label for label in labels if label)
    if not counts:
        return {"n": len(labels), "majority": None, "majority_answer": None, "chance": None}
    answer, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
    allowed = {normalise(name).strip() for name in classes} if classes else set(counts)
    known = sum(n for label, n in counts.items() if label in allowed)
    return {
        "n": len(labels),
        "majority": count / len(labels),
        "majority_answer": answer,
        "chance": known / len(labels) / len(allowed),
    }
