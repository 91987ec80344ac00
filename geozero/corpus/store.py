"""A corpus on disk, opened for reading: its samples stream, its images are looked up one at a time.

Layout: `samples-*.parquet`; `images.parquet`, what images there are; `image-ids.npy`, `image-places.npy` and
`image-files.arrow`, where the bytes of each lie: in `images-*.tar` beside them, in those of another corpus, or in the
user's own files; `rejects.parquet`; and `manifest.json`, written last: a corpus without a manifest is unfinished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from geozero.common.errors import InputError
from geozero.common.hash_set import HashSet64
from geozero.common.process import cores
from geozero.corpus.image_index import Entries
from geozero.corpus.image_store import ImageStore
from geozero.corpus.images import StoredImage
from geozero.corpus.layout import (
    AGAIN,
    IMAGE_FILES,
    IMAGE_INDEX,
    IMAGE_SCHEMA,
    MANIFEST,
    PARQUET_IMAGES,
    REJECTS,
    file_hash,
    read_manifest,
    shard,
)
from geozero.corpus.parquet_images import ParquetImages
from geozero.corpus.sample import FIELD_NAMES, Sample, Split, TaskName, samples_of
from geozero.corpus.writer import CorpusWriter

__all__ = ["MANIFEST", "REJECTS", "Corpus", "CorpusWriter", "copy_image", "file_hash", "refer_images", "subset"]


class Corpus:
    """A finished corpus. What is read is checked against the manifest first, an image when it is first read.

    Raises:
        InputError: the directory is missing, unfinished, or of another schema version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise InputError("no such corpus directory", str(self.path), "run `geozero ingest` or `geozero raw` first")
        self.manifest: dict[str, Any] = read_manifest(self.path)
        shards = list(self.manifest["shards"])
        missing = [name for name in shards if not (self.path / name).is_file()]
        if missing:
            raise InputError(f"shard {missing[0]} is missing", str(self.path), AGAIN)
        self._is_parquet: bool = self.manifest["schema_version"] == PARQUET_IMAGES
        self._sample_shards = [self.path / n for n in shards if n.startswith("samples")]
        self._image_shards = [self.path / n for n in shards if n.startswith("images") and n.endswith(".parquet")]
        self._images: ImageStore | ParquetImages | None = None
        rejects = self.manifest.get("rejects_hash")  # corpora of earlier versions have none
        self._hashes: dict[str, str] = self.manifest["shards"] | ({REJECTS: rejects} if rejects else {})
        self._sound: set[str] = set()  # shards whose hash was compared
        self._files: dict[int, tuple[str, int, str]] = {}

    def __len__(self) -> int:
        return int(self.manifest["n_samples"])

    @property
    def digest(self) -> str:
        """The identity of the data, wherever the images lie: the hash of the hashes of the samples' shards, which name
        each image by its content. A corpus of the earlier form goes by all its shards."""
        if known := self.manifest.get("digest"):
            return str(known)
        shards = self.manifest["shards"]
        if not self._is_parquet:
            shards = {name: hash_ for name, hash_ in shards.items() if name.startswith("samples")}
        return hashlib.blake2b(json.dumps(shards).encode(), digest_size=16).hexdigest()

    def samples(self, split: Split | None = None, task: TaskName | None = None) -> Iterator[Sample]:
        """Stream the samples in their stored order, at most one batch in memory."""
        for path in self._sample_shards:
            self._check(path.name)
            with shard(path) as file:
                for batch in file.iter_batches(batch_size=2_048, columns=list(FIELD_NAMES)):
                    for name, value in (("split", split), ("task", task)):
                        if value is not None:
                            batch = batch.filter(pc.equal(batch.column(name), value))
                    yield from samples_of(batch)

    def columns(self, kind: Literal["samples", "images"], names: list[str]) -> Iterator[pa.RecordBatch]:
        """Stream some columns of the samples or the stored images."""
        for path in self._sample_shards if kind == "samples" else self._image_shards:
            if kind == "samples" or not self._is_parquet:  # else more would be hashed than is read
                self._check(path.name)
            with shard(path) as file:
                for batch in file.iter_batches(batch_size=4_096, columns=names):
                    yield batch.select(names)

    def image_rows(self) -> Iterator[dict[str, Any]]:
        """Stream the stored images in their order: the columns of `IMAGE_SCHEMA`, and `bytes`."""
        for batch in self.columns("images", IMAGE_SCHEMA.names):
            for row in batch.to_pylist():
                yield {**row, "bytes": self.image_bytes(row["image_id"])}

    def image_bytes(self, image_id: str) -> bytes:
        """The encoded bytes of one image.

        Raises:
            KeyError: the corpus holds no such image.
            InputError: its file is missing, damaged or not the one that the corpus was made of.
        """
        try:
            return self._store.read(image_id)
        except KeyError:
            if not self._is_parquet:
                self._check(*IMAGE_INDEX)
            raise

    def rejects(self) -> list[dict[str, str]]:
        """What was refused: source, key, reason, detail.

        Raises:
            InputError: the file is damaged.
        """
        if REJECTS in self._hashes:
            self._check(REJECTS)
        with shard(self.path / REJECTS) as file:
            rows: list[dict[str, str]] = file.read().to_pylist()
        return rows

    def verify(self) -> None:
        """Compare every shard with the manifest, and the files referred to where one is newer than the manifest.

        Raises:
            InputError: one is damaged, missing or another; its name is in the message.
        """
        self._check(*self._hashes)
        store = self._store
        if isinstance(store, ImageStore):
            for file in range(len(store.index.files)):
                if not store.is_own(file):
                    store.check_file(file, self._made)

    def entries_of(self, image_ids: list[str]) -> Entries:
        """The index entries of images, for a corpus that is to refer to them.

        Raises:
            InputError: the index is damaged.
        """
        self._check(*IMAGE_INDEX)
        assert isinstance(self._store, ImageStore)
        return self._store.index.entries_of(image_ids)

    def image_file(self, number: int) -> tuple[str, int, str]:
        """Path, size and hash of a file that index entries name; compared first if it was touched since this corpus
        was made.

        Raises:
            InputError: it is damaged, missing or another.
        """
        if number not in self._files:
            assert isinstance(self._store, ImageStore)
            self._store.check_file(number, self._made)
            self._files[number] = self._store.file(number)
        return self._files[number]

    @property
    def has_places(self) -> bool:
        """Whether its images can be referred to; those in the Parquet shards of the earlier form cannot."""
        return not self._is_parquet

    @property
    def is_packed(self) -> bool:
        """Whether the bytes of all its images are in its own directory."""
        store = self._store
        if isinstance(store, ParquetImages):
            return True
        return all(store.is_own(file) for file in range(len(store.index.files)))

    @property
    def _store(self) -> ImageStore | ParquetImages:
        if self._images is None:
            if self._is_parquet:
                self._images = ParquetImages(self._image_shards)
            else:
                self._check(IMAGE_FILES)
                self._images = ImageStore(self.path, self.manifest["n_images"])
        return self._images

    @property
    def _made(self) -> float:
        return (self.path / MANIFEST).stat().st_mtime

    def _check(self, *names: str) -> None:
        """Compare shards with the hashes in the manifest, each once."""

        def damaged(name: str) -> bool:
            try:
                return bool(file_hash(self.path / name) != self._hashes[name])
            except OSError as error:
                raise InputError(f"unreadable shard: {error.strerror}", str(self.path / name), AGAIN) from None

        unknown = [name for name in names if name not in self._sound]
        if len(unknown) > 1:
            with ThreadPoolExecutor(min(cores(), len(unknown))) as threads:
                found = list(threads.map(damaged, unknown))
        else:
            found = [damaged(name) for name in unknown]
        for name, is_damaged in zip(unknown, found, strict=True):
            if is_damaged:
                raise InputError("damaged shard: it has changed", str(self.path / name), AGAIN)
            self._sound.add(name)


def copy_image(writer: CorpusWriter, row: Mapping[str, Any]) -> None:
    """Carry one row of `Corpus.image_rows` over into another corpus, bytes and all."""
    image = StoredImage(row["image_id"], row["bytes"], row["width"], row["height"], row["phash"])
    writer.add_image(image, row["image_key"])


def refer_images(writer: CorpusWriter, corpus: Corpus, needed: HashSet64 | Container[str]) -> None:
    """Take those of a corpus's images over that are needed, in their order: no bytes are read or written, but those
    of a corpus of the earlier form, which are copied."""
    if not corpus.has_places:
        for row in corpus.image_rows():
            if row["image_id"] in needed:
                copy_image(writer, row)
        return
    for batch in corpus.columns("images", IMAGE_SCHEMA.names):
        chosen = [image_id in needed for image_id in batch.column("image_id").to_pylist()]
        rows = pa.Table.from_batches([batch]).filter(pa.array(chosen, pa.bool_()))
        if len(rows):
            writer.refer_images(rows, corpus.entries_of(rows.column("image_id").to_pylist()), corpus.image_file)


def subset(corpus: Corpus, samples: list[Sample], out: Path, made_by: Mapping[str, Any]) -> None:
    """Write a corpus of some of `corpus`'s samples and just the images that they ask about."""
    with CorpusWriter(out, made_by) as writer:
        refer_images(writer, corpus, {s.image_id for s in samples})
        for sample in samples:
            writer.add(sample)
