"""The questions of one `geozero infer`: asked chunk by chunk, each kept on the disk before the next; its records."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geozero.corpus.sample import digest
from geozero.inference.answer_log import Answer, AnswerLog
from geozero.inference.eval_json import EvalItem
from geozero.inference.image_files import ImageFiles, ReadImage
from geozero.tasks.text import extract_answer

if TYPE_CHECKING:
    from geozero.engines import Engine, Request

VLLM_CHUNK = 256  # vLLM fills its batches itself; this is only how much a kill can cost
SECONDS_BETWEEN_LINES = 15.0


class JsonRun:
    """The questions of one output: those answered, those to be asked, those that cannot be."""

    def __init__(
        self,
        items: Sequence[EvalItem],
        base: Path,
        log: AnswerLog,
        system: bool,
        workers: int,
        progress: Callable[[str], None],
    ) -> None:
        self.items, self.log, self.system = items, log, system
        self.workers, self.progress = workers, progress
        self.images = ImageFiles(base)
        self.faults: dict[int, str] = {item.number: item.fault for item in items if item.fault is not None}
        self.names = _request_names(items)
        self.n_new = 0

    def ask(self, open_engine: Callable[[], Engine], decoding: dict[str, Any], batchsize: int) -> None:
        """Ask what has no answer yet, chunk by chunk; without anything to ask no model is loaded."""
        from geozero.engines import SamplingParams

        missing = [i for i in self.items if i.number not in self.log.answers and i.number not in self.faults]
        pending = []
        for item in missing:
            if self.images.find(item.image) is None:
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
                    images = list(reading)
                    if number + 1 < len(chunks):
                        reading = pool.map(self._read, chunks[number + 1])
                    self._ask_chunk(engine, params, described, chunk, images)
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
        self,
        engine: Engine,
        params: Any,
        described: dict[str, Any],
        chunk: Sequence[EvalItem],
        images: Sequence[ReadImage],
    ) -> None:
        asked: list[EvalItem] = []
        requests: list[Request] = []
        for item, image in zip(chunk, images, strict=True):
            if image.fault is not None:
                self.faults[item.number] = image.fault
                continue
            asked.append(item)
            requests.append(self._request(item, image))
        answers: list[Answer] = []
        for item, (completion,) in zip(asked, engine.generate(requests, params) if requests else [], strict=True):
            if completion.finish_reason == "error":
                self.faults[item.number] = completion.error or "the engine gives no reason"
            else:
                answers.append(Answer(item.number, completion.text, completion.finish_reason, completion.n_tokens))
        self.log.append(answers, described)
        self.n_new += len(answers)

    def _read(self, item: EvalItem) -> ReadImage:
        return self.images.read(item.image)

    def _request(self, item: EvalItem, image: ReadImage) -> Request:
        from geozero.engines import Request

        return Request(self.names[item.number], item.messages(self.system), image.data)

    def _record(self, item: EvalItem) -> dict[str, Any]:
        answer = self.log.answers.get(item.number)
        text = answer.text.strip() if answer else ""
        width, height = self.images.size(item.image) if item.image else (0, 0)
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


def _request_names(items: Sequence[EvalItem]) -> list[str]:
    """A name a question, from what is asked and not from where it stands: it fixes what is drawn."""
    seen: Counter[str] = Counter()
    names = []
    for item in items:
        name = digest(json.dumps([item.image, item.turns]).encode())
        names.append(f"{name}/{seen[name]}")
        seen[name] += 1
    return names
