"""One image after another in random order: `python -m benchmarks.random_access [--images N] [--image-bytes N]`.

The same images as a corpus of ours, in plain files, and in Hugging Face's Arrow files; each form is read in a process
of its own, first opened after its pages were dropped from the system's cache (`posix_fadvise`), then again. A line says
images per second by wall and by CPU time, and how many bytes the process read per byte of the images: from the disk
when cold, by system calls when warm (a mapped file needs none). `index` opens an index of `--index` images.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from geozero.corpus.image_index import ENTRY, write_index
from geozero.corpus.images import StoredImage
from geozero.corpus.sample import digest
from geozero.corpus.store import Corpus, CorpusWriter

FORMS = ("corpus", "plain files", "HF Arrow")
MOST_READ = 2.0  # bytes read per byte needed
MOST_SECONDS, MOST_MB = 1.0, 100.0  # to open the index, and what a process holds of it


def make(place: Path, n: int, size: int) -> None:
    """Write the images in each form."""
    from datasets import Dataset, Features, Value, disable_progress_bars

    disable_progress_bars()
    rng = np.random.default_rng(7)
    (place / "plain").mkdir()

    def rows() -> Any:
        with CorpusWriter(place / "corpus", {"command": "made up"}) as writer:
            for _ in range(n):
                data = rng.bytes(size)
                image = StoredImage(digest(data), data, 64, 64, "0" * 16)
                writer.add_image(image, image.image_id)
                folder = place / "plain" / image.image_id[:2]
                folder.mkdir(exist_ok=True)
                (folder / image.image_id).write_bytes(data)
                yield {"bytes": data}

    features = Features({"bytes": Value("binary")})
    Dataset.from_generator(rows, features=features, cache_dir=str(place / "hf")).save_to_disk(str(place / "arrow"))
    ids = [i for b in Corpus(place / "corpus").columns("images", ["image_id"]) for i in b.column(0).to_pylist()]
    (place / "ids.json").write_text(json.dumps(ids))


def reader(form: str, place: Path, ids: list[str]) -> Callable[[int], bytes]:
    """What reads the image of a number."""
    if form == "corpus":
        corpus = Corpus(place / "corpus")
        return lambda n: corpus.image_bytes(ids[n])
    if form == "plain files":
        return lambda n: (place / "plain" / ids[n][:2] / ids[n]).read_bytes()
    from datasets import load_from_disk

    data = load_from_disk(str(place / "arrow"))
    return lambda n: bytes(data[n]["bytes"])


def drop(place: Path) -> None:
    """Take all files below from the system's cache."""
    for path in place.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fdatasync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def counters() -> dict[str, int]:
    lines = Path("/proc/self/io").read_text().splitlines()
    return {name: int(value) for name, value in (line.split(": ") for line in lines)}


def read(form: str, place: Path, n: int) -> None:
    """Read `n` images cold, then the same warm; print the figures as JSON."""
    ids = json.loads((place / "ids.json").read_text())
    order = random.Random(7).sample(range(len(ids)), n)
    reader(form, place, ids)(order[0])  # what is imported once
    drop(place)
    get = None
    for kind, counter in (("cold", "read_bytes"), ("warm", "rchar")):
        before, start, cpu = counters(), time.perf_counter(), time.process_time()
        get = get or reader(form, place, ids)  # opened cold, too
        total = sum(len(get(number)) for number in order)
        seconds, busy = time.perf_counter() - start, time.process_time() - cpu
        ratio = (counters()[counter] - before[counter]) / total
        print(json.dumps({"kind": kind, "rate": n / seconds, "cpu_rate": n / busy, "ratio": ratio}), flush=True)


def index(n: int, place: Path) -> None:
    """Open an index of `n` images and look a thousand up."""
    rng = np.random.default_rng(7)
    entries = np.zeros(n, ENTRY)
    entries["high"], entries["low"] = rng.integers(0, 2**64, (2, n), dtype=np.uint64)
    some = [f"{int(high):016x}{int(low):016x}" for high, low in zip(entries["high"], entries["low"], strict=True)][
        :: n // 1000
    ]
    write_index(place, entries, [("images-00000.tar", 1, "")])
    del entries
    code = f"""
import json, resource, sys, time
from pathlib import Path
from geozero.corpus.image_index import ImageIndex
def held():
    rows = dict(line.split(":") for line in open("/proc/self/status") if ":" in line)
    return int(rows["VmRSS"].split()[0]) / 1024
some, before, start = json.load(sys.stdin), held(), time.perf_counter()
index = ImageIndex(Path({str(place)!r}), {n})
opened = time.perf_counter() - start
for image_id in some:
    index.find(image_id)
print(opened, time.perf_counter() - start - opened, held() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(some), check=True, stdout=subprocess.PIPE, text=True
    )
    opened, looked, held = map(float, done.stdout.split())
    met = "met" if opened <= MOST_SECONDS and held <= MOST_MB else "MISSED"
    print(
        f"index: {n} images open in {opened * 1000:.1f} ms, {len(some)} look-ups in {looked * 1000:.1f} ms, "
        f"resident +{held:.0f} MB (goal {MOST_SECONDS:g} s, {MOST_MB:.0f} MB: {met})"
    )


def main(arguments: list[str] | None = None) -> None:
    """Make the forms, read each in a child, print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--read", type=int, default=20_000, help="of them, in random order")
    parser.add_argument("--image-bytes", type=int, default=4_096)
    parser.add_argument("--index", type=int, default=5_000_000, help="images of the index that is opened")
    parser.add_argument("--place", type=Path, default=None, help="where to write; a temporary directory, if left out")
    parser.add_argument("--form", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.form:
        read(chosen.form, chosen.place, chosen.read)
        return
    with tempfile.TemporaryDirectory(dir=chosen.place) as directory:
        index(chosen.index, Path(directory))
    with tempfile.TemporaryDirectory(dir=chosen.place) as directory:
        place = Path(directory)
        make(place, chosen.images, chosen.image_bytes)
        number = min(chosen.read, chosen.images)
        print(f"{chosen.images} images of {chosen.image_bytes} bytes, {number} read in random order")
        for form in FORMS:
            command = [sys.executable, "-m", "benchmarks.random_access", "--form", form, "--place", directory]
            done = subprocess.run([*command, "--read", str(number)], check=True, stdout=subprocess.PIPE, text=True)
            for line in done.stdout.splitlines():
                one = json.loads(line)
                print(
                    f"{form}, {one['kind']}: {one['rate']:,.0f} images/s (by CPU time {one['cpu_rate']:,.0f}), "
                    f"{one['ratio']:.2f} bytes read per byte"
                )


if __name__ == "__main__":
    main()
