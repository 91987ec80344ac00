"""Rewards by the rules of today: the store keeps texts, and what they are worth is settled when they are used.

A row's `answer`, `success` and `reward` are a cache. Its reward counts where the row's `score_key` is the sample's of
today: a hash of the rules' source code, the model's box convention and the sample's truth. Of a few samples of each
task it is computed again all the same, because rules can change without their source; where one differs, the cache of
the whole task is passed over. Success is never taken from the cache.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

import geozero
from geozero import tasks
from geozero.corpus.sample import Sample
from geozero.difficulty import answer_store
from geozero.difficulty.answer_files import CUT, FAILED, Bools, Ints, Reader
from geozero.difficulty.answer_store import Answers
from geozero.tasks.boxes import Convention

# of the package: the code that decides a reward
RULES = ("tasks", "metrics", "common/lenient_json.py", "difficulty/scoring.py")
SPOT_SAMPLES = 64  # of each task, scored anew whatever the cache says
SAMPLES_AT_ONCE = 250_000  # whose truths are in memory while their answers are scored

log = logging.getLogger(__name__)


@cache
def rule_version() -> str:
    """Hash of the source code that decides a reward."""
    found = blake2b(digest_size=16)
    package = Path(geozero.__file__).parent
    for name in RULES:
        place = package / name
        for file in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
            found.update(file.relative_to(package).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def score_key(sample: Sample, boxes: Convention) -> int:
    """What a reward depends on besides the answer, as one 64-bit number: the rules, the convention, the truth."""
    truth = [sample.task, sample.question, sample.answer, sample.references, sample.box, sample.width, sample.height]
    data = json.dumps([rule_version(), boxes, *truth, sample.question_type, sample.classes])
    return int.from_bytes(blake2b(data.encode(), digest_size=8).digest(), "big", signed=True)


def reward_of(text: str, sample: Sample, boxes: Convention, cut: bool = False) -> float:
    """R_a of a text in direct mode; 0 where the token limit `cut` it off, as under `strict`."""
    return 0.0 if cut else tasks.get(sample.task).reward(text, sample, "direct", boxes)


@dataclass(frozen=True)
class Truth:
    """What is asked and what is right, of N samples.

    Attributes:
        ids, prompts: the samples' ids and today's prompt hashes [N].
        tasks: their tasks [N].
        keys: their `score_key` [N].
        boxes: what coordinates in the answers mean.
        samples: reads the samples again, in any order; others among them are passed over.
        spots: row → sample, of those that are scored anew whatever the cache says.
    """

    ids: pa.Array
    prompts: pa.Array
    tasks: npt.NDArray[Any]
    keys: Ints
    boxes: Convention
    samples: Callable[[], Iterable[Sample]] = field(repr=False)
    spots: dict[int, Sample] = field(repr=False)


class Spots:
    """Chooses the first samples of each task."""

    def __init__(self) -> None:
        self.chosen: dict[int, Sample] = {}
        self._counts: dict[str, int] = {}

    def offer(self, row: int, sample: Sample) -> None:
        n = self._counts.get(sample.task, 0)
        if n < SPOT_SAMPLES:
            self.chosen[row], self._counts[sample.task] = sample, n + 1


def load(directory: Path, truth: Truth, k: int, members: Bools | None = None, into: Answers | None = None) -> Answers:
    """The answers of these samples, scored by the rules of today; arguments as in `answer_store.load`."""
    scores = _CachedScores(truth, k)
    answers = answer_store.load(directory, truth.ids, truth.prompts, k, members, into, scores)
    stale = scores.stale | (scores.cached & np.isin(truth.tasks, sorted(scores.wrong))[:, None])
    if stale.any():
        log.info("%d answers are scored anew: other rules or labels than they were stored with", stale.sum())
        for batch in _batches(truth, np.asarray(stale.any(axis=1))):
            _score(directory, truth, k, members, answers, batch)
    return answers


class _CachedScores:
    """Scores as they were stored; notes where they cannot be those of today.

    Attributes:
        stale: answers with another key, or none [N, K].
        cached: answers whose reward was taken from the store [N, K].
        wrong: tasks in which a stored reward is not today's in spite of its key.
    """

    def __init__(self, truth: Truth, k: int) -> None:
        self.truth = truth
        self.stale, self.cached = np.zeros((len(truth.ids), k), bool), np.zeros((len(truth.ids), k), bool)
        self.wrong: set[str] = set()
        self._is_spot = np.zeros(len(truth.ids), bool)
        self._is_spot[list(truth.spots)] = True

    def rewards(
        self, rows: Ints, rollouts: Ints, table: pa.Table, finish: npt.NDArray[np.int8]
    ) -> npt.NDArray[np.float64]:
        rewards = np.asarray(table["reward"]).copy()
        keys = table["score_key"].combine_chunks()
        same = np.asarray(keys.is_valid()) & (np.asarray(keys.fill_null(0)) == self.truth.keys[rows])
        given = finish != FAILED
        self.stale[rows, rollouts], self.cached[rows, rollouts] = given & ~same, given & same
        spots = np.flatnonzero(self._is_spot[rows] & given)
        for i, text in zip(spots.tolist(), table["text"].take(pa.array(spots)).to_pylist(), strict=True):
            sample = self.truth.spots[int(rows[i])]
            reward = reward_of(text, sample, self.truth.boxes, finish[i] == CUT)
            if same[i] and reward != rewards[i]:
                self.wrong.add(sample.task)
            rewards[i] = reward
        return rewards

    def successes(self, rows: Ints, rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
        return successes(self.truth.tasks[rows], rewards)


def successes(names: npt.NDArray[Any], rewards: npt.NDArray[np.float64]) -> npt.NDArray[np.int8]:
    """Which rewards of these tasks are successes today: 1, 0, or −1 where the task knows no right or wrong."""
    found = np.full(len(names), -1, np.int8)
    for name in tasks.TASKS:
        rows = names == name
        if not rows.any():
            continue
        values, places = np.unique(rewards[rows], return_inverse=True)
        verdicts = [tasks.get(name).succeeds(float(value)) for value in values]
        found[rows] = np.array([-1 if v is None else int(v) for v in verdicts], np.int8)[places]
    return found


def _score(
    directory: Path, truth: Truth, k: int, members: Bools | None, answers: Answers, batch: dict[int, Sample]
) -> None:
    """Score all answers of these samples, row → sample, anew."""
    chosen = np.zeros(len(truth.ids), bool)
    chosen[list(batch)] = True
    reader = Reader(directory, truth.ids, truth.prompts, k, chosen if members is None else chosen & members)
    for rows, rollouts, table, finish in reader.rows(["text"], report=False):
        found: dict[tuple[int, str, bool], float] = {}  # most answers of a sample say the same
        rewards = np.zeros(len(rows))
        for i, (row, text) in enumerate(zip(rows.tolist(), table["text"].to_pylist(), strict=True)):
            if finish[i] == FAILED:
                continue
            key = row, text, bool(finish[i] == CUT)
            reward = found.get(key)
            if reward is None:
                reward = found[key] = reward_of(text, batch[row], truth.boxes, key[2])
            rewards[i] = reward
        answers.reward[rows, rollouts] = rewards
        answers.success[rows, rollouts] = np.where(finish == FAILED, -1, successes(truth.tasks[rows], rewards))


def _batches(truth: Truth, pending: Bools) -> Iterator[dict[int, Sample]]:
    """Row → sample, of the pending ones, some at a time."""
    rows_of = {truth.ids[row].as_py(): row for row in np.flatnonzero(pending).tolist()}
    classes: dict[tuple[str, ...], tuple[str, ...]] = {}
    batch: dict[int, Sample] = {}
    for sample in truth.samples():
        row = rows_of.get(sample.id)
        if row is not None:
            known = classes.setdefault(sample.classes, sample.classes)  # one tuple, however many samples
            batch[row] = replace(sample, classes=known)
            if len(batch) == SAMPLES_AT_ONCE:
                yield batch
                batch = {}
    if batch:
        yield batch
