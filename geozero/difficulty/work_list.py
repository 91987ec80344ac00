"""The samples that a worker prompts the model with, and what the store holds of them."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geozero.common.errors import InputError
from geozero.corpus.sample import Sample, fold_of, stable_unit
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store
from geozero.difficulty.adaptive.stopping_rule import in_pilot, kind_of
from geozero.difficulty.answer_store import Answers, Fingerprint
from geozero.params import Adaptive
from geozero.tasks import CLOSED_TASKS, RELATIVE_TASKS


@dataclass(frozen=True, slots=True)
class WorkList:
    """The samples of one call [N] and, for adaptive sampling, the whole corpus's pilot."""

    ids: pa.Array
    prompts: pa.Array  # today's prompt hashes
    folds: npt.NDArray[np.int64]
    tasks: npt.NDArray[np.str_]
    kinds: npt.NDArray[np.str_]
    in_shard: npt.NDArray[
        np.bool_
    ]  # whether it is of this worker's shard; of other shards only pilot samples are listed

    @property
    def closed(self) -> npt.NDArray[np.bool_]:
        return np.isin(self.tasks, CLOSED_TASKS)

    @property
    def relative(self) -> npt.NDArray[np.bool_]:
        """Samples whose answers are judged only when all of them are there (captions)."""
        return np.isin(self.tasks, RELATIVE_TASKS)


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` with 0 ≤ i < n.

    Raises:
        InputError: anything else.
    """
    left, _, right = text.partition("/")
    if left.isascii() and left.isdigit() and right.isascii() and right.isdigit() and int(left) < int(right):
        return int(left), int(right)
    raise InputError(f"no such shard '{text}'", "--shard", "write i/n with i from 0 to n - 1, such as 0/4")


def build_work_list(
    corpus: Corpus, folds: int, number: int, of: int, limit: int | None, adaptive: Adaptive | None
) -> tuple[WorkList, Counter[tuple[int, str]]]:
    """The samples of worker `number` of `of`, and how many there are in all by (fold, kind).

    Raises:
        InputError: this worker has none.
    """
    chosen: Iterator[Sample] | list[Sample] = corpus.samples()
    if limit is not None:
        chosen = heapq.nsmallest(limit, corpus.samples(), key=lambda s: (stable_unit(s.id, "limit"), s.id))
    rows, population = [], Counter[tuple[int, str]]()
    share, rest = divmod(of, folds)  # workers a fold, where that comes out even: then each needs one model only
    for s in chosen:
        fold, kind, unit = fold_of(s.image_key, folds), kind_of(s), stable_unit(s.id, "shard")
        in_shard = int(unit * of) == number if rest else fold + folds * int(unit * share) == number
        population[(fold, kind)] += 1
        if in_shard or (adaptive is not None and in_pilot(s.id, adaptive.pilot)):
            rows.append((s.id, answer_store.prompt_hash(s), fold, s.task, kind, in_shard))
    if not any(row[-1] for row in rows):
        raise InputError(
            "no samples to sample answers for", str(corpus.path), "choose another corpus, or fewer --shard workers"
        )
    ids, prompts, fold_column, tasks, kinds, in_shards = zip(*rows, strict=True)
    work = WorkList(
        pa.array(ids, pa.string()),
        pa.array(prompts, pa.string()),
        np.array(fold_column, np.int64),
        np.array(tasks, str),
        np.array(kinds, str),
        np.array(in_shards, bool),
    )
    return work, population


def stored_answers(
    out: Path, fingerprint: Fingerprint, work: WorkList, fold: int, k: int, only_present: bool
) -> Answers:
    """What the store holds of one fold's samples [N, k].

    Args:
        only_present: read only whether an answer is stored, nothing of the answer itself.
    """
    directory = out / fingerprint.key
    stored = answer_store.rollouts_stored(directory)
    if stored > k:
        raise InputError(
            f"the store already holds {stored} answers a sample, more than the {k} asked for",
            str(directory),
            f"use --k {stored} or another --out",
        )
    in_fold = work.folds == fold
    if not only_present:
        return answer_store.load(directory, work.ids, work.prompts, k, in_fold)
    answers = Answers.empty(len(work.ids), k)
    answers.present[:] = answer_store.answered(directory, work.ids, work.prompts, k, in_fold)
    return answers
