"""`geozero infer`: a model answers the authors' evaluation JSON; the published script's flags and record format.

What was answered is kept chunk by chunk beside the output (`answer_log`), so that a killed run goes on; the output
itself is written last and at once. What could not be asked is listed, stands in the output as an empty prediction,
and is asked again by the next call.
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
from typing import TYPE_CHECKING, Any, Literal

from geozero.corpus import file_hash, write_json
from geozero.errors import InputError
from geozero.evaluation.answer_log import Answer, AnswerLog
from geozero.evaluation.eval_json import Item, read_items
from geozero.evaluation.pictures import Picture, Pictures
from geozero.sample import TaskName, digest
from geozero.tasks.text import extract_answer

if TYPE_CHECKING:
    from geozero.engines import Engine, Request

Sampling = Literal["greedy", "official"]
# The published script draws answers to questions and boxes so; classes and captions it takes greedily, captions with
# five beams, which are not reproduced: no engine of ours has them.
OFFICIAL_TEMPERATURE, OFFICIAL_TOP_P, OFFICIAL_TOP_K = 0.9, 0.95, 50
OFFICIAL_SAMPLED: tuple[TaskName, ...] = ("vqa", "grounding")
OFFICIAL_SEED = 42
OFFICIAL_MAX_TOKENS = 2048

IMAGE_PIXELS = 1024 * 1024  # a larger picture is scaled down, as in the other commands
PROMPT_TOKENS = 2048  # room for the picture (1,024 tokens at most) and the question, beside the answer's own
VLLM_CHUNK = 256  # vLLM fills its batches itself; this is only how much a kill can cost
SECONDS_BETWEEN_LINES = 15.0
CUDA_DEVICES = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class Summary:
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
    sampling: Sampling = "greedy",
    seed: int = OFFICIAL_SEED,
    progress: Callable[[str], None] = print,
) -> Summary:
    """Ask every item of `json_path` and write `[{id, raw_output, pred, label, image_path, …}]` to `output_path`.

    Records stand in the order of the JSON. Pictures are looked for from the working directory, then from the JSON's.

    Args:
        model_path: a checkpoint's directory, or a hub name in the local cache.
        batchsize: questions generated together by the transformers engine (vLLM fills its own batches).
        gpu: number of the GPU among the visible ones; None leaves the choice to the engine.
        system: ask with the published system prompt, which makes the model think first.
        max_new_tokens: most tokens of an answer.
        workers: threads that read pictures ahead.
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
        run = _Run(items, json_path.parent, log, system, workers, progress)
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
    if n_cut:
        notes.append(f"{n_cut} answers were cut off at {max_new_tokens} tokens")
    return Summary(len(records), run.n_new, failed, failed_path, n_cut, time.monotonic() - started, notes)


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
        InputError: fewer are visible.
    """
    visible = os.environ.get(CUDA_DEVICES)
    if visible is None:
        os.environ[CUDA_DEVICES] = str(number)
        return
    names = [name for name in visible.split(",") if name.strip()]
    if number >= len(names):
        what = f"no GPU {number}: {CUDA_DEVICES} shows {len(names)}"
        raise InputError(what, "--gpu", "count from 0 among those, or change that variable")
    os.environ[CUDA_DEVICES] = names[number].strip()


class _Run:
    """The questions of one output: those answered, those to be asked, those that cannot be."""

    def __init__(
        self,
        items: Sequence[Item],
        base: Path,
        log: AnswerLog,
        system: bool,
        workers: int,
        progress: Callable[[str], None],
    ) -> None:
        self.items, self.log, self.system = items, log, system
        self.workers, self.progress = workers, progress
        self.pictures = Pictures(base)
        self.faults: dict[int, str] = {item.number: item.fault for item in items if item.fault is not None}
        self.names = _request_names(items)
        self.n_new = 0

    def ask(self, open_engine: Callable[[], Engine], decoding: dict[str, Any], batchsize: int) -> None:
        """Ask what has no answer yet, chunk by chunk; without anything to ask no model is loaded."""
        from geozero.engines import SamplingParams

        missing = [i for i in self.items if i.number not in self.log.answers and i.number not in self.faults]
        pending = []
        for item in missing:
            if self.pictures.find(item.image) is None:
                self.faults[item.number] = f"image_missing: {item.image}"
            else:
                pending.append(item)
        if not pending:
            return
        total = len(pending)
        self.progress(f"{total} of {len(self.items)} questions to ask")
        engine = open_engine()
        started, told = time.monotonic(), 0.0
        try:
            described, params = engine.describe(), SamplingParams(**decoding)
            size = VLLM_CHUNK if engine.name == "vllm" else batchsize
            chunks = [pending[k : k + size] for k in range(0, total, size)]
            with ThreadPoolExecutor(max(1, self.workers)) as pool:
                reading = pool.map(self._read, chunks[0])
                for number, chunk in enumerate(chunks):
                    pictures = list(reading)
                    if number + 1 < len(chunks):
                        reading = pool.map(self._read, chunks[number + 1])
                    self._ask_chunk(engine, params, described, chunk, pictures)
                    done, seconds = min((number + 1) * size, total), time.monotonic() - started
                    if seconds - told >= SECONDS_BETWEEN_LINES or done == total:
                        told, rate = seconds, done / max(seconds, 1e-9)
                        self.progress(f"{done} of {total}, {rate:.1f} a second, {(total - done) / rate:.0f} s left")
        finally:
            engine.close()

    def records(self) -> list[dict[str, Any]]:
        """The output, in the order of the items."""
        return [self._record(item) for item in self.items]

    def failures(self) -> list[dict[str, Any]]:
        """The items that could not be asked and why."""
        asked = ((self.items[number], reason) for number, reason in sorted(self.faults.items()))
        return [{"item": i.number, "id": i.id, "image_path": i.image, "reason": reason} for i, reason in asked]

    def _ask_chunk(
        self, engine: Engine, params: Any, described: dict[str, Any], chunk: Sequence[Item], pictures: Sequence[Picture]
    ) -> None:
        asked: list[Item] = []
        requests: list[Request] = []
        for item, picture in zip(chunk, pictures, strict=True):
            if picture.fault is not None:
                self.faults[item.number] = picture.fault
                continue
            asked.append(item)
            requests.append(self._request(item, picture))
        answers: list[Answer] = []
        for item, (completion,) in zip(asked, engine.generate(requests, params) if requests else [], strict=True):
            if completion.finish_reason == "error":
                self.faults[item.number] = completion.error or "the engine gives no reason"
            else:
                answers.append(Answer(item.number, completion.text, completion.finish_reason, completion.n_tokens))
        self.log.append(answers, described)
        self.n_new += len(answers)

    def _read(self, item: Item) -> Picture:
        return self.pictures.read(item.image)

    def _request(self, item: Item, picture: Picture) -> Request:
        from geozero.engines import Request

        return Request(self.names[item.number], item.messages(self.system), picture.data)

    def _record(self, item: Item) -> dict[str, Any]:
        answer = self.log.answers.get(item.number)
        text = answer.text.strip() if answer else ""
        width, height = self.pictures.size(item.image) if item.image else (0, 0)
        width, height = (width, height) if width and height else (item.width, item.height)
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
        if answer is not None:
            record |= {"finish_reason": answer.finish_reason, "n_tokens": answer.n_tokens}
        else:
            record["error"] = self.faults[item.number]
        return record


def _request_names(items: Sequence[Item]) -> list[str]:
    """A name a question, from what is asked and not from where it stands: it fixes what is drawn."""
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        name = digest(json.dumps([item.image, item.turns]).encode())
        names.append(f"{name}/{seen[name]}")
        seen[name] += 1
    return names


def _open(name: str, model: Path | str, max_new_tokens: int) -> Engine:
    from geozero import engines

    return engines.open_engine(name, model, max_pixels=IMAGE_PIXELS, max_length=max_new_tokens + PROMPT_TOKENS)


def _notes(
    task: TaskName, sampling: Sampling, records: list[dict[str, Any]], failed: list[dict[str, Any]], others: list[Path]
) -> list[str]:
    notes = []
    if failed and task == "vqa":
        notes.append("the official protocol counts an empty vqa prediction as right: mend what failed before using it")
    if task == "grounding" and any("width" not in record for record in records):
        notes.append("the official protocol stops at a picture of unknown size: mend what failed before using it")
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
