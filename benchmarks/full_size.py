"""The data line at full size: `python -m benchmarks.full_size [--share S] [--image-bytes N]`.

Six made-up sources with 754,749 training samples about 400,000 images (small JPEGs, each unique), one evaluation
corpus, and a store of made-up answers. Each stage runs in a process of its own; a line says its wall and CPU seconds,
its peak memory, and what it added on disk (`du` by inode). `rows` is what SFT and A²GRPO do until their first batch:
the rows that ms-swift reads are written, then images are read and decoded in a shuffled order.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from geozero.corpus.images import StoredImage
from geozero.corpus.sample import digest
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.curation.ingest.ingest import KnownImage, to_sample
from geozero.difficulty import answer_store
from geozero.sources import Record

# source → task, training samples, images; together 754,749 and 400,000
SOURCES = {
    "scenes_a": ("scene_cls", 120_000, 120_000),
    "scenes_b": ("scene_cls", 60_000, 60_000),
    "questions_a": ("vqa", 360_000, 60_000),
    "questions_b": ("vqa", 74_749, 20_000),
    "captions": ("caption", 80_000, 80_000),
    "boxes": ("grounding", 60_000, 60_000),
}
EVALUATED = ("evaluated", "scene_cls", 20_000, 20_000)
CLASSES = tuple(f"land use {n}" for n in range(30))
SIDE, POOL, K = 64, 64, 8
BATCHES, BATCH = 10, 32  # of images that are read as a training does
MOST_SECONDS, MOST_MB = 40.0, 1024.0  # raw and select

CHILD = """
import json, resource, sys, time
from pathlib import Path
start = time.perf_counter()
{code}
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{"seconds": time.perf_counter() - start, "cpu": used.ru_utime + used.ru_stime,
    "mb": used.ru_maxrss / 1024, "said": said}}))
"""


def pool(rng: np.random.Generator, size: int) -> list[bytes]:
    """JPEGs that are told apart by what follows their end; padded to `size` bytes."""
    made = []
    for _ in range(POOL):
        buffer = io.BytesIO()
        coarse = Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((SIDE, SIDE))
        coarse.save(buffer, "JPEG", quality=90)
        made.append(buffer.getvalue() + bytes(max(0, size - 8 - buffer.tell())))
    return made


def records(source: str, task: str, samples: int, images: int, split: Any) -> Iterator[Record]:
    """The records of a source, those of one image after each other."""
    for n in range(samples):
        image = n * images // samples
        common = {"task": task, "split": split, "key": str(n), "image": str(image), "image_key": f"{source}/{image}"}
        if task == "scene_cls":
            yield Record(**common, answer=CLASSES[image % len(CLASSES)], classes=CLASSES)
        elif task == "caption":
            yield Record(**common, references=(f"Scene {image} has {n % 7} buildings near a road.", "A road."))
        elif task == "grounding":
            yield Record(**common, text=f"the building number {n} on the left", box=(4.0, 4.0, 30.0 + n % 30, 40.0))
        else:
            yield Record(**common, text=f"Is there a road of kind {n}?", answer=("yes", "no")[n % 2], question_type="a")


def make_corpus(out: Path, source: str, task: str, samples: int, images: int, split: str, size: int, seed: int) -> int:
    """Write one source as a corpus without decoding; the bytes of its images."""
    rng, total = np.random.default_rng(seed), 0
    known: dict[str, KnownImage] = {}
    jpegs = pool(rng, size)
    with CorpusWriter(out, {"command": "made up", "source": source}) as writer:
        for record in records(source, task, samples, images, split):
            if record.image not in known:
                known.clear()
                data = jpegs[int(record.image) % POOL] + seed.to_bytes(4, "big") + int(record.image).to_bytes(4, "big")
                image = StoredImage(digest(data), data, SIDE, SIDE, f"{int(rng.integers(0, 2**63)):016x}")
                known[record.image] = KnownImage(image.image_id, SIDE, SIDE)
                writer.add_image(image, record.image_key)
                total += len(data)
            boxes = () if record.box is None else (record.box,)
            if not writer.add(to_sample(source, record, known[record.image], boxes)):
                raise SystemExit("a made-up sample was refused")
    return total


def make_store(corpus: Path, out: Path, seed: int) -> None:
    """K answers to each sample, right with a probability of its own."""
    rng = np.random.default_rng(seed)
    fingerprint = answer_store.Fingerprint("m" * 32, "p" * 32, 1.0, 1.0, 256, seed, 1 << 20, 4096, "norm1000")
    writer = answer_store.AnswerWriter(out, fingerprint)
    answer_store.set_current(out, [fingerprint], K)
    rows: list[tuple[str, str, str]] = []

    def flush() -> None:
        n = len(rows)
        ids, prompts, answers = (np.repeat(np.array(column, object), K) for column in zip(*rows, strict=True))
        right = rng.random(n * K) < np.repeat(np.round(rng.random(n), 1), K)
        texts = np.where(right, answers, "something else")
        values = {
            "id": ids,
            "rollout": np.tile(np.arange(K), n),
            "text": texts,
            "answer": texts,
            "success": right,
            "reward": right.astype(float),
            "finish_reason": ["stop"] * (n * K),
            "n_tokens": rng.integers(1, 12, n * K),
            "seed": rng.integers(0, 2**31, n * K),
            "model": [fingerprint.model] * (n * K),
            "prompt_hash": prompts,
        }
        schema = answer_store.ANSWER_SCHEMA
        arrays = [
            pa.array(values[f.name], from_pandas=False).cast(f.type) if f.name in values else pa.nulls(n * K, f.type)
            for f in schema
        ]
        name = f"answers-0of1-{rng.integers(2**62):016x}.parquet"
        pq.write_table(pa.table(arrays, schema=schema), writer.path / name, compression="zstd")
        rows.clear()

    for sample in Corpus(corpus).samples(split="train"):
        rows.append((sample.id, answer_store.prompt_hash(sample), sample.answer))
        if len(rows) == 2_048:
            flush()
    if rows:
        flush()


def disk(*places: Path) -> int:
    """Bytes of all files below, each inode once."""
    seen = {}
    for place in places:
        for path in place.rglob("*"):
            if path.is_file() and not path.is_symlink():
                state = path.stat()
                seen[state.st_dev, state.st_ino] = state.st_blocks * 512
    return sum(seen.values())


def stage(name: str, code: str, place: Path) -> dict[str, Any]:
    """Run code in a process of its own; print and return what it took."""
    before = disk(place)
    command = [sys.executable, "-c", CHILD.format(code=code)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ})
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    added = (disk(place) - before) / 1e6
    print(
        f"{name}: {found['seconds']:.1f} s, cpu {found['cpu']:.1f} s, peak {found['mb']:.0f} MB, disk +{added:.0f} MB; "
        f"{found['said']}",
        flush=True,
    )
    return found


def main(arguments: list[str] | None = None) -> None:
    """Make the sources, then run and measure each stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the full size")
    parser.add_argument("--image-bytes", type=int, default=4_096)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--place", type=Path, default=None, help="where to write; a temporary directory, if left out")
    chosen = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=chosen.place) as directory:
        place = Path(directory)
        (place / "params.yaml").touch()  # a workspace
        start, total = time.perf_counter(), 0
        for number, (source, (task, samples, images)) in enumerate(SOURCES.items()):
            sizes = (round(samples * chosen.share), round(images * chosen.share))
            out = place / "corpus" / source
            total += make_corpus(out, source, task, *sizes, "train", chosen.image_bytes, chosen.seed + number)
        source, task, samples, images = EVALUATED
        sizes = (round(samples * chosen.share), round(images * chosen.share))
        total += make_corpus(place / "corpus" / source, source, task, *sizes, "test", chosen.image_bytes, 1_000)
        print(
            f"made: {time.perf_counter() - start:.0f} s; images {total / 1e6:.0f} MB, "
            f"disk {disk(place / 'corpus') / 1e6:.0f} MB (× {disk(place / 'corpus') / total:.2f})",
            flush=True,
        )
        given = f"place = Path({directory!r})\n"
        found = {}
        found["raw"] = stage(
            "raw",
            given + "from geozero.curation.decontamination.merge import raw\n"
            "corpora = sorted((place / 'corpus').iterdir())\n"
            "made = raw(corpora, corpora, place / 'raw')\n"
            "said = f\"{made['n_samples']} samples, {made['n_images']} images, {made['n_rejects']} left out\"\n",
            place,
        )
        start = time.perf_counter()
        make_store(place / "raw", place / "store", chosen.seed)
        print(
            f"store: made up in {time.perf_counter() - start:.0f} s, {disk(place / 'store') / 1e6:.0f} MB", flush=True
        )
        found["select"] = stage(
            "select",
            given + "from geozero.difficulty.selection.select import select\n"
            "made = select(place / 'raw', place / 'store', place / 'instruct', place / 'hard')\n"
            "said = f\"instruct {made['instruct']['n']}, hard {made['hard']['n']}\"\n",
            place,
        )
        for name, corpus, mode in (("rows of SFT", "instruct", "direct"), ("rows of A²GRPO", "hard", "tagged")):
            stage(
                name,
                given + "import json, random\n"
                "from geozero.corpus.images import decode\n"
                "from geozero.corpus.store import Corpus\n"
                "from geozero.training.dataset import read_image, swift_rows\n"
                f"out = place / '{corpus}.jsonl'\n"
                f"rows = swift_rows(Corpus(place / '{corpus}'), '{mode}', 'norm1000', out)\n"
                "written = time.perf_counter() - start\n"
                "uris = [json.loads(line)['images'][0] for line in out.open()]\n"
                f"for uri in random.Random(7).sample(uris, min(len(uris), {BATCHES * BATCH})):\n"
                "    decode(read_image(uri))\n"
                f"said = f'{{rows.n}} rows in {{written:.1f}} s, then {BATCHES} batches of {BATCH} images'\n",
                place,
            )
        held = [place / name for name in ("corpus", "raw", "instruct", "hard")]
        print(f"disk: {disk(*held) / 1e6:.0f} MB of all corpora, × {disk(*held) / total:.2f} of the images' bytes")
        for name, one in found.items():
            met = one["seconds"] <= MOST_SECONDS * chosen.share and one["mb"] <= MOST_MB
            goal = f"{MOST_SECONDS * chosen.share:.0f} s, {MOST_MB:.0f} MB"
            print(f"{name}: goal {goal}: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
