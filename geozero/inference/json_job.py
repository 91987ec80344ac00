"""`geozero infer`: a model answers the authors' evaluation JSON; the published script's flags and record format.

What was answered is kept chunk by chunk beside the output (`answer_log`), so that a killed run goes on; the output
itself is written last and at once. What could not be asked is listed, stands in the output as an empty prediction,
and is asked again by the next call.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from geozero.common import process
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.corpus.sample import TaskName, digest
from geozero.corpus.store import file_hash
from geozero.inference.answer_log import AnswerLog
from geozero.inference.eval_json import read_items
from geozero.inference.json_run import JsonRun

if TYPE_CHECKING:
    from geozero.engines import Engine

SamplingChoice = Literal["greedy", "official"]
# The published script draws answers to questions and boxes so; classes and captions it takes greedily, captions with
# five beams, which are not reproduced: no engine of ours has them.
OFFICIAL_TEMPERATURE, OFFICIAL_TOP_P, OFFICIAL_TOP_K = 0.9, 0.95, 50
OFFICIAL_SAMPLED: tuple[TaskName, ...] = ("vqa", "grounding")
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
        failed: items that could not be asked, `{item, id, image_path, reason}` each, in file order.
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
    """Ask every item of `json_path` and write `[{id, raw_output, pred, label, image_path, …}]` to `output_path`.

    Records stand in the order of the JSON. Images are looked for from the working directory, then from the JSON's.

    Args:
        model_path: a checkpoint's directory, or a hub name in the local cache.
        batchsize: questions generated together by the transformers engine (vLLM fills its own batches).
        gpu: number of the GPU among the visible ones; None leaves the choice to the engine.
        system: ask with the published system prompt, which makes the model think first.
        max_new_tokens: most tokens of an answer.
        workers: threads that read images ahead.
        engine: `auto`, `vllm` or `transformers`.
        sampling: `greedy`, or `official`: temperature 0.9, top-p 0.95, top-k 50 for vqa and grounding.
        seed: of the draws.
        progress: takes a line now and then.

    Raises:
        InputError: no usable JSON, model, engine or GPU; another process answers the same; the disk refuses.
    """
    from geozero.engines import checkpoint

    started = time.monotonic()
    items = read_items(json_path, task)
    _check_output(output_path, json_path)
    if gpu is not None:
        choose_gpu(gpu)
    sampled = sampling == "official" and task in OFFICIAL_SAMPLED
    decoding: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": 0.0, "top_p": 1.0}
    if sampled:
        decoding |= {
            "temperature": OFFICIAL_TEMPERATURE,
            "top_p": OFFICIAL_TOP_P,
            "top_k": OFFICIAL_TOP_K,
            "seed": seed,
        }
    identity = {
        "model": checkpoint.content_hash(checkpoint.resolve(model_path)),
        "json": file_hash(json_path),
        "task": task,
        "prompts": digest(json.dumps([item.messages(system) for item in items]).encode()),
        "decoding": decoding,
        "max_pixels": IMAGE_PIXELS,
    }
    with AnswerLog(output_path, identity) as log:
        run = JsonRun(items, json_path.parent, log, system, workers, progress)
        run.ask(lambda: _open(engine, model_path, max_new_tokens), decoding, batchsize)
        records = run.records()
        output_path.parent.mkdir(parents=True, exist_ok=True)
        if not _holds(output_path, records):
            write_json(output_path, records)
        others = log.others()
    failed_path = output_path.with_name(f"{output_path.stem}.failed.json")
    failed = run.failures()
    if failed:
        write_json(failed_path, failed)
    else:
        failed_path.unlink(missing_ok=True)
    n_cut = sum(answer.finish_reason == "length" for answer in log.answers.values())
    notes = _notes(task, sampling, records, failed, others)
    if gpu is not None and not process.has_gpu():
        notes.append(f"no GPU here: in spite of --gpu {gpu} the CPU answers")
    if n_cut:
        notes.append(f"{n_cut} answers were cut off at {max_new_tokens} tokens")
    return InferSummary(len(records), run.n_new, failed, failed_path, n_cut, time.monotonic() - started, notes)


def truth_of(text: str) -> bool:
    """The published `--system`, a word: True or False.

    Raises:
        InputError: another word.
    """
    if text.lower() not in ("true", "false"):
        raise InputError(f"'{text[:40]}' is neither True nor False", "--system", "say True for the system prompt")
    return text.lower() == "true"


def choose_gpu(number: int) -> None:
    """Let this process see one GPU alone: `number` counts among those that it may see now.

    Raises:
        InputError: fewer are visible, or there.
    """
    visible = os.environ.get(CUDA_DEVICES)
    if visible is None:
        process.check_gpu(number, "--gpu")
        os.environ[CUDA_DEVICES] = str(number)
        return
    names = [name for name in visible.split(",") if name.strip()]
    if number >= len(names):
        what = f"no GPU {number}: {CUDA_DEVICES} shows {len(names)}"
        raise InputError(what, "--gpu", "count from 0 among those, or change that variable")
    os.environ[CUDA_DEVICES] = names[number].strip()


def _open(name: str, model: Path | str, max_new_tokens: int) -> Engine:
    from geozero import engines

    return engines.open_engine(name, model, max_pixels=IMAGE_PIXELS, max_length=max_new_tokens + PROMPT_TOKENS)


def _notes(
    task: TaskName,
    sampling: SamplingChoice,
    records: list[dict[str, Any]],
    failed: list[dict[str, Any]],
    others: list[Path],
) -> list[str]:
    notes = []
    if failed and task == "vqa":
        notes.append("the official protocol counts an empty vqa prediction as right: fix what failed before using it")
    if task == "grounding" and any("width" not in record for record in records):
        notes.append("the official protocol stops at an image of unknown size: fix what failed before using it")
    if sampling == "official" and task == "caption":
        notes.append("the published beam search is not reproduced")
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
