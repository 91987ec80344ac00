"""Sample K answers to every sample of a corpus in direct mode and keep them in the answer store.

With several models (cross-fitting, our choice) model f answers only about pictures of fold f, which it was not
trained on. What is already stored is not asked again; where nothing is missing no model is loaded.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geozero import engines, tasks
from geozero.corpus import Corpus
from geozero.difficulty import store as answer_store
from geozero.difficulty.store import AnswerWriter, Fingerprint
from geozero.engines import checkpoint
from geozero.engines.base import Completion, Engine, Request, SamplingParams, request_seed
from geozero.engines.template import TEMPLATE
from geozero.errors import InputError
from geozero.sample import Sample, fold_of, stable_unit
from geozero.tasks.boxes import Convention
from geozero.tasks.text import read_answer

TRUNCATED_WARNING = 0.05  # share of cut-off answers from which on max_tokens looks too small
SECONDS_BETWEEN_LINES = 15.0

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Progress:
    """Where a sampling stands; numbers of answers of this call."""

    total: int
    done: int = 0
    truncated: int = 0
    errors: int = 0
    started: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float:
        """Answers a second, loading of models included."""
        return self.done / max(1e-9, time.monotonic() - self.started)

    @property
    def seconds_left(self) -> float:
        return (self.total - self.done) / self.rate if self.done else float("inf")

    def line(self) -> str:
        """One plain line."""
        left = f"{self.seconds_left:.0f} s left" if self.done else "loading the model"
        return f"sampled {self.done:,} of {self.total:,} answers, {self.rate:.1f} a second, {left}"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call of `sample` did."""

    n_samples: int  # asked for, over all folds
    k: int
    n_answers: int  # stored for them, new ones included
    n_new: int
    truncated: int  # among the new
    errors: int  # among the new: requests that could not be asked
    seconds: float
    directories: tuple[str, ...]  # one a fold
    engines: tuple[dict[str, Any], ...]  # what answered; empty where nothing was missing


@dataclass(frozen=True, slots=True)
class Wanted:
    """The samples of one call [N]: ids, today's prompt hashes, folds."""

    ids: pa.Array
    prompts: pa.Array
    folds: npt.NDArray[np.int64]


def sample(
    corpus: Path,
    models: Sequence[Path | str],
    out: Path,
    *,
    engine: str = "auto",
    k: int = 8,
    temperature: float = 1.0,
    top_p: float = 1.0,
    max_tokens: int = 256,
    seed: int = 7,
    chunk: int = 256,
    max_pixels: int = 1024 * 1024,
    max_length: int = 4096,
    dtype: str = "auto",
    template: str = TEMPLATE,
    model_type: str = "qwen3_vl",
    boxes: Convention = "norm1000",
    memory: float = 0.9,
    shard: str = "0/1",
    limit: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    open_engine: Callable[..., Engine] = engines.open_engine,
) -> Summary:
    """Fill the store at `out` until every sample of the corpus has `k` answers.

    Args:
        corpus: directory of the corpus; all its samples are asked about.
        models: one a fold; one alone is the paper's simple form.
        out: the store.
        k: answers a sample; a store can grow to more, never shrink.
        seed: base seed; each answer's own is a stable hash of it, the sample and the rollout.
        chunk: answers written at a time, at least one sample's: what a kill can cost.
        shard: `i/n`, the i-th (from 0) of n workers that fill one store.
        limit: only so many samples, those of the lowest stable hash.
        progress: called after each chunk; None logs a line now and then.
        open_engine: how an engine is opened; `geozero.engines.open_engine`.

    Raises:
        InputError: no such corpus or model, a wrong shard, or a store that already holds more answers a sample.
    """
    source, number, of = Corpus(corpus), *parse_shard(shard)
    if k < 1 or not models:
        raise InputError("nothing to sample: it takes at least one model and one answer", "--k", "give --k 1 or more")
    paths = [checkpoint.resolve(model) for model in models]
    hashes = {path: checkpoint.content_hash(path) for path in set(paths)}
    prompt = answer_store.prompt_form()
    fingerprints = [
        Fingerprint(
            hashes[path], prompt, float(temperature), float(top_p), max_tokens, seed, max_pixels, max_length, boxes
        )
        for path in paths
    ]
    wanted = _wanted(source, len(models), number, of, limit)
    if not len(wanted.ids):
        raise InputError("no samples to ask about", str(corpus), "choose another corpus, or fewer --shard workers")
    missing = [_missing(out, fingerprints[fold], wanted, fold, k) for fold in range(len(models))]
    answer_store.set_current(out, fingerprints, k)
    state = Progress(sum(int(m.sum()) for m in missing))
    tell = progress or _log_line()
    answered_by = []
    for fold, path in enumerate(paths):
        if not missing[fold].any():
            continue
        tell(state)
        opened = open_engine(
            engine,
            path,
            dtype=dtype,
            max_pixels=max_pixels,
            max_length=max_length,
            template=template,
            model_type=model_type,
            memory=memory,
        )
        try:
            answered_by.append(opened.describe())
            params = SamplingParams(k, float(temperature), float(top_p), max_tokens, seed)
            writer = AnswerWriter(out, fingerprints[fold], f"{number}of{of}")
            _fill(source, wanted, missing[fold], opened, params, writer, boxes, chunk, state, tell)
        finally:
            opened.close()
    if state.done and state.truncated / state.done > TRUNCATED_WARNING:
        log.warning(
            "%d of %d answers were cut off at %d tokens: a larger max_tokens may be due",
            state.truncated,
            state.done,
            max_tokens,
        )
    if state.errors:
        log.warning("%d of %d answers failed: picture or prompt out of bounds", state.errors, state.done)
    return Summary(
        n_samples=len(wanted.ids),
        k=k,
        n_answers=len(wanted.ids) * k,
        n_new=state.done,
        truncated=state.truncated,
        errors=state.errors,
        seconds=time.monotonic() - state.started,
        directories=tuple(str(out / f.key) for f in fingerprints),
        engines=tuple(answered_by),
    )


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` with 0 ≤ i < n.

    Raises:
        InputError: anything else.
    """
    left, _, right = text.partition("/")
    if left.isascii() and left.isdigit() and right.isascii() and right.isdigit() and int(left) < int(right):
        return int(left), int(right)
    raise InputError(f"no such shard '{text}'", "--shard", "write i/n with i from 0 to n - 1, such as 0/4")


def _wanted(corpus: Corpus, folds: int, number: int, of: int, limit: int | None) -> Wanted:
    chosen: Iterator[Sample] | list[Sample] = corpus.samples()
    if limit is not None:
        chosen = heapq.nsmallest(limit, corpus.samples(), key=lambda s: (stable_unit(s.id, "limit"), s.id))
    rows = [
        (s.id, answer_store.prompt_hash(s), fold_of(s.image_key, folds))
        for s in chosen
        if int(stable_unit(s.id, "shard") * of) == number
    ]
    ids, prompts, fold = zip(*rows, strict=True) if rows else ((), (), ())
    return Wanted(pa.array(ids, pa.string()), pa.array(prompts, pa.string()), np.array(fold, np.int64))


def _missing(out: Path, fingerprint: Fingerprint, wanted: Wanted, fold: int, k: int) -> npt.NDArray[np.bool_]:
    """Which answers of one fold's samples are still to be asked for [N, k]."""
    directory = out / fingerprint.key
    stored = answer_store.rollouts_stored(directory)
    if stored > k:
        raise InputError(
            f"the store already holds {stored} answers a sample, more than the {k} asked for",
            str(directory),
            f"use --k {stored} or another --out",
        )
    members = wanted.folds == fold
    there = answer_store.answered(directory, wanted.ids, wanted.prompts, k, members)
    missing: npt.NDArray[np.bool_] = members[:, None] & ~there
    return missing


def _fill(
    corpus: Corpus,
    wanted: Wanted,
    missing: npt.NDArray[np.bool_],
    engine: Engine,
    params: SamplingParams,
    writer: AnswerWriter,
    boxes: Convention,
    chunk: int,
    state: Progress,
    tell: Callable[[Progress], None],
) -> None:
    """Ask for the missing answers, chunk by chunk, in the corpus's order."""
    model = writer.fingerprint.model
    rows_of = {str(i): row for row, i in enumerate(wanted.ids.to_pylist()) if missing[row].any()}
    for batch in _batches(corpus, rows_of, missing, chunk):
        rows: list[dict[str, Any]] = []
        # a store that grows misses a tail of rollouts; ask together what misses the same one
        for first in sorted({first for _, first in batch}):
            group = [s for s, f in batch if f == first]
            requests = [
                Request(
                    s.id,
                    tasks.messages(s, "direct"),
                    corpus.image_bytes(s.image_id),
                    request_seed(params.seed, s.id) + first,
                )
                for s in group
            ]
            asked = SamplingParams(params.n - first, params.temperature, params.top_p, params.max_tokens, params.seed)
            for s, completions in zip(group, engine.generate(requests, asked), strict=True):
                prompt = answer_store.prompt_hash(s)
                rows.extend(
                    answer_row(s, rollout, completion, boxes, model, prompt)
                    for rollout, completion in enumerate(completions, start=first)
                    if missing[rows_of[s.id], rollout]
                )
        writer.write(rows)
        state.done += len(rows)
        state.truncated += sum(row["finish_reason"] == "length" for row in rows)
        state.errors += sum(row["finish_reason"] == "error" for row in rows)
        tell(state)


def _batches(
    corpus: Corpus, rows_of: dict[str, int], missing: npt.NDArray[np.bool_], chunk: int
) -> Iterator[list[tuple[Sample, int]]]:
    """Samples with their first missing rollout, together about `chunk` missing answers."""
    batch: list[tuple[Sample, int]] = []
    answers = 0
    for s in corpus.samples():
        row = rows_of.get(s.id)
        if row is None:
            continue
        n = int(missing[row].sum())
        if batch and answers + n > chunk:
            yield batch
            batch, answers = [], 0
        batch.append((s, int(missing[row].argmax())))
        answers += n
    if batch:
        yield batch


def answer_row(
    s: Sample, rollout: int, completion: Completion, boxes: Convention, model: str, prompt: str
) -> dict[str, Any]:
    """One row of the store: the completion, its reward in direct mode, and whether it is a success."""
    task = tasks.get(s.task)
    failed = completion.finish_reason == "error"
    reward = 0.0 if failed else task.reward(completion.text, s, "direct", boxes)
    return {
        "id": s.id,
        "rollout": rollout,
        "text": completion.text,
        "answer": read_answer(completion.text, "direct"),
        "success": None if failed else task.succeeds(reward),
        "reward": reward,
        "finish_reason": completion.finish_reason,
        "n_tokens": completion.n_tokens,
        "seed": completion.seed,
        "model": model,
        "prompt_hash": prompt,
    }


def _log_line() -> Callable[[Progress], None]:
    last = [0.0]

    def tell(state: Progress) -> None:
        now = time.monotonic()
        if now - last[0] >= SECONDS_BETWEEN_LINES or state.done == state.total:
            last[0] = now
            log.info(state.line())

    return tell
