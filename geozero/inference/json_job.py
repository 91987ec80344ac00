"""`geozero infer`: a model answers the authors' evaluation JSON; the published script's flags and record format.

The answer log beside the output is written chunk by chunk, the output last and at once. Items that cannot be answered
are listed, have an empty prediction in the output, and are tried again by the next call.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from geozero import tasks
from geozero.common import process
from geozero.common.atomic import update_json, write_json
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import MAX_PIXELS, read_file, shrunk, size_of
from geozero.corpus.sample import TaskName, digest
from geozero.engines import Completion, SamplingParams
from geozero.inference.answer_log import AnswerLog, failure
from geozero.inference.eval_json import EvalItem, read_items
from geozero.inference.loop import LazyEngine, Question, answer_many
from geozero.tasks.text import extract_answer

SamplingChoice = Literal["greedy", "official"]
OFFICIAL_SEED = 42
OFFICIAL_MAX_TOKENS = 2048

IMAGE_PIXELS = 1024 * 1024  # a larger image is scaled down, as in the other commands
PROMPT_TOKENS = 2048  # room for the image (1,024 tokens at most) and the question, beside the answer's own


@dataclass(frozen=True, slots=True)
class InferSummary:
    """What a call of `infer` did."""

    n: int  # records in the output
    n_new: int  # answers that this call added
    failed: list[dict[str, Any]]  # items without an answer, `{item, id, image_path, reason}` each, in file order
    failed_path: Path  # where they are listed; no such file without any
    n_cut: int  # answers that `max_new_tokens` cut off
    seconds: float
    notes: list[str]  # what a reader of the scores has to know


def infer(
    model_path: Path | str,
    json_path: Path,
    output_path: Path,
    task: TaskName,
    *,
    batchsize: int = 16,
    gpu: int | None = None,
    system: bool = False,
    max_new_tokens: int = OFFICIAL_MAX_TOKENS,
    workers: int = 1,
    engine: str = "auto",
    sampling: SamplingChoice = "greedy",
    seed: int = OFFICIAL_SEED,
    max_megapixels: float = MAX_PIXELS / 1e6,
    progress: Callable[[str], None] = print,
) -> InferSummary:
    """Answer every item of `json_path` and write `[{id, raw_output, pred, label, image_path, …}]` to `output_path`.

    Records stand in the order of the JSON. Images are looked for from the working directory, then from the JSON's.

    Args:
        batchsize: questions generated together by the transformers engine (vLLM fills its own batches).
        gpu: number of the GPU among the visible ones; None leaves the choice to the engine.
        system: begin with the published system prompt, which makes the model think first.
        workers: threads that read images ahead.
        max_megapixels: an image with more is listed as too large; what is larger than 64 is scaled down first.
        sampling: `greedy`, or `official`: as the published script where that does not take answers greedily.

    Raises:
        InputError: no usable JSON, model, engine or GPU; another process answers the same; the disk refuses.
    """
    started = time.monotonic()
    items = read_items(json_path, task)
    _check_output(output_path, json_path)
    if gpu is not None:
        process.choose_gpu(gpu, "--gpu")
    params = SamplingParams(max_tokens=max_new_tokens)
    # The published script's five beams for captions are not reproduced: no engine of ours has them.
    if sampling == "official" and tasks.get(task).official_draws:
        params = SamplingParams(temperature=0.9, top_p=0.95, top_k=50, max_tokens=max_new_tokens, seed=seed)
    limits = {"max_pixels": IMAGE_PIXELS, "max_length": max_new_tokens + PROMPT_TOKENS}
    with LazyEngine(model_path, params, name=engine, **limits) as model, AnswerLog(output_path, model.identity) as log:
        max_pixels = round(max_megapixels * 1e6)
        items, paths = _with_images(items, json_path.parent, workers, max_pixels)
        sizes = {item.image_hash: item.width * item.height for item in items}

        def load(question: Question) -> bytes:
            data = read_file(paths[question.image], max_pixels)
            return data if sizes[question.image] <= MAX_PIXELS else shrunk(data, max_pixels)

        names, valid = _request_names(items), [item for item in items if item.fault is None]
        found = answer_many(
            model,
            [Question(names[item.number], item.messages(system), item.image_hash) for item in valid],
            load,
            log,
            batch=batchsize,
            readers=workers,
            retry_failed=True,
            on_line=progress,
        )
        answers = {item.number: completion for item, (completion,) in zip(valid, found, strict=True)}
        for item, completions in zip(valid, found, strict=True):
            items[item.number] = replace(item, fault=failure(completions))
        records = [_record(item, answers.get(item.number)) for item in items]
        update_json(output_path, records)
        others = log.others()
    failed_path = output_path.with_name(f"{output_path.stem}.failed.json")
    failed = [
        {"item": item.number, "id": item.id, "image_path": item.image, "reason": item.fault}
        for item in items
        if item.fault is not None
    ]
    if failed:
        write_json(failed_path, failed)
    else:
        failed_path.unlink(missing_ok=True)
    n_cut = sum(answer.finish_reason == "length" for answer in answers.values())
    notes = tasks.get(task).official_warnings(records, sampling == "official")
    if others:
        notes.append(f"answers of other models or settings lie beside it, {len(others)} files such as {others[0]}")
    if gpu is not None and not process.has_gpu():
        notes.append(f"no GPU found; --gpu {gpu} is ignored, running on the CPU")
    if n_cut:
        notes.append(f"{n_cut} answers were cut off at {max_new_tokens} tokens")
    return InferSummary(len(records), log.n_new, failed, failed_path, n_cut, time.monotonic() - started, notes)


def _with_images(
    items: list[EvalItem], base: Path, workers: int, max_pixels: int
) -> tuple[list[EvalItem], dict[str, Path]]:
    """The items with their image's hash and size, or its fault, and the file of each hash.

    An image's name is looked for from the working directory, then from `base`.
    """
    paths: dict[str, Path] = {}

    def examine(name: str) -> dict[str, Any]:
        try:
            path = next((path for path in (Path(name), base / name) if path.is_file()), None)
        except OSError:  # the name is too long
            path = None
        if path is None:
            return {"fault": f"image_missing: {name}"}
        try:
            data = read_file(path, max_pixels)
            width, height = size_of(data)
        except BadRecord as bad:
            return {"fault": f"{bad.reason}: {name}: {bad.detail}"}
        paths[key := digest(data)] = path
        fault = f"image_too_large: {name}: {width}x{height}" if width * height > max_pixels else None
        return {"image_hash": key, "width": width, "height": height, "fault": fault}

    names = {item.image for item in items}
    with ThreadPoolExecutor(workers or 1) as pool:
        images = dict(zip(names, pool.map(examine, names), strict=True))
    return [replace(i, **images[i.image] | ({"fault": i.fault} if i.fault else {})) for i in items], paths


def _request_names(items: Sequence[EvalItem]) -> list[str]:
    """Names each request by its content, not its position; with the seed, the name decides what is sampled."""
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        name = digest(json.dumps([item.image, item.turns]).encode())
        names.append(f"{name}/{seen[name]}")
        seen[name] += 1
    return names


def _record(item: EvalItem, answer: Completion | None) -> dict[str, Any]:
    text = "" if item.fault or answer is None else answer.text.strip()
    record = {
        "id": item.id,
        "raw_output": text,
        "pred": extract_answer(text),
        "label": item.label,
        "image_path": item.image,
        **({"question": item.question} if item.question else {}),
        **({"width": item.width, "height": item.height} if item.width and item.height else {}),
        **({"question_type": item.question_type} if item.question_type else {}),
    }
    if item.fault or answer is None:
        return record | {"error": item.fault}
    return record | {"finish_reason": answer.finish_reason, "n_tokens": answer.n_tokens}


def _check_output(output: Path, source: Path) -> None:
    """Before hours of work: the output can be written, and is not the input."""
    if output.is_dir():
        raise InputError("a directory stands where the records are to go", str(output), "give the name of a JSON file")
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError("the output would replace the questions", str(output), "choose another --output_path")
