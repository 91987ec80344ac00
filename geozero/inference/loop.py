"""The one inference loop: questions in, completions out, resumable chunk by chunk.

Evaluation and the preflight before RL (`corpus_job`), `geozero infer` (`json_job`), SFT's replay and `geozero predict`
ask their questions here. An answer is stored under the hash of everything that decides it, the image's bytes included
and the label not: a changed image asks one question again, a corrected label none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from geozero import engines
from geozero.common.errors import BadRecord
from geozero.corpus.sample import digest
from geozero.engines import Completion, Engine, Request, SamplingParams, checkpoint
from geozero.engines.base import failed
from geozero.inference.answer_log import AnswerLog, failure

CHUNK = 256  # questions: what a kill can cost
SECONDS_BETWEEN_LINES = 15.0
# Options of `open_engine` that decide where and how fast answers are generated, not which
SPEED_OPTIONS = frozenset({"name", "memory", "devices", "urls", "patience"})


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt about one image.

    Attributes:
        id: names the request; with the base seed it decides what is sampled.
        messages: chat turns, `<image>` where the image stands.
        image: content hash of the image's bytes.
        prefix: what the answer has to begin with; completions hold only what comes after it.
    """

    id: str
    messages: list[dict[str, str]]
    image: str
    prefix: str = ""


class LazyEngine:
    """A model and how it answers, as a context manager: loaded for the first question, closed at the end.

    Args:
        model: a checkpoint's directory, or a hub name in the local cache.
        params: how completions are sampled.
        options: keyword arguments of `geozero.engines.open_engine`.
    """

    def __init__(self, model: Path | str, params: SamplingParams, **options: Any) -> None:
        self.model, self.params, self.options = model, params, {"name": "auto", **options}
        self._engine: Engine | None = None

    def __enter__(self) -> LazyEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def open(self) -> Engine:
        """The engine, loaded by the first call."""
        if self._engine is None:
            self._engine = engines.open_engine(model=self.model, **self.options)
        return self._engine

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the answers besides the questions; reads every byte of the model.

        Raises:
            InputError: no such model.
        """
        sampling = asdict(self.params) | ({} if self.params.temperature else {"seed": None})
        limits = {name: value for name, value in self.options.items() if name not in SPEED_OPTIONS}
        return {
            "model": checkpoint.content_hash(checkpoint.resolve(self.model)),
            "sampling": sampling,
            "limits": limits,
        }

    def key(self, question: Question) -> str:
        """Hash of what decides the answer besides `identity`; a greedy answer does not depend on the question's id."""
        drawn = question.id if self.params.temperature else ""
        return digest(json.dumps([question.messages, question.image, question.prefix, drawn]).encode())


def answer_many(
    model: LazyEngine,
    questions: Sequence[Question],
    load: Callable[[Question], bytes],
    log: AnswerLog | None = None,
    *,
    label: str = "",
    batch: int | None = None,
    readers: int = 1,
    retry_failed: bool = False,
    on_line: Callable[[str], None] = print,
) -> list[list[Completion]]:
    """Answer the questions that the log does not answer yet; a kill costs at most one chunk.

    Args:
        load: reads the encoded image of a question; a BadRecord fails the request.
        log: of `model.identity`, where each chunk is written before the next one begins; None keeps nothing.
        label: begins the progress lines.
        batch: questions per chunk for an engine that does not fill its own batches; None: `CHUNK`.
        readers: threads that read the next chunk's images while the engine works.
        retry_failed: ask the questions whose request failed in an earlier call again.
        on_line: gets a progress line at the end, every 15 s, and one before the model is loaded.

    Returns:
        `params.n` completions per question, in order. Those of a failed request have no text but the reason.
    """
    keys = [model.key(question) for question in questions]
    answers = {} if log is None else log.answers
    pending = {
        key: question
        for key, question in zip(keys, questions, strict=True)
        if key not in answers or (retry_failed and failure(answers[key]))
    }
    if pending:
        progress = _Progress(f"{label}: " if label else "", len(pending), on_line)
        engine = model.open()
        size = CHUNK if batch is None or engine.name == "vllm" else batch
        progress.start()
        for answered in _in_chunks(engine, model.params, pending, load, size, readers):
            if log is None:
                answers |= answered
            else:
                log.append(answered, engine.describe())
            progress.add(answered)
    return [answers[key] for key in keys]


def _in_chunks(
    engine: Engine,
    params: SamplingParams,
    questions: Mapping[str, Question],
    load: Callable[[Question], bytes],
    size: int,
    readers: int,
) -> Iterator[dict[str, list[Completion]]]:
    """The completions of `size` questions at a time, by question key."""

    def read(key: str) -> bytes | BadRecord:
        try:
            return load(questions[key])
        except BadRecord as bad:
            return bad

    keys = list(questions)
    chunks = [keys[start : start + size] for start in range(0, len(keys), size)]
    with ThreadPoolExecutor(max(1, readers)) as pool:
        reading = pool.map(read, chunks[0])
        for chunk, following in zip(chunks, [*chunks[1:], []], strict=True):
            images = dict(zip(chunk, reading, strict=True))
            reading = pool.map(read, following)
            answered, requests = {}, {}
            for key, image in images.items():
                if isinstance(image, BadRecord):
                    answered[key] = failed(str(image), params.n)
                else:
                    question = questions[key]
                    requests[key] = Request(question.id, question.messages, image, prefix=question.prefix)
            if requests:
                answered |= zip(requests, engine.generate(list(requests.values()), params), strict=True)
            yield answered


class _Progress:
    """Writes how many questions are answered, how fast, and how many requests failed."""

    def __init__(self, label: str, total: int, on_line: Callable[[str], None]) -> None:
        self.label, self.total, self.on_line = label, total, on_line
        self.done, self.failures = 0, list[str]()
        on_line(f"{label}{total} questions to ask")

    def start(self) -> None:
        """The model is loaded: speed counts from here."""
        self.started = self.last_line = time.monotonic()

    def add(self, answered: Mapping[str, list[Completion]]) -> None:
        self.done += len(answered)
        self.failures += [reason for completions in answered.values() if (reason := failure(completions))]
        now = time.monotonic()
        if self.done == self.total or now - self.last_line >= SECONDS_BETWEEN_LINES:
            self.last_line = now
            rate = self.done / max(now - self.started, 1e-9)
            line = f"{self.label}{self.done} of {self.total}, {rate:.1f} per second"
            line += f", {(self.total - self.done) / rate:.0f} s left" if self.done < self.total else ""
            line += f"; {len(self.failures)} failed, the first: {self.failures[0]}" if self.failures else ""
            self.on_line(line)
