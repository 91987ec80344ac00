"""Sample K answers to every sample of a corpus in direct mode and keep them in the answer store.

With several models (cross-fitting, our choice) model f answers only about images of fold f, which it was not trained
on. Stored answers are not sampled again, and where none is missing no model is loaded. Adaptive sampling (our choice,
`adaptive`) leaves out answers that no decision needs.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from geozero import engines
from geozero.common.progress import Progress
from geozero.corpus.sample import parse_shard
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store, scoring
from geozero.difficulty.adaptive import rule_file, stopping_rule
from geozero.difficulty.adaptive.stopping_rule import Rule, in_pilot
from geozero.difficulty.answer_store import Answers, AnswerWriter, Fingerprint
from geozero.difficulty.progress import SamplingProgress
from geozero.difficulty.rollout_worker import RolloutWorker, sample_all, sample_until_decided
from geozero.difficulty.settings import SamplingSettings
from geozero.difficulty.work_list import WorkList, build_work_list, stored_answers
from geozero.engines.base import Engine

TRUNCATED_WARNING = 0.05  # share of cut-off answers from which on max_tokens looks too small

AT_WORK_SECONDS = 60.0  # since a worker wrote last, in which the others count on its share of the pilot
WAIT_SECONDS = 1.0
MAX_FAILURES_LOGGED = 5  # kinds of failure

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call of `sample` did."""

    n_samples: int  # over all folds
    k: int
    n_answers: int  # stored for them, new ones included
    n_new: int
    truncated: int  # among the new
    errors: int  # among the new: requests that failed
    empty: int  # among the new: the model ended at once
    tokens: int  # among the new
    seconds: float
    rate: float  # new answers per second, without the time to load models
    directories: tuple[str, ...]  # one per fold
    engines: tuple[dict[str, Any], ...]  # descriptions of the engines that answered; empty where nothing was missing
    adaptive: dict[str, float] | None = None  # savings and their cost, see `stopping_rule.account`


@dataclass(frozen=True, slots=True)
class SamplingRun:
    """The arguments of `sample` that every fold needs."""

    corpus: Corpus
    work: WorkList
    out: Path
    settings: SamplingSettings
    shard: str
    population: Counter[tuple[int, str]]  # (fold, kind) → samples in the whole corpus
    state: SamplingProgress
    on_progress: Callable[[SamplingProgress], None]
    activate_store: Callable[[], None]  # make the answers of this run the store's current ones, if there are none


def sample(
    corpus: Path,
    models: Sequence[Path | str],
    out: Path,
    settings: SamplingSettings,
    *,
    shard: str = "0/1",
    limit: int | None = None,
    retry: Literal["errors"] | None = None,
    progress: Callable[[SamplingProgress], None] | None = None,
    open_engine: Callable[..., Engine] = engines.open_supervised,
) -> Summary:
    """Fill the store at `out` until every sample of the corpus has `settings.k` answers, or is decided.

    Args:
        corpus: directory of the corpus; all its samples are used.
        models: one per fold; a single one is the paper's simple form.
        out: the store.
        shard: `i/n`, the i-th (from 0) of n workers that fill one store.
        limit: at most so many samples, those with the lowest stable hash.
        retry: `errors`: ask again for the answers that failed.
        progress: called when answers were written; None logs a line now and then.
        open_engine: how an engine is opened; `geozero.engines.open_supervised`.

    Raises:
        InputError: no such corpus or model, a wrong shard, or an engine that cannot be kept running.
    """
    source, (number, of) = Corpus(corpus), parse_shard(shard)
    k, adaptive = settings.k, settings.adaptive
    paths, fingerprints = settings.models(models)
    options = [settings.engine_options(path, fold, len(paths)) for fold, path in enumerate(paths)]
    work, population = build_work_list(source, len(models), number, of, limit, adaptive, settings.boxes)
    stored = [
        stored_answers(out, fingerprint, work, fold, k, adaptive is None, retry == "errors")
        for fold, fingerprint in enumerate(fingerprints)
    ]
    missing = [work.in_shard & (work.folds == fold) for fold in range(len(models))]
    state = SamplingProgress(sum(int((m[:, None] & ~s.present).sum()) for m, s in zip(missing, stored, strict=True)))
    out.mkdir(parents=True, exist_ok=True)  # refused before a model is loaded

    more = max(answer_store.rollouts_stored(out / fingerprint.key) for fingerprint in fingerprints)
    if more > k:
        log.info("the store holds up to %d answers a sample; the first %d of each count", more, k)

    def activate_store() -> None:
        """At the start, where no answers are current yet: what is there can be looked at."""
        if not (out / answer_store.CURRENT).is_file():
            answer_store.set_current(out, fingerprints, k, settings.rule_key)

    logged = Progress(write=log.info)
    on_progress = progress or (lambda state: state.show(logged))
    run = SamplingRun(source, work, out, settings, f"{number}of{of}", population, state, on_progress, activate_store)
    answered_by: list[dict[str, Any]] = []
    rules: list[Rule] = []
    for fold, path in enumerate(paths):
        with LazyEngine(run, answered_by) as lazy_engine:
            lazy_engine.open = lambda path=path, fold=fold: open_engine(settings.engine, path, **options[fold])
            rule = _fold(run, fold, fingerprints[fold], stored[fold], lazy_engine)
            rules += [rule] if rule is not None else []
    whole = of == 1 and limit is None
    if whole or answer_store.is_current(out, fingerprints, k, settings.rule_key) or _complete(run, fingerprints):
        answer_store.set_current(out, fingerprints, k, settings.rule_key)
    else:
        log.info("not all samples have these answers yet: `select` goes on with the ones that were complete before")
    _warn(state, settings.max_tokens)
    n_samples = int(work.in_shard.sum())
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
        adaptive=stopping_rule.account(rules, n_samples * k - state.spared, n_samples * k) if rules else None,
    )


class LazyEngine:
    """A fold's engine, opened when it is first needed and closed at the end of the block."""

    def __init__(self, run: SamplingRun, answered_by: list[dict[str, Any]]) -> None:
        self.run, self.answered_by = run, answered_by
        self.open: Callable[[], Engine] | None = None
        self._engine: Engine | None = None

    def __enter__(self) -> LazyEngine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._engine is not None:
            self._engine.close()

    def get(self) -> Engine:
        if self._engine is None:
            assert self.open is not None
            self.run.on_progress(self.run.state)
            start = time.monotonic()
            self._engine = self.open()
            self.run.state.loaded(time.monotonic() - start)
            self.answered_by.append(self._engine.describe())
            self.run.activate_store()  # only now: a server that is down must not hide the stored answers
        return self._engine


def _fold(
    run: SamplingRun, fold: int, fingerprint: Fingerprint, stored: Answers, lazy_engine: LazyEngine
) -> Rule | None:
    """Sample every answer that one fold's store lacks. Returns the stopping rule, if there is one."""
    work = run.work
    in_fold = work.folds == fold
    in_shard = in_fold & work.in_shard
    directory = run.out / fingerprint.key

    def worker() -> RolloutWorker:
        chunk = run.settings.chunk_of(run.state.total)
        engine, writer = lazy_engine.get(), AnswerWriter(run.out, fingerprint, run.shard)
        return RolloutWorker(
            run.corpus, engine, run.settings.draws, writer, run.settings.boxes, chunk, run.state, run.on_progress
        )

    full, pilot, adaptive = in_shard, np.zeros(len(in_fold), bool), run.settings.adaptive
    if adaptive is not None:
        pilot = in_fold & np.array([in_pilot(i, adaptive.pilot) for i in work.ids.to_pylist()]) & ~work.relative
        gaps = stored.present[:, 1:] & ~stored.present[:, :-1]
        full = in_shard & (pilot | work.relative | gaps.any(axis=1))
    missing = full[:, None] & ~stored.present
    if missing.any():
        sample_all(worker(), work, missing)
    if adaptive is None or not in_shard.any():
        return None
    _complete_pilot(run, fold, fingerprint, pilot, worker)
    rule = _rule(run, fold, directory, pilot)
    rest = in_shard & ~full
    undecided = rest & ~stopping_rule.decided([rule] * (fold + 1), work.folds, work.kinds, stored, work.closed)
    run.state.spare(int((rest & ~undecided).sum()) * run.settings.k - int(stored.present[rest & ~undecided].sum()))
    if undecided.any():
        sample_until_decided(worker(), work, undecided, stored, rule)
    return rule


def _complete_pilot(
    run: SamplingRun,
    fold: int,
    fingerprint: Fingerprint,
    pilot: npt.NDArray[np.bool_],
    worker: Callable[[], RolloutWorker],
) -> None:
    """See to it that the whole pilot is stored before the rule is learned, so that the rule is the same whichever
    worker comes first: wait for the others while they write, then sample what they have not.
    """
    settings, work, directory = run.settings, run.work, run.out / fingerprint.key
    assert settings.rule_key is not None
    while rule_file.load(directory, settings.rule_key) is None:
        stored = stored_answers(run.out, fingerprint, work, fold, settings.k, True)
        missing = pilot[:, None] & ~stored.present
        if not missing.any():
            return
        if not _others_write(directory, run.shard):
            run.state.total += int(missing.sum())
            sample_all(worker(), work, missing)
            return
        time.sleep(WAIT_SECONDS)


def _others_write(directory: Path, shard: str) -> bool:
    """Whether workers of other shards have written answers lately."""
    others = (path for path in answer_store.answer_files(directory) if path.name.split("-")[1] != shard)
    newest = max((path.stat().st_mtime for path in others), default=0.0)
    return time.time() - newest < AT_WORK_SECONDS


def _complete(run: SamplingRun, fingerprints: Sequence[Fingerprint]) -> bool:
    """Whether every sample of the corpus has its answers, or is decided; other workers may have sampled them."""
    settings, folds = run.settings, len(fingerprints)
    work, _ = build_work_list(run.corpus, folds, 0, 1, None, settings.adaptive, settings.boxes)
    for fold, fingerprint in enumerate(fingerprints):
        in_fold = work.folds == fold
        stored = stored_answers(run.out, fingerprint, work, fold, settings.k, settings.adaptive is None)
        done = stored.present.all(axis=1) | ~in_fold
        if not done.all() and settings.rule_key is not None:
            rule = rule_file.load(run.out / fingerprint.key, settings.rule_key)
            if rule is not None:
                done |= stopping_rule.decided([rule] * folds, work.folds, work.kinds, stored, work.closed)
        if not done.all():
            return False
    return True


def _rule(run: SamplingRun, fold: int, directory: Path, pilot: npt.NDArray[np.bool_]) -> Rule:
    """The frozen rule of a fold; where there is none yet it is learned from all pilot answers that are stored."""
    settings, key = run.settings, run.settings.rule_key
    assert settings.adaptive is not None and key is not None
    found = rule_file.load(directory, key)
    if found is not None:
        return found
    work = run.work
    assert work.truth is not None
    answers = scoring.load(directory, work.truth, run.settings.k, pilot)
    rows = np.flatnonzero(pilot & answers.asked.all(axis=1))
    population = {kind: n for (of, kind), n in run.population.items() if of == fold}
    rule = stopping_rule.fit(
        work.kinds[rows].tolist(),
        answers.success[rows] == 1,
        answers.alike(work.closed)[rows],
        population,
        settings.k,
        settings.thresholds,
        settings.adaptive,
    )
    log.info("adaptive sampling: rule learned on %d pilot samples", len(rows))
    return rule_file.save(directory, rule)


def _warn(state: SamplingProgress, max_tokens: int) -> None:
    if state.done and state.truncated / state.done > TRUNCATED_WARNING:
        log.warning(
            "%d of %d answers were cut off at %d tokens: consider a larger max_tokens",
            state.truncated,
            state.done,
            max_tokens,
        )
    if state.errors:
        log.warning("%d of %d answers failed and are stored as such", state.errors, state.done)
        for n, words in sorted(state.faults.values(), reverse=True)[:MAX_FAILURES_LOGGED]:
            log.warning("%d of these, the first: %s", n, words)
    if state.empty:
        log.warning("%d of %d answers are empty: the model ended at once", state.empty, state.done)
