"""Keep an engine busy and write its answers into the store, part by part.

At most a chunk of answers is under way or unwritten; what is written makes room for the next requests, so that the
engine's batch never runs empty in between. Images are fetched while it works.
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
from geozero.difficulty.adaptive.stopping_rule import Rule, kind_of
from geozero.difficulty.answer_store import Answers, AnswerWriter, meaning
from geozero.difficulty.progress import SamplingProgress
from geozero.difficulty.selection.bands import CLOSED_TASKS
from geozero.engines.base import Completion, Engine, Request, SamplingParams, request_seed
from geozero.tasks.boxes import Convention
from geozero.tasks.text import read_answer

LARGE = 1024  # answers: half of such a chunk fills any engine's batch while the other half waits to be written

Item = TypeVar("Item")


@dataclass(slots=True)
class RolloutWorker:
    """What asking needs, whoever is asked about; and what is under way."""

    corpus: Corpus
    engine: Engine
    params: SamplingParams  # n: K
    writer: AnswerWriter
    boxes: Convention
    chunk: int
    state: SamplingProgress
    tell: Callable[[SamplingProgress], None]
    _asked: dict[str, RolloutRequest] = field(default_factory=dict)
    _rows: list[dict[str, Any]] = field(default_factory=list)  # not written yet

    @property
    def part(self) -> int:
        """Answers written together."""
        return part_of(self.chunk)

    @property
    def busy(self) -> bool:
        """Whether answers are under way."""
        return bool(self._asked)

    @property
    def room(self) -> int:
        """How many more answers may be asked for."""
        return self.chunk - sum(wish.count for wish in self._asked.values()) - len(self._rows)

    def submit(self, wishes: Sequence[RolloutRequest]) -> None:
        """Ask for these, without waiting."""
        by_count: dict[int, list[RolloutRequest]] = defaultdict(list)
        for wish in wishes:
            by_count[wish.count].append(wish)
            self._asked[wish.sample.id] = wish
        for count, group in sorted(by_count.items()):
            requests = [wish.request(self.params.seed) for wish in group]
            self.engine.submit(requests, replace(self.params, n=count))

    def collect(self) -> list[dict[str, Any]]:
        """Some answers as rows of the store; written once there are enough, or all are there."""
        fingerprint, found = self.writer.fingerprint, []
        for name, completions in self.engine.collect():
            wish = self._asked.pop(name)
            prompt = answer_store.prompt_hash(wish.sample)
            for rollout, completion in enumerate(completions, start=wish.first):
                if wish.skip is None or not wish.skip[rollout]:
                    if completion.finish_reason == "error":
                        self.state.failed(completion.error or "unknown")
                    found.append(answer_row(wish.sample, rollout, completion, self.boxes, fingerprint.model, prompt))
        self._rows += found
        if len(self._rows) >= self.part or not self._asked:
            self.writer.write(sorted(self._rows, key=lambda row: (row["id"], row["rollout"])))
            self.state.add(self._rows)
            self.tell(self.state)
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
    """How many answers of a chunk are written together: of a small one a quarter, because what waits to be written is
    missing in the engine's batch; of a large one half, because few large files are read sooner.
    """
    return max(1, chunk // (2 if chunk >= LARGE else 4))


def sample_all(job: RolloutWorker, rows_of: dict[str, int], missing: npt.NDArray[np.bool_]) -> None:
    """Ask for every missing answer [N, K] of these samples, in the corpus's order."""

    def wishes() -> Iterator[RolloutRequest]:
        for s in job.corpus.samples():
            row = rows_of.get(s.id)
            if row is not None and missing[row].any():
                first = int(missing[row].argmax())
                last = missing.shape[1] - int(missing[row, ::-1].argmax())
                yield RolloutRequest(s, job.corpus.image_bytes(s.image_id), first, last - first, ~missing[row])

    for batch in ahead(_batches(wishes(), max(1, job.part // 2))):
        while job.busy and job.room < sum(wish.count for wish in batch):
            job.collect()
        job.submit(batch)
    while job.busy:
        job.collect()


def _batches(wishes: Iterable[RolloutRequest], chunk: int) -> Iterator[list[RolloutRequest]]:
    """Wishes that together make about `chunk` answers."""
    batch: list[RolloutRequest] = []
    answers = 0
    for wish in wishes:
        if batch and answers + wish.count > chunk:
            yield batch
            batch, answers = [], 0
        batch.append(wish)
        answers += wish.count
    if batch:
        yield batch


@dataclass(slots=True)
class PendingSample:
    """A sample that is not yet decided, and what its answers say so far."""

    wish: RolloutRequest
    kind: str
    closed: bool
    n: int
    successes: int
    alike: bool
    meant: int  # by the first answer
    failed: bool = False

    def take(self, row: dict[str, Any]) -> None:
        """Count one more answer."""
        said = meaning(row["answer"])
        self.alike = self.closed and said != 0 and (self.n == 0 or (self.alike and said == self.meant))
        self.meant = said if self.n == 0 else self.meant
        self.successes += row["success"] is True
        self.failed = self.failed or row["finish_reason"] == "error"
        self.n += 1

    def decided(self, rule: Rule) -> bool:
        return self.failed or (self.n > 0 and rule.decided(self.kind, self.n, self.successes, self.alike))


def sample_until_decided(job: RolloutWorker, rows_of: dict[str, int], stored: Answers, rule: Rule) -> None:
    """Ask about these samples, an answer at a time, until the rule decides them.

    A sample that is still open is asked again at once, before a new one begins.

    Args:
        rows_of: id → row of `stored`; their stored answers have no gaps.
        stored: what there is already [N, K].
    """
    is_closed = np.ones(len(stored.present), bool)
    alike = stored.alike(is_closed)

    def begin() -> Iterator[PendingSample]:
        for s in job.corpus.samples():
            row = rows_of.get(s.id)
            if row is None:
                continue
            n, closed = int(stored.present[row].sum()), s.task in CLOSED_TASKS
            found = PendingSample(
                RolloutRequest(s, b"", n, 1),
                kind_of(s),
                closed,
                n,
                int((stored.success[row, :n] == 1).sum()),
                closed and n > 0 and bool(alike[row, n - 1]),
                int(stored.meaning[row, 0]),
                bool((stored.present[row] & ~stored.asked[row]).any()),
            )
            if found.decided(rule):
                job.state.spare(rule.k - n)
                continue
            found.wish.image = job.corpus.image_bytes(s.image_id)
            yield found

    coming = (one for batch in ahead(_grouped(begin(), job.chunk)) for one in batch)
    again: deque[PendingSample] = deque()  # answered and still open
    going: dict[str, PendingSample] = {}
    while True:
        now: list[PendingSample] = []
        room = job.room
        while (room > 0 or not (now or going)) and (
            one := again.popleft() if again else next(coming, None)
        ) is not None:
            one.wish.first, one.wish.count = one.n, max(1, min(rule.settings.first, rule.k) - one.n)
            room -= one.wish.count
            now.append(one)
        job.submit([one.wish for one in now])
        going |= {one.wish.sample.id: one for one in now}
        if not going:
            return
        touched: dict[str, PendingSample] = {}
        for row in job.collect():
            one = touched[row["id"]] = going[row["id"]]
            one.take(row)
        spared = job.state.spared
        for name, one in touched.items():
            del going[name]
            if one.decided(rule):
                job.state.spare(rule.k - one.n)
            else:
                again.append(one)
        if job.state.spared > spared:  # the end of it all may be reached by this
            job.tell(job.state)


def _grouped(items: Iterable[Item], n: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while group := list(islice(iterator, n)):
        yield group


def ahead(items: Iterator[Item]) -> Iterator[Item]:
    """The same items, each made in a thread while the one before is in use."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


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
