"""The questions with images that the page shows: of a pipeline run, of a model in training, of scored records."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geozero import tasks
from geozero.corpus.images import decode, thumbnail
from geozero.corpus.sample import Sample, stable_unit
from geozero.corpus.store import Corpus
from geozero.evaluation.report.tables import model_label
from geozero.evaluation.result_sets import EvalSlice, ModelAnswers, split_of
from geozero.inference.corpus_job import records_path
from geozero.tasks.boxes import Convention, from_model
from geozero.tasks.text import OPEN_TAG, Mode, extract_answer, is_well_formed, thought

RUN_THUMBNAIL = 256  # pixels of the longer side
VALUES = ("hit", "iou", "f1")  # per-record columns, of which the first there is what an answer earned


# --- of a pipeline run ------------------------------------------------------------------------------------


def gallery(
    answered: Sequence[ModelAnswers], corpora: Iterable[Path], boxes: Convention, n: int
) -> Iterator[dict[str, Any]]:
    """`n` held-out samples that all models answered, with the answers of every model and mode; evenly over the sources,
    by stable hash."""
    found = []
    for corpus in map(Corpus, corpora):
        samples = list(corpus.samples("test"))
        if samples:
            records = {(m.model, mode): _records(m, mode, samples[0].source) for m in answered for mode in m.modes}
            needed = [by_id for (_, mode), by_id in records.items() if mode in ("direct", "tagged")]
            common = [s for s in samples if all(s.id in by_id for by_id in needed)]
            found.append((corpus, sorted(common, key=lambda s: stable_unit(s.id, salt="gallery")), records))
    shares = _shares([len(samples) for _, samples, _ in found], n)
    for (corpus, samples, records), share in zip(found, shares, strict=True):
        for sample in samples[:share]:
            own = {model: by_id[sample.id] for model, by_id in records.items() if sample.id in by_id}
            yield {
                **_question(sample, corpus, boxes),
                "split": split_of(sample.source),
                "question_type": sample.question_type,
                "width": sample.width,
                "height": sample.height,
                **_boxes(tasks.get(sample.task).true_boxes(sample)),
                "answers": [
                    {"model": model, "mode": mode}
                    | _answer(sample, row["raw_output"], boxes, mode if mode == "direct" else "tagged")
                    | {"flags": flags(sample.task, row["raw_output"], row.get("finish_reason"), mode != "direct")}
                    for (model, mode), row in own.items()
                ],
            }


def flags(task: str, text: str, finish_reason: Any, tagged: bool) -> list[str]:
    """What is wrong with the form of a completion; `tagged`: it was to hold an answer block."""
    answer = extract_answer(text)
    found = {
        "cut off": finish_reason == "length",
        "malformed": tagged and not is_well_formed(text),
        "empty": not answer,
        "unparsable": bool(answer) and tasks.get(task).answers_are_boxes and tasks.get(task).read_boxes(answer) is None,
    }
    return [name for name, holds in found.items() if holds]


def probe_rows(
    probes: Iterable[tuple[Sample, Mapping[int, str]]], corpora: Iterable[Path], boxes: Convention
) -> Iterator[dict[str, Any]]:
    """The answers of a model in training to fixed questions (completions by step), with their images."""
    by_source = {path.name: Corpus(path) for path in corpora}
    for sample, texts in probes:
        steps = [{"step": step, **_answer(sample, text, boxes)} for step, text in sorted(texts.items())]
        yield {**_question(sample, by_source.get(sample.source), boxes), "steps": steps}


def _question(sample: Sample, corpus: Corpus | None, boxes: Convention) -> dict[str, Any]:
    answer = tasks.get(sample.task).shown_truth(sample, boxes)
    image = None if corpus is None else _encoded(corpus.image_bytes(sample.image_id))
    names = {"id": sample.id, "task": sample.task, "source": sample.source, "question": sample.question}
    return {**names, "answer": answer, "image_jpeg_base64": image}


def _answer(sample: Sample, raw: str, boxes: Convention, mode: Mode = "tagged") -> dict[str, Any]:
    task, answer = tasks.get(sample.task), extract_answer(raw)
    written = task.read_boxes(answer) or []
    return {
        "thought": thought(raw) if OPEN_TAG in raw else "",
        "answer": answer,
        "raw": raw,
        "reward": task.reward(raw, sample, mode, boxes),
        **_boxes([from_model(box, sample.width, sample.height, boxes) for box in written]),
    }


def _boxes(pixels: Sequence[Sequence[float]]) -> dict[str, Any]:
    """The page's columns: `box` for the first one, `boxes` for all where there are several."""
    return {"box": pixels[0] if pixels else None} | ({"boxes": pixels} if len(pixels) > 1 else {})


def _records(model: ModelAnswers, mode: str, source: str) -> dict[str, dict[str, Any]]:
    path = records_path(model.out, mode, source)
    return {r["id"]: r for r in json.loads(path.read_text())} if path.is_file() else {}


def _shares(sizes: Sequence[int], n: int) -> list[int]:
    """How many of each size, together `n` where there are so many, as even as the sizes allow."""
    shares = [0] * len(sizes)
    while sum(shares) < min(n, sum(sizes)):
        smallest = min((i for i, size in enumerate(sizes) if shares[i] < size), key=lambda i: shares[i])
        shares[smallest] += 1
    return shares


# --- of scored records ------------------------------------------------------------------------------------


def record_gallery(slices: Iterable[EvalSlice], n: int) -> Iterator[dict[str, Any]]:
    """`n` records with their images and the answers of all models, evenly over the benchmarks by stable hash of their
    ids."""
    places: dict[tuple[str, str | None], dict[tuple[str, str], EvalSlice]] = defaultdict(dict)
    for part in slices:
        places[part.task, part.source].setdefault((part.model, part.mode), part)  # one protocol is enough
    share, left = -(-n // max(len(places), 1)), n
    for (task, source), parts in places.items():
        own = list(parts.values())
        first, numbers = own[0], [{name: i for i, name in enumerate(part.scored.records.ids)} for part in own]
        listed = first.scored.records
        order = sorted(range(len(listed)), key=lambda i: stable_unit(listed.ids[i], salt="gallery"))
        for i in order[: min(share, left)]:
            left -= 1
            row, label = first.rows[i], listed.labels[i]
            question = row.get("question") if isinstance(row, dict) else None
            answered = [
                (part, found[listed.ids[i]]) for part, found in zip(own, numbers, strict=True) if listed.ids[i] in found
            ]
            yield {
                "id": listed.ids[i],
                "task": task,
                "source": source or "",
                "split": first.split,
                "question": question if isinstance(question, str) else "",
                "answer": label if isinstance(label, str) else json.dumps(label, ensure_ascii=False),
                "question_type": listed.question_types[i],
                "image_path": _image(first, i),
                "width": int(listed.widths[i]),
                "height": int(listed.heights[i]),
                **_scored_boxes(first, "true_box", i),
                "answers": [_scored_answer(part, at) for part, at in answered],
            }


def _scored_answer(part: EvalSlice, i: int) -> dict[str, Any]:
    text, scores, row = part.scored.records.texts[i], part.scored.scores, part.rows[i]
    columns = scores.per_record
    judged = scores.correct is not None and ("evaluated" not in columns or columns["evaluated"][i])
    value = next((float(columns[name][i]) for name in VALUES if name in columns), None) if judged else None
    tagged = OPEN_TAG in text or part.mode in ("tagged", "forced", "swapped")
    return {
        **part.model_ref,
        "who": model_label(part.model, part.mode),
        "thought": thought(text) if OPEN_TAG in text else "",
        "answer": columns["pred"][i],
        "raw": text,
        "reward": value,
        "right": bool(scores.correct[i]) if judged and scores.correct is not None else None,
        "flags": flags(part.task, text, row.get("finish_reason") if isinstance(row, dict) else None, tagged),
        **_scored_boxes(part, "pred_box", i),
    }


def _scored_boxes(part: EvalSlice, name: str, i: int) -> dict[str, Any]:
    columns = part.scored.scores.per_record
    rows = columns[f"{name}es"][i] if f"{name}es" in columns else columns[name][i : i + 1] if name in columns else ()
    return _boxes([[float(v) for v in row] for row in rows])


def _image(part: EvalSlice, i: int) -> Path | None:
    """The record's image, if its path leads to one."""
    records = part.scored.records
    name = records.image_paths[i]
    for path in [Path(name), *([records.base / name] if records.base else [])]:
        try:
            if name and path.is_file():
                return path
        except (OSError, ValueError):
            continue
    return None


def _encoded(image: bytes) -> str:
    return base64.b64encode(thumbnail(decode(image), RUN_THUMBNAIL)).decode()
