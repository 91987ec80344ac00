"""Which samples a worker is to ask about, and what the store holds of them."""

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
from geozero.difficulty.selection.bands import CLOSED_TASKS
from geozero.params import Adaptive


@dataclass(frozen=True, slots=True)
class WorkList:
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
    rows, everyone = [], Counter[tuple[int, str]]()
    share, rest = divmod(of, folds)  # workers a fold, where that comes out even: then each needs one model only
    for s in chosen:
        fold, kind, unit = fold_of(s.image_key, folds), kind_of(s), stable_unit(s.id, "shard")
        mine = int(unit * of) == number if rest else fold + folds * int(unit * share) == number
        everyone[(fold, kind)] += 1
        if mine or (adaptive is not None and in_pilot(s.id, adaptive.pilot)):
            rows.append((s.id, answer_store.prompt_hash(s), fold, s.task, kind, mine))
    if not any(row[-1] for row in rows):
        raise InputError("no samples to ask about", str(corpus.path), "choose another corpus, or fewer --shard workers")
    ids, prompts, fold_column, tasks, kinds, own = zip(*rows, strict=True)
    wanted = WorkList(
        pa.array(ids, pa.string()),
        pa.array(prompts, pa.string()),
        np.array(fold_column, np.int64),
        np.array(tasks, str),
        np.array(kinds, str),
        np.array(own, bool),
    )
    return wanted, everyone


def stored_answers(
    out: Path, fingerprint: Fingerprint, wanted: WorkList, fold: int, k: int, only_present: bool
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
