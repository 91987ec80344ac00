"""How many images each pair of sources shares: a matrix source × source, by bytes, by name, and by looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import xxhash

from geozero.corpus.store import Corpus
from geozero.curation.decontamination.leaks import image_hashes
from geozero.curation.decontamination.name_maps import names_of
from geozero.curation.decontamination.near_duplicates import Hashes, NearIndex

Flags = npt.NDArray[np.bool_]
WAYS = ("bytes", "name", "looks")
_LOOKS = np.dtype([("picture", np.uint64), ("hash", np.uint64)])


def overlap_matrix(corpora: Sequence[Corpus], radius: int) -> dict[str, Any]:
    """How many images each source has, and how many of them each other source also has, over all splits.

    Returns:
        `sources`, sorted; `pictures`, the number of distinct images of each; and for each of `bytes`, `name`, `looks` a
        matrix: row A, column B counts the images of A that B holds in this way and in none of those before it. The
        diagonal is 0.
    """
    sources: list[str] = []
    rows = np.concatenate([np.empty((0, 3), np.uint64), *(part for c in corpora for part in _rows(c, sources))])
    looks_of = np.fromiter(((_hashed(i), value) for c in corpora for i, value in image_hashes(c)), _LOOKS)
    looks_of.sort(order="picture")
    images, at = np.unique(rows[:, :2], axis=0, return_inverse=True)  # source, image
    source = images[:, 0].astype(np.intp)
    hashes: Hashes = looks_of["hash"][np.searchsorted(looks_of["picture"], images[:, 1])]
    bytes_ = _held(images[:, 1], source, len(sources))[1]
    name_of_row, held = _held(rows[:, 2], rows[:, 0].astype(np.intp), len(sources), spread=False)
    name = np.zeros_like(bytes_)
    np.logical_or.at(name, at.reshape(-1), held[name_of_row])
    looks = np.zeros_like(bytes_)
    for one in range(len(sources)):
        looks[:, one] = NearIndex(hashes[source == one], radius).nearest(hashes)[0] >= 0
    ways = dict(zip(WAYS, (bytes_, name & ~bytes_, looks & ~name & ~bytes_), strict=True))
    order = np.argsort(sources) if sources else np.empty(0, np.intp)
    return {
        "sources": sorted(sources),
        "pictures": [int((source == one).sum()) for one in order],
        **{way: _matrix(flags, source, order) for way, flags in ways.items()},
    }


def _rows(corpus: Corpus, sources: list[str]) -> Iterator[npt.NDArray[np.uint64]]:
    """(source, image, name) of a corpus's samples as numbers, each once per batch; new sources are appended."""
    for batch in corpus.columns("samples", ["source", "image_id", "image_key"]):
        distinct = pa.Table.from_batches([batch]).group_by(["source", "image_id", "image_key"]).aggregate([])
        found = []
        for source, image_id, image_key in zip(*(distinct.column(n).to_pylist() for n in range(3)), strict=True):
            if source not in sources:
                sources.append(source)
            image = _hashed(image_id)
            found += [(sources.index(source), image, _hashed(name)) for name in names_of(image_key)]
        yield np.unique(np.array(found, np.uint64).reshape(-1, 3), axis=0)


def _held(
    values: npt.NDArray[np.uint64], source: npt.NDArray[np.intp], n: int, spread: bool = True
) -> tuple[npt.NDArray[np.intp], Flags]:
    """Place of each row's value among the distinct ones, and which sources hold it: a row a value, or (`spread`) a row
    a row."""
    distinct, at = np.unique(values, return_inverse=True)
    held = np.zeros((len(distinct), n), bool)
    held[at, source] = True
    return at, held[at] if spread else held


def _matrix(flags: Flags, source: npt.NDArray[np.intp], order: npt.NDArray[np.intp]) -> list[list[int]]:
    """Rows and columns in `order`: images of the row's source that the column's source holds."""
    return [[0 if a == b else int(flags[source == a, b].sum()) for b in order] for a in order]


def _hashed(text: str) -> int:
    return xxhash.xxh3_64_intdigest(text.encode())
