"""Keep an engine busy and write its answers into the store, part by part.

At most one chunk of answers is in flight or unwritten. Each part that is written makes room for new requests, so the
engine's batch never runs empty in between. Images are read while the engine works.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from geozero import tasks
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store
from geozero.difficulty.adaptive.stopping_rule import Rule, gives_up, kind_of
from geozero.difficulty.answer_store import Answers, AnswerWriter, meaning
from geozero.difficulty.progress import SamplingProgress
from geozero.difficulty.scoring import reward_of, score_key
from geozero.difficulty.work_list import WorkList
from geozero.engines.base import Completion, Engine, Request, SamplingParams, request_seed
from geozero.tasks.boxes import Convention
from geozero.tasks.text import read_answer

LARGE = 1024  # answers; half of such a chunk fills any engine's batch while the other half waits to be written

Item = TypeVar("Item")


@dataclass(slots=True)
class RolloutWorker:
    """An engine with everything needed to turn requests into stored answers, and the requests in flight."""

    corpus: Corpus
    engine: Engine
    params: SamplingParams  # n: K
    writer: AnswerWriter
    boxes: Convention
    chunk: int
    state: SamplingProgress
    on_progress: Callable[[SamplingProgress], None]
    _in_flight: dict[str, RolloutRequest] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)  # not written yet

    @property
    def part(self) -> int:
        """Answers written together."""
        return part_of(self.chunk)

    @property
    def busy(self) -> bool:
        """Whether requests are in flight."""
        return bool(self._in_flight)

    @property
    def room(self) -> int:
        """How many more answers may be requested."""
        return self.chunk - sum(rollouts.count for rollouts in self._in_flight.values()) - len(self._rows)

    def submit(self, batch: Sequence[RolloutRequest]) -> None:
        """Send these to the engine, without waiting."""
        by_count: dict[int, list[RolloutRequest]] = defaultdict(list)
        for rollouts in batch:
            by_count[rollouts.count].append(rollouts)
            self._in_flight[rollouts.sample.id] = rollouts
        for count, group in sorted(by_count.items()):
            requests = [rollouts.request(self.params.seed) for rollouts in group]
            self.engine.submit(requests, replace(self.params, n=count))

    def collect(self) -> list[dict[str, Any]]:
        """Some answers as rows of the store; they are written once there are enough, or when none is in flight."""
        fingerprint, found = self.writer.fingerprint, []
        for name, completions in self.engine.collect():
            rollouts = self._in_flight.pop(name)
            prompt = answer_store.prompt_hash(rollouts.sample)
            for rollout, completion in enumerate(completions, start=rollouts.first):
                if rollouts.skip is None or not rollouts.skip[rollout]:
                    if not completion.is_answer:
                        self.state.failed(completion.error or "unknown")
                    found.append(
                        answer_row(rollouts.sample, rollout, completion, self.boxes, fingerprint.model, prompt)
                    )
        self._rows += found
        if len(self._rows) >= self.part or not self._in_flight:
            self.writer.write(sorted(self._rows, key=lambda row: (row["id"], row["rollout"])))
            self.state.add(self._rows)
            self.on_progress(self.state)
            self._rows = []
        return found


@dataclass(slots=True)
class RolloutRequest:
    """Answers `first` … `first + count - 1` of a sample; `skip` marks what is stored already [K]."""

    sample: Sample
    image: bytes
    first: int
    count: int
    skip: npt.NDArray[np.bool_] | None = None

    def request(self, seed: int) -> Request:
        return Request(
            self.sample.id,
            tasks.messages(self.sample, "direct"),
            self.image,
            request_seed(seed, self.sample.id) + self.first,
        )


def part_of(chunk: int) -> int:
    """How many answers of a chunk are written together.

    A quarter of a small chunk, because answers that wait to be written are missing from the engine's batch; half of a
    large one, because few large files are read faster.
    """
    return max(1, chunk // (2 if chunk >= LARGE else 4))


def sample_all(worker: RolloutWorker, work: WorkList, missing: npt.NDArray[np.bool_]) -> None:
    """Sample every missing answer [N, K] of a work list, in the order of the corpus."""

    def requests() -> Iterator[RolloutRequest]:
        for row, s in work.walk(worker.corpus, np.asarray(missing.any(axis=1))):
            first = int(missing[row].argmax())
            last = missing.shape[1] - int(missing[row, ::-1].argmax())
            yield RolloutRequest(s, worker.corpus.image_bytes(s.image_id), first, last - first, ~missing[row])

    for batch in ahead(_batches(requests(), max(1, worker.part // 2))):
        while worker.busy and worker.room < sum(rollouts.count for rollouts in batch):
            worker.collect()
        worker.submit(batch)
    while worker.busy:
        worker.collect()


def _batches(requests: Iterable[RolloutRequest], chunk: int) -> Iterator[list[RolloutRequest]]:
    """Groups of requests with about `chunk` answers together."""
    batch: list[RolloutRequest] = []
    answers = 0
    for rollouts in requests:
        if batch and answers + rollouts.count > chunk:
            yield batch
            batch, answers = [], 0
        batch.append(rollouts)
        answers += rollouts.count
    if batch:
        yield batch


@dataclass(slots=True)
class PendingSample:
    """A sample that is not decided yet, and what its answers say so far."""

    rollouts: RolloutRequest
    kind: str
    closed: bool
    n: int
    successes: int
    alike: bool
    first_meaning: int  # of its first answer
    n_failed: int = 0  # of its n answers

    def add(self, row: dict[str, Any]) -> None:
        """Count one more answer."""
        found = meaning(row["answer"])
        self.alike = self.closed and found != 0 and (self.n == 0 or (self.alike and found == self.first_meaning))
        self.first_meaning = found if self.n == 0 else self.first_meaning
        self.successes += row["success"] is True
        self.n_failed += row["error"] is not None
        self.n += 1

    def decided(self, rule: Rule) -> bool:
        given = self.n - self.n_failed
        if self.n >= rule.k or gives_up(given, self.n_failed):
            return True
        return given > 0 and rule.decided(self.kind, given, self.successes, self.alike)


def sample_until_decided(
    worker: RolloutWorker, work: WorkList, rows: npt.NDArray[np.bool_], stored: Answers, rule: Rule
) -> None:
    """Sample these, one answer at a time, until the rule decides them.

    A sample that is still open gets its next answer before a new sample begins.

    Args:
        work: the work list.
        rows: which of it [N]; their stored answers have no gaps.
        stored: the stored answers [N, K].
    """
    is_closed = np.ones(len(stored.present), bool)
    alike = stored.alike(is_closed)

    def open_samples() -> Iterator[PendingSample]:
        for row, s in work.walk(worker.corpus, rows):
            n, closed = int(stored.present[row].sum()), tasks.get(s.task).closed
            found = PendingSample(
                RolloutRequest(s, b"", n, 1),
                kind_of(s),
                closed,
                n,
                int((stored.success[row, :n] == 1).sum()),
                closed and n > 0 and bool(alike[row, n - 1]),
                int(stored.meaning[row, 0]),
                int((stored.present[row] & ~stored.asked[row]).sum()),
            )
            if found.decided(rule):
                worker.state.spare(rule.k - n)
                continue
            found.rollouts.image = worker.corpus.image_bytes(s.image_id)
            yield found

    upcoming = (one for batch in ahead(_grouped(open_samples(), worker.chunk)) for one in batch)
    undecided: deque[PendingSample] = deque()  # have an answer and need another
    in_flight: dict[str, PendingSample] = {}
    while True:
        now: list[PendingSample] = []
        room = worker.room
        while (room > 0 or not (now or in_flight)) and (
            one := undecided.popleft() if undecided else next(upcoming, None)
        ) is not None:
            one.rollouts.first, one.rollouts.count = one.n, max(1, min(rule.settings.first, rule.k) - one.n)
            room -= one.rollouts.count
            now.append(one)
        worker.submit([one.rollouts for one in now])
        in_flight |= {one.rollouts.sample.id: one for one in now}
        if not in_flight:
            return
        touched: dict[str, PendingSample] = {}
        for row in worker.collect():
            one = touched[row["id"]] = in_flight[row["id"]]
            one.add(row)
        spared = worker.state.spared
        for name, one in touched.items():
            del in_flight[name]
            if one.decided(rule):
                worker.state.spare(rule.k - one.n)
            else:
                undecided.append(one)
        if worker.state.spared > spared:  # this may be the last update
            worker.on_progress(worker.state)


def _grouped(items: Iterable[Item], n: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while group := list(islice(iterator, n)):
        yield group


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items; each is made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        upcoming = pool.submit(next, items, None)
        while (item := upcoming.result()) is not None:
            upcoming = pool.submit(next, items, None)
            yield item


def answer_row(
    s: Sample, rollout: int, completion: Completion, boxes: Convention, model: str, prompt: str
) -> dict[str, Any]:
    """One row of the store: the completion, its reward in direct mode, and whether it is a success."""
    failed = not completion.is_answer
    reward = 0.0 if failed else reward_of(completion.text, s, boxes, cut=completion.finish_reason == "length")
    return {
        "id": s.id,
        "rollout": rollout,
        "text": completion.text,
        "answer": read_answer(completion.text, "direct"),
        "success": None if failed else tasks.get(s.task).succeeds(reward),
        "reward": reward,
        "finish_reason": completion.finish_reason,
        "n_tokens": completion.n_tokens,
        "seed": completion.seed,
        "model": model,
        "prompt_hash": prompt,
        "score_key": score_key(s, boxes),
        "error": (completion.error or "no reason given") if failed else None,
    }
