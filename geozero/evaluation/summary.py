"""From record files to what the page and MLflow show: score rows, baselines, a gallery before and after RL."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geozero import tasks
from geozero.corpus import Corpus
from geozero.evaluation.evaluate import evaluate
from geozero.evaluation.inference import records_path
from geozero.images import decode, thumbnail
from geozero.sample import Sample, TaskName, stable_unit
from geozero.tasks.boxes import Convention, format_box, from_model, parse_box
from geozero.tasks.text import Mode, extract_answer, thought

HARD_SUFFIX = "_hard"
TOY_PREFIX = "toy_"
BASELINE_SEED = 0
THUMBNAIL = 256  # pixels


@dataclass(frozen=True)
class Answered:
    """The records that one model gave: `out` as in `inference.Job`, and the modes it was asked in."""

    model: str
    out: Path
    modes: tuple[Mode, ...]


def split_of(source: str, split: str = "test") -> str:
    """The harder world is a split of its own in every table."""
    return f"{split}{HARD_SUFFIX}" if source.endswith(HARD_SUFFIX) else split


def world_of(source: str) -> str:
    """Rendered and real imagery are never averaged."""
    return "toy" if source.startswith(TOY_PREFIX) else source


def score_rows(answered: Sequence[Answered], sources: Sequence[str], boxes: Convention) -> Iterator[dict[str, Any]]:
    """Strict scores of every model, mode, source, task and question type, each with n and 95 % interval."""
    for model in answered:
        for mode in model.modes:
            for source in sources:
                for task, records in _by_task(records_path(model.out, mode, source)).items():
                    yield from _rows(model.model, mode, source, task, evaluate(task, "strict", records, boxes=boxes))


def _rows(model: str, mode: str, source: str, task: TaskName, result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    place = {
        "model": model,
        "mode": mode,
        "split": split_of(source),
        "world": world_of(source),
        "task": task,
        "source": source,
    }
    headline = tasks.get(task).headline
    groups = [(None, result), *result["groups"].get("question_type", {}).items()]
    for question_type, group in groups:
        for metric in _rates(group["metrics"]):
            low, high = group["intervals"].get(metric) or (None, None)
            yield {
                **place,
                "question_type": question_type,
                "metric": metric,
                "headline": metric == headline,
                "value": group["metrics"][metric],
                "low": low,
                "high": high,
                "n": group["n"],
            }
    reasoning = result["reasoning"]
    words = (reasoning["words"] or {}).get("mean")
    for metric, value in (("well_formed", result["well_formed_share"]), ("thought_words", words)):
        if mode == "tagged" and value is not None:
            yield {
                **place,
                "question_type": None,
                "metric": metric,
                "headline": False,
                "value": value,
                "n": result["n"],
            }


def _rates(metrics: Mapping[str, Any]) -> list[str]:
    return [name for name, value in metrics.items() if not name.startswith("n_") and isinstance(value, int | float)]


def baseline_rows(answered: Answered, sources: Sequence[str], boxes: Convention) -> Iterator[dict[str, Any]]:
    """What guessing gets on the very records that are scored, by task and question type.

    Closed questions: an even draw and the most common answer. Captions and boxes [ours]: the truth of another record
    drawn at random, and one constant answer (the most common reference, the median box).
    """
    for source in sources:
        for task, records in _by_task(records_path(answered.out, answered.modes[0], source)).items():
            headline = tasks.get(task).headline
            row = {
                "split": split_of(source),
                "world": world_of(source),
                "task": task,
                "source": source,
                "metric": headline,
            }
            if task in ("scene_cls", "vqa"):
                found = evaluate(task, "strict", records)["baselines"]
                yield _guess(row, None, {**found, "majority": found.get("majority_by_type", found["majority"])})
                for question_type, part in found.get("by_question_type", {}).items():
                    yield _guess(row, question_type, part)
                continue
            guesses = {"chance": _others(records, task), "majority": _constant(records, task)}
            scored = {
                name: evaluate(
                    task,
                    "strict",
                    [{**r, "raw_output": g, "pred": g} for r, g in zip(records, texts, strict=True)],
                    boxes="pixels",
                )["metrics"][headline]
                for name, texts in guesses.items()
            }
            yield _guess(row, None, {"n": len(records), **scored})


def _guess(row: Mapping[str, Any], question_type: str | None, found: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "question_type": question_type, **{k: found[k] for k in ("n", "chance", "majority")}}


def _others(records: Sequence[Mapping[str, Any]], task: TaskName) -> list[str]:
    rng = random.Random(BASELINE_SEED)
    truths = [r["label"][0] if task == "caption" else r["label"] for r in records]
    return [
        truths[(i + rng.randrange(1, len(truths))) % len(truths)] if len(truths) > 1 else "" for i in range(len(truths))
    ]


def _constant(records: Sequence[Mapping[str, Any]], task: TaskName) -> list[str]:
    if task == "caption":
        common = Counter(sentence for r in records for sentence in set(r["label"])).most_common(1)[0][0]
        return [common] * len(records)
    parsed = [box for r in records if (box := parse_box(r["label"]))]
    middle = [sorted(side)[len(side) // 2] for side in zip(*parsed, strict=True)]
    return [format_box(middle)] * len(records)


def gallery(
    before: Answered, after: Answered, corpora: Sequence[Path], boxes: Convention, n: int
) -> Iterator[dict[str, Any]]:
    """`n` held-out samples, evenly over the sources by stable hash, with both models' tagged answers."""
    share = -(-n // max(1, len(corpora)))
    for path in corpora:
        corpus = Corpus(path)
        samples = sorted(corpus.samples("test"), key=lambda s: stable_unit(s.id, salt="gallery"))[:share]
        if not samples:
            continue
        source = samples[0].source
        first, last = (
            {r["id"]: r["raw_output"] for r in _records(records_path(m.out, "tagged", source))} for m in (before, after)
        )
        for sample in samples:
            if sample.id not in first or sample.id not in last:
                continue
            yield {
                "id": sample.id,
                "task": sample.task,
                "source": source,
                "split": split_of(source),
                "question": sample.question,
                "answer": sample.answer,
                "image_jpeg_base64": base64.b64encode(
                    thumbnail(decode(corpus.image_bytes(sample.image_id)), THUMBNAIL)
                ).decode(),
                "width": sample.width,
                "height": sample.height,
                "box": sample.box,
                "before": _output(sample, first[sample.id], boxes),
                "after": _output(sample, last[sample.id], boxes),
            }


def _output(sample: Sample, raw: str, boxes: Convention) -> dict[str, Any]:
    parsed = parse_box(extract_answer(raw)) if sample.task == "grounding" else None
    return {
        "thought": thought(raw),
        "answer": extract_answer(raw),
        "raw": raw,
        "reward": tasks.get(sample.task).reward(raw, sample, "tagged", boxes),
        "box": None if parsed is None else from_model(parsed, sample.width, sample.height, boxes),
    }


def headline_mean(rows: Sequence[Mapping[str, Any]], **where: str) -> float:
    """Mean over tasks of the headline metric (percent) of the rows that fit; question types and sources within a task
    are not averaged: one row a task and source, then sources, then tasks."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row["headline"] and row["question_type"] is None and all(row[k] == v for k, v in where.items()):
            found[row["task"]].append(float(row["value"]))
    means = [sum(values) / len(values) for values in found.values()]
    return 100 * sum(means) / len(means) if means else float("nan")


def _by_task(path: Path) -> dict[TaskName, list[dict[str, Any]]]:
    found: dict[TaskName, list[dict[str, Any]]] = defaultdict(list)
    for record in _records(path):
        found[record["task"]].append(record)
    return dict(found)


def _records(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(path.read_text())
    return records
