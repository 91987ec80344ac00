"""Decoding by other processes: the same corpus, in the same order, and nothing left running however it ends."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_sources
from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import MAX_PIXELS, StoredImage, store
from geozero.corpus.store import Corpus
from geozero.curation.ingest import decoding
from geozero.curation.ingest.decoding import ALONE, Decoders, results
from geozero.curation.ingest.ingest import ingest
from geozero.sources import open_tree

N = 3 * ALONE


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("geozero.curation.ingest.decoding.cores", lambda: 2)


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Class folders of more images than one process decodes: JPEG, PNG, TIFF, one twice, some broken."""
    root = tmp_path_factory.mktemp("tree") / "own"
    for number in range(N):
        kind = ("JPEG", "PNG", "TIFF")[number % 3]
        data = make_sources.encoded(make_sources.make_image(number, (40 + number % 5, 30)), kind)
        if number % 50 == 7:
            data = data[: len(data) // 2]
        make_sources.write(root / f"class_{number % 4}" / f"{number:03}.{kind.lower()}", data)
    shutil.copy(root / "class_0" / "000.jpeg", root / "class_1" / "copy.jpeg")
    return root


@pytest.mark.parametrize(("slots", "size"), [(8, 4 << 20), (1, 4 << 20), (8, 10_000)], ids=["", "few", "small"])
def test_several_processes_make_the_corpus_that_one_makes(
    slots: int, size: int, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that find no room in shared memory go through a pipe."""
    monkeypatch.setattr(decoding, "_SLOTS", slots)
    monkeypatch.setattr(decoding, "_SLOT_BYTES", size)
    many = ingest("class_folders", tree, tmp_path / "many")
    started = len(many["shards"]) and many["n_images"] > ALONE
    monkeypatch.setattr(decoding, "ALONE", 10 * N)
    one = ingest("class_folders", tree, tmp_path / "one")
    assert started and many == one and many["n_rejects"] == 4
    assert [r["reason"] for r in Corpus(tmp_path / "many").rejects()].count("image_broken") == 4
    assert [s.image_key for s in Corpus(tmp_path / "many").samples()] == [
        s.image_key for s in Corpus(tmp_path / "one").samples()
    ]


def test_the_fingerprint_is_that_of_reading_every_file(tree: Path, tmp_path: Path) -> None:
    with open_tree(tree) as opened:
        assert ingest("class_folders", tree, tmp_path / "c")["made_by"]["tree"] == opened.fingerprint()


def test_what_comes_back_from_another_process_is_what_store_gives() -> None:
    jpeg = make_sources.encoded(make_sources.make_image(1, (9, 8)), "JPEG")
    images = [jpeg, make_sources.encoded(Image.new("CMYK", (5, 4)), "JPEG"), b"no image"]
    with Decoders(MAX_PIXELS) as decoders:
        decoders.begin([jpeg] * (ALONE + 1))
        found = results(decoders.begin(images), images)
    assert found[:2] == [store(jpeg), store(images[1])] and isinstance(found[0], StoredImage)
    assert found[0].data is jpeg
    assert isinstance(found[2], BadRecord) and found[2].reason == "image_unreadable"


def test_a_process_that_is_ended_from_outside_is_one_line(tree: Path, tmp_path: Path, monkeypatch: Any) -> None:
    parent = os.getpid()

    def ends(data: bytes, *how: Any) -> StoredImage:
        if os.getpid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)
        return store(data, *how)

    monkeypatch.setattr(decoding, "store", ends)
    with pytest.raises(InputError, match="a process that decodes images was ended from outside") as caught:
        ingest("class_folders", tree, tmp_path / "c")
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.timeout(60)
def test_what_is_half_sent_to_a_killed_process_is_not_waited_for(monkeypatch: Any) -> None:
    parent = os.getpid()

    def ends(data: bytes, *how: Any) -> StoredImage:
        if os.getpid() != parent:
            time.sleep(0.3)  # meanwhile the pipe fills with the next batch
            os.kill(os.getpid(), signal.SIGKILL)
        return store(make_sources.encoded(make_sources.make_image(1, (9, 8))), *how)

    monkeypatch.setattr(decoding, "store", ends)
    with pytest.raises(InputError, match="ended from outside"), Decoders(MAX_PIXELS) as decoders:
        decoders.begin([b""] * ALONE)
        batches = [[bytes(8 << 20)] for _ in range(6)]
        begun = [decoders.begin(batch) for batch in batches]
        for one, batch in zip(begun, batches, strict=True):
            results(one, batch)


SLEEPS = r"""
import sys, time
from pathlib import Path
from geozero.curation.ingest import decoding
from geozero.curation.ingest.ingest import ingest
import os
parent, real = os.getpid(), decoding.store
def slow(data, *how):
    if os.getpid() != parent:
        os.write(1, b"%d\n" % os.getpid())  # at once: two processes write
        time.sleep(60)
    return real(data, *how)
decoding.store = slow
decoding.cores = lambda: 2
ingest("class_folders", Path(sys.argv[1]), Path(sys.argv[2]))
"""


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_an_ingest_that_is_killed(how: int, tree: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLEEPS, str(tree), str(tmp_path / "c")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        lines = [run.stdout.readline(), run.stdout.readline()]
        run.send_signal(how)
        workers = {int(line) for line in lines}
        assert len(workers) == 2 and run.wait(10) == -how
        until = time.monotonic() + 10
        while any(map(is_running, workers)) and time.monotonic() < until:
            time.sleep(0.02)
        assert not any(map(is_running, workers))
