"""Decontamination: which training pictures also stand in an evaluation split, in the same bytes, name, or looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from geozero.corpus import Corpus
from geozero.errors import InputError
from geozero.sample import Sample

NEAR_RADIUS = 4  # bits of 64 [ours]; see `Evaluated`
HASH_BITS = 64
_PAIRS_AT_A_TIME = 4 << 20  # 32 MB of distances; 1e9 comparisons take seconds

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Leak:
    """Why a training sample goes: `leak_exact`, `leak_key` or `leak_near`, and the evaluation picture it meets."""

    reason: str
    partner: str


class Evaluated:
    """All pictures of evaluation splits; says of a training picture whether it is one of them.

    Near means: the 64-bit perceptual hashes differ in at most `radius` bits. The rule, the hash (pHash) and the radius
    are ours. Measured on rendered and on aerial pictures: a copy at another size (0.37 to 2 times) or JPEG quality (20)
    is at most 4 bits away, a brighter one mostly; of 3.8 million pairs of different pictures of the toy world, textures
    of eight classes, none is nearer than 10 bits. A cropped, turned or mirrored copy is not found.
    Every training hash is compared with every evaluation hash, some 2 s for a thousand million pairs; for sets where
    that takes too long, `near` is the place for an index.

    Args:
        radius: 0 keeps only equal hashes, a negative one turns the comparison of looks off.
    """

    def __init__(self, corpora: Iterable[Corpus], radius: int = NEAR_RADIUS) -> None:
        if radius >= HASH_BITS // 2:
            raise InputError(f"near radius {radius}", mend=f"below {HASH_BITS // 2}: farther apart all pictures are")
        self._radius = radius
        self._by_id: dict[str, str] = {}
        self._by_key: dict[str, str] = {}
        hashes: dict[str, int] = {}
        for corpus in corpora:
            ids = set()
            for sample in corpus.samples():
                if sample.split != "train":
                    ids.add(sample.image_id)
                    self._by_id.setdefault(sample.image_id, sample.image_key)
                    self._by_key.setdefault(picture_of(sample.image_key), sample.image_key)
            hashes.update((image_id, phash) for image_id, phash in image_hashes(corpus) if image_id in ids)
        self._hashes: Hashes = np.fromiter(hashes.values(), np.uint64, len(hashes))
        self._hash_keys = [self._by_id[image_id] for image_id in hashes]

    def __len__(self) -> int:
        """How many distinct pictures are evaluated on."""
        return len(self._by_id)

    def leak(self, sample: Sample) -> Leak | None:
        """Whether the sample's picture is evaluated on, by content or by name."""
        if sample.image_id in self._by_id:
            return Leak("leak_exact", self._by_id[sample.image_id])
        partner = self._by_key.get(picture_of(sample.image_key))
        return None if partner is None else Leak("leak_key", partner)

    def near(self, images: Iterable[tuple[str, int]]) -> dict[str, Leak]:
        """Which of the pictures, given as (image_id, perceptual hash), look like one that is evaluated on."""
        found: dict[str, Leak] = {}
        if self._radius < 0 or not len(self._hashes):
            return found
        rows = max(1, _PAIRS_AT_A_TIME // len(self._hashes))
        for ids, hashes in _chunks(images, rows):
            apart = np.bitwise_count(hashes[:, None] ^ self._hashes[None, :])
            nearest = apart.argmin(axis=1)
            distances = apart[np.arange(len(ids)), nearest]
            for row in np.flatnonzero(distances <= self._radius):
                partner = self._hash_keys[nearest[row]]
                found[ids[row]] = Leak("leak_near", f"{partner} ({distances[row]} of {HASH_BITS} bits apart)")
        return found


def picture_of(image_key: str) -> str:
    """The name under which a picture is compared: one name for pictures that two data sets share by file name.

    This is the place for the name maps between data sets. RSICD holds all of AID by file name.
    """
    data_set, _, rest = image_key.partition("/")
    if data_set in ("aid", "rsicd") and rest.count("/") == 1:
        return f"aid/{rest.rpartition('/')[2].lower()}"
    return image_key


def image_hashes(corpus: Corpus) -> Iterator[tuple[str, int]]:
    """(image_id, perceptual hash) of all stored pictures, without reading their bytes."""
    for row in image_columns(corpus, ["image_id", "phash"]):
        yield row["image_id"], int(row["phash"], 16)


def image_columns(corpus: Corpus, columns: list[str]) -> Iterator[dict[str, Any]]:
    """Some columns of the stored pictures, streamed."""
    for name in corpus.manifest["shards"]:
        if name.startswith("images"):
            with pq.ParquetFile(corpus.path / name) as file:
                for batch in file.iter_batches(batch_size=4_096, columns=columns):
                    yield from batch.to_pylist()


def _chunks(images: Iterable[tuple[str, int]], size: int) -> Iterator[tuple[list[str], Hashes]]:
    ids: list[str] = []
    values: list[int] = []
    for image_id, phash in images:
        ids.append(image_id)
        values.append(phash)
        if len(ids) == size:
            yield ids, np.array(values, np.uint64)
            ids, values = [], []
    if ids:
        yield ids, np.array(values, np.uint64)
