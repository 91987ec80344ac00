"""Decontamination: which training images also appear in an evaluation split, by bytes, by name, or by looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from geozero.common.hash_set import HashSet64
from geozero.corpus.sample import Sample
from geozero.corpus.store import Corpus
from geozero.curation.decontamination.name_maps import known_as
from geozero.curation.decontamination.near_duplicates import HASH_BITS, Hashes, NearIndex

NEAR_RADIUS = 4  # bits of 64 [ours]; see `Evaluated`
_HASHES_AT_A_TIME = 1 << 18
INFERRED = " (the map of these names is inferred)"


@dataclass(frozen=True, slots=True)
class Leak:
    """Why a training sample is removed (`leak_exact`, `leak_key`, `leak_near`), and the evaluation image it matches."""

    reason: str
    partner: str


class Evaluated:
    """The images of all evaluation splits, to look training images up in.

    Two images are near if their 64-bit perceptual hashes differ in at most `radius` bits. The rule, the hash (pHash)
    and the radius are ours. Measured on rendered and aerial images: a copy at another size (0.37 to 2 times) or JPEG
    quality (20) is at most 4 bits away, and mostly so is a brighter one; of 3.8 million pairs of different toy images
    with textures of eight classes, none is nearer than 10 bits. Cropped, rotated or mirrored copies are not found.
    Images without structure (a single colour) have similar hashes and count as near.

    Args:
        radius: 0 matches only equal hashes; a negative one turns the comparison by looks off.

    Raises:
        InputError: the radius is half of the bits or more.
    """

    def __init__(self, corpora: Iterable[Corpus], radius: int = NEAR_RADIUS) -> None:
        self._by_id: dict[str, str] = {}
        self._by_name: dict[str, str] = {}
        hashes: dict[str, int] = {}
        for corpus in corpora:
            ids = set()
            for image_id, image_key in images_asked(corpus, evaluated=True):
                ids.add(image_id)
                self._by_id.setdefault(image_id, image_key)
                for name in known_as(image_key)[0]:
                    self._by_name.setdefault(name, image_key)
            hashes.update((image_id, phash) for image_id, phash in image_hashes(corpus) if image_id in ids)
        self._index = NearIndex(np.fromiter(hashes.values(), np.uint64, len(hashes)), radius)
        self._hash_keys = [self._by_id[image_id] for image_id in hashes]

    def __len__(self) -> int:
        """Number of distinct evaluation images."""
        return len(self._by_id)

    def leak(self, sample: Sample) -> Leak | None:
        """Whether the sample's image is an evaluation image, by content or by name."""
        return self.leak_of(sample.image_id, sample.image_key)

    def leak_of(self, image_id: str, image_key: str) -> Leak | None:
        """Like `leak`, for an image given by its content hash and its key."""
        if image_id in self._by_id:
            return Leak("leak_exact", self._by_id[image_id])
        names, sure = known_as(image_key)
        for name in names:
            if name in self._by_name:
                partner = self._by_name[name]
                inferred = partner != image_key and not (sure and known_as(partner)[1])
                return Leak("leak_key", partner + INFERRED * inferred)
        return None

    def near(self, images: Iterable[tuple[str, int]]) -> dict[str, Leak]:
        """Which of the images, given as (image_id, perceptual hash), look like an evaluation image."""
        found: dict[str, Leak] = {}
        for ids, hashes in _chunks(images, _HASHES_AT_A_TIME):
            rows, distances = self._index.nearest(hashes)
            for at in np.flatnonzero(rows >= 0):
                partner = self._hash_keys[rows[at]]
                found[ids[at]] = Leak("leak_near", f"{partner} ({distances[at]} of {HASH_BITS} bits apart)")
        return found


def images_asked(corpus: Corpus, evaluated: bool) -> Iterator[tuple[str, str]]:
    """(image_id, image_key) of the images that a corpus's val and test samples ask about, or its train samples;
    each once."""
    known = HashSet64()
    for batch in corpus.columns("samples", ["split", "image_id", "image_key"]):
        for split, *pair in zip(*(batch.column(n).to_pylist() for n in range(3)), strict=True):
            image = (pair[0], pair[1])
            if (split != "train") == evaluated and known.add("\n".join(image)):
                yield image


def image_hashes(corpus: Corpus) -> Iterator[tuple[str, int]]:
    """(image_id, perceptual hash) of all stored images, without reading their bytes."""
    for batch in corpus.columns("images", ["image_id", "phash"]):
        for image_id, phash in zip(*(batch.column(n).to_pylist() for n in range(2)), strict=True):
            yield image_id, int(phash, 16)


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
