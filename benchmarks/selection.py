"""Time `select` over a large store, without its corpora: `python -m benchmarks.selection [--samples N] [--k K]`.

Corpus and store are made first and removed afterwards. Candidates, answers, bands and choice are timed, in a process of
its own: all that `select` does before it writes the two corpora. `--stale` lets every stored reward be of other rules,
so that all are computed again. The corpus has no images: none is read.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from geozero import params
from geozero.corpus.sample import Sample, digest
from geozero.difficulty import answer_store, scoring
from geozero.difficulty.selection.bands import choose, measure
from geozero.difficulty.selection.select import load_answers, load_candidates

SECONDS, GIGABYTES = 60, 1  # the goal, for 6 million answers
CLASSES = tuple(f"class {i}" for i in range(45))
CAPTIONS = ("Many green trees stand beside a road.", "A river runs by a forest.", "Some houses stand in rows.")
CHUNK = 16_384  # answers a file


class Listed:
    """What `select` needs of a corpus, made as it is read."""

    def __init__(self, n: int) -> None:
        self.n, self.path = n, Path("listed")

    def samples(self, split: str | None = None) -> Iterator[Sample]:
        for i in range(self.n):
            common: dict[str, Any] = {"split": "train", "width": 600, "height": 600}
            common |= {"id": digest(b"%d" % i), "image_id": digest(b"i%d" % (i // 3)), "image_key": f"set/{i // 3}"}
            kind = i % 10
            if kind < 5:
                yield Sample(
                    task="scene_cls", source="a", question="Which?", answer=CLASSES[i % 45], classes=CLASSES, **common
                )
            elif kind < 8:
                yield Sample(task="vqa", source="b", question=f"Is {i} there?", answer=("yes", "no")[i % 2], **common)
            elif kind < 9:
                yield Sample(
                    task="grounding",
                    source="c",
                    question=f"Where is {i}?",
                    answer="[10, 10, 300, 300]",
                    box=(10.0, 10.0, 300.0, 300.0),
                    **common,
                )
            else:
                yield Sample(
                    task="caption", source="d", question="Say.", answer=CAPTIONS[0], references=CAPTIONS[:2], **common
                )


def make(out: Path, corpus: Listed, k: int, stale: bool) -> None:
    """Write a store of invented answers with their scores."""
    rng = np.random.default_rng(7)
    fingerprint = answer_store.Fingerprint("m" * 32, "p" * 32, 1.0, 1.0, 256, 7, 1 << 20, 4096, "norm1000")
    writer = answer_store.AnswerWriter(out, fingerprint)
    answer_store.set_current(out, [fingerprint], k)
    rewards: dict[tuple[str, str, str], float] = {}
    rows: list[dict[str, Any]] = []
    for s in corpus.samples():
        prompt, key = answer_store.prompt_hash(s), scoring.score_key(s, "norm1000")
        wrong = {"scene_cls": CLASSES[3], "vqa": "no", "caption": CAPTIONS[2]}.get(s.task)
        right, rate = s.answer if s.task != "grounding" else "[17, 17, 500, 500]", rng.random()
        for rollout in range(k):
            shift = int(rng.integers(100, 500))
            text = right if rng.random() < rate else wrong or f"[{shift}, {shift}, {shift + 200}, {shift + 300}]"
            pair = s.task, s.answer, text
            if pair not in rewards:
                rewards[pair] = scoring.reward_of(text, s, "norm1000")
            rows.append(
                {
                    "id": s.id,
                    "rollout": rollout,
                    "text": text,
                    "answer": text,
                    "success": None,
                    "reward": rewards[pair],
                    "finish_reason": "stop",
                    "n_tokens": 3,
                    "seed": rollout,
                    "model": fingerprint.model,
                    "prompt_hash": prompt,
                    "score_key": 0 if stale else key,
                    "error": None,
                }
            )
        if len(rows) >= CHUNK:
            writer.write(rows)
            rows = []
    if rows:
        writer.write(rows)


def read(store: Path, n: int) -> None:
    """Print wall and CPU seconds, samples chosen, and the most memory of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    corpus: Any = Listed(n)
    candidates = load_candidates(corpus, 1)
    listed = time.perf_counter() - start
    settings = params.Select()
    answers, _ = load_answers(store, corpus.path, candidates, answer_store.current(store), settings)
    loaded = time.perf_counter() - start - listed
    instruct, hard = choose(measure(answers, candidates, settings).band, candidates, settings)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"{seconds:.1f} {cpu:.1f} {peak:.2f} {int(instruct.sum())} {int(hard.sum())} {listed:.1f} {loaded:.1f}")


def main() -> None:
    """Make, read in a child, print one line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=750_000)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--stale", action="store_true")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.read:
        read(given.read, given.samples)
        return
    with tempfile.TemporaryDirectory() as directory:
        make(Path(directory), Listed(given.samples), given.k, given.stale)
        command = [sys.executable, "-m", "benchmarks.selection", "--read", directory, "--samples", str(given.samples)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, cpu, peak, easy, hard, listed, loaded = map(float, done.stdout.split())
    scale = given.samples * given.k / 6_000_000
    met = seconds <= SECONDS * scale and peak <= GIGABYTES
    print(
        f"{given.samples:,} samples x {given.k} answers: {seconds:.1f} s ({cpu:.1f} s of CPU; "
        f"listed in {listed:.1f} s, loaded in {loaded:.1f} s), {peak:.2f} GB, {easy:,.0f} easy, {hard:,.0f} hard; "
        f"goal {SECONDS * scale:.0f} s, {GIGABYTES} GB: {'met' if met else 'MISSED'}"
    )


if __name__ == "__main__":
    main()
