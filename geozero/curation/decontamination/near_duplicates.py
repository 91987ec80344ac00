"""Near duplicates: the nearest of many 64-bit hashes within a Hamming radius, through an index of their parts."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations, pairwise

import numpy as np
import numpy.typing as npt

from geozero.common.errors import InputError
from geozero.common.process import cores

HASH_BITS = 64
NONE = -1  # row for a query that has no near hash
_QUERIES_AT_A_TIME = 1 << 16
_PAIRS_AT_A_TIME = 1 << 20  # about 30 MB of candidates per thread
# Measured: a candidate from the index costs this many comparisons of an all-pairs table, because it is gathered.
_GATHERED = 8
_ROW_BITS = 40
_MOST_TABLES = 32  # look-ups per query

Hashes = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int64]
Distances = npt.NDArray[np.uint8]


class NearIndex:
    """Distinct hashes, indexed by parts of their bits (multi-index hashing, Norouzi et al. 2012).

    Of p parts, two hashes that differ in at most `radius` bits agree in all bits of at least p − radius, so only hashes
    that agree in one of the choices of p − radius parts are compared. There are more parts for more hashes, so that
    the number of hashes that agree by chance stays small and the time grows with the number of hashes, not with its
    square. The result is exact. Where the index does not pay, as with a large radius or very similar hashes, all pairs
    are compared.

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
        self._tables = [_Table(self._hashes, mask) for mask in _masks(radius, len(self._hashes))]

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
            pieces = [slice(at, at + _QUERIES_AT_A_TIME) for at in range(0, len(distinct), _QUERIES_AT_A_TIME)]
            with ThreadPoolExecutor(min(2, cores())) as threads:
                for piece, (rows, distances) in zip(
                    pieces, threads.map(lambda p: self._search(distinct[p]), pieces), strict=True
                ):
                    best[piece], apart[piece] = rows, distances
        return best[where], apart[where]

    def _search(self, queries: Hashes) -> tuple[Rows, Distances]:
        # one number to minimise: distance first, then the row as the caller counts
        best = np.full(len(queries), np.iinfo(np.int64).max)
        found = [table.find(queries) for table in self._tables]
        candidates = sum((counts for _, counts in found), np.zeros(len(queries), np.int64))
        many = candidates * _GATHERED > len(self)
        for rows in _blocks(np.flatnonzero(many), len(self)):
            apart = np.bitwise_count(queries[rows, None] ^ self._hashes[None, :])
            nearest = apart.argmin(axis=1)  # the first of equally near ones
            self._keep(best, rows, nearest, queries)
        for table, (starts, counts) in zip(self._tables, found, strict=True):
            few = np.flatnonzero(~many & (counts > 0))
            for some in _pieces(counts[few]):
                at, places = _spread(starts[few[some]], counts[few[some]])
                self._keep(best, few[some][at], table.order[places].astype(np.int64), queries)
        none = best == np.iinfo(np.int64).max
        rows = np.where(none, NONE, best & ((1 << _ROW_BITS) - 1))
        return rows, np.where(none, 0, best >> _ROW_BITS).astype(np.uint8)

    def _keep(self, best: npt.NDArray[np.int64], at: Rows, found: Rows, queries: Hashes) -> None:
        """Record the pairs (query, hash) that are within the radius."""
        apart = np.bitwise_count(queries[at] ^ self._hashes[found])
        near = np.flatnonzero(apart <= self._radius)
        scores = (apart[near].astype(np.int64) << _ROW_BITS) | self._first[found[near]]
        np.minimum.at(best, at[near], scores)


class _Table:
    """The hashes by some of their bits: `order` sorts them, so that those which agree are neighbours."""

    def __init__(self, hashes: Hashes, mask: int) -> None:
        self._mask = np.uint64(mask)
        keys = hashes & self._mask
        self.order = np.argsort(keys).astype(np.int32)
        ordered = keys[self.order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)])
        self._values = ordered[first]
        self._starts = np.concatenate([first, [len(keys)]]).astype(np.int32)

    def find(self, queries: Hashes) -> tuple[Rows, Rows]:
        """Where in `order` the hashes that agree with each query begin, and how many they are."""
        keys = queries & self._mask
        if not len(self._values):
            return np.zeros(len(keys), np.int64), np.zeros(len(keys), np.int64)
        order = np.argsort(keys)  # neighbours are looked up in turn, or each look-up would miss the cache
        place = np.empty(len(keys), np.int64)
        place[order] = np.minimum(np.searchsorted(self._values, keys[order]), len(self._values) - 1)
        starts = self._starts[place].astype(np.int64)
        return starts, np.where(self._values[place] == keys, self._starts[place + 1] - starts, 0)


def _masks(radius: int, n: int) -> list[int]:
    """The bits of each choice of parts: as many that agreement by chance is rare among `n` hashes."""
    if radius < 0:
        return []
    parts = radius + 1
    while (parts - radius) * HASH_BITS / parts < math.log2(max(n, 1)) and math.comb(parts + 1, radius) <= _MOST_TABLES:
        parts += 1
    edges = [round(at * HASH_BITS / parts) for at in range(parts + 1)]
    bits = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(bits, parts - radius)]


def _spread(starts: Rows, counts: Rows) -> tuple[Rows, Rows]:
    """All (row, place) of rows with `counts` places each, from `starts` on."""
    at = np.repeat(np.arange(len(counts)), counts)
    offset = np.arange(len(at)) - np.repeat(counts.cumsum() - counts, counts)
    return at, np.repeat(starts, counts) + offset


def _pieces(counts: Rows) -> Iterator[slice]:
    """Stretches of the queries with a bounded number of candidates each, but at least one query."""
    total = counts.cumsum()
    start = 0
    while start < len(counts):
        done = total[start - 1] if start else 0
        end = max(start + 1, int(np.searchsorted(total, done + _PAIRS_AT_A_TIME, side="right")))
        yield slice(start, end)
        start = end


def _blocks(rows: Rows, each: int) -> Iterator[Rows]:
    """Rows of a table of `each` columns, in blocks of a bounded size."""
    step = max(1, _PAIRS_AT_A_TIME // max(each, 1))
    for start in range(0, len(rows), step):
        yield rows[start : start + step]
