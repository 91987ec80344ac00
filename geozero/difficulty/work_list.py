"""The samples that a worker prompts the model with, and what the store holds of them.

A list of ten million samples has to fit into little memory beside an engine: columns, no objects, and equal names once.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geozero.common.errors import InputError
from geozero.corpus.sample import Sample, fold_of, stable_unit
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store, scoring
from geozero.difficulty.adaptive.stopping_rule import in_pilot, kind_of
from geozero.difficulty.answer_store import Answers, Fingerprint
from geozero.difficulty.scoring import Spots, Truth, score_key
from geozero.params import Adaptive
from geozero.tasks import CLOSED_TASKS, RELATIVE_TASKS
from geozero.tasks.boxes import Convention

PART = 1 << 16  # rows that are turned into columns together

Names = npt.NDArray[np.object_]


@dataclass(frozen=True, slots=True)
class WorkList:
    """The samples of one call [N] and, for adaptive sampling, the whole corpus's pilot."""

    ids: pa.Array
    prompts: pa.Array  # today's prompt hashes
    folds: npt.NDArray[np.int64]
    tasks: Names
    kinds: Names
    # whether it is of this worker's shard; of other shards only pilot samples are listed
    in_shard: npt.NDArray[np.bool_]
    ordered: bool = True  # as the corpus is
    truth: Truth | None = None  # for adaptive sampling, which reads what the answers are worth

    @property
    def closed(self) -> npt.NDArray[np.bool_]:
        return self._are(CLOSED_TASKS)

    @property
    def relative(self) -> npt.NDArray[np.bool_]:
        """Samples whose answers are judged only when all of them are there (captions)."""
        return self._are(RELATIVE_TASKS)

    def _are(self, names: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        return np.fromiter((task in names for task in self.tasks), bool, len(self.tasks))

    def walk(self, corpus: Corpus, rows: npt.NDArray[np.bool_]) -> Iterator[tuple[int, Sample]]:
        """Row and sample of these rows [N], in the order of the corpus."""
        if not self.ordered:
            rows_of = {self.ids[row].as_py(): row for row in np.flatnonzero(rows).tolist()}
            yield from ((rows_of[s.id], s) for s in corpus.samples() if s.id in rows_of)
            return
        pending = _ids_of(self.ids, np.flatnonzero(rows))
        row, name = next(pending, (-1, ""))
        for s in corpus.samples():
            if s.id == name:
                yield row, s
                row, name = next(pending, (-1, ""))


def _ids_of(ids: pa.Array, rows: npt.NDArray[np.int64]) -> Iterator[tuple[int, str]]:
    for start in range(0, len(rows), PART):
        part = rows[start : start + PART]
        yield from zip(part.tolist(), ids.take(pa.array(part)).to_pylist(), strict=True)


def build_work_list(
    corpus: Corpus,
    folds: int,
    number: int,
    of: int,
    limit: int | None,
    adaptive: Adaptive | None,
    boxes: Convention = "norm1000",
) -> tuple[WorkList, Counter[tuple[int, str]]]:
    """The samples of worker `number` of `of`, and how many there are in all by (fold, kind).

    Raises:
        InputError: this worker has none.
    """
    chosen: Iterator[Sample] | list[Sample] = corpus.samples()
    if limit is not None:
        chosen = heapq.nsmallest(limit, corpus.samples(), key=lambda s: (stable_unit(s.id, "limit"), s.id))
    columns = Columns((pa.string(), pa.string(), np.int64, object, object, bool))
    population, spots = Counter[tuple[int, str]](), Spots()
    names: dict[str, str] = {}  # each kind once
    keys: list[int] = []
    share, rest = divmod(of, folds)  # workers a fold, where that comes out even: then each needs one model only
    for s in chosen:
        fold, unit = fold_of(s.image_key, folds), stable_unit(s.id, "shard")
        kind = kind_of(s)
        kind = names.setdefault(kind, kind)
        in_shard = int(unit * of) == number if rest else fold + folds * int(unit * share) == number
        population[(fold, kind)] += 1
        if in_shard or (adaptive is not None and in_pilot(s.id, adaptive.pilot)):
            if adaptive is not None:
                spots.offer(columns.n, s)
                keys.append(score_key(s, boxes))
            task = names.setdefault(s.task, s.task)
            columns.add(s.id, answer_store.prompt_hash(s), fold, task, kind, in_shard)
    ids, prompts, fold_column, tasks, kinds, in_shards = columns.finish()
    if not in_shards.any():
        raise InputError(
            "no samples to sample answers for", str(corpus.path), "choose another corpus, or fewer --shard workers"
        )
    truth = None
    if adaptive is not None:
        truth = Truth(ids, prompts, tasks, np.array(keys, np.int64), boxes, corpus.samples, spots.chosen)
    return WorkList(ids, prompts, fold_column, tasks, kinds, in_shards, limit is None, truth), population


class Columns:
    """Collects rows as columns, a part at a time.

    Args:
        types: of each column, Arrow's or NumPy's.
    """

    def __init__(self, types: Sequence[Any]) -> None:
        self.types, self.n = types, 0
        self._pool = pa.system_memory_pool()  # Arrow's own keeps what is freed: a quarter more for a long list
        self._rows: list[tuple[Any, ...]] = []
        self._parts: list[list[Any]] = []

    def add(self, *row: Any) -> None:
        self._rows.append(row)
        self.n += 1
        if len(self._rows) == PART:
            self._flush()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True) if self._rows else [()] * len(self.types)
        self._parts.append([self._column(values, kind) for values, kind in zip(columns, self.types, strict=True)])
        self._rows = []

    def finish(self) -> list[Any]:
        """The columns: an Arrow or NumPy array each."""
        self._flush()
        found = []
        for number, kind in enumerate(self.types):
            parts = [part[number] for part in self._parts]
            for part in self._parts:
                part[number] = None  # one column at a time is in memory twice
            in_arrow = isinstance(kind, pa.DataType)
            found.append(pa.concat_arrays(parts, self._pool) if in_arrow else np.concatenate(parts))
        return found

    def _column(self, values: Sequence[Any], kind: Any) -> Any:
        if isinstance(kind, pa.DataType):
            return pa.array(values, kind, memory_pool=self._pool)
        return np.array(values, kind)


def stored_answers(
    out: Path,
    fingerprint: Fingerprint,
    work: WorkList,
    fold: int,
    k: int,
    only_present: bool,
    retry_failed: bool = False,
) -> Answers:
    """What the store holds of one fold's samples [N, k]; what it holds beyond k is passed over.

    Args:
        only_present: read only whether an answer is stored, nothing of the answer itself.
        retry_failed: take what failed as not stored.
    """
    directory = out / fingerprint.key
    in_fold = work.folds == fold
    if not only_present:
        assert work.truth is not None
        answers = scoring.load(directory, work.truth, k, in_fold)
        if retry_failed:
            answers.present[:] = answers.asked
        return answers
    answers = Answers.empty(len(work.ids), k)
    answers.present[:] = answer_store.answered(directory, work.ids, work.prompts, k, in_fold, failed=not retry_failed)
    return answers
