"""Ask an engine chunk by chunk and write each chunk into the store; pictures are fetched while the engine works."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from geozero import tasks
from geozero.corpus import Corpus
from geozero.difficulty import store as answer_store
from geozero.difficulty.adaptive import Rule, kind_of
from geozero.difficulty.bands import CLOSED_TASKS
from geozero.difficulty.progress import Progress
from geozero.difficulty.store import Answers, AnswerWriter, meaning
from geozero.engines.base import Completion, Engine, Request, SamplingParams, request_seed
from geozero.sample import Sample
from geozero.tasks.boxes import Convention
from geozero.tasks.text import read_answer

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Job:
    """What asking needs, whoever is asked about."""

    corpus: Corpus
    engine: Engine
    params: SamplingParams  # n: K
    writer: AnswerWriter
    boxes: Convention
    chunk: int
    state: Progress
    tell: Callable[[Progress], None]

    def ask(self, wanted: Sequence[Wish]) -> list[dict[str, Any]]:
        """Answers to these wishes as rows of the store, written as one chunk."""
        rows: list[dict[str, Any]] = []
        by_count: dict[int, list[Wish]] = defaultdict(list)
        for wish in wanted:
            by_count[wish.count].append(wish)
        for count, group in sorted(by_count.items()):
            asked = SamplingParams(
                count, self.params.temperature, self.params.top_p, self.params.max_tokens, self.params.seed
            )
            answers = self.engine.generate([wish.request(self.params.seed) for wish in group], asked)
            for wish, completions in zip(group, answers, strict=True):
                prompt = answer_store.prompt_hash(wish.sample)
                for rollout, completion in enumerate(completions, start=wish.first):
                    if wish.skip is None or not wish.skip[rollout]:
                        model = self.writer.fingerprint.model
                        rows.append(answer_row(wish.sample, rollout, completion, self.boxes, model, prompt))
        self.writer.write(rows)
        self.state.add(rows)
        return rows


@dataclass(slots=True)
class Wish:
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


def ask_all(job: Job, rows_of: dict[str, int], missing: npt.NDArray[np.bool_]) -> None:
    """Ask for every missing answer [N, K] of these samples, in the corpus's order."""

    def wishes() -> Iterator[Wish]:
        for s in job.corpus.samples():
            row = rows_of.get(s.id)
            if row is not None and missing[row].any():
                first = int(missing[row].argmax())
                last = missing.shape[1] - int(missing[row, ::-1].argmax())
                yield Wish(s, job.corpus.image_bytes(s.image_id), first, last - first, ~missing[row])

    for batch in ahead(_batches(wishes(), job.chunk)):
        job.ask(batch)
        job.tell(job.state)


def _batches(wishes: Iterable[Wish], chunk: int) -> Iterator[list[Wish]]:
    """Wishes that together make about `chunk` answers."""
    batch: list[Wish] = []
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
class Open:
    """A sample that is not yet decided, and what its answers say so far."""

    wish: Wish
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


def ask_until_decided(job: Job, rows_of: dict[str, int], stored: Answers, rule: Rule) -> None:
    """Ask about these samples, an answer at a time, until the rule decides them.

    About `job.chunk` samples are open at a time; a decided one makes room for the next, so that the engine's batches
    stay full, and each round is written before the next begins.

    Args:
        rows_of: id → row of `stored`; their stored answers have no gaps.
        stored: what there is already [N, K].
    """
    is_closed = np.ones(len(stored.present), bool)
    alike = stored.alike(is_closed)

    def begin() -> Iterator[Open]:
        for s in job.corpus.samples():
            row = rows_of.get(s.id)
            if row is None:
                continue
            n, closed = int(stored.present[row].sum()), s.task in CLOSED_TASKS
            found = Open(
                Wish(s, b"", n, 1),
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
    going: list[Open] = []
    while True:
        going += islice(coming, max(0, job.chunk - len(going)))
        if not going:
            return
        now: list[Open] = []
        answers = 0
        for one in going:
            one.wish.first, one.wish.count = one.n, max(1, rule.settings.first - one.n)
            if now and answers + one.wish.count > job.chunk:
                break
            now.append(one)
            answers += one.wish.count
        by_id = {one.wish.sample.id: one for one in now}
        for row in job.ask([one.wish for one in now]):
            by_id[row["id"]].take(row)
        # those that were asked go behind those that had to wait
        asked = [one for one in now if not one.decided(rule)]
        job.state.spare(sum(rule.k - one.n for one in now if one.decided(rule)))
        going = going[len(now) :] + asked
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
