"""The files of an answer store: the columns, reading them chunk by chunk, and which of two answers counts.

Of several rows of one (id, rollout) the first that is an answer of the model counts, in the order of the files' names
and of the rows in a file; where none is one, the first. So what was asked again after a failure takes its place, and
copying a store changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from geozero.common.errors import InputError

ROWS_AT_ONCE = 500_000  # answers looked up together; bounds the memory of a reader
FINISH = ("stop", "length", "error")  # the last stands for all that is no answer of the model
FAILED, CUT = FINISH.index("error"), FINISH.index("length")

ANSWER_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("rollout", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        # the next three as they were when it was sampled: a cache
        pa.field("answer", pa.string()),  # what the reward read; null where there is none
        pa.field("success", pa.bool_()),  # null for captions (known at selection) and for requests that failed
        pa.field("reward", pa.float64(), nullable=False),
        pa.field("finish_reason", pa.string(), nullable=False),
        pa.field("n_tokens", pa.int32(), nullable=False),
        pa.field("seed", pa.int64()),  # null when greedy
        pa.field("model", pa.string(), nullable=False),  # content hash
        pa.field("prompt_hash", pa.string(), nullable=False),
        pa.field("score_key", pa.int64()),  # of that cache, see `scoring`; null in earlier versions
        pa.field("error", pa.string()),  # why it is no answer of the model; null for answers, and in earlier versions
    ]
)
LATER = ("score_key", "error")  # columns that chunks of earlier versions lack

log = logging.getLogger(__name__)

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def answer_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("answers-*.parquet"))


def rollouts_stored(directory: Path) -> int:
    """One more than the highest rollout in a directory, from the files' statistics; 0 where there is none."""
    highest = -1
    column = ANSWER_SCHEMA.get_field_index("rollout")
    for path in answer_files(directory):
        metadata = _metadata(path)
        for group in range(metadata.num_row_groups):
            statistics = metadata.row_group(group).column(column).statistics
            if statistics is not None and statistics.has_min_max:
                highest = max(highest, int(statistics.max))
    return highest + 1


def chunks(directory: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The stored rows, about `ROWS_AT_ONCE` at a time.

    Raises:
        InputError: a file that cannot be read.
    """
    waiting: list[pa.Table] = []
    for path in answer_files(directory):
        try:
            with pq.ParquetFile(path) as file:
                kept = [name for name in columns if name not in LATER or name in file.schema_arrow.names]
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=kept):
                    table = pa.Table.from_batches([batch])
                    for name in set(columns) - set(kept):  # an earlier version wrote this chunk
                        table = table.append_column(name, pa.nulls(len(table), ANSWER_SCHEMA.field(name).type))
                    waiting.append(table.select(list(columns)))
                    if sum(len(t) for t in waiting) >= ROWS_AT_ONCE:
                        yield pa.concat_tables(waiting)
                        waiting = []
        except (pa.ArrowInvalid, OSError, KeyError) as error:
            raise _unreadable(path, error) from None
    if waiting:
        yield pa.concat_tables(waiting)


def finish_of(table: pa.Table) -> npt.NDArray[np.int8]:
    """Index into `FINISH` of each row; needs the columns `finish_reason` and `error`."""
    found = pc.fill_null(pc.index_in(table["finish_reason"], pa.array(FINISH)), FAILED)  # abort, content_filter, …
    return np.where(np.asarray(pc.is_valid(table["error"])), np.int8(FAILED), np.asarray(found).astype(np.int8))


class Reader:
    """Reads the rows of one directory that count, for some samples.

    Args:
        directory: one fingerprint's directory.
        ids: the samples' ids [N].
        prompts: today's prompt hashes [N]; answers to other prompts are passed over. None takes all.
        k: answers a sample; higher rollouts are passed over.
        members: which samples may have their answers here [N] (cross-fitting); None: all.

    Attributes:
        given: which answers were found so far, failed ones left out [N, k].
        present: the same, failed ones included [N, k].
    """

    def __init__(
        self, directory: Path, ids: pa.Array, prompts: pa.Array | None, k: int, members: Bools | None = None
    ) -> None:
        self.directory, self.ids, self.prompts, self.k, self.members = directory, ids, prompts, k, members
        self.present = np.zeros((len(ids), k), bool)
        self.given = np.zeros((len(ids), k), bool)
        self._twice: list[Ints] = []  # places whose answer was found again

    def rows(
        self, columns: Sequence[str], report: bool = True
    ) -> Iterator[tuple[Ints, Ints, pa.Table, npt.NDArray[np.int8]]]:
        """Row of the sample, rollout, the columns, and index into `FINISH` of every row that counts; one that takes a
        failed one's place comes later.

        Args:
            report: at the end, log where answers of one (id, rollout) differ.
        """
        for table in chunks(self.directory, ["id", "rollout", "prompt_hash", "finish_reason", "error", *columns]):
            rows, rollouts, table = self._matched(table)
            places, finish = rows * self.k + rollouts, finish_of(table)
            given, kept = finish != FAILED, np.arange(len(rows))
            if len(np.unique(places)) < len(places):  # first those that are answers, then in stored order
                order = np.lexsort((kept, ~given, places))
                firsts = np.unique(places[order], return_index=True)[1]
                kept = np.sort(order[firsts])
                again = np.ones(len(rows), bool)
                again[kept] = False
                self._twice.append(places[again & given])
            known, present = self.given.reshape(-1)[places[kept]], self.present.reshape(-1)[places[kept]]
            self._twice.append(places[kept[known & given[kept]]])
            kept = kept[~known & (given[kept] | ~present)]
            self.present.reshape(-1)[places[kept]] = True
            self.given.reshape(-1)[places[kept[given[kept]]]] = True
            if len(kept) == len(rows):
                yield rows, rollouts, table, finish
            elif len(kept):
                yield rows[kept], rollouts[kept], table.take(pa.array(kept)), finish[kept]
        if report:
            self._report()

    def _matched(self, table: pa.Table) -> tuple[Ints, Ints, pa.Table]:
        where = pc.index_in(table["id"], self.ids)
        keep = pc.and_(
            pc.is_valid(where), pc.and_(pc.less(table["rollout"], self.k), pc.greater_equal(table["rollout"], 0))
        )
        table, where = table.filter(keep), where.filter(keep)
        if self.prompts is not None:
            keep = pc.equal(table["prompt_hash"], self.prompts.take(pa.array(np.asarray(where))))
            table, where = table.filter(keep), where.filter(keep)
        rows = np.asarray(where).astype(np.int64)
        if self.members is not None:
            table, rows = table.filter(pa.array(self.members[rows])), rows[self.members[rows]]
        return rows, np.asarray(table["rollout"]).astype(np.int64), table

    def _report(self) -> None:
        places = np.unique(np.concatenate([np.empty(0, np.int64), *self._twice]))
        if not len(places):
            return
        ids = self.ids.take(pa.array(np.unique(places // self.k)))
        wanted = {(self.ids[int(p // self.k)].as_py(), int(p % self.k)) for p in places.tolist()}
        texts: dict[tuple[str, int], set[str]] = {}
        for table in chunks(self.directory, ["id", "rollout", "text", "finish_reason", "error"]):
            table = table.filter(pa.array(finish_of(table) != FAILED))
            for row in table.filter(pc.is_in(table["id"], ids)).select(["id", "rollout", "text"]).to_pylist():
                if (row["id"], row["rollout"]) in wanted:
                    texts.setdefault((row["id"], row["rollout"]), set()).add(row["text"])
        differing = sorted(key for key, found in texts.items() if len(found) > 1)
        if differing:
            log.warning(
                "%d answers are stored more than once and differ; the first in the order of the files' names counts, "
                "such as that of %s, rollout %d, in %s",
                len(differing),
                *differing[0],
                self.directory,
            )


def _metadata(path: Path) -> pq.FileMetaData:
    try:
        return pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> InputError:
    what = f"unreadable chunk of answers: {' '.join(str(error).split())}"
    return InputError(what, str(path), "delete it and sample again: only its answers are asked once more")
