"""What guessing gets on the very records that are scored, under the same protocol."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from geozero.common.lenient_json import as_text
from geozero.corpus.sample import TaskName
from geozero.evaluation.metrics.bleu import texts_of
from geozero.evaluation.metrics.official import score_captions
from geozero.evaluation.metrics.scores import headline
from geozero.evaluation.records import parse_records
from geozero.evaluation.result_sets import EvalSlice
from geozero.tasks.boxes import format_box, parse_box

SEED = 0


def guesses(part: EvalSlice) -> Iterator[dict[str, Any]]:
    """Chance and majority of a part's headline metric, overall and, for closed answers, by question type.

    Closed answers under `strict`: an even draw and the most common answer, as `evaluate` gives them. Everything else
    [ours]: the truth of another record drawn at random, and one constant answer (most common label or reference,
    median box). Boxes under `official` have none: the labels are not in the frame that protocol reads.
    """
    metric = headline(part.task, part.protocol)
    row = {k: v for k, v in part.place.items() if k not in ("model", "mode")} | {"metric": metric}
    known = part.result.get("baselines")
    if part.protocol == "strict" and isinstance(known, dict) and part.task in ("scene_cls", "vqa"):
        yield {**row, **_pair(known), "question_type": None}
        for kind, group in known.get("by_question_type", {}).items():
            yield {**row, **_pair(group), "question_type": kind}
        return
    if part.task == "grounding" and part.protocol == "official":
        return
    truths = [truths_of(part.task, label) for label in part.listed.labels]
    texts = {"chance": others([group[0] for group in truths]), "majority": constant(part.task, truths)}
    scored = {name: _scored(part, values).get(metric) for name, values in texts.items()}
    yield {**row, "question_type": None, "n": len(truths), **scored}


def truths_of(task: TaskName, label: Any) -> list[str]:
    """The texts that would be right, at least one: empty where the label holds none."""
    texts = texts_of(label) if task == "caption" else [as_text(label) or ""]
    return list(dict.fromkeys(texts)) or [""]


def others(truths: Sequence[str]) -> list[str]:
    """For each record the truth of another one, drawn evenly."""
    rng = random.Random(SEED)
    n = len(truths)
    return [truths[(i + rng.randrange(1, n)) % n] if n > 1 else "" for i in range(n)]


def constant(task: TaskName, truths: Sequence[Sequence[str]]) -> list[str]:
    """The same answer to every record: the most common truth, or the median box."""
    if task == "grounding":
        parsed = [box for group in truths if (box := parse_box(group[0]))]
        middle = [sorted(side)[len(side) // 2] for side in zip(*parsed, strict=True)]
        return [format_box(middle) if middle else ""] * len(truths)
    counts = Counter(text for group in truths for text in group if text)
    return [counts.most_common(1)[0][0] if counts else ""] * len(truths)


def _scored(part: EvalSlice, texts: Sequence[str]) -> dict[str, Any]:
    rows = [r if isinstance(r, dict) else {} for r in part.records]
    records = [{**row, "raw_output": text, "pred": text} for row, text in zip(rows, texts, strict=True)]
    if part.task == "caption" and part.protocol == "official":  # METEOR takes half of the time and is not needed
        return score_captions(parse_records(records), meteor=False).metrics()
    return replace(part, records=records, boxes="pixels").scores.metrics()


def _pair(found: dict[str, Any]) -> dict[str, Any]:
    return {
        "n": found.get("n", 0),
        "chance": found.get("chance"),
        "majority": found.get("majority_by_type", found.get("majority")),
    }
