"""What sampling costs beside the engine: `python -m benchmarks.loop [--samples N] [--k K]`.

An engine that answers at once: what is left is reading samples and images, prompts, rewards, and writing the store. And
the memory that a work list takes: `--list N` samples, without a corpus on disk.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.selection import Listed
from geozero.corpus.images import store
from geozero.corpus.store import CorpusWriter
from geozero.difficulty.sampling import sample
from geozero.difficulty.settings import SamplingSettings
from geozero.difficulty.work_list import build_work_list
from geozero.engines.base import ByBatch, Completion, Request, SamplingParams, first_seed

MICROSECONDS, GIGABYTES = 60, 2  # the goals: per answer; of a work list of ten million samples
IMAGES = 50
HEADER = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()


class AtOnce(ByBatch):
    """Answers at once."""

    name, reason = "at-once", "a benchmark"

    def generate(self, requests: Sequence[Request], params: SamplingParams) -> list[list[Completion]]:
        return [
            [Completion(f"class {i}", "stop", 3, first_seed(request, params) + i) for i in range(params.n)]
            for request in requests
        ]

    def describe(self) -> dict[str, Any]:
        return {"engine": self.name}

    def close(self) -> None:
        pass


def loop(samples: int, k: int) -> str:
    """CPU time per answer."""
    from dataclasses import replace

    with tempfile.TemporaryDirectory() as directory:
        root, rng = Path(directory), np.random.default_rng(0)
        model = root / "model"
        model.mkdir()
        (model / "config.json").write_text(json.dumps({"model_type": "qwen3_vl"}))
        (model / "model.safetensors").write_bytes(len(HEADER).to_bytes(8, "little") + HEADER + b"x")
        with CorpusWriter(root / "corpus", {"made_by": "benchmark"}) as writer:
            images = []
            for i in range(IMAGES):
                buffer = io.BytesIO()
                Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)).save(buffer, "PNG")
                images.append(store(buffer.getvalue()))
                writer.add_image(images[-1], f"set/{i}")
            for number, s in enumerate(Listed(samples).samples()):
                writer.add(replace(s, image_id=images[number % IMAGES].image_id))
        settings = SamplingSettings(k=k)
        start = time.process_time()
        done = sample(
            root / "corpus",
            [model],
            root / "store",
            settings,
            progress=lambda _: None,
            open_engine=lambda *_, **__: AtOnce(),
        )
        spent = 1e6 * (time.process_time() - start) / done.n_new
    return f"{done.n_new:,} answers: {spent:.0f} µs of CPU each; goal {MICROSECONDS}: {_met(spent <= MICROSECONDS)}"


def work_list(n: int) -> str:
    """Memory of a work list."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    corpus: Any = Listed(n)
    start = time.process_time()
    work, _ = build_work_list(corpus, 2, 0, 1, None, None)
    spent = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    whole = (before + (peak - before) * 10_000_000 / n) * 1024 / 1e9
    return (
        f"work list of {len(work.ids):,}: {spent:.0f} s of CPU, {peak * 1024 / 1e9:.2f} GB; ten million would take "
        f"{whole:.2f} GB; goal {GIGABYTES}: {_met(whole <= GIGABYTES)}"
    )


def _met(good: bool) -> str:
    return "met" if good else "MISSED"


def main() -> None:
    """Measure and print two lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=5000)
    parser.add_argument("--k", type=int, default=8)
    parser.add_argument("--list", type=int, default=1_500_000, help="fewer hardly show the slope")
    given = parser.parse_args()
    print(work_list(given.list), flush=True)
    print(loop(given.samples, given.k))


if __name__ == "__main__":
    main()
