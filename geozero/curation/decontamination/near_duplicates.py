"""Near duplicates: the nearest of many 64-bit hashes within a Hamming radius, through an index of their parts."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from geozero.common.errors import InputError
from geozero.common.process import cores

HASH_BITS = 64
NONE = -1  # row for a query that has no near hash
_PAIRS_AT_A_TIME = 1 << 20  # about 30 MB of candidates per thread
# Measured: a candidate from the index costs this many comparisons of an all-pairs table, because it is gathered.
_GATHERED = 8
_ROW_BITS = 40

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Distances = npt.NDArray[np.uint8]


class NearIndex:
    """Distinct hashes, indexed by each of `radius + 1` parts of their bits (multi-index hashing, Norouzi et al. 2012).

    Two hashes that differ in at most `radius` bits agree in all bits of at least one part, so only hashes with an equal
    part are compared. The result is exact. Where the index does not pay, as with a large radius or very similar hashes,
    all pairs are compared.

    Args:
        hashes: the hashes to search, shape (n,).
        radius: maximum number of differing bits; negative: nothing is near.

    Raises:
        InputError: the radius is half of the bits or more.
    """

    def __init__(self, hashes: Hashes, radius: int) -> None:
        if radius >= HASH_BITS // 2:
            raise InputError(f"near radius {radius}", hint=f"below {HASH_BITS // 2}: farther apart all images are")
        self._radius = radius
        every = np.asarray(hashes, np.uint64)
        self._first = np.sort(np.unique(every, return_index=True)[1])
        self._hashes = every[self._first]
        self._parts = [_Part(self._hashes, shift, width) for shift, width in _cuts(radius + 1)] if radius >= 0 else []

    def __len__(self) -> int:
        """Number of distinct hashes."""
        return len(self._hashes)

    def nearest(self, queries: Hashes) -> tuple[Rows, Distances]:
        """For each query, the row of the nearest hash (the first of equally near ones) and its distance in bits; row -1
        where none is within the radius. Two threads share the work where there are two cores."""
        distinct, where = np.unique(np.asarray(queries, np.uint64), return_inverse=True)
        best = np.full(len(distinct), NONE, np.int64)
        apart = np.zeros(len(distinct), np.uint8)
        if len(distinct) and len(self) and self._radius >= 0:
            pieces = list(self._pieces(distinct))
            with ThreadPoolExecutor(min(2, cores())) as threads:
                for piece, (rows, distances) in zip(
                    pieces, threads.map(lambda p: self._search(distinct[p]), pieces), strict=True
                ):
                    best[piece], apart[piece] = rows, distances
        return best[where], apart[where]

    def _pieces(self, queries: Hashes) -> Iterator[slice]:
        """Stretches of the queries with a bounded number of candidates each."""
        cost = np.minimum(self._candidates(queries) * _GATHERED, len(self)).cumsum()
        start = 0
        while start < len(queries):
            done = cost[start - 1] if start else 0
            end = max(start + 1, int(np.searchsorted(cost, done + _PAIRS_AT_A_TIME * _GATHERED, side="right")))
            yield slice(start, end)
            start = end

    def _candidates(self, queries: Hashes) -> npt.NDArray[np.int64]:
        total = np.zeros(len(queries), np.int64)
        for part in self._parts:
            total += part.counts(queries)
        return total

    def _search(self, queries: Hashes) -> tuple[Rows, Distances]:
        # one number to minimise: distance first, then the row as the caller counts
        best = np.full(len(queries), np.iinfo(np.int64).max)
        many = self._candidates(queries) * _GATHERED > len(self)
        for rows in _blocks(np.flatnonzero(many), len(self)):
            apart = np.bitwise_count(queries[rows, None] ^ self._hashes[None, :])
            nearest = apart.argmin(axis=1)  # the first of equally near ones
            self._keep(best, rows, nearest, queries)
        few = np.flatnonzero(~many)
        for part in self._parts:
            at, found = part.pairs(queries[few])
            self._keep(best, few[at], found, queries)
        none = best == np.iinfo(np.int64).max
        rows = np.where(none, NONE, best & ((1 << _ROW_BITS) - 1))
        return rows, np.where(none, 0, best >> _ROW_BITS).astype(np.uint8)

    def _keep(self, best: npt.NDArray[np.int64], at: Rows, found: Rows, queries: Hashes) -> None:
        """Record the pairs (query, hash) that are within the radius."""
        apart = np.bitwise_count(queries[at] ^ self._hashes[found])
        near = np.flatnonzero(apart <= self._radius)
        scores = (apart[near].astype(np.int64) << _ROW_BITS) | self._first[found[near]]
        np.minimum.at(best, at[near], scores)


class _Part:
    """The hashes by some of their bits: `order` sorts them, `starts` says where each value begins."""

    def __init__(self, hashes: Hashes, shift: int, width: int) -> None:
        self._shift, self._mask = np.uint64(shift), np.uint64((1 << width) - 1)
        keys = self._keys(hashes)
        self._order = np.argsort(keys, kind="stable")
        self._values, counts = np.unique(keys, return_counts=True)
        self._starts = np.concatenate([[0], counts.cumsum()])

    def _keys(self, hashes: Hashes) -> Hashes:
        return (hashes >> self._shift) & self._mask

    def _buckets(self, queries: Hashes) -> tuple[Rows, Rows]:
        """Where the hashes that agree with each query begin, and how many they are."""
        keys = self._keys(queries)
        place = np.minimum(np.searchsorted(self._values, keys), len(self._values) - 1)
        counts = np.where(self._values[place] == keys, self._starts[place + 1] - self._starts[place], 0)
        return self._starts[place], counts

    def counts(self, queries: Hashes) -> Rows:
        """How many hashes agree with each query."""
        return self._buckets(queries)[1]

    def pairs(self, queries: Hashes) -> tuple[Rows, Rows]:
        """All (query, hash) that agree in this part."""
        starts, counts = self._buckets(queries)
        at = np.repeat(np.arange(len(queries)), counts)
        offset = np.arange(len(at)) - np.repeat(counts.cumsum() - counts, counts)
        return at, self._order[np.repeat(starts, counts) + offset]


def _cuts(parts: int) -> list[tuple[int, int]]:
    """(shift, width) of parts of nearly equal width that make up all bits."""
    edges = [round(n * HASH_BITS / parts) for n in range(parts + 1)]
    return [(low, high - low) for low, high in pairwise(edges)]


def _blocks(rows: Rows, each: int) -> Iterator[Rows]:
    """Rows of a table of `each` columns, in blocks of a bounded size."""
    step = max(1, _PAIRS_AT_A_TIME // max(each, 1))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
