"""What guessing gets on the very records that are scored, under the same protocol."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from geozero import tasks
from geozero.evaluation.result_sets import EvalSlice
from geozero.metrics.baselines import others


def guesses(part: EvalSlice) -> Iterator[dict[str, Any]]:
    """Chance and majority of a part's headline metric, overall and, for closed answers, by question type.

    Closed answers under `strict`: an even draw and the most common answer, as `evaluate` gives them. Everything else
    [ours]: the truth of another record drawn at random, and the task's constant answer (most common label or
    reference, median box). None where labels cannot be scored as answers.
    """
    task, protocol = tasks.get(part.task), part.scored.protocol
    row = {k: v for k, v in part.place.items() if k not in ("model", "mode")} | {"metric": part.main_metric}
    known = part.result.get("baselines")
    if protocol == "strict" and isinstance(known, dict):
        yield {**row, **_pair(known), "question_type": None}
        for kind, group in known.get("by_question_type", {}).items():
            yield {**row, **_pair(group), "question_type": kind}
        return
    if protocol == "official" and not task.official_guesses:
        return
    truths = [task.true_answers(label) for label in part.scored.records.labels]
    constant = task.constant_answer(truths)
    texts = {"chance": others([group[0] for group in truths]), "majority": [constant] * len(truths)}
    scored = {name: _scored(part, values).get(part.main_metric) for name, values in texts.items()}
    yield {**row, "question_type": None, "n": len(truths), **scored}


def _scored(part: EvalSlice, texts: Sequence[str]) -> dict[str, Any]:
    """The metrics of the same records with other texts."""
    written = np.ones(len(texts), dtype=bool)
    records = replace(part.scored.records, texts=list(texts), raw=written, readable=written, problems=[])
    if part.scored.protocol == "official":
        return tasks.get(part.task).official(records, headline_only=True).metrics()
    return replace(part.scored, records=records, boxes="pixels").scores.metrics()


def _pair(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "n": found.get("n", 0),
        "chance": found.get("chance"),
        "majority": found.get("majority_by_type", found.get("majority")),
    }
