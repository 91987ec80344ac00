"""From record files to what the page and MLflow show: score rows, baselines, a gallery before and after RL."""

from __future__ import annotations

import base64
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    """Strict scores of every model and mode, each with n and 95 % interval: by source, task and question type, and
    over all records of a world, split and task (`source` and `question_type` None)."""
    for model in answered:
        for mode in model.modes:
            whole: dict[tuple[str, str, TaskName], list[str]] = defaultdict(list)
            records: dict[tuple[str, TaskName], list[dict[str, Any]]] = {}
            rows: dict[tuple[str, TaskName], list[dict[str, Any]]] = {}
            for source in sources:
                for task, found in _by_task(records_path(model.out, mode, source)).items():
                    whole[world_of(source), split_of(source), task].append(source)
                    records[source, task] = found
                    place = _place(model.model, mode, source, task)
                    rows[source, task] = list(_rows(place, evaluate(task, "strict", found, boxes=boxes)))
                    yield from rows[source, task]
            for (_, _, task), parts in whole.items():
                overall = _place(model.model, mode, parts[0], task) | {"source": None}
                if len(parts) == 1:  # the same records: no need to draw the intervals again
                    yield from (row | overall for row in rows[parts[0], task] if row["question_type"] is None)
                    continue
                together = [record for source in parts for record in records[source, task]]
                result = evaluate(task, "strict", together, boxes=boxes)
                yield from (row for row in _rows(overall, result) if row["question_type"] is None)


def by_source(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows of one source each, without those over all of them: what is averaged must not count twice."""
    return (row for row in rows if row["source"] is not None)


def _place(model: str, mode: str, source: str, task: TaskName) -> dict[str, Any]:
    return {
        "model": model,
        "mode": mode,
        "split": split_of(source),
        "world": world_of(source),
        "task": task,
        "source": source,
    }


def _rows(place: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    headline = tasks.get(place["task"]).headline
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
    form = (
        ("well_formed", result["well_formed_share"], result["n"]),
        ("thought_words", words, reasoning["n_with_thought"]),
    )
    for metric, value, n in form:
        if place["mode"] == "tagged" and value is not None:
            yield {
                **place,
                "question_type": None,
                "metric": metric,
                "headline": False,
                "value": value,
                "n": n,
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
    """`n` held-out samples that both models answered in tagged mode, evenly over the sources, by stable hash."""
    answered = []
    for path in corpora:
        corpus = Corpus(path)
        samples = list(corpus.samples("test"))
        if not samples:
            continue
        raw = [_raw_outputs(records_path(model.out, "tagged", samples[0].source)) for model in (before, after)]
        both = [s for s in samples if all(s.id in found for found in raw)]
        answered.append((corpus, sorted(both, key=lambda s: stable_unit(s.id, salt="gallery")), raw))
    shares = _shares([len(samples) for _, samples, _ in answered], n)
    for (corpus, samples, (first, last)), share in zip(answered, shares, strict=True):
        for sample in samples[:share]:
            picture = thumbnail(decode(corpus.image_bytes(sample.image_id)), THUMBNAIL)
            yield {
                "id": sample.id,
                "task": sample.task,
                "source": sample.source,
                "split": split_of(sample.source),
                "question": sample.question,
                "answer": sample.answer,
                "image_jpeg_base64": base64.b64encode(picture).decode(),
                "width": sample.width,
                "height": sample.height,
                "box": sample.box,
                "before": _output(sample, first[sample.id], boxes),
                "after": _output(sample, last[sample.id], boxes),
            }


def _shares(sizes: Sequence[int], n: int) -> list[int]:
    """How many of each size, together `n` where there are so many, as even as the sizes allow."""
    shares = [0] * len(sizes)
    while sum(shares) < min(n, sum(sizes)):
        smallest = min((i for i, size in enumerate(sizes) if shares[i] < size), key=lambda i: shares[i])
        shares[smallest] += 1
    return shares


def _raw_outputs(path: Path) -> dict[str, str]:
    return {r["id"]: r["raw_output"] for r in _records(path)}


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
    """Mean over tasks of the headline metric (percent) of the rows that fit: first over a task's sources, one row
    each, then over tasks; NaN where no row fits."""
    found: dict[str, list[float]] = defaultdict(list)
    for row in by_source(rows):
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
