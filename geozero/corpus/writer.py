"""Writes a corpus: its samples shard by shard, its images into tar shards or as references to where they lie."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from geozero.common.atomic import write_json
from geozero.common.errors import BadRecord, InputError
from geozero.common.hash_set import HashSet64
from geozero.corpus.image_index import ENTRY, Entries, packed_entry, write_index
from geozero.corpus.images import StoredImage
from geozero.corpus.layout import (
    IMAGE_FILES,
    IMAGE_IDS,
    IMAGE_PLACES,
    IMAGE_SCHEMA,
    IMAGES,
    MANIFEST,
    REJECT_SCHEMA,
    REJECTS,
    file_hash,
)
from geozero.corpus.partial import partial_name, refusals, remove_abandoned
from geozero.corpus.references import Referrer
from geozero.corpus.sample import SCHEMA, SCHEMA_VERSION, SPECIAL_TOKEN_START, SPLITS, Sample
from geozero.corpus.tar_shards import TarShards

SAMPLES_PER_SHARD = 20_000
ROWS_PER_GROUP = 20_000  # of images and rejects
IMAGE_BYTES_PER_SHARD = 256 << 20


class CorpusWriter:
    """Writes a corpus into a temporary directory beside `out` and renames it when the block ends without error.

    Whatever ends the block, nothing half-written stays behind, and an older corpus at `out` stays whole; what a
    killed writer left is removed by a later one. Of a sample only hashes stay in memory, some 20 bytes; of an image
    also its entry in the index, 48 bytes.

    Args:
        out: the directory of the corpus; an existing finished one is replaced at the end. A link is followed.
        made_by: what made it (command, parameters, inputs); stands in the manifest.

    Attributes:
        notes: what else its maker found out, as JSON; stands in the manifest. May be filled until the block ends.
        digest: what the corpus is known by, if not by its samples.

    Raises:
        InputError: something else stands at `out`; the disk is full, read-only or not ours.
    """

    def __init__(self, out: Path, made_by: Mapping[str, Any]) -> None:
        self.out, self.made_by = Path(os.path.realpath(out)), dict(made_by)
        self.notes: dict[str, Any] = {}
        self.digest = ""
        self._samples: list[Sample] = []
        self._tables: list[pa.Table] = []  # before the samples above
        self._pending = 0
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._sample_ids, self._image_ids = HashSet64(), HashSet64()
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._shards: dict[str, str] = {}
        self._entries = bytearray()
        self._files: dict[str, tuple[int, int, str]] = {}  # path in the file table → row, size, hash
        self._referrer = Referrer(self.out)

    def __enter__(self) -> CorpusWriter:
        with refusals(self.out):
            if self.out.exists() and not self.out.is_dir():
                raise InputError("a file stands where the corpus is to go", str(self.out), "choose another --out")
            if self.out.exists() and any(self.out.iterdir()) and not (self.out / MANIFEST).exists():
                raise InputError(
                    "the output directory is not empty and holds no corpus", str(self.out), "choose another --out"
                )
            if Path.cwd().is_relative_to(self.out):  # a rename would pull the working directory away
                raise InputError("the working directory cannot become a corpus", str(self.out), "choose another --out")
            self.out.parent.mkdir(parents=True, exist_ok=True)
            remove_abandoned(self.out)
            self._temporary = self.out.with_name(partial_name(self.out, "part"))
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir()
        self._tars = TarShards(self._temporary, IMAGE_BYTES_PER_SHARD)
        self._images = _Rows(self._temporary / IMAGES, IMAGE_SCHEMA)
        self._rejects = _Rows(self._temporary / REJECTS, REJECT_SCHEMA)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with refusals(self.out):
                if error is None:
                    self._finish()
                elif isinstance(error, OSError):
                    raise error
        finally:
            for unfinished in (self._tars.abandon, self._images.close, self._rejects.close):
                with suppress(OSError):  # a footer is written; the disk may be full
                    unfinished()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def has_image(self, image_id: str) -> bool:
        return image_id in self._image_ids

    def add_image(self, image: StoredImage, image_key: str, at: tuple[Path, int] | None = None) -> None:
        """Store an image once; the key of its first occurrence stays with it.

        Args:
            at: a file of the user's that holds these bytes, uncompressed, and their offset: they are left there.
        """
        if not self._image_ids.add(image.image_id):
            return
        if at is None:
            shard, offset = self._tars.add(image.image_id, image.data)
            file = self._files.setdefault(shard, (len(self._files), 0, ""))[0]
        else:
            path, offset = at
            file = self._refer(os.path.realpath(path), path.stat().st_size, "")
        checksum = xxhash.xxh3_64_intdigest(image.data)
        size = (image.width, image.height)
        self._entries += packed_entry(image.image_id, file, offset, len(image.data), checksum, size)
        self._images.add((image.image_id, image_key, *size, image.phash))

    def refer_images(self, rows: pa.Table, entries: Entries, file_of: Callable[[int], tuple[str, int, str]]) -> None:
        """Take images over by reference; those that are there already are passed over.

        Args:
            rows: of `IMAGE_SCHEMA`.
            entries: the index entry of each row, where a file is a number.
            file_of: path, size and hash of the file of a number.
        """
        new = np.fromiter(map(self._image_ids.add, rows.column("image_id").to_pylist()), bool, len(rows))
        kept = entries[new].copy()
        numbers, places = np.unique(kept["file"], return_inverse=True)
        renumbered = [self._refer(*file_of(int(number))) for number in numbers]
        kept["file"] = np.array(renumbered, np.uint32)[places]
        self._entries += kept.tobytes()
        self._images.add_table(rows.filter(pa.array(new)))

    def _refer(self, path: str, size: int, hash_: str) -> int:
        """The row of a file in the file table; the path is resolved."""
        return self._files.setdefault(self._referrer.name(path), (len(self._files), size, hash_))[0]

    def add(self, sample: Sample) -> bool:
        """Store a sample whose image is already there; a broken or repeated one becomes a reject.

        Returns:
            Whether it was accepted.
        """
        try:
            sample.validate()
            self._check(sample.id, sample.image_id, sample.image_key)
        except BadRecord as bad:
            self.reject(sample.source, sample.id, bad)
            return False
        self._samples.append(sample)
        self._count(sample.source, sample.task, sample.split, 1)
        return True

    def add_table(self, rows: pa.Table) -> list[bool]:
        """Store samples of another corpus, in the columns of `SCHEMA`, as `add` does; which were accepted."""
        doubtful = _doubtful(rows)
        accepted = []
        names = ("id", "image_id", "image_key", "source")
        for at, (id_, image_id, key, source) in enumerate(
            zip(*(rows.column(n).to_pylist() for n in names), strict=True)
        ):
            try:
                if at in doubtful:
                    Sample.from_row(rows.slice(at, 1).to_pylist()[0]).validate()
                self._check(id_, image_id, key)
                accepted.append(True)
            except BadRecord as bad:
                self.reject(source, id_, bad)
                accepted.append(False)
        kept = rows if all(accepted) else rows.filter(pa.array(accepted, pa.bool_()))
        if self._samples:
            self._tables.append(_table(self._samples))
            self._samples = []
        self._tables.append(kept.select(SCHEMA.names))
        for row in kept.group_by(["source", "task", "split"]).aggregate([([], "count_all")]).to_pylist():
            self._count(row["source"], row["task"], row["split"], row["count_all"])
        return accepted

    def reject(self, source: str, key: str, bad: BadRecord) -> None:
        """List a record that did not become a sample, with the reason."""
        self._rejects.add((source, key, bad.reason, bad.detail))
        self._reasons[source, bad.reason] += 1

    def _check(self, id_: str, image_id: str, image_key: str) -> None:
        if image_id not in self._image_ids:
            raise BadRecord("image_missing", image_key)
        if not self._sample_ids.add(id_):
            raise BadRecord("duplicate_id", id_)

    def _count(self, source: str, task: str, split: str, n: int) -> None:
        self._counts[source, task, split] += n
        self._pending += n
        if self._pending >= SAMPLES_PER_SHARD:
            self._flush_samples(SAMPLES_PER_SHARD)

    def _flush_samples(self, each: int, least: int | None = None) -> None:
        """Write shards of `each` samples while there are as many, or at least `least`."""
        if self._samples:
            self._tables.append(_table(self._samples))
            self._samples = []
        if self._tables:
            table = pa.concat_tables(self._tables)
            while len(table) >= (least or each):
                name = f"samples-{sum(n.startswith('samples') for n in self._shards):05d}.parquet"
                pq.write_table(table.slice(0, each).combine_chunks(), self._temporary / name, compression="zstd")
                self._shards[name] = file_hash(self._temporary / name)
                table = table.slice(each)
            self._tables, self._pending = [table] if len(table) else [], len(table)

    def _finish(self) -> None:
        self._flush_samples(SAMPLES_PER_SHARD, least=1)
        self._tars.close()
        self._images.close()
        self._rejects.close()
        for name, (size, hash_) in self._tars.finished.items():
            self._files[name] = (self._files[name][0], size, hash_)
            self._shards[name] = hash_
        files = [(path, size, hash_) for path, (_, size, hash_) in self._files.items()]
        write_index(self._temporary, np.frombuffer(self._entries, ENTRY), files)
        for name in (IMAGES, IMAGE_IDS, IMAGE_PLACES, IMAGE_FILES):
            self._shards[name] = file_hash(self._temporary / name)
        self._referrer.allow()
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "n_samples": sum(self._counts.values()),
            "n_images": len(self._image_ids),
            "n_rejects": self._reasons.total(),
            "counts": [{"source": s, "task": t, "split": p, "n": n} for (s, t, p), n in sorted(self._counts.items())],
            "rejects": [{"source": s, "reason": r, "n": n} for (s, r), n in sorted(self._reasons.items())],
            "rejects_hash": file_hash(self._temporary / REJECTS),
            "shards": dict(sorted(self._shards.items())),
            "made_by": self.made_by,
        }
        manifest |= {"digest": self.digest} if self.digest else {}
        write_json(self._temporary / MANIFEST, manifest | ({"notes": self.notes} if self.notes else {}))
        retired = self.out.with_name(partial_name(self.out, "old"))
        if self.out.exists():
            os.replace(self.out, retired)
        try:
            os.replace(self._temporary, self.out)
        except OSError:
            if retired.exists():
                os.replace(retired, self.out)
            raise
        shutil.rmtree(retired, ignore_errors=True)


class _Rows:
    """A Parquet file that is written a few rows at a time."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._rows: list[tuple[Any, ...]] = []
        self._writer: pq.ParquetWriter | None = None
        self._closed = False

    def add(self, row: tuple[Any, ...]) -> None:
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def add_table(self, table: pa.Table) -> None:
        self._flush()
        if len(table):
            self._opened().write_table(table)

    def close(self) -> None:
        """Write what is left; an empty file where there was nothing. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        try:
            self._flush()
        finally:
            self._opened().close()

    def _flush(self) -> None:
        if self._rows:
            columns = [
                pa.array(column, field.type)
                for column, field in zip(zip(*self._rows, strict=True), self._schema, strict=True)
            ]
            self._rows = []
            self._opened().write_table(pa.table(columns, schema=self._schema))

    def _opened(self) -> pq.ParquetWriter:
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        return self._writer


def _table(samples: list[Sample]) -> pa.Table:
    return pa.table([_column(samples, field) for field in SCHEMA], schema=SCHEMA)


def _column(samples: list[Sample], field: pa.Field) -> pa.Array:
    """A field of all samples; equal lists, such as a data set's classes, are converted once."""
    values = [getattr(sample, field.name) for sample in samples]
    if not pa.types.is_list(field.type):
        return pa.array(values, field.type)
    places: dict[Any, int] = {}
    taken = [places.setdefault(value, len(places)) for value in values]
    return pa.array(list(places), field.type).take(pa.array(taken, pa.int32()))


def _doubtful(rows: pa.Table) -> set[int]:
    """The rows that `Sample.validate` might refuse, found by cheap signs."""
    signs = [pc.invert(pc.is_in(rows.column("split"), pa.array(SPLITS)))]
    signs += [pc.less_equal(rows.column(name), 0) for name in ("width", "height")]
    for name in ("question", "answer"):
        signs.append(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(rows.column(name))), 0))
        signs.append(pc.match_substring(rows.column(name), SPECIAL_TOKEN_START))
    found = {int(at) for sign in signs for at in np.flatnonzero(sign.to_numpy(zero_copy_only=False))}
    references = rows.column("references").combine_chunks()
    inside = pc.match_substring(pc.list_flatten(references), SPECIAL_TOKEN_START)
    return found | set(pc.filter(pc.list_parent_indices(references), inside).to_pylist())
