"""The index of near hashes: exactly what comparing all with all finds, however alike the hashes are."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geozero.common.errors import InputError
from geozero.curation.decontamination import near_duplicates
from geozero.curation.decontamination.near_duplicates import HASH_BITS, NONE, Hashes, NearIndex


def hashes(*values: int) -> Hashes:
    return np.array(values, np.uint64)


def expected(queries: list[int], table: list[int], radius: int) -> list[tuple[int, int]]:
    """Comparing all with all: row and distance of the first nearest."""
    found = []
    for query in queries:
        distance, row = min(((query ^ value).bit_count(), row) for row, value in enumerate(table))
        found.append((row, distance) if distance <= radius else (NONE, 0))
    return found


@settings(deadline=None)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=12), st.integers(0, 31), st.data())
def test_it_finds_what_comparing_all_finds(table: list[int], radius: int, data: st.DataObject) -> None:
    flips = st.lists(st.integers(0, HASH_BITS - 1), max_size=40, unique=True)
    queries = [
        data.draw(st.sampled_from(table)) ^ sum(1 << bit for bit in data.draw(flips))
        for _ in range(data.draw(st.integers(0, 12)))
    ]
    for gathered in (0, near_duplicates._GATHERED):  # 0: the index alone
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(near_duplicates, "_GATHERED", gathered)
            patch.setattr(near_duplicates, "_PAIRS_AT_A_TIME", 4)
            rows, apart = NearIndex(hashes(*table), radius).nearest(hashes(*queries))
        assert list(zip(rows.tolist(), apart.tolist(), strict=True)) == expected(queries, table, radius)


@pytest.mark.parametrize("alike", [False, True])
def test_thousands_at_once(alike: bool) -> None:
    rng = np.random.default_rng(7)
    table = rng.integers(0, 2**64, 2_000, dtype=np.uint64)
    if alike:  # images of water: they differ in twelve bits at most
        table &= np.uint64(0xFFF)
    queries = table[rng.integers(0, len(table), 3_000)]
    for _ in range(6):
        queries = queries ^ (np.uint64(1) << rng.integers(0, 64, len(queries), dtype=np.uint64))
    rows, apart = NearIndex(table, 4).nearest(queries)
    all_apart = np.bitwise_count(queries[:, None] ^ table[None, :])
    near_any = all_apart.min(axis=1) <= 4
    assert 0 < near_any.sum() < len(queries)
    assert np.array_equal(rows, np.where(near_any, all_apart.argmin(axis=1), NONE))
    assert np.array_equal(apart, np.where(near_any, all_apart.min(axis=1), 0))


def test_nothing_to_find() -> None:
    assert NearIndex(hashes(), 4).nearest(hashes(1, 2))[0].tolist() == [NONE, NONE]
    assert NearIndex(hashes(1), 4).nearest(hashes())[0].tolist() == []
    assert NearIndex(hashes(1), -1).nearest(hashes(1))[0].tolist() == [NONE]
    assert len(NearIndex(hashes(3, 3, 5), 4)) == 2
    with pytest.raises(InputError, match="near radius 32"):
        NearIndex(hashes(1), 32)


@pytest.mark.parametrize(("radius", "n", "tables"), [(4, 1_000, 5), (4, 400_000, 15), (4, 2_000_000, 15), (0, 10, 1)])
def test_more_hashes_are_told_apart_by_more_bits(radius: int, n: int, tables: int) -> None:
    """Else the hashes that agree by chance, and the time, would grow with the square of their number."""
    masks = near_duplicates._masks(radius, n)
    assert len(masks) == tables and all(mask.bit_count() >= min(math.log2(n), 12) for mask in masks)
    if n == 400_000:
        assert min(mask.bit_count() for mask in masks) >= math.log2(n)
    for flips in itertools.combinations(range(0, HASH_BITS, 5), radius):  # one table at least misses all flips
        changed = sum(1 << bit for bit in flips)
        assert any(mask & changed == 0 for mask in masks)


def test_a_large_radius_keeps_few_tables() -> None:
    assert len(near_duplicates._masks(20, 10**6)) == 21 and near_duplicates._masks(-1, 10) == []
