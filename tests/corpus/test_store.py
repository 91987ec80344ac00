"""A corpus on disk: what goes in comes out; nothing half-written passes for one, whatever ends the writer."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpus_filling import fill, image, sample
from paths import SUPPORT

from geozero.common.atomic import write_json
from geozero.common.errors import BadRecord, InputError
from geozero.corpus import store as module
from geozero.corpus.image_index import CACHED_ROW_GROUPS
from geozero.corpus.sample import SCHEMA_VERSION
from geozero.corpus.store import (
    IMAGES_PER_ROW_GROUP,
    MANIFEST,
    REJECTS,
    Corpus,
    CorpusWriter,
    file_hash,
    subset,
)

KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from corpus_filling import fill
from geozero.corpus import CorpusWriter
with CorpusWriter(Path(sys.argv[1]), {}) as writer:
    fill(writer, 80)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def make(path: Path, n: int = 5) -> Corpus:
    with CorpusWriter(path, {"command": "test"}) as writer:
        fill(writer, n)
    return Corpus(path)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SAMPLES_PER_SHARD", 4)
    monkeypatch.setattr(module, "IMAGE_BYTES_PER_SHARD", 1_000)
    monkeypatch.setattr(module, "IMAGES_PER_ROW_GROUP", 16)


# --- what goes in comes out -------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_shards")
def test_samples_stream_in_order_over_shards(tmp_path: Path) -> None:
    found = make(tmp_path / "c", 50)
    assert list(found.samples()) == [sample(n) for n in range(50)]
    assert list(found.samples("val")) == [sample(n) for n in range(50) if n % 3 == 1]
    assert list(found.samples("test", "vqa")) == [sample(n) for n in range(50) if n % 6 == 2]
    assert list(found.samples(task="grounding")) == []
    assert len(found) == 50
    names = [f"samples-{k:05d}.parquet" for k in range(13)] + [f"images-{k:05d}.parquet" for k in range(2)]
    assert sorted(found.manifest["shards"]) == sorted(names)


@pytest.mark.usefixtures("small_shards")
def test_every_image_is_found_by_its_id(tmp_path: Path) -> None:
    found = make(tmp_path / "c", 50)
    for number in (*range(50), 0, 49, 7):
        assert found.image_bytes(image(number).image_id) == image(number).data
    assert [row["image_key"] for row in found.image_rows()] == [f"s/{n}" for n in range(50)]
    with pytest.raises(KeyError):
        found.image_bytes("0" * 32)


def test_an_image_is_stored_once_under_its_first_key(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path / "c", {}) as writer:
        assert not writer.has_image(image(1).image_id)
        for key in ("s/first", "s/second"):
            writer.add_image(image(1), key)
        assert writer.has_image(image(1).image_id)
        for n in range(3):
            assert writer.add(sample(n, image_id=image(1).image_id))
    rows = list(Corpus(tmp_path / "c").image_rows())
    assert [(row["image_id"], row["image_key"]) for row in rows] == [(image(1).image_id, "s/first")]
    assert Corpus(tmp_path / "c").manifest["n_images"] == 1


def test_the_manifest_counts_and_hashes(tmp_path: Path) -> None:
    found = make(tmp_path / "c", 5)
    by_task = {"caption": ("train", "val"), "vqa": ("test", "train", "val")}
    expected = [{"source": "s", "task": t, "split": p, "n": 1} for t, splits in by_task.items() for p in splits]
    assert found.manifest["counts"] == expected and found.manifest["n_samples"] == 5
    assert found.manifest["schema_version"] == SCHEMA_VERSION and found.manifest["made_by"] == {"command": "test"}
    assert found.manifest["shards"] == {n: file_hash(tmp_path / "c" / n) for n in found.manifest["shards"]}
    assert sorted(p.name for p in (tmp_path / "c").iterdir()) == sorted([*found.manifest["shards"], MANIFEST, REJECTS])


def test_the_digest_is_that_of_the_data(tmp_path: Path) -> None:
    one = make(tmp_path / "a", 5).digest
    assert make(tmp_path / "b", 5).digest == one != make(tmp_path / "a", 6).digest


def test_what_is_refused_is_listed_with_its_reason(tmp_path: Path) -> None:
    with CorpusWriter(tmp_path / "c", {}) as writer:
        fill(writer, 2)
        assert not writer.add(sample(0))
        assert not writer.add(sample(2))
        writer.add_image(image(3), "s/3")
        assert not writer.add(sample(3, question=" "))
        writer.reject("s", "key", BadRecord("image_broken", "cut off"))
    found = Corpus(tmp_path / "c")
    listed = [(r["source"], r["key"], r["reason"], r["detail"]) for r in found.rejects()]
    assert listed == [
        ("s", "id0000", "duplicate_id", "id0000"),
        ("s", "id0002", "image_missing", "s/2"),
        ("s", "id0003", "question_empty", ""),
        ("s", "key", "image_broken", "cut off"),
    ]
    assert [s.id for s in found.samples()] == ["id0000", "id0001"]
    reasons = ["duplicate_id", "image_broken", "image_missing", "question_empty"]
    assert found.manifest["rejects"] == [{"source": "s", "reason": reason, "n": 1} for reason in reasons]
    assert found.manifest["n_rejects"] == 4


def test_an_empty_corpus_is_a_corpus(tmp_path: Path) -> None:
    found = make(tmp_path / "c", 0)
    assert not any(found.samples()) and not any(found.image_rows()) and not found.rejects() and len(found) == 0


def test_a_subset_takes_just_the_images_it_asks_about(tmp_path: Path) -> None:
    found = make(tmp_path / "c", 20)
    chosen = [s for s in found.samples("val") if s.task == "vqa"]
    subset(found, chosen, tmp_path / "d", {"command": "subset"})
    part = Corpus(tmp_path / "d")
    assert list(part.samples()) == chosen and len(list(part.image_rows())) == len(chosen)
    assert all(part.image_bytes(s.image_id) == found.image_bytes(s.image_id) for s in chosen)


# --- reading one image ------------------------------------------------------------------------------------


def row_groups(path: Path) -> list[Any]:
    files = [pq.ParquetFile(file) for file in sorted(path.glob("images-*.parquet"))]
    return [f.metadata.row_group(group) for f in files for group in range(f.num_row_groups)]


def test_a_look_up_reads_few_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "c", 80)
    groups = row_groups(tmp_path / "c")
    assert [g.num_rows for g in groups] == [64, 16] and groups[0].num_rows == IMAGES_PER_ROW_GROUP
    assert {g.column(c).compression for g in groups for c in range(g.num_columns)} == {"UNCOMPRESSED"}
    monkeypatch.setattr(module, "BYTES_PER_ROW_GROUP", 150)  # three images of about 50 bytes reach it
    make(tmp_path / "d", 10)
    assert [g.num_rows for g in row_groups(tmp_path / "d")] == [4, 4, 2]
    assert Corpus(tmp_path / "d").image_bytes(image(9).image_id) == image(9).data


def test_a_reader_keeps_few_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IMAGES_PER_ROW_GROUP", 1)
    found = make(tmp_path / "c", 30)
    for number in range(30):
        found.image_bytes(image(number).image_id)
    index = found._images
    assert index is not None and len(index._cache) == CACHED_ROW_GROUPS
    assert image(3).image_id in index and "0" * 32 not in index


inherited: list[Corpus] = []


def read_inherited(image_id: str) -> bytes:
    """In a child: the corpus comes with the fork, as a data loader's does."""
    return inherited[0].image_bytes(image_id)


@pytest.mark.timeout(60)
def test_a_corpus_opened_before_a_fork_is_read_by_the_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = make(tmp_path / "c", 40)
    found.image_bytes(image(0).image_id)  # the parent has a file open and a row group in memory
    numbers = [39, 0, 17, 38, 1, 16] * 4
    ids = [image(n).image_id for n in numbers]
    monkeypatch.setitem(globals(), "inherited", [found])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        read = pool.map_async(read_inherited, ids, chunksize=1).get(timeout=50)
    assert read == [image(n).data for n in numbers]
    assert found.image_bytes(image(39).image_id) == image(39).data


THREADS = """
import random, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from geozero.corpus import Corpus

path, ids = Path(sys.argv[1]), sys.argv[2:]
for turn in range(20):
    corpus, rng = Corpus(path), random.Random(turn)
    asked = rng.choices(ids, k=len(ids))
    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(corpus.image_bytes, asked))
"""


@pytest.mark.timeout(120)
def test_many_threads_read_one_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ms-swift encodes a batch in threads; a Parquet file read by several at once hung a training or killed it."""
    monkeypatch.setattr(module, "IMAGES_PER_ROW_GROUP", 16)
    n = 16 * (CACHED_ROW_GROUPS + 8)
    make(tmp_path / "c", n)
    ids = [image(i).image_id for i in range(n)]
    run = subprocess.run([sys.executable, "-c", THREADS, str(tmp_path / "c"), *ids], timeout=100)
    assert run.returncode == 0


# --- whatever ends the writer -----------------------------------------------------------------------------


def fails(*arguments: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def only_when(wanted: Callable[..., bool], real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        if wanted(*arguments):
            fails()
        return real(*arguments, **options)

    return call


ENDINGS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "an image shard": (pq.ParquetWriter, "write_table", fails),
    "an image shard's footer": (pq.ParquetWriter, "close", fails),
    "the last shard of samples": (
        pq,
        "write_table",
        only_when(lambda table, path: "samples-00001" in str(path), pq.write_table),
    ),
    "the rejects": (
        pq.ParquetWriter,
        "write_table",
        only_when(lambda writer, table: "reason" in table.schema.names, pq.ParquetWriter.write_table),
    ),
    "the hash of a shard": (module, "file_hash", fails),
    "the manifest": (module, "write_json", fails),
    "the rename": (os, "replace", only_when(lambda source, target: ".c.part" in Path(source).name, os.replace)),
}


@pytest.mark.parametrize("older", [False, True], ids=["new", "replaced"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_leaves_nothing_and_spares_an_older_corpus(
    ending: str, older: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = make(tmp_path / "c", 3).manifest if older else None
    monkeypatch.setattr(module, "SAMPLES_PER_SHARD", 4)
    with monkeypatch.context() as patch:
        patch.setattr(*ENDINGS[ending])
        full = pytest.raises(InputError, match=f"no space left on the disk in {tmp_path}/c ")
        with full, CorpusWriter(tmp_path / "c", {}) as writer:
            fill(writer, 7)
    assert [p.name for p in tmp_path.iterdir()] == (["c"] if older else [])
    assert before is None or (Corpus(tmp_path / "c").manifest == before and len(list(Corpus(tmp_path / "c").samples())))


@pytest.mark.parametrize(
    ("kind", "arguments"), [(KeyboardInterrupt, ()), (ValueError, ("ours",)), (OSError, (errno.EIO, "dying"))]
)
def test_any_other_error_comes_through_as_it_is(
    kind: type[BaseException], arguments: tuple[object, ...], tmp_path: Path
) -> None:
    error = kind(*arguments)
    before = make(tmp_path / "c", 3).manifest
    with pytest.raises(kind) as caught, CorpusWriter(tmp_path / "c", {}) as writer:
        fill(writer, 20)
        raise error
    assert caught.value is error
    assert [p.name for p in tmp_path.iterdir()] == ["c"] and Corpus(tmp_path / "c").manifest == before


def test_the_manifest_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[set[str]] = []

    def watched(path: Path, value: Any) -> None:
        assert not (tmp_path / "c").exists() and path.name == MANIFEST
        seen.append({p.name for p in path.parent.iterdir()})
        write_json(path, value)

    monkeypatch.setattr(module, "write_json", watched)
    make(tmp_path / "c", 3)
    assert seen == [{"samples-00000.parquet", "images-00000.parquet", REJECTS}]


def test_a_killed_writer_leaves_no_corpus_and_the_next_one_clears_up(tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path / "c"), str(SUPPORT)]
    assert subprocess.run(command, stdin=subprocess.DEVNULL).returncode == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".c.part-") and not (left / MANIFEST).exists() and list(left.iterdir())
    with pytest.raises(InputError, match="no such corpus"):
        Corpus(tmp_path / "c")
    others = [
        f".c.part-{socket.gethostname()}-{os.getppid()}",  # still being written
        ".c.part-another.machine-4194304",
        f".cc.part-{socket.gethostname()}-4194304",  # another corpus
    ]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / f".c.old-{socket.gethostname()}-4194304").mkdir()  # above any process number
    make(tmp_path / "c", 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["c", *others])


# --- what may stand where it goes -------------------------------------------------------------------------


def test_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    (tmp_path / "file").write_text("")
    for name, message in (
        ("full", "not empty and holds no corpus"),
        ("file", "a file stands where the corpus is to go"),
        ("file/c", "a file stands where a directory is expected"),
        ("a" * 300, "the name is too long"),
    ):
        with pytest.raises(InputError, match=message), CorpusWriter(tmp_path / name, {}):
            raise AssertionError("the block must not run")
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == ["file", "full", "full/thesis.tex"]


def test_it_goes_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("empty", "here", "elsewhere"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    monkeypatch.chdir(tmp_path / "here")
    for path in (tmp_path / "empty", Path("c"), tmp_path / "link", tmp_path / "new" / "deep" / "c"):
        make(path, 2)
        assert len(make(path, 3)) == 3
    (tmp_path / "empty" / "inside").mkdir()
    monkeypatch.chdir(tmp_path / "empty" / "inside")
    for path in (Path(), Path("..")):
        with pytest.raises(InputError, match="the working directory cannot become a corpus"):
            make(path)
    assert (tmp_path / "link").is_symlink() and (tmp_path / "elsewhere" / MANIFEST).is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["elsewhere", "empty", "here", "link", "new"]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: shutil.rmtree(p), "no such corpus directory"),
        (lambda p: (p / MANIFEST).unlink(), r"manifest\.json is missing"),
        (lambda p: (p / MANIFEST).write_text("{"), "unreadable manifest"),
        (lambda p: (p / MANIFEST).write_bytes(b"\xff\xfe"), "unreadable manifest"),
        (lambda p: (p / MANIFEST).write_text("[]"), "unreadable manifest"),
        (lambda p: (p / MANIFEST).write_text('{"schema_version": 1}'), "unreadable manifest"),
        (lambda p: (p / MANIFEST).write_text('{"schema_version": 99, "shards": {}}'), "schema version 99"),
        (lambda p: (p / "images-00000.parquet").unlink(), "shard images-00000.parquet is missing"),
    ],
)
def test_an_unfinished_corpus_is_not_opened(damage: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(InputError, match=message) as caught:
        Corpus(tmp_path / "c")
    assert "\n" not in str(caught.value) and str(tmp_path / "c") in str(caught.value)


@pytest.mark.parametrize("keep", [0, 30, -40])
def test_a_damaged_shard_is_named(keep: int, tmp_path: Path) -> None:
    found = make(tmp_path / "c")
    for name in ("samples-00000.parquet", "images-00000.parquet", REJECTS):
        path = tmp_path / "c" / name
        path.write_bytes(path.read_bytes()[:keep])
    reads: list[Callable[[], Any]] = [
        lambda: list(found.samples()),
        lambda: list(found.image_rows()),
        lambda: found.image_bytes(image(0).image_id),
        found.rejects,
    ]
    for read in reads:
        with pytest.raises(InputError, match=r"unreadable shard: .* in .*\.parquet \(make the corpus again\)"):
            read()


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"é": [1, tmp_path, "\ud800"], "sample": sample(1)})
    assert json.loads((tmp_path / "a.json").read_text())["é"] == [1, str(tmp_path), "\ud800"]
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and "é" in (tmp_path / "a.json").read_text()
