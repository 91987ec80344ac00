"""Sample K answers to every sample of a corpus in direct mode and keep them in the answer store.

With several models (cross-fitting, our choice) model f answers only about pictures of fold f, which it was not
trained on. What is already stored is not asked again; where nothing is missing no model is loaded. Adaptive sampling
(our choice, `adaptive`) leaves out answers that no decision needs.
"""

from __future__ import annotations

import heapq
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geozero import engines
from geozero.corpus import Corpus
from geozero.difficulty import adaptive as stopping
from geozero.difficulty import store as answer_store
from geozero.difficulty.adaptive import Rule, in_pilot, kind_of
from geozero.difficulty.asking import Job, ask_all, ask_until_decided
from geozero.difficulty.bands import CLOSED_TASKS
from geozero.difficulty.progress import Progress, log_line
from geozero.difficulty.store import Answers, AnswerWriter, Fingerprint
from geozero.engines import checkpoint
from geozero.engines.base import Engine, SamplingParams
from geozero.engines.template import TEMPLATE
from geozero.errors import InputError
from geozero.params import Adaptive, Select
from geozero.sample import Sample, fold_of, stable_unit
from geozero.tasks.boxes import Convention

CHUNK_SHARE = 0.02  # of the job: so much a kill may cost; an engine empties itself at the end of each chunk
MOST_CHUNK = 2048  # answers; the pictures of two chunks are in memory
TRUNCATED_WARNING = 0.05  # share of cut-off answers from which on max_tokens looks too small

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call of `sample` did."""

    n_samples: int  # asked for, over all folds
    k: int
    n_answers: int  # stored for them, new ones included
    n_new: int
    truncated: int  # among the new
    errors: int  # among the new: requests that could not be asked
    empty: int  # among the new: the model ended at once
    tokens: int  # among the new
    seconds: float
    rate: float  # new answers a second, loading of models left out
    directories: tuple[str, ...]  # one a fold
    engines: tuple[dict[str, Any], ...]  # what answered; empty where nothing was missing
    adaptive: dict[str, float] | None = None  # what it saved and what that costs, see `adaptive.account`


@dataclass(frozen=True, slots=True)
class Wanted:
    """The samples of one call [N] and, for adaptive sampling, the whole corpus's pilot."""

    ids: pa.Array
    prompts: pa.Array  # today's prompt hashes
    folds: npt.NDArray[np.int64]
    tasks: npt.NDArray[np.str_]
    kinds: npt.NDArray[np.str_]
    mine: npt.NDArray[np.bool_]  # of this worker's shard; only pilot samples of others are listed beside them

    @property
    def closed(self) -> npt.NDArray[np.bool_]:
        return np.isin(self.tasks, CLOSED_TASKS)


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of `sample` that every fold needs."""

    corpus: Corpus
    wanted: Wanted
    out: Path
    k: int
    chunk: int
    shard: str
    boxes: Convention
    params: SamplingParams
    adaptive: Adaptive | None
    thresholds: Select
    everyone: Counter[tuple[int, str]]  # (fold, kind) → samples in the whole corpus
    state: Progress
    tell: Callable[[Progress], None]


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
    urls: Sequence[str] = (),
    adaptive: Adaptive | None = None,
    thresholds: Select | None = None,
    timeout: float = 1800.0,
    restarts: int = 3,
    recycle: int | None = None,
    shard: str = "0/1",
    limit: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    open_engine: Callable[..., Engine] = engines.open_supervised,
) -> Summary:
    """Fill the store at `out` until every sample of the corpus has `k` answers, or is decided.

    Args:
        corpus: directory of the corpus; all its samples are asked about.
        models: one a fold; one alone is the paper's simple form.
        out: the store.
        k: answers a sample; a store can grow to more, never shrink.
        seed: base seed; each answer's own is a stable hash of it, the sample and the rollout.
        chunk: answers written at a time, at least one sample's: what a kill can cost; in a long job 2 % of it, at most
            2,048.
        urls: servers, for the engine `server`.
        adaptive: ask no further about samples that are decided under `thresholds`.
        thresholds: those of the selection to come; default `Select()`.
        timeout: seconds after which an engine that owes a chunk is ended and started again.
        restarts: how often in a row.
        recycle: requests after which the engine is started anew.
        shard: `i/n`, the i-th (from 0) of n workers that fill one store.
        limit: only so many samples, those of the lowest stable hash.
        progress: called after each chunk; None logs a line now and then.
        open_engine: how an engine is opened; `geozero.engines.open_supervised`.

    Raises:
        InputError: no such corpus or model, a wrong shard, a store that already holds more answers a sample, or an
            engine that cannot be kept running.
    """
    source, (number, of) = Corpus(corpus), parse_shard(shard)
    paths, fingerprints = prepare(
        models,
        k=k,
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        seed=seed,
        max_pixels=max_pixels,
        max_length=max_length,
        boxes=boxes,
    )
    wanted, everyone = wanted_samples(source, len(models), number, of, limit, adaptive)
    thresholds = thresholds or Select()
    key = None if adaptive is None else stopping.rule_key(k, thresholds.easy, thresholds.hard, adaptive)
    stored = [stored_answers(out, fingerprints[fold], wanted, fold, k, adaptive is None) for fold in range(len(models))]
    missing = [wanted.mine & (wanted.folds == fold) for fold in range(len(models))]
    state = Progress(sum(int((m[:, None] & ~s.present).sum()) for m, s in zip(missing, stored, strict=True)))
    answer_store.set_current(out, fingerprints, k, key)
    call = Call(
        source,
        wanted,
        out,
        k,
        max(chunk, min(MOST_CHUNK, int(CHUNK_SHARE * state.total))),
        f"{number}of{of}",
        boxes,
        SamplingParams(k, float(temperature), float(top_p), max_tokens, seed),
        adaptive,
        thresholds,
        everyone,
        state,
        progress or log_line(),
    )
    answered_by: list[dict[str, Any]] = []
    rules: list[Rule] = []
    for fold, path in enumerate(paths):
        with _Lazy(call, answered_by) as lazy:
            lazy.open = lambda path=path: open_engine(
                engine,
                path,
                dtype=dtype,
                max_pixels=max_pixels,
                max_length=max_length,
                template=template,
                model_type=model_type,
                memory=memory,
                urls=tuple(urls),
                timeout=timeout,
                restarts=restarts,
                recycle=recycle,
            )
            rule = _fold(call, fold, fingerprints[fold], stored[fold], lazy)
            rules += [rule] if rule is not None else []
    _warn(state, max_tokens)
    n_samples = int(wanted.mine.sum())
    return Summary(
        n_samples=n_samples,
        k=k,
        n_answers=n_samples * k - state.spared,
        n_new=state.done,
        truncated=state.truncated,
        errors=state.errors,
        empty=state.empty,
        tokens=state.tokens,
        seconds=time.monotonic() - state.started,
        rate=state.rate,
        directories=tuple(str(out / f.key) for f in fingerprints),
        engines=tuple(answered_by),
        adaptive=stopping.account(rules, n_samples * k - state.spared, n_samples * k) if rules else None,
    )


def prepare(
    models: Sequence[Path | str],
    *,
    k: int,
    temperature: float,
    top_p: float,
    max_tokens: int,
    seed: int,
    max_pixels: int,
    max_length: int,
    boxes: Convention,
) -> tuple[list[Path], list[Fingerprint]]:
    """Directory and fingerprint of each fold's model.

    Raises:
        InputError: no model, or none that is whole; k below 1.
    """
    if k < 1 or not models:
        raise InputError("nothing to sample: it takes at least one model and one answer", "--k", "give --k 1 or more")
    paths = [checkpoint.resolve(model) for model in models]
    hashes = {path: checkpoint.content_hash(path) for path in set(paths)}
    prompt = answer_store.prompt_form()
    return paths, [
        Fingerprint(
            hashes[path], prompt, float(temperature), float(top_p), max_tokens, seed, max_pixels, max_length, boxes
        )
        for path in paths
    ]


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` with 0 ≤ i < n.

    Raises:
        InputError: anything else.
    """
    left, _, right = text.partition("/")
    if left.isascii() and left.isdigit() and right.isascii() and right.isdigit() and int(left) < int(right):
        return int(left), int(right)
    raise InputError(f"no such shard '{text}'", "--shard", "write i/n with i from 0 to n - 1, such as 0/4")


class _Lazy:
    """A fold's engine, opened when it is first needed and closed at the end of the block."""

    def __init__(self, call: Call, answered_by: list[dict[str, Any]]) -> None:
        self.call, self.answered_by = call, answered_by
        self.open: Callable[[], Engine] | None = None
        self._engine: Engine | None = None

    def __enter__(self) -> _Lazy:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def engine(self) -> Engine:
        if self._engine is None:
            assert self.open is not None
            self.call.tell(self.call.state)
            self._engine = self.open()
            self.answered_by.append(self._engine.describe())
            self.call.state.generating = self.call.state.generating or time.monotonic()
        return self._engine


def _fold(call: Call, fold: int, fingerprint: Fingerprint, stored: Answers, lazy: _Lazy) -> Rule | None:
    """Ask for all that one fold's store lacks. Returns the stopping rule, if there is one."""
    wanted = call.wanted
    members = wanted.folds == fold
    mine = members & wanted.mine
    ids = wanted.ids.to_pylist()
    writer = AnswerWriter(call.out, fingerprint, call.shard)

    def job() -> Job:
        engine = lazy.engine()
        return Job(call.corpus, engine, call.params, writer, call.boxes, call.chunk, call.state, call.tell)

    full, pilot = mine, np.zeros(len(ids), bool)
    if call.adaptive is not None:
        pilot = members & np.array([in_pilot(i, call.adaptive.pilot) for i in ids]) & (wanted.tasks != "caption")
        gaps = stored.present[:, 1:] & ~stored.present[:, :-1]
        full = mine & (pilot | (wanted.tasks == "caption") | gaps.any(axis=1))
    missing = full[:, None] & ~stored.present
    if missing.any():
        ask_all(job(), {ids[row]: row for row in np.flatnonzero(missing.any(axis=1))}, missing)
    if call.adaptive is None or not members.any():
        return None
    rule = _rule(call, fold, writer.path, pilot)
    rest = mine & ~full
    undecided = rest & ~stopping.decided([rule] * (fold + 1), wanted.folds, wanted.kinds, stored, wanted.closed)
    call.state.spare(int((rest & ~undecided).sum()) * call.k - int(stored.present[rest & ~undecided].sum()))
    if undecided.any():
        ask_until_decided(job(), {ids[row]: row for row in np.flatnonzero(undecided)}, stored, rule)
    return rule


def _rule(call: Call, fold: int, directory: Path, pilot: npt.NDArray[np.bool_]) -> Rule:
    """The frozen rule of a fold; where there is none yet it is learned from all pilot answers that are stored."""
    assert call.adaptive is not None
    key = stopping.rule_key(call.k, call.thresholds.easy, call.thresholds.hard, call.adaptive)
    found = stopping.load(directory, key)
    if found is not None:
        return found
    wanted = call.wanted
    answers = answer_store.load(directory, wanted.ids, wanted.prompts, call.k, pilot)
    rows = np.flatnonzero(pilot & answers.asked.all(axis=1))
    everyone = {kind: n for (of, kind), n in call.everyone.items() if of == fold}
    rule = stopping.fit(
        wanted.kinds[rows].tolist(),
        answers.success[rows] == 1,
        answers.alike(wanted.closed)[rows],
        everyone,
        call.k,
        call.thresholds,
        call.adaptive,
    )
    log.info("adaptive sampling: rule learned on %d pilot samples", len(rows))
    return stopping.save(directory, rule)


def _warn(state: Progress, max_tokens: int) -> None:
    if state.done and state.truncated / state.done > TRUNCATED_WARNING:
        log.warning(
            "%d of %d answers were cut off at %d tokens: a larger max_tokens may be due",
            state.truncated,
            state.done,
            max_tokens,
        )
    if state.errors:
        log.warning("%d of %d answers failed: picture or prompt out of bounds", state.errors, state.done)
    if state.empty:
        log.warning("%d of %d answers are empty: the model ended at once", state.empty, state.done)


def wanted_samples(
    corpus: Corpus, folds: int, number: int, of: int, limit: int | None, adaptive: Adaptive | None
) -> tuple[Wanted, Counter[tuple[int, str]]]:
    """The samples of worker `number` of `of`, and how many there are in all by (fold, kind).

    Raises:
        InputError: this worker has none.
    """
    chosen: Iterator[Sample] | list[Sample] = corpus.samples()
    if limit is not None:
        chosen = heapq.nsmallest(limit, corpus.samples(), key=lambda s: (stable_unit(s.id, "limit"), s.id))
    rows, everyone = [], Counter[tuple[int, str]]()
    for s in chosen:
        mine, fold, kind = int(stable_unit(s.id, "shard") * of) == number, fold_of(s.image_key, folds), kind_of(s)
        everyone[(fold, kind)] += 1
        if mine or (adaptive is not None and in_pilot(s.id, adaptive.pilot)):
            rows.append((s.id, answer_store.prompt_hash(s), fold, s.task, kind, mine))
    if not any(row[-1] for row in rows):
        raise InputError("no samples to ask about", str(corpus.path), "choose another corpus, or fewer --shard workers")
    ids, prompts, fold_column, tasks, kinds, own = zip(*rows, strict=True)
    wanted = Wanted(
        pa.array(ids, pa.string()),
        pa.array(prompts, pa.string()),
        np.array(fold_column, np.int64),
        np.array(tasks, str),
        np.array(kinds, str),
        np.array(own, bool),
    )
    return wanted, everyone


def stored_answers(
    out: Path, fingerprint: Fingerprint, wanted: Wanted, fold: int, k: int, only_present: bool
) -> Answers:
    """What the store holds of one fold's samples [N, k]; of answers that are only counted nothing else is read."""
    directory = out / fingerprint.key
    stored = answer_store.rollouts_stored(directory)
    if stored > k:
        raise InputError(
            f"the store already holds {stored} answers a sample, more than the {k} asked for",
            str(directory),
            f"use --k {stored} or another --out",
        )
    members = wanted.folds == fold
    if not only_present:
        return answer_store.load(directory, wanted.ids, wanted.prompts, k, members)
    answers = Answers.empty(len(wanted.ids), k)
    answers.present[:] = answer_store.answered(directory, wanted.ids, wanted.prompts, k, members)
    return answers
