"""A corpus on disk: write it shard by shard, stream it, look up one image.

Layout: `samples-*.parquet`, `images-*.parquet` (each image's bytes once, small uncompressed row groups),
`rejects.parquet` and `manifest.json`, written last: a corpus without a manifest is unfinished.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from geozero.common.atomic import write_json
from geozero.common.errors import BadRecord, InputError, refusal
from geozero.common.hash_set import HashSet64
from geozero.corpus.image_index import ImageIndex, shard
from geozero.corpus.images import StoredImage
from geozero.corpus.sample import SCHEMA, SCHEMA_VERSION, Sample, Split, TaskName

MANIFEST = "manifest.json"
REJECTS = "rejects.parquet"
SAMPLES_PER_SHARD = 20_000
REJECTS_PER_ROW_GROUP = 20_000
IMAGE_BYTES_PER_SHARD = 256 << 20
IMAGES_PER_ROW_GROUP = 64  # one look-up reads one row group
BYTES_PER_ROW_GROUP = 1 << 20  # … that ends where the images in it reach this size; readers keep a few of them

IMAGE_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("bytes", pa.binary(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("phash", pa.string(), nullable=False),
    ]
)
REJECT_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)


class CorpusWriter:
    """Writes a corpus into a temporary directory beside `out` and renames it when the block ends without error.

    Whatever ends the block, nothing half-written stays behind, and an older corpus at `out` stays whole; what a
    killed writer left is removed by the next one on the same machine. Of what is written only hashes stay in memory,
    some 20 bytes a sample.

    Args:
        out: the directory of the corpus; an existing finished one is replaced at the end. A link is followed.
        made_by: what made it (command, parameters, inputs); stands in the manifest.

    Attributes:
        notes: what else its maker found out, as JSON; stands in the manifest. May be filled until the block ends.

    Raises:
        InputError: something else stands at `out`; the disk is full, read-only or not ours.
    """

    def __init__(self, out: Path, made_by: Mapping[str, Any]) -> None:
        self.out, self.made_by = Path(os.path.realpath(out)), dict(made_by)
        self._beside = f"{socket.gethostname()}-{os.getpid()}"
        self._samples: list[Sample] = []
        self._images: list[tuple[str, StoredImage]] = []
        self._image_bytes = 0
        self.notes: dict[str, Any] = {}
        self._rejects: list[tuple[str, str, str, str]] = []
        self._reasons: Counter[tuple[str, str]] = Counter()
        self._sample_ids = HashSet64()
        self._image_ids = HashSet64()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._shards: dict[str, str] = {}
        self._reject_writer: pq.ParquetWriter | None = None
        self._image_writer: pq.ParquetWriter | None = None
        self._image_shard_bytes = 0

    def __enter__(self) -> CorpusWriter:
        with _refusals(self.out):
            if self.out.exists() and not self.out.is_dir():
                raise InputError("a file stands where the corpus is to go", str(self.out), "choose another --out")
            if self.out.exists() and any(self.out.iterdir()) and not (self.out / MANIFEST).exists():
                raise InputError(
                    "the output directory is not empty and holds no corpus", str(self.out), "choose another --out"
                )
            if Path.cwd().is_relative_to(self.out):  # a rename would pull the working directory away
                raise InputError("the working directory cannot become a corpus", str(self.out), "choose another --out")
            self.out.parent.mkdir(parents=True, exist_ok=True)
            _remove_abandoned(self.out)
            self._temporary = self.out.with_name(f".{self.out.name}.part-{self._beside}")
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with _refusals(self.out):
                if error is None:
                    self._finish()
                elif isinstance(error, OSError):
                    raise error
        finally:
            for unfinished in (self._image_writer, self._reject_writer):
                if unfinished is not None:
                    with suppress(OSError):  # it writes its footer; the disk may be full
                        unfinished.close()
            shutil.rmtree(self._temporary, ignore_errors=True)

    def add_image(self, image: StoredImage, image_key: str) -> None:
        """Store an image once; the key of its first occurrence stays with it."""
        if not self._image_ids.add(image.image_id):
            return
        self._images.append((image_key, image))
        self._image_bytes += len(image.data)
        if len(self._images) == IMAGES_PER_ROW_GROUP or self._image_bytes >= BYTES_PER_ROW_GROUP:
            self._flush_images()

    def add(self, sample: Sample) -> bool:
        """Store a sample whose image is already there; a broken or repeated one becomes a reject.

        Returns:
            Whether it was accepted.
        """
        try:
            sample.validate()
            if sample.image_id not in self._image_ids:
                raise BadRecord("image_missing", sample.image_key)
            if sample.id in self._sample_ids:
                raise BadRecord("duplicate_id", sample.id)
        except BadRecord as bad:
            self.reject(sample.source, sample.id, bad)
            return False
        self._sample_ids.add(sample.id)
        self._samples.append(sample)
        self._counts[(sample.source, sample.task, sample.split)] += 1
        if len(self._samples) == SAMPLES_PER_SHARD:
            self._flush_samples()
        return True

    def reject(self, source: str, key: str, bad: BadRecord) -> None:
        """List a record that did not become a sample, with the reason."""
        self._rejects.append((source, key, bad.reason, bad.detail))
        self._reasons[source, bad.reason] += 1
        if len(self._rejects) == REJECTS_PER_ROW_GROUP:
            self._flush_rejects()

    def has_image(self, image_id: str) -> bool:
        return image_id in self._image_ids

    def _flush_samples(self) -> None:
        if not self._samples:
            return
        name = f"samples-{sum(n.startswith('samples') for n in self._shards):05d}.parquet"
        table = pa.table([_column(self._samples, field) for field in SCHEMA], schema=SCHEMA)
        pq.write_table(table, self._temporary / name, compression="zstd")
        self._shards[name] = file_hash(self._temporary / name)
        self._samples = []

    def _flush_rejects(self) -> None:
        if self._reject_writer is None:
            self._reject_writer = pq.ParquetWriter(self._temporary / REJECTS, REJECT_SCHEMA)
        columns = list(zip(*self._rejects, strict=True)) or [()] * len(REJECT_SCHEMA)
        self._reject_writer.write_table(pa.table([pa.array(c, pa.string()) for c in columns], schema=REJECT_SCHEMA))
        self._rejects = []

    def _flush_images(self) -> None:
        if not self._images:
            return
        columns = list(
            zip(*[(i.image_id, k, i.data, i.width, i.height, i.phash) for k, i in self._images], strict=True)
        )
        table = pa.table([pa.array(c, f.type) for c, f in zip(columns, IMAGE_SCHEMA, strict=True)], schema=IMAGE_SCHEMA)
        if self._image_writer is None:
            self._image_name = f"images-{sum(n.startswith('images') for n in self._shards):05d}.parquet"
            self._image_writer = pq.ParquetWriter(
                self._temporary / self._image_name,
                IMAGE_SCHEMA,
                compression="none",
                use_dictionary=False,  # hardly a value stands there twice
                write_statistics=False,
            )
        self._image_writer.write_table(table)
        self._image_shard_bytes += self._image_bytes
        self._images, self._image_bytes = [], 0
        if self._image_shard_bytes >= IMAGE_BYTES_PER_SHARD:
            self._close_image_shard()

    def _close_image_shard(self) -> None:
        if self._image_writer is not None:
            self._image_writer.close()
            self._shards[self._image_name] = file_hash(self._temporary / self._image_name)
            self._image_writer, self._image_shard_bytes = None, 0

    def _finish(self) -> None:
        self._flush_samples()
        self._flush_images()
        self._close_image_shard()
        self._flush_rejects()
        if self._reject_writer is not None:
            self._reject_writer.close()
            self._reject_writer = None
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "n_samples": sum(self._counts.values()),
            "n_images": len(self._image_ids),
            "n_rejects": self._reasons.total(),
            "counts": [{"source": s, "task": t, "split": p, "n": n} for (s, t, p), n in sorted(self._counts.items())],
            "rejects": [{"source": s, "reason": r, "n": n} for (s, r), n in sorted(self._reasons.items())],
            "shards": dict(sorted(self._shards.items())),
            "made_by": self.made_by,
        }
        write_json(self._temporary / MANIFEST, manifest | ({"notes": self.notes} if self.notes else {}))
        retired = self.out.with_name(f".{self.out.name}.old-{self._beside}")
        if self.out.exists():
            os.replace(self.out, retired)
        try:
            os.replace(self._temporary, self.out)
        except OSError:
            if retired.exists():
                os.replace(retired, self.out)
            raise
        shutil.rmtree(retired, ignore_errors=True)


class Corpus:
    """A finished corpus, opened for reading. Samples stream; images are looked up one at a time.

    Raises:
        InputError: the directory is missing, unfinished, or of another schema version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError("no such corpus directory", str(self.path), "run `geozero ingest` or `geozero raw` first")
        manifest = self.path / MANIFEST
        if not manifest.is_file():
            raise InputError("unfinished or no corpus: manifest.json is missing", str(self.path), "make it again")
        try:
            self.manifest: dict[str, Any] = json.loads(manifest.read_text())
            version, shards = self.manifest["schema_version"], list(self.manifest["shards"])
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
            raise InputError(f"unreadable manifest: {error!r}", str(manifest), "make the corpus again") from None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"schema version {version}, this geozero reads {SCHEMA_VERSION}",
                str(self.path),
                "make the corpus again",
            )
        missing = [name for name in shards if not (self.path / name).is_file()]
        if missing:
            raise InputError(f"shard {missing[0]} is missing", str(self.path), "make the corpus again")
        self._sample_shards = [self.path / n for n in shards if n.startswith("samples")]
        self._image_shards = [self.path / n for n in shards if n.startswith("images")]
        self._images: ImageIndex | None = None

    def __len__(self) -> int:
        return int(self.manifest["n_samples"])

    @property
    def digest(self) -> str:
        """Hash of the shards' hashes: the identity of the data."""
        return hashlib.blake2b(json.dumps(self.manifest["shards"]).encode(), digest_size=16).hexdigest()

    def samples(self, split: Split | None = None, task: TaskName | None = None) -> Iterator[Sample]:
        """Stream the samples in their stored order, at most one batch in memory."""
        for path in self._sample_shards:
            with shard(path) as file:
                for batch in file.iter_batches(batch_size=2_048):
                    for row in batch.to_pylist():
                        if (split is None or row["split"] == split) and (task is None or row["task"] == task):
                            yield Sample.from_row(row)

    def columns(self, kind: Literal["samples", "images"], names: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns of the samples or the stored images; the others, such as bytes, are not read."""
        for path in self._sample_shards if kind == "samples" else self._image_shards:
            with shard(path) as file:
                for batch in file.iter_batches(batch_size=4_096, columns=names):
                    yield batch.select(names)

    def image_rows(self) -> Iterator[dict[str, Any]]:
        """Stream the stored images as rows of `IMAGE_SCHEMA`."""
        for path in self._image_shards:
            with shard(path) as file:
                for group in range(file.num_row_groups):
                    yield from file.read_row_group(group).to_pylist()

    def image_bytes(self, image_id: str) -> bytes:
        """The encoded bytes of one image.

        Raises:
            KeyError: the corpus holds no such image.
        """
        if self._images is None:
            self._images = ImageIndex(self._image_shards)
        return self._images[image_id]

    def rejects(self) -> list[dict[str, str]]:
        with shard(self.path / REJECTS) as file:
            rows: list[dict[str, str]] = file.read().to_pylist()
        return rows


def copy_image(writer: CorpusWriter, row: Mapping[str, Any]) -> None:
    """Carry one row of `Corpus.image_rows` over into another corpus, bytes untouched."""
    image = StoredImage(row["image_id"], row["bytes"], row["width"], row["height"], row["phash"])
    writer.add_image(image, row["image_key"])


def subset(corpus: Corpus, samples: list[Sample], out: Path, made_by: Mapping[str, Any]) -> None:
    """Write a corpus of some of `corpus`'s samples and just the images that they ask about."""
    needed = {s.image_id for s in samples}
    with CorpusWriter(out, made_by) as writer:
        for row in corpus.image_rows():
            if row["image_id"] in needed:
                copy_image(writer, row)
        for sample in samples:
            writer.add(sample)


def file_hash(path: Path) -> str:
    """BLAKE2b-128 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


@contextmanager
def _refusals(where: Path) -> Iterator[None]:
    """Turn what only the user can fix, such as a full disk, into InputError."""
    try:
        yield
    except OSError as error:
        refused = refusal(error, where)
        if refused is None:
            raise
        raise refused from None


def _remove_abandoned(out: Path) -> None:
    """Remove what killed writers of this corpus left; a temporary name ends with its writer's machine and process."""
    marks = tuple(f".{out.name}.{kind}-{socket.gethostname()}-" for kind in ("part", "old"))
    for path in [p for p in out.parent.iterdir() if p.name.startswith(marks)]:
        process = path.name.rpartition("-")[2]
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(path, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _column(samples: list[Sample], field: pa.Field) -> pa.Array:
    """A field of all samples; equal lists, such as a data set's classes, are converted once."""
    values = [getattr(sample, field.name) for sample in samples]
    if not pa.types.is_list(field.type):
        return pa.array(values, field.type)
    places: dict[Any, int] = {}
    taken = [places.setdefault(value, len(places)) for value in values]
    return pa.array(list(places), field.type).take(pa.array(taken, pa.int32()))
