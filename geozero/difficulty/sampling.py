"""Sample K answers to every sample of a corpus in direct mode and keep them in the answer store.

With several models (cross-fitting, our choice) model f answers only about images of fold f, which it was not
trained on. What is already stored is not asked again; where nothing is missing no model is loaded. Adaptive sampling
(our choice, `adaptive`) leaves out answers that no decision needs.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero import engines
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store
from geozero.difficulty.adaptive import rule_file, stopping_rule
from geozero.difficulty.adaptive.stopping_rule import Rule, in_pilot
from geozero.difficulty.answer_store import Answers, AnswerWriter, Fingerprint
from geozero.difficulty.progress import SamplingProgress, log_line
from geozero.difficulty.rollout_worker import RolloutWorker, sample_all, sample_until_decided
from geozero.difficulty.settings import SamplingSettings
from geozero.difficulty.work_list import WorkList, build_work_list, parse_shard, stored_answers
from geozero.engines.base import Engine

TRUNCATED_WARNING = 0.05  # share of cut-off answers from which on max_tokens looks too small

MOST_FAULTS = 5  # kinds of failure that are told

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
class SamplingRun:
    """The arguments of `sample` that every fold needs."""

    corpus: Corpus
    wanted: WorkList
    out: Path
    settings: SamplingSettings
    shard: str
    everyone: Counter[tuple[int, str]]  # (fold, kind) → samples in the whole corpus
    state: SamplingProgress
    tell: Callable[[SamplingProgress], None]
    begin: Callable[[], None]  # make the store's current answers those of this call


def sample(
    corpus: Path,
    models: Sequence[Path | str],
    out: Path,
    settings: SamplingSettings,
    *,
    shard: str = "0/1",
    limit: int | None = None,
    progress: Callable[[SamplingProgress], None] | None = None,
    open_engine: Callable[..., Engine] = engines.open_supervised,
) -> Summary:
    """Fill the store at `out` until every sample of the corpus has `settings.k` answers, or is decided.

    Args:
        corpus: directory of the corpus; all its samples are asked about.
        models: one a fold; one alone is the paper's simple form.
        out: the store.
        shard: `i/n`, the i-th (from 0) of n workers that fill one store.
        limit: only so many samples, those of the lowest stable hash.
        progress: called when answers were written; None logs a line now and then.
        open_engine: how an engine is opened; `geozero.engines.open_supervised`.

    Raises:
        InputError: no such corpus or model, a wrong shard, a store that already holds more answers a sample, or an
            engine that cannot be kept running.
    """
    source, (number, of) = Corpus(corpus), parse_shard(shard)
    k, early = settings.k, settings.adaptive
    paths, fingerprints = settings.models(models)
    wanted, everyone = build_work_list(source, len(models), number, of, limit, early)
    stored = [stored_answers(out, fingerprints[fold], wanted, fold, k, early is None) for fold in range(len(models))]
    missing = [wanted.mine & (wanted.folds == fold) for fold in range(len(models))]
    state = SamplingProgress(sum(int((m[:, None] & ~s.present).sum()) for m, s in zip(missing, stored, strict=True)))
    out.mkdir(parents=True, exist_ok=True)  # refused before a model is loaded

    def begin() -> None:
        answer_store.set_current(out, fingerprints, k, settings.rule_key)

    call = SamplingRun(source, wanted, out, settings, f"{number}of{of}", everyone, state, progress or log_line(), begin)
    answered_by: list[dict[str, Any]] = []
    rules: list[Rule] = []
    for fold, path in enumerate(paths):
        with _Lazy(call, answered_by) as lazy:
            lazy.open = lambda path=path: open_engine(settings.engine, path, **settings.engine_options())
            rule = _fold(call, fold, fingerprints[fold], stored[fold], lazy)
            rules += [rule] if rule is not None else []
    call.begin()
    _warn(state, settings.max_tokens)
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
        adaptive=stopping_rule.account(rules, n_samples * k - state.spared, n_samples * k) if rules else None,
    )


class _Lazy:
    """A fold's engine, opened when it is first needed and closed at the end of the block."""

    def __init__(self, call: SamplingRun, answered_by: list[dict[str, Any]]) -> None:
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
            start = time.monotonic()
            self._engine = self.open()
            self.call.state.loaded(time.monotonic() - start)
            self.answered_by.append(self._engine.describe())
            self.call.begin()  # not before: a server that is down must not hide the answers that are there
        return self._engine


def _fold(call: SamplingRun, fold: int, fingerprint: Fingerprint, stored: Answers, lazy: _Lazy) -> Rule | None:
    """Ask for all that one fold's store lacks. Returns the stopping rule, if there is one."""
    wanted = call.wanted
    members = wanted.folds == fold
    mine = members & wanted.mine
    ids = wanted.ids.to_pylist()
    directory = call.out / fingerprint.key

    def job() -> RolloutWorker:
        chunk = call.settings.chunk_of(call.state.total)
        engine, writer = lazy.engine(), AnswerWriter(call.out, fingerprint, call.shard)
        return RolloutWorker(
            call.corpus, engine, call.settings.draws, writer, call.settings.boxes, chunk, call.state, call.tell
        )

    full, pilot, early = mine, np.zeros(len(ids), bool), call.settings.adaptive
    if early is not None:
        pilot = members & np.array([in_pilot(i, early.pilot) for i in ids]) & (wanted.tasks != "caption")
        gaps = stored.present[:, 1:] & ~stored.present[:, :-1]
        full = mine & (pilot | (wanted.tasks == "caption") | gaps.any(axis=1))
    missing = full[:, None] & ~stored.present
    if missing.any():
        sample_all(job(), {ids[row]: row for row in np.flatnonzero(missing.any(axis=1))}, missing)
    if early is None or not mine.any():
        return None
    rule = _rule(call, fold, directory, pilot)
    rest = mine & ~full
    undecided = rest & ~stopping_rule.decided([rule] * (fold + 1), wanted.folds, wanted.kinds, stored, wanted.closed)
    call.state.spare(int((rest & ~undecided).sum()) * call.settings.k - int(stored.present[rest & ~undecided].sum()))
    if undecided.any():
        sample_until_decided(job(), {ids[row]: row for row in np.flatnonzero(undecided)}, stored, rule)
    return rule


def _rule(call: SamplingRun, fold: int, directory: Path, pilot: npt.NDArray[np.bool_]) -> Rule:
    """The frozen rule of a fold; where there is none yet it is learned from all pilot answers that are stored."""
    settings, key = call.settings, call.settings.rule_key
    assert settings.adaptive is not None and key is not None
    found = rule_file.load(directory, key)
    if found is not None:
        return found
    wanted = call.wanted
    answers = answer_store.load(directory, wanted.ids, wanted.prompts, call.settings.k, pilot)
    rows = np.flatnonzero(pilot & answers.asked.all(axis=1))
    everyone = {kind: n for (of, kind), n in call.everyone.items() if of == fold}
    rule = stopping_rule.fit(
        wanted.kinds[rows].tolist(),
        answers.success[rows] == 1,
        answers.alike(wanted.closed)[rows],
        everyone,
        settings.k,
        settings.thresholds,
        settings.adaptive,
    )
    log.info("adaptive sampling: rule learned on %d pilot samples", len(rows))
    return rule_file.save(directory, rule)


def _warn(state: SamplingProgress, max_tokens: int) -> None:
    if state.done and state.truncated / state.done > TRUNCATED_WARNING:
        log.warning(
            "%d of %d answers were cut off at %d tokens: a larger max_tokens may be due",
            state.truncated,
            state.done,
            max_tokens,
        )
    if state.errors:
        log.warning("%d of %d answers failed and are stored as such", state.errors, state.done)
        for n, words in sorted(state.faults.values(), reverse=True)[:MOST_FAULTS]:
            log.warning("%d of these, the first: %s", n, words)
    if state.empty:
        log.warning("%d of %d answers are empty: the model ended at once", state.empty, state.done)
