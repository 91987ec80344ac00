"""Time the search for near duplicates: `python -m benchmarks.near [--trained N] [--evaluated N]`.

Hashes of three kinds, mixed: any bits; copies of evaluated images with up to `--radius` bits changed; and images
that are all alike (water, fields: a few bits around some centres), for which an index helps least. The peer compares
all with all, a NumPy expression a query, on a part of the queries; both have to find the same.
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np
import numpy.typing as npt

from geozero.curation.decontamination.near_duplicates import HASH_BITS, NONE, Hashes, NearIndex

MOST_SECONDS = 180.0  # what is wanted at 500,000 against 100,000 on two cores
CENTRES, SPREAD_BITS = 50, 12


def flipped(rng: np.random.Generator, hashes: Hashes, most: int) -> Hashes:
    """The hashes with 0 to `most` bits of each turned."""
    for _ in range(most):
        bit = np.uint64(1) << rng.integers(0, HASH_BITS, len(hashes), dtype=np.uint64)
        hashes = np.where(rng.random(len(hashes)) < 0.5, hashes ^ bit, hashes)
    return hashes


def some(rng: np.random.Generator, n: int, alike: float) -> Hashes:
    """Hashes, a share of them alike: around few centres, the same for every caller."""
    centres = np.random.default_rng(0).integers(0, 2**64, CENTRES, dtype=np.uint64)
    hashes = rng.integers(0, 2**64, n, dtype=np.uint64)
    near = rng.random(n) < alike
    hashes[near] = flipped(rng, centres[rng.integers(0, CENTRES, int(near.sum()))], SPREAD_BITS)
    return hashes


def all_with_all(queries: Hashes, table: Hashes, radius: int) -> npt.NDArray[np.int64]:
    """The peer: the nearest row of each query within the radius."""
    rows = np.empty(len(queries), np.int64)
    for at, query in enumerate(queries):
        apart = np.bitwise_count(table ^ query)
        rows[at] = apart.argmin() if apart.min() <= radius else NONE
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Make hashes, search, compare, and print a line each."""
    parser = argparse.ArgumentParser(description="Time the search for near duplicates.")
    parser.add_argument("--trained", type=int, default=500_000)
    parser.add_argument("--evaluated", type=int, default=100_000)
    parser.add_argument("--radius", type=int, default=4)
    parser.add_argument("--copies", type=float, default=0.1, help="share of the trained that copy an evaluated one")
    parser.add_argument("--alike", type=float, default=0.1, help="share of both that are all alike")
    parser.add_argument("--peer", type=int, default=500, help="queries that are compared with all, too")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)
    rng = np.random.default_rng(chosen.seed)
    table, queries = (some(rng, n, chosen.alike) for n in (chosen.evaluated, chosen.trained))
    copies = rng.random(len(queries)) < chosen.copies
    queries[copies] = flipped(rng, table[rng.integers(0, len(table), int(copies.sum()))], chosen.radius)
    start, begun = time.perf_counter(), time.process_time()
    index = NearIndex(table, chosen.radius)
    rows, _ = index.nearest(queries)
    seconds, busy = time.perf_counter() - start, time.process_time() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"index: {len(queries)} against {len(table)}, radius {chosen.radius}: {seconds:.1f} s, cpu {busy:.1f} s, "
        f"found {int((rows >= 0).sum())}, peak {peak:.0f} MB (wanted ≤ {MOST_SECONDS:g} s at 500,000 against 100,000)"
    )
    part = rng.choice(len(queries), min(chosen.peer, len(queries)), replace=False)
    start, begun = time.perf_counter(), time.process_time()
    expected = all_with_all(queries[part], table, chosen.radius)
    scale = len(queries) / len(part)
    seconds, busy = (time.perf_counter() - start) * scale, (time.process_time() - begun) * scale
    same = bool((expected == rows[part]).all())
    print(f"all with all: {seconds:.0f} s, cpu {busy:.0f} s (from {len(part)} queries); same result: {same}")
    if not same:
        raise SystemExit("the index found something else")


if __name__ == "__main__":
    main()
