"""The one inference loop: questions in, completions out, resumable chunk by chunk.

Evaluation and the preflight before RL (`corpus_job`), `geozero infer` (`json_job`), SFT's replay and `geozero predict`
ask their questions here. An answer is stored under the hash of everything that decides it, the image's bytes included
and the label not: a changed image asks its questions again, a corrected label none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from geozero import engines
from geozero.common.errors import BadRecord, InputError
from geozero.common.progress import Progress
from geozero.corpus.sample import digest
from geozero.engines import Completion, Engine, EngineOptions, Request, SamplingParams, checkpoint
from geozero.engines.base import EngineDied, failed
from geozero.engines.families import recorded_min_pixels
from geozero.engines.serving.served_model import trusted_name
from geozero.inference.answer_log import AnswerLog, failure

CHUNK = 256  # questions: what a kill can cost
# What an engine raises for an input that it cannot take; all else ends the run
ITEM_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# Options of `open_engine` that decide where and how fast answers are generated, not which
SPEED_OPTIONS = frozenset({"name", "memory", "devices", "urls", "concurrency", "patience"})


@dataclass(frozen=True, slots=True)
class Question:
    """One prompt about one image."""

    id: str  # names the request; with the base seed it decides what is sampled
    messages: list[dict[str, str]]  # chat turns, `<image>` where the image stands
    image: str  # content hash of the image's bytes
    prefix: str = ""  # what the answer has to begin with; completions hold only what comes after it


class LazyEngine:
    """A model and how it answers, as a context manager: loaded for the first question, closed at the end.

    Args:
        model: a checkpoint's directory, or a hub name in the local cache.
        params: how completions are sampled.
        options: keyword arguments of `geozero.engines.open_engine`.
    """

    def __init__(self, model: Path | str, params: SamplingParams, **options: Any) -> None:
        self.model, self.params, self.options = model, params, {"name": "auto", **options}

    def __enter__(self) -> LazyEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if "engine" in self.__dict__:  # it was loaded
            self.engine.close()

    @cached_property
    def engine(self) -> Engine:
        return engines.open_engine(model=self.model, **self.options)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What decides the answers besides the questions; reads every byte of the model.

        Raises:
            InputError: no such model.
        """
        path = checkpoint.resolve(self.model)
        given = EngineOptions(**{name: value for name, value in self.options.items() if name != "name"})
        apart = SPEED_OPTIONS | {"min_pixels", "trust_server_model"}
        limits = {name: value for name, value in self.options.items() if name not in apart}
        trusted = trusted_name(given.trust_server_model, path, None, 1) if self.options["name"] == "server" else None
        limits |= {} if trusted is None else {"trust_server_model": trusted}
        least = recorded_min_pixels(path, given.max_pixels, given.min_pixels)
        return {
            "model": checkpoint.content_hash(path),
            "sampling": asdict(self.params) | ({} if self.params.temperature else {"seed": None}),
            "limits": limits if least is None else limits | {"min_pixels": least},
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
    on_line: Callable[[str], object] = print,
) -> list[list[Completion]]:
    """Answer the questions that the log does not answer yet; a kill costs at most one chunk.

    Args:
        load: reads the encoded image of a question; a BadRecord fails the request.
        log: of `model.identity`, where each chunk is written before the next one begins; None keeps nothing.
        label: begins the progress lines, which `on_line` gets.
        batch: questions per chunk for an engine that does not fill its own batches; None: `CHUNK`.
        readers: threads that read the next chunk's images while the engine works.
        retry_failed: ask the questions whose request failed in an earlier call again.

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
    if not pending:
        return [answers[key] for key in keys]

    def request(question: Question) -> Request | BadRecord:
        try:
            return Request(question.id, question.messages, load(question), prefix=question.prefix)
        except BadRecord as bad:
            return bad

    on_line(f"{label}{': ' if label else ''}{len(pending)} questions to ask")
    params, failures = model.params, list[str]()
    items, size = list(pending.items()), CHUNK if batch is None or model.engine.name == "vllm" else batch
    chunks = [dict(items[start : start + size]) for start in range(0, len(items), size)]
    with Progress(label, len(pending), "question", write=on_line) as progress, ThreadPoolExecutor(readers or 1) as pool:
        reading = pool.map(request, chunks[0].values())
        for chunk, following in zip(chunks, [*chunks[1:], {}], strict=True):
            requests = list(reading)
            reading = pool.map(request, following.values())  # while the engine works
            valid = [one for one in requests if isinstance(one, Request)]
            found = iter(_generate(model.engine, valid, params) if valid else ())  # not loaded for bad images alone
            answered = {
                key: next(found) if isinstance(one, Request) else failed(str(one), params.n)
                for key, one in zip(chunk, requests, strict=True)
            }
            if log is None:
                answers |= answered
            else:
                log.append(answered, model.engine.describe())
            failures += [reason for completions in answered.values() if (reason := failure(completions))]
            done = progress.done + len(chunk)
            note = f"{done} of {len(pending)}, {len(failures)} failed, the first: {failures[0]}" if failures else ""
            progress.at(done, note)
    return [answers[key] for key in keys]


def _generate(engine: Engine, requests: list[Request], params: SamplingParams) -> list[list[Completion]]:
    """The engine's answers; where it raises, the request that makes it do so is found by halves and fails alone.

    Raises:
        ITEM_ERRORS: the engine raises for every one of several requests, so that none of them is to blame.
    """
    try:
        return engine.generate(requests, params)
    except (EngineDied, InputError):  # no item's fault
        raise
    except ITEM_ERRORS as error:
        if len(requests) == 1:
            return [failed(f"engine_error: {type(error).__name__}: {' '.join(str(error).split())[:200]}", params.n)]
        middle = len(requests) // 2
        found = [*_generate(engine, requests[:middle], params), *_generate(engine, requests[middle:], params)]
        if all(str(failure(completions)).startswith("engine_error") for completions in found):
            raise
        return found
