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
# What official accepts and strict does not: whether an answer is part of the label, or the label of the answer.
ONLY_OFFICIAL = {
    "longer": "with the label among other words",
    "shorter": "with only a part of the label",
    "empty": "without a word",
    "cut": "cut off at the token limit",
}
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

    `n_differ`: completions that the score reads and the reward does not. Where next to no completion is well formed,
    the answers were most likely asked for without tags, and there is nothing to note.
    """
    metric, others = task.headline, ~well_formed
    answered = np.array([bool(text) for text in scores.per_record["pred"]], dtype=bool)
    found: dict[str, Any] = {"metric": metric, "n_differ": int((others & answered).sum())}
    found["score"] = found["reward"] = finite(scores.rates())[metric]
    if found["n_differ"]:
        texts = [text if good else "" for text, good in zip(records.texts, well_formed, strict=True)]
        strict = task.strict(replace(records, texts=texts, problems=[]), boxes)
        found["reward"] = finite(strict.rates())[metric]
    if not found["n_differ"] or well_formed.mean() < FEW or found["score"] == found["reward"]:
        return found, []
    values = [found[name] for name in ("score", "reward")]
    shown = ["undefined" if value is None else f"{100 * value:.1f} %" for value in values]
    what = f"{found['n_differ']} of {len(records)} completions have no well-formed answer block"
    return found, [f"{what}: the score reads them ({metric} {shown[0]}), the reward gives them 0 ({shown[1]})"]


def both_protocols(task: Task, records: RecordList, scores: Scores) -> tuple[dict[str, Any], list[str]]:
    """For closed answers the published accuracy beside the strict one, and a note where they are far apart."""
    if not task.closed or task.official_headline is None or not len(records):
        return {}, []
    try:
        published = task.official(replace(records, problems=[]), headline_only=True)
    except InputError:  # the published rules stop on a record
        return {}, []
    official, strict = published.rates()[task.official_headline], 100 * scores.rates()[task.headline]
    found = {"strict": strict, "official": official}
    if official - strict < 100 * FAR_APART[0] or official < FAR_APART[1] * strict:
        return found, []
    why = "; ".join(_only_official(records, scores, published))
    note = f"accuracy is {strict:.1f} % under strict and {official:.1f} % under official"
    return found, [f"{note}, which alone counts as right: {why}" if why else note]


def _only_official(records: RecordList, scores: Scores, published: Scores) -> list[str]:
    """Why official counts answers as right that strict does not: the answers of each reason, each answer once."""
    gained = (published.per_record["hit"] > 0) & ~(scores.per_record["hit"] > 0)
    answers, truths = published.per_record["answer"], published.per_record["truth"]
    counts = dict.fromkeys(ONLY_OFFICIAL, 0)
    for i in np.flatnonzero(gained).tolist():
        answer, truth = answers[i], truths[i]
        if records.cut[i]:
            counts["cut"] += 1
        elif not answer.strip():
            counts["empty"] += 1
        elif answer != truth:
            counts["longer" if truth in answer else "shorter"] += 1
    return [f"{n} answer{'' if n == 1 else 's'} {ONLY_OFFICIAL[reason]}" for reason, n in counts.items() if n]
