"""Time and weigh ingest and raw: `python -m benchmarks.corpus [ingest] [shards] [raw] [questions]`; all by default.

ingest      a tree of JPEGs in class folders; the peer, in the same run, is a plain loop of two processes that read,
            hash and fully decode the same files with Pillow. The marginal rate, between a small and a large tree.
shards      the same tree with one process and with two, on as many cores; then in two shards, and taking these over.
raw         synthetic corpora, small and large: seconds a sample and peak memory, each in a process of its own.
questions   the shape of RSVQA-HR: many questions in large lists; peak memory, seconds beyond decoding.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from geozero.corpus.images import StoredImage
from geozero.corpus.sample import Sample, digest
from geozero.corpus.store import CorpusWriter

LEAST_SHARE = 0.6  # of the peer's marginal rate
LEAST_SCALING = 1.8  # from one process to two
MOST_MEMORY, MOST_TIME = 1.3, 1.2  # large against small
MOST_MB, MOST_SECONDS = 1024, 90
QUESTIONS_AN_IMAGE = 8
CLASSES = 10
CORES = 2


# --- ingest -----------------------------------------------------------------------------------------------


def jpeg(rng: np.random.Generator, side: int) -> bytes:
    """An image of smooth noise with some grain: about 15 KB at 150 px, as small aerial images have."""
    coarse = Image.fromarray(rng.integers(0, 255, (10, 10, 3), dtype=np.uint8)).resize((side, side))
    grained = np.asarray(coarse, np.int16) + rng.integers(-38, 38, (side, side, 3), dtype=np.int16)
    buffer = io.BytesIO()
    Image.fromarray(np.clip(grained, 0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def write_tree(root: Path, n: int, side: int, seed: int) -> int:
    """`<class>/<n>.jpg`; how many bytes."""
    rng, total = np.random.default_rng(seed), 0
    for place in range(CLASSES):
        (root / f"class_{place}").mkdir(parents=True)
    for number in range(n):
        data = jpeg(rng, side)
        total += len(data)
        (root / f"class_{number % CLASSES}" / f"{number}.jpg").write_bytes(data)
    return total


def read_hash_decode(path: str) -> int:
    """The peer's work on one file."""
    data = Path(path).read_bytes()
    hashlib.blake2b(data, digest_size=16).digest()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.width


def peer_seconds(root: Path) -> float:
    """Two processes over all files of a tree."""
    files = sorted(str(path) for path in root.rglob("*.jpg"))
    start = time.perf_counter()
    with multiprocessing.get_context("fork").Pool(CORES) as pool:
        assert sum(1 for _ in pool.imap_unordered(read_hash_decode, files, chunksize=64)) == len(files)
    return time.perf_counter() - start


def ingest_seconds(root: Path, out: Path) -> float:
    from geozero.curation.ingest.ingest import ingest

    start = time.perf_counter()
    ingest("class_folders", root, out)
    return time.perf_counter() - start


def busy() -> float:
    """Seconds of processor time that this process and its ended children have used."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def bench_ingest(place: Path, chosen: argparse.Namespace) -> None:
    sizes = {"small": chosen.few_files, "large": chosen.files}
    for name, n in sizes.items():
        total = write_tree(place / name, n, chosen.side, chosen.seed)
        print(f"ingest: {n} files, {total / 1e6:.0f} MB", flush=True)
    more = chosen.files - chosen.few_files
    shares = []
    for run in range(chosen.runs):
        begun = busy()
        ours = {name: ingest_seconds(place / name, place / f"{name}_{run}") for name in sizes}
        between = busy()
        peer = {name: peer_seconds(place / name) for name in sizes}
        work = [1000 * seconds / sum(sizes.values()) for seconds in (between - begun, busy() - between)]
        rates = [more / (seconds["large"] - seconds["small"]) for seconds in (ours, peer)]
        shares.append(rates[0] / rates[1])
        print(
            f"ingest: {rates[0]:.0f} files/s, peer {rates[1]:.0f} files/s, share {shares[-1]:.0%}; "
            f"whole: {ours['large']:.1f} s, peer {peer['large']:.1f} s; "
            f"cpu a file {work[0]:.2f} ms, peer {work[1]:.2f} ms",
            flush=True,
        )
    median = statistics.median(shares)
    print(f"ingest: median share {median:.0%} of {len(shares)} runs (wanted ≥ {LEAST_SHARE:.0%})")


PINNED = """
import os
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])
from geozero.curation.ingest.ingest import ingest
from geozero.curation.ingest.checks import Checks
from geozero.curation.ingest.decoded import decode_shard
from geozero.sources import get
root, out = Path({root!r}), Path({out!r})
start, before = time.perf_counter(), time.process_time()  # imports count for nothing
"""
WHOLE = "made = ingest('class_folders', root, out)"
SHARD = "made = {{'n_samples': decode_shard(get('class_folders'), root, out, {number}, 2, Checks()), 'n_rejects': 0}}"


def bench_shards(place: Path, chosen: argparse.Namespace) -> None:
    """One process and two, on one core and on two; then two shards that decode, and the ingest that takes them over."""
    write_tree(place / "tree", chosen.files, chosen.side, chosen.seed)

    def measured(cores: int, work: str, out: str) -> dict[str, float]:
        return child(PINNED.format(cores=cores, root=str(place / "tree"), out=str(place / out)) + work)

    ratios = []
    for run in range(chosen.runs):
        one, two = (measured(cores, WHOLE, f"cores{cores}_{run}") for cores in (1, 2))
        shards = [measured(1, SHARD.format(number=number), f"shards_{run}") for number in range(2)]
        taken = measured(1, WHOLE, f"shards_{run}")
        ratios.append(one["seconds"] / two["seconds"])
        cpu = [1000 * found["cpu"] / chosen.files for found in (one, two, shards[0], taken)]
        print(
            f"shards: 1 → 2 processes × {ratios[-1]:.2f}, {one['seconds']:.1f} and {two['seconds']:.1f} s; "
            f"cpu a file {cpu[0]:.2f} and {cpu[1]:.2f} ms; half a tree {cpu[2]:.2f}, taken over {cpu[3]:.2f}",
            flush=True,
        )
    print(f"shards: median × {statistics.median(ratios):.2f} (goal ≥ {LEAST_SCALING})")


# --- raw --------------------------------------------------------------------------------------------------


def synthetic(path: Path, n: int, split: Any, seed: int, leaking: list[str], image_bytes: int) -> list[str]:
    """A corpus of `n` samples about `n / 8` images, which are bytes and a hash and no images; their keys.

    Every fiftieth image takes its key from `leaking`.
    """
    rng = np.random.default_rng(seed)
    keys = []
    with CorpusWriter(path, {"command": "synthetic"}) as writer:
        for number in range(n // QUESTIONS_AN_IMAGE):
            data = rng.bytes(image_bytes)
            image = StoredImage(digest(data), data, 256, 256, f"{int(rng.integers(0, 2**63)):016x}")
            key = f"synthetic/{path.name}/{number}"
            if leaking and number % 50 == 0:
                key = leaking[number // 50 % len(leaking)]
            keys.append(key)
            writer.add_image(image, key)
            for question in range(QUESTIONS_AN_IMAGE):
                writer.add(
                    Sample(
                        id=digest(f"{number} {question} {split}".encode()),
                        task="vqa",
                        source=f"set_{number % 5}",
                        split=split,
                        image_id=image.image_id,
                        image_key=key,
                        question=f"What is the number of things of kind {question}?\nGive a single word or phrase.",
                        answer=str((number + question) % 97),
                        width=256,
                        height=256,
                        question_type="count",
                    )
                )
    return keys


CHILD = """
import json, resource, sys, time
from pathlib import Path
start, before = time.perf_counter(), 0.0
{code}
seconds = time.perf_counter() - start
used, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
cpu = used.ru_utime + used.ru_stime + ended.ru_utime + ended.ru_stime
print(json.dumps({{"seconds": seconds, "cpu": cpu - before,
    "mb": used.ru_maxrss / 1024, "n": made["n_samples"], "rejects": made["n_rejects"]}}))
"""


def child(code: str) -> dict[str, float]:
    """Run code that leaves a manifest in `made`, in a process of its own; its time and peak memory."""
    command = [sys.executable, "-c", CHILD.format(code=code)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ})
    measured: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def bench_raw(place: Path, chosen: argparse.Namespace) -> None:
    measured = []
    for n in (chosen.few_samples, chosen.samples):
        here = place / f"raw_{n}"
        here.mkdir()
        evaluated = synthetic(here / "evaluated", max(n // 20, 80), "test", chosen.seed + 1, [], chosen.image_bytes)
        synthetic(here / "trained", n, "train", chosen.seed, evaluated, chosen.image_bytes)
        code = f"""
from geozero.curation.decontamination.merge import raw
made = raw([Path({str(here / "trained")!r})], [Path({str(here / "evaluated")!r})], Path({str(here / "raw")!r}))
"""
        found = child(code)
        measured.append(found | {"asked": n})
        print(
            f"raw: {n} samples: {found['seconds']:.1f} s, cpu {found['cpu']:.1f} s, peak {found['mb']:.0f} MB; "
            f"{found['n']} kept, {found['rejects']} left out",
            flush=True,
        )
    small, large = measured
    memory = large["mb"] / small["mb"]
    wall, cpu = ((large[name] / large["asked"]) / (small[name] / small["asked"]) for name in ("seconds", "cpu"))
    print(
        f"raw: memory × {memory:.2f} (wanted ≤ {MOST_MEMORY}), time a sample × {wall:.2f}, cpu × {cpu:.2f} "
        f"(wanted ≤ {MOST_TIME}), {chosen.few_samples} → {chosen.samples}"
    )


# --- questions --------------------------------------------------------------------------------------------


def rows_of(kind: str, images: int, questions: int) -> Iterator[dict[str, Any]]:
    """The items of one list in RSVQA's form, with the fields that make it large."""
    common = {"date_added": 1564658400.0, "people_id": 0, "active": True}
    if kind == "images":
        for n in range(images):
            yield {"id": n, "original_name": f"s_{n:08d}.tif", "questions_ids": [], "type": "image", **common}
        return
    for n in range(questions):
        if kind == "questions":
            text = f"Is the number of buildings of kind {n % 977} larger than the number of roads next to a parking?"
            own = {"img_id": n % images, "type": "comp", "question": text, "answers_ids": [n]}
        else:
            own = {"question_id": n, "answer": "yes" if n % 3 else "no"}
        yield {"id": n, **own, **common}


def write_questions(root: Path, images: int, questions: int, side: int, seed: int) -> int:
    """RSVQA-HR's layout, train alone; bytes of its lists."""
    rng, total = np.random.default_rng(seed), 0
    (root / "Data").mkdir(parents=True)
    for n in range(images):
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)).save(buffer, "PNG", compress_level=1)
        (root / "Data" / f"{n}.png").write_bytes(buffer.getvalue())
    for kind in ("images", "questions", "answers"):
        path = root / f"USGS_split_train_{kind}.json"
        with path.open("w") as file:
            file.write(f'{{"{kind}": [')
            for place, row in enumerate(rows_of(kind, images, questions)):
                file.write((", " if place else "") + json.dumps(row))
            file.write("]}")
        total += path.stat().st_size
    return total


def bench_questions(place: Path, chosen: argparse.Namespace) -> None:
    root = place / "RSVQA_HR"
    total = write_questions(root, chosen.images, chosen.questions, chosen.image_side, chosen.seed)
    start = time.perf_counter()
    for path in (root / "Data").iterdir():
        read_hash_decode(str(path))
    decoding = time.perf_counter() - start
    code = f"""
from geozero.curation.ingest.ingest import ingest
made = ingest("rsvqa_hr", Path({str(root)!r}), Path({str(place / "questions")!r}))
"""
    found = child(code)
    print(
        f"questions: {found['n']:.0f} of {chosen.questions}, {chosen.images} images, lists of {total / 1e6:.0f} MB: "
        f"peak {found['mb']:.0f} MB (wanted ≤ {MOST_MB}), {found['seconds']:.0f} s, cpu {found['cpu']:.0f} s; decoding "
        f"alone {decoding:.0f} s, beyond it {found['seconds'] - decoding:.0f} s (wanted ≤ {MOST_SECONDS})"
    )


BENCHMARKS = {"ingest": bench_ingest, "shards": bench_shards, "raw": bench_raw, "questions": bench_questions}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmarks that are named, in a temporary directory."""
    parser = argparse.ArgumentParser(description="Time and weigh ingest and raw.")
    parser.add_argument("which", nargs="*", choices=[[], *BENCHMARKS], help="all, if none is named")
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--few-files", type=int, default=1_000)
    parser.add_argument("--side", type=int, default=150, help="pixels of a JPEG")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--few-samples", type=int, default=250_000)
    parser.add_argument("--image-bytes", type=int, default=8_000, help="of a synthetic image")
    parser.add_argument("--questions", type=int, default=600_000)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--image-side", type=int, default=128, help="pixels of an image that is asked about")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--place", type=Path, default=None, help="where to write; a temporary directory, if left out")
    chosen = parser.parse_args(arguments)
    for name, bench in BENCHMARKS.items():
        if name in chosen.which or not chosen.which:
            with tempfile.TemporaryDirectory(dir=chosen.place) as place:
                bench(Path(place), chosen)
    print(f"peak of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB")


if __name__ == "__main__":
    main()
