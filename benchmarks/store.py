"""Read the pass rates of a large answer store into a table: `python -m benchmarks.store [--samples N] [--k K]`.

The store is made first (it takes longer than reading it) in chunks of the size that a GPU run writes, and is removed
afterwards. Memory is the most that the reading process took, in a process of its own; beside the wall time stands its
CPU time, which a busy machine does not blur.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geozero.difficulty import answer_store

ANSWERS = ("forest", "river", "dense residential", "yes", "no", "3", "[12, 34, 560, 780]", "A river runs by a forest.")
SECONDS, GIGABYTES = 20, 2  # the goal, for a million samples of eight answers


def make(out: Path, samples: int, k: int, chunk: int, seed: int) -> int:
    """Write a store of made-up answers, in the order in which sampling writes them; returns its bytes."""
    rng = np.random.default_rng(seed)
    fingerprint = answer_store.Fingerprint("m" * 32, "p" * 32, 1.0, 1.0, 256, seed, 1 << 20, 4096, "norm1000")
    writer = answer_store.AnswerWriter(out, fingerprint)
    answer_store.set_current(out, [fingerprint], k)
    for start in range(0, samples, chunk // k):
        n = min(chunk // k, samples - start)
        ids = np.repeat([f"{(start + i) * 2654435761 % 2**64:016x}{i:016x}" for i in range(n)], k)
        right = rng.random(n * k) < np.repeat(rng.random(n), k)
        texts = pa.array(ANSWERS).take(pa.array(rng.integers(0, len(ANSWERS), n * k)))
        prompts = np.repeat([f"{rng.integers(2**62):032x}" for _ in range(n)], k)
        columns = [
            ids,
            np.tile(np.arange(k, dtype=np.int32), n),
            texts,
            texts,
            right,
            right.astype(float),
            np.full(n * k, "stop"),
            rng.integers(1, 12, n * k),
            rng.integers(0, 2**31, n * k),
            np.full(n * k, fingerprint.model),
            prompts,
            np.repeat(rng.integers(0, 2**62, n), k),
            pa.nulls(n * k, pa.string()),
        ]
        arrays = [pa.array(c).cast(f.type) for c, f in zip(columns, answer_store.ANSWER_SCHEMA, strict=True)]
        table = pa.table(arrays, schema=answer_store.ANSWER_SCHEMA)
        pq.write_table(table, writer.path / f"answers-0of1-{start:016x}.parquet", compression="zstd")
    return sum(path.stat().st_size for path in answer_store.answer_files(writer.path))


def read(path: Path) -> None:
    """Print wall and CPU seconds, rows and the most memory of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    table = answer_store.pass_rates(path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"{seconds:.2f} {cpu:.2f} {len(table)} {peak / 1e9:.2f}")


def main() -> None:
    """Make, read in a child, print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=16_384, help="answers a file")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given, _ = parser.parse_known_args()
    if given.read:
        read(given.read)
        return
    with tempfile.TemporaryDirectory() as directory:
        start = time.perf_counter()
        size = make(Path(directory), given.samples, given.k, given.chunk, given.seed)
        made = time.perf_counter() - start
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.store", "--read", directory], capture_output=True, text=True, check=True
        )
    seconds, cpu, rows, gigabytes = map(float, done.stdout.split())
    scale = given.samples * given.k / 8_000_000
    met = seconds <= SECONDS * scale and gigabytes <= GIGABYTES
    goal = f"{SECONDS * scale:.1f} s, {GIGABYTES} GB: {'met' if met else 'MISSED'}"
    print(
        f"{rows:,.0f} samples x {given.k} answers ({size / 1e6:.0f} MB, written in {made:.0f} s): "
        f"read in {seconds:.1f} s ({cpu:.1f} s of CPU), {gigabytes:.2f} GB; goal {goal}"
    )


if __name__ == "__main__":
    main()
