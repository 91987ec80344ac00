"""What checking a corpus costs whoever reads it: `python -m benchmarks.verification [--images N] [--side N]`.

A made-up corpus of JPEGs is read as a trainer reads it, all samples and every image once, decoded; each time in a
process of its own, in turn with and without the comparison of shards and images with their hashes. Warm, by processor
time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.corpus import jpeg
from geozero.corpus.images import StoredImage
from geozero.corpus.sample import Sample, digest
from geozero.corpus.store import CorpusWriter

MOST_SHARE = 0.03  # of reading
SAMPLES_PER_IMAGE = 4
READ = """
import sys, time
from geozero.corpus.image_store import ImageStore
from geozero.corpus.images import decode
from geozero.corpus.store import Corpus
if sys.argv[2] == "unchecked":
    Corpus._check = lambda self, *names: None
    ImageStore.read = lambda self, image_id: self._bytes(self.index.find(image_id))
began = time.process_time()
corpus = Corpus(sys.argv[1])
ids = list(dict.fromkeys(sample.image_id for sample in corpus.samples()))
read = [corpus.image_bytes(image_id) for image_id in ids]
bytes_read = time.process_time()
for data in read:
    decode(data)
print(bytes_read - began, time.process_time() - began)
"""


def make(place: Path, images: int, side: int) -> None:
    """Write the corpus: JPEGs of noise, a few questions about each."""
    rng = np.random.default_rng(7)
    with CorpusWriter(place, {"command": "made up"}) as writer:
        for n in range(images):
            data = jpeg(rng, side)
            image = StoredImage(digest(data), data, side, side, "0" * 16)
            writer.add_image(image, f"s/{n}")
            for k in range(SAMPLES_PER_IMAGE):
                key = f"{n}/{k}"
                question, answer = f"How many buildings are there in part {k}?", str(k)
                writer.add(
                    Sample(
                        key, "vqa", "made_up", "train", image.image_id, key, question, answer, width=side, height=side
                    )
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4_000)
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--runs", type=int, default=5)
    chosen = parser.parse_args()
    seconds: dict[str, list[tuple[float, float]]] = {"checked": [], "unchecked": []}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch, "corpus")
        make(place, chosen.images, chosen.side)
        for _ in range(chosen.runs):
            for kind, times in seconds.items():
                command = [sys.executable, "-c", READ, str(place), kind]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                raw, whole = map(float, done.stdout.split())
                times.append((raw, whole))
    for number, what in enumerate(("bytes only", "with decoding")):
        with_, without = (statistics.median(one[number] for one in seconds[kind]) for kind in ("checked", "unchecked"))
        share = with_ / without - 1
        goal = f" (goal {MOST_SHARE:.0%}: {'met' if share <= MOST_SHARE else 'MISSED'})" if number else ""
        print(f"{what}: {with_:.2f} s of CPU checked, {without:.2f} s unchecked: +{share:.1%}{goal}")


if __name__ == "__main__":
    main()
