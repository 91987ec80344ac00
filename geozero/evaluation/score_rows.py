"""From record files to what the page and MLflow show: score rows, baselines, a gallery before and after RL."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from geozero import tasks
from geozero.corpus.images import decode, thumbnail
from geozero.corpus.sample import Sample, stable_unit
from geozero.corpus.store import Corpus
from geozero.evaluation.guessing import guesses
from geozero.evaluation.result_sets import EvalSlice, ModelAnswers, eval_slices, split_of
from geozero.inference.corpus_job import records_path
from geozero.tasks.boxes import Convention, from_model
from geozero.tasks.text import extract_answer, thought

THUMBNAIL = 256  # pixels
COUNTS = ("_count", "_correct", "_samples")  # how the published names of counts end


def score_rows(answered: Sequence[ModelAnswers], sources: Sequence[str], boxes: Convention) -> Iterator[dict[str, Any]]:
    """Strict scores of every model and mode, each with n and 95 % interval: by source, task and question type, and
    over all records of a world, split and task (`source` and `question_type` None)."""
    yield from rows_of(eval_slices(answered, sources, boxes))


def rows_of(scored: Iterable[EvalSlice]) -> Iterator[dict[str, Any]]:
    """The score rows of parts; question types are given a source each."""
    for part in scored:
        for row in _rows(part.place, part.result):
            if part.source is not None or row["question_type"] is None:
                yield row


def by_source(rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """The rows of one source each, without those over all of them: what is averaged must not count twice."""
    return (row for row in rows if row["source"] is not None)


def _rows(place: Mapping[str, Any], result: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    main = tasks.get(place["task"]).main_metric(place["protocol"])
    groups = [(None, result), *result["groups"].get("question_type", {}).items()]
    for question_type, group in groups:
        for metric in _rates(group["metrics"]):
            low, high = group["intervals"].get(metric) or (None, None)
            yield {
                **place,
                "question_type": question_type,
                "metric": metric,
                "headline": metric == main,
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
        thinks = place["mode"] == "tagged" or (not place["mode"] and reasoning["n_with_thought"])
        if thinks and value is not None:
            yield {**place, "question_type": None, "metric": metric, "headline": False, "value": value, "n": n}


def _rates(metrics: Mapping[str, Any]) -> list[str]:
    """The metrics that are no counts."""
    numbers = [name for name, value in metrics.items() if isinstance(value, int | float)]
    return [name for name in numbers if not name.startswith("n_") and not name.endswith(COUNTS)]


def baseline_rows(answered: ModelAnswers, sources: Sequence[str], boxes: Convention) -> Iterator[dict[str, Any]]:
    """What guessing gets on the very records that are scored, by source, task and question type (`guessing`)."""
    for part in eval_slices([replace(answered, modes=answered.modes[:1])], sources, boxes):
        if part.source is not None:
            yield from guesses(part)


def gallery(
    before: ModelAnswers, after: ModelAnswers, corpora: Sequence[Path], boxes: Convention, n: int
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
            image = thumbnail(decode(corpus.image_bytes(sample.image_id)), THUMBNAIL)
            yield {
                "id": sample.id,
                "task": sample.task,
                "source": sample.source,
                "split": split_of(sample.source),
                "question": sample.question,
                "answer": tasks.get(sample.task).shown_truth(sample, boxes),
                "image_jpeg_base64": base64.b64encode(image).decode(),
                "width": sample.width,
                "height": sample.height,
                "box": sample.box,
                "before": _output(sample, first[sample.id], boxes),
                "after": _output(sample, last[sample.id], boxes),
            }


def probe_rows(
    probes: Iterable[tuple[Sample, Mapping[int, str]]], corpora: Sequence[Path], boxes: Convention
) -> Iterator[dict[str, Any]]:
    """What a model in training answered to fixed questions (completions by step), with their images."""
    by_source = {path.name: Corpus(path) for path in corpora}
    for sample, texts in probes:
        encoded = None
        if sample.source in by_source:
            image = decode(by_source[sample.source].image_bytes(sample.image_id))
            encoded = base64.b64encode(thumbnail(image, THUMBNAIL)).decode()
        steps = [{"step": step, **_output(sample, text, boxes)} for step, text in sorted(texts.items())]
        yield {
            "id": sample.id,
            "task": sample.task,
            "source": sample.source,
            "question": sample.question,
            "answer": tasks.get(sample.task).shown_truth(sample, boxes),
            "image_jpeg_base64": encoded,
            "steps": steps,
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
    task, answer = tasks.get(sample.task), extract_answer(raw)
    parsed = task.read_boxes(answer)
    return {
        "thought": thought(raw),
        "answer": answer,
        "raw": raw,
        "reward": task.reward(raw, sample, "tagged", boxes),
        "box": None if not parsed else from_model(parsed[0], sample.width, sample.height, boxes),
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


def _records(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(path.read_text())
    return records
