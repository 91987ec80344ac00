"""What a reader must know before believing a score: two readings, two protocols, answers that were cut off."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from geozero.common.errors import InputError
from geozero.metrics.records import RecordList
from geozero.metrics.scores import Bools, Scores, finite
from geozero.tasks import Task
from geozero.tasks.base import CUT_OFF
from geozero.tasks.boxes import Convention

FEW = 0.03  # share of the records from which on a fault is worth a note
SENTENCE = 5  # words; a longer answer to a closed question is a sentence
FAR_APART = (0.10, 1.5)  # protocols: so much, and so many times as much


def cut_off_notes(records: RecordList) -> list[str]:
    """How many completions ended at the token limit before an answer."""
    n = sum(problem.reason == CUT_OFF for problem in records.problems)
    if not n:
        return []
    return [f"{n} of {len(records)} completions were cut off before an answer and count as wrong: allow more tokens"]


def two_readings(
    task: Task, records: RecordList, scores: Scores, well_formed: Bools, boxes: Convention
) -> tuple[dict[str, Any], list[str]]:
    """The main metric by the score's reading and by the reward's in tagged mode, which takes well-formed completions
    alone.

    `n_differ`: completions that the score reads and the reward does not. Where no completion is well formed, the
    answers were most likely asked for without tags, and there is nothing to note.
    """
    metric, others = task.headline, ~well_formed
    answered = np.array([bool(text) for text in scores.per_record["pred"]], dtype=bool)
    found: dict[str, Any] = {"metric": metric, "n_differ": int((others & answered).sum())}
    found["score"] = found["reward"] = finite(scores.rates())[metric]
    if found["n_differ"]:
        texts = [text if good else "" for text, good in zip(records.texts, well_formed, strict=True)]
        strict = task.strict(replace(records, texts=texts, problems=[]), boxes)
        found["reward"] = finite(strict.rates())[metric]
    if not found["n_differ"] or not well_formed.any() or found["score"] == found["reward"]:
        return found, []
    values = [found[name] for name in ("score", "reward")]
    shown = ["undefined" if value is None else f"{value:.3f}" for value in values]
    what = f"{found['n_differ']} of {len(records)} completions have no well-formed answer block"
    return found, [f"{what}: the score reads them ({metric} {shown[0]}), the reward gives them 0 ({shown[1]})"]


def both_protocols(task: Task, records: RecordList, scores: Scores) -> tuple[dict[str, Any], list[str]]:
    """For closed answers the published accuracy beside the strict one, and a note where they are far apart."""
    if not task.closed or task.official_headline is None or not len(records):
        return {}, []
    try:
        official = task.official(replace(records, problems=[]), headline_only=True).rates()[task.official_headline]
    except InputError:  # the published rules stop on a record
        return {}, []
    strict = 100 * scores.rates()[task.headline]
    found = {"strict": strict, "official": official}
    if official - strict < 100 * FAR_APART[0] or official < FAR_APART[1] * strict:
        return found, []
    long = sum(len(text.split()) > SENTENCE for text in scores.per_record["pred"])
    cut = sum(problem.reason == CUT_OFF for problem in records.problems)
    empty = sum(not text for text in scores.per_record["answer"]) - cut
    reasons = [f"{long} answers are sentences, in which strict searches for nothing and official does"] if long else []
    reasons += [f"{cut} were cut off, which official does not know"] if cut else []
    reasons += [f"{empty} are empty, which official counts as right"] if empty > 0 and task.official_draws else []
    why = "; ".join(reasons) or "official accepts an answer that is part of the label, or the other way round"
    return found, [f"accuracy is {strict:.1f} % under strict and {official:.1f} % under official: {why}"]
