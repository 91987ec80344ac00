"""`geozero infer`: a model answers the authors' evaluation JSON; the published script's flags and record format.

The answer log beside the output is written chunk by chunk, the output last and at once. Items that cannot be answered
are listed, have an empty prediction in the output, and are tried again by the next call.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geozero import tasks
from geozero.common import process
from geozero.common.atomic import write_json
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import MAX_PIXELS, size_of
from geozero.corpus.sample import TaskName, digest
from geozero.engines import Completion, SamplingParams
from geozero.inference.answer_log import AnswerLog, failure
from geozero.inference.eval_json import EvalItem, read_items
from geozero.inference.loop import LazyEngine, Question, answer_many
from geozero.tasks.text import extract_answer

SamplingChoice = Literal["greedy", "official"]
# How the published script samples answers to questions and boxes. Classes and captions are greedy there, captions with
# five beams, which are not reproduced: no engine of ours has them.
OFFICIAL_TEMPERATURE, OFFICIAL_TOP_P, OFFICIAL_TOP_K = 0.9, 0.95, 50
OFFICIAL_SEED = 42
OFFICIAL_MAX_TOKENS = 2048

IMAGE_PIXELS = 1024 * 1024  # a larger image is scaled down, as in the other commands
PROMPT_TOKENS = 2048  # room for the image (1,024 tokens at most) and the question, beside the answer's own
CUDA_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class InferSummary:
    """What a call did.

    Attributes:
        n: records in the output.
        n_new: answers that this call added.
        failed: items without an answer, `{item, id, image_path, reason}` each, in file order.
        failed_path: where they are listed; no such file without any.
        n_cut: answers that `max_new_tokens` cut off.
        seconds: of this call.
        notes: what a reader of the scores has to know.
    """

    n: int
    n_new: int
    failed: list[dict[str, Any]]
    failed_path: Path
    n_cut: int
    seconds: float
    notes: list[str]


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that the JSON names: hash of its bytes, size in pixels (0 if unknown), and what is wrong with it."""

    path: Path = Path()
    digest: str = ""
    width: int = 0
    height: int = 0
    fault: str | None = None


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
    progress: Callable[[str], None] = print,
) -> InferSummary:
    """Answer every item of `json_path` and write `[{id, raw_output, pred, label, image_path, …}]` to `output_path`.

    Records stand in the order of the JSON. Images are looked for from the working directory, then from the JSON's.

    Args:
        model_path: a checkpoint's directory, or a hub name in the local cache.
        batchsize: questions generated together by the transformers engine (vLLM fills its own batches).
        gpu: number of the GPU among the visible ones; None leaves the choice to the engine.
        system: begin with the published system prompt, which makes the model think first.
        max_new_tokens: most tokens of an answer.
        workers: threads that read images ahead.
        engine: `auto`, `vllm` or `transformers`.
        sampling: `greedy`, or `official`: temperature 0.9, top-p 0.95, top-k 50 for vqa and grounding.
        seed: of the sampling.
        progress: takes a line now and then.

    Raises:
        InputError: no usable JSON, model, engine or GPU; another process answers the same; the disk refuses.
    """
    started = time.monotonic()
    items = read_items(json_path, task)
    _check_output(output_path, json_path)
    if gpu is not None:
        choose_gpu(gpu)
    params = SamplingParams(max_tokens=max_new_tokens)
    if sampling == "official" and tasks.get(task).official_draws:
        params = SamplingParams(
            1, OFFICIAL_TEMPERATURE, OFFICIAL_TOP_P, max_tokens=max_new_tokens, seed=seed, top_k=OFFICIAL_TOP_K
        )
    limits = {"max_pixels": IMAGE_PIXELS, "max_length": max_new_tokens + PROMPT_TOKENS}
    with LazyEngine(model_path, params, name=engine, **limits) as model, AnswerLog(output_path, model.identity) as log:
        images = examine_images({item.image for item in items}, json_path.parent, workers)
        faults = {i.number: fault for i in items if (fault := i.fault or images[i.image].fault) is not None}
        names, paths = _request_names(items), {image.digest: image.path for image in images.values()}
        valid = [item for item in items if item.number not in faults]
        questions = [Question(names[i.number], i.messages(system), images[i.image].digest) for i in valid]
        found = answer_many(
            model,
            questions,
            lambda question: read_file(paths[question.image]),
            log,
            batch=batchsize,
            readers=workers,
            retry_failed=True,
            on_line=progress,
        )
        answers = {item.number: completions[0] for item, completions in zip(valid, found, strict=True)}
        faults |= {i.number: reason for i, one in zip(valid, found, strict=True) if (reason := failure(one))}
        records = [_record(i, images[i.image], faults.get(i.number), answers.get(i.number)) for i in items]
        if not _holds(output_path, records):
            write_json(output_path, records)
        others = log.others()
    failed = [
        {"item": n, "id": items[n].id, "image_path": items[n].image, "reason": reason}
        for n, reason in sorted(faults.items())
    ]
    failed_path = output_path.with_name(f"{output_path.stem}.failed.json")
    if failed:
        write_json(failed_path, failed)
    else:
        failed_path.unlink(missing_ok=True)
    n_cut = sum(completion.finish_reason == "length" for completion in answers.values())
    notes = _notes(task, sampling, records, others)
    if gpu is not None and not process.has_gpu():
        notes.append(f"no GPU found; --gpu {gpu} is ignored, running on the CPU")
    if n_cut:
        notes.append(f"{n_cut} answers were cut off at {max_new_tokens} tokens")
    return InferSummary(len(records), log.n_new, failed, failed_path, n_cut, time.monotonic() - started, notes)


def parse_bool(text: str) -> bool:
    """The published `--system`, a word: True or False.

    Raises:
        InputError: another word.
    """
    if text.lower() not in ("true", "false"):
        raise InputError(f"'{text[:40]}' is neither True nor False", "--system", "say True for the system prompt")
    return text.lower() == "true"


def choose_gpu(number: int) -> None:
    """Make one GPU the only one that this process sees: `number` counts among those that are visible now.

    Raises:
        InputError: fewer are visible, or there.
    """
    visible = os.environ.get(CUDA_DEVICES)
    if visible is None:
        process.check_gpu(number, "--gpu")
        os.environ[CUDA_DEVICES] = str(number)
        return
    names = [name.strip() for name in visible.split(",") if name.strip()]
    if number >= len(names):
        what = f"no GPU {number}: {CUDA_DEVICES} shows {len(names)}"
        raise InputError(what, "--gpu", "count from 0 among those, or change that variable")
    os.environ[CUDA_DEVICES] = names[number]


def examine_images(names: set[str], base: Path, workers: int) -> dict[str, ImageFile]:
    """Hash and measure images by their names in the JSON, searched from the working directory, then from `base`."""

    def examine(name: str) -> ImageFile:
        path = next((path for path in (Path(name), base / name) if _is_file(path)), None)
        if path is None:
            return ImageFile(fault=f"image_missing: {name}")
        try:
            data = read_file(path)
            width, height = size_of(data)
        except BadRecord as bad:
            return ImageFile(fault=f"{bad.reason}: {name}: {bad.detail}")
        fault = f"image_too_large: {name}: {width}x{height}" if width * height > MAX_PIXELS else None
        return ImageFile(path, digest(data), width, height, fault)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return dict(zip(names, pool.map(examine, names), strict=True))


def read_file(path: Path) -> bytes:
    """An image file's bytes; raises BadRecord where the system refuses them."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadRecord("image_unreadable", error.strerror or str(error)) from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long, or with a zero byte
        return False


def _request_names(items: Sequence[EvalItem]) -> list[str]:
    """Names each request by its content, not its position; with the seed, the name decides what is sampled."""
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        name = digest(json.dumps([item.image, item.turns]).encode())
        names.append(f"{name}/{seen[name]}")
        seen[name] += 1
    return names


def _record(item: EvalItem, image: ImageFile, fault: str | None, completion: Completion | None) -> dict[str, Any]:
    text = completion.text.strip() if completion else ""
    width, height = (image.width, image.height) if image.width else (item.width, item.height)
    record: dict[str, Any] = {
        "id": item.id,
        "raw_output": text,
        "pred": extract_answer(text),
        "label": item.label,
        "image_path": item.image,
    }
    if item.question:
        record["question"] = item.question
    if width and height:
        record |= {"width": width, "height": height}
    if item.question_type is not None:
        record["question_type"] = item.question_type
    if completion is None or fault is not None:
        return record | {"error": fault}
    return record | {"finish_reason": completion.finish_reason, "n_tokens": completion.n_tokens}


def _notes(
    task: TaskName, sampling: SamplingChoice, records: Sequence[dict[str, Any]], others: Sequence[Path]
) -> list[str]:
    notes = tasks.get(task).official_warnings(records, sampling == "official")
    if others:
        notes.append(f"answers of other models or settings lie beside it, {len(others)} files such as {others[0]}")
    return notes


def _check_output(output: Path, source: Path) -> None:
    """Before hours of work: the output can be written, and is not the input."""
    if output.is_dir():
        raise InputError("a directory stands where the records are to go", str(output), "give the name of a JSON file")
    if output.exists() and source.exists() and output.samefile(source):
        raise InputError("the output would replace the questions", str(output), "choose another --output_path")


def _holds(path: Path, records: list[dict[str, Any]]) -> bool:
    """Whether a file holds these records already."""
    try:
        return bool(json.loads(path.read_text(encoding="utf-8")) == records)
    except (OSError, ValueError, RecursionError):
        return False
