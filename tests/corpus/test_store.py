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
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from corpus_filling import fill, image, sample
from earlier_corpus import earlier
from paths import SUPPORT

from geozero.common.atomic import write_json
from geozero.common.errors import BadRecord, InputError
from geozero.corpus import partial, tar_shards
from geozero.corpus import writer as module
from geozero.corpus.layout import IMAGE_FILES, IMAGE_IDS, IMAGE_PLACES, IMAGES
from geozero.corpus.parquet_images import CACHED_ROW_GROUPS, ParquetImages
from geozero.corpus.sample import SCHEMA_VERSION
from geozero.corpus.store import (
    MANIFEST,
    REJECTS,
    Corpus,
    CorpusWriter,
    file_hash,
    subset,
)
from geozero.corpus.tar_shards import TarShards
from geozero.curation.reuse import finished

INDEX = (IMAGE_IDS, IMAGE_PLACES, IMAGE_FILES)
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
    monkeypatch.setattr(module, "ROWS_PER_GROUP", 16)


# --- what goes in comes out -------------------------------------------------------------------------------


@pytest.mark.usefixtures("small_shards")
def test_samples_stream_in_order_over_shards(tmp_path: Path) -> None:
    found = make(tmp_path / "c", 50)
    assert list(found.samples()) == [sample(n) for n in range(50)]
    assert list(found.samples("val")) == [sample(n) for n in range(50) if n % 3 == 1]
    assert list(found.samples("test", "vqa")) == [sample(n) for n in range(50) if n % 6 == 2]
    assert list(found.samples(task="grounding")) == []
    assert len(found) == 50
    names = [f"samples-{k:05d}.parquet" for k in range(13)] + [f"images-{k:05d}.tar" for k in range(50)]
    assert sorted(found.manifest["shards"]) == sorted([*names, IMAGES, *INDEX])


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


def test_a_reader_of_the_earlier_form_keeps_few_row_groups(tmp_path: Path) -> None:
    make(tmp_path / "new", 30)
    found = earlier(tmp_path / "new", tmp_path / "c", per_group=1)
    for number in range(30):
        assert found.image_bytes(image(number).image_id) == image(number).data
    index = found._images
    assert isinstance(index, ParquetImages) and len(index._cache) == CACHED_ROW_GROUPS
    with pytest.raises(KeyError):
        found.image_bytes("0" * 32)


inherited: list[Corpus] = []


def read_inherited(image_id: str) -> bytes:
    """In a child: the corpus comes with the fork, as a data loader's does."""
    return inherited[0].image_bytes(image_id)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("form", ["today's", "earlier"])
def test_a_corpus_opened_before_a_fork_is_read_by_the_children(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make(tmp_path / "c", 40)
    found = found if form == "today's" else earlier(tmp_path / "c", tmp_path / "d", per_group=16)
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
@pytest.mark.parametrize("form", ["c", "earlier"])
def test_many_threads_read_one_corpus(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ms-swift encodes a batch in threads; a Parquet file read by several at once hung a training or killed it."""
    monkeypatch.setattr(module, "IMAGE_BYTES_PER_SHARD", 2_000)
    n = 16 * (CACHED_ROW_GROUPS + 8)
    make(tmp_path / "c", n)
    earlier(tmp_path / "c", tmp_path / "earlier", per_group=16)
    ids = [image(i).image_id for i in range(n)]
    run = subprocess.run([sys.executable, "-c", THREADS, str(tmp_path / form), *ids], timeout=100)
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
    "an image shard": (TarShards, "_write", fails),
    "an image shard's end": (TarShards, "close", fails),
    "the list of images": (pq.ParquetWriter, "write_table", fails),
    "its footer": (pq.ParquetWriter, "close", fails),
    "the index of images": (module, "write_index", fails),
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
            writer.reject("s", "key", BadRecord("image_broken"))
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
    assert seen == [{"samples-00000.parquet", "images-00000.tar", IMAGES, *INDEX, REJECTS}]


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


def test_what_a_killed_writer_left_on_another_machine_goes_after_a_week(tmp_path: Path) -> None:
    day = 86_400
    for days, name in ((6, "young"), (8, "old"), (8, "written.to")):
        part = tmp_path / f".c.part-{name}-17"
        part.mkdir()
        (part / "samples-00000.parquet").write_bytes(b"")
        for path in (part / "samples-00000.parquet", part):
            os.utime(path, (time.time() - days * day,) * 2)
    (tmp_path / ".c.part-written.to-17" / "images-00000.tar").write_bytes(b"")
    (tmp_path / ".c.part-file-17").write_text("not ours")
    os.utime(tmp_path / ".c.part-file-17", (0, 0))
    make(tmp_path / "c", 3)
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left == sorted(["c", ".c.part-file-17", ".c.part-written.to-17", ".c.part-young-17"])
    assert partial.ABANDONED_DAYS == 7


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
        (lambda p: (p / "images-00000.tar").unlink(), "shard images-00000.tar is missing"),
    ],
)
def test_an_unfinished_corpus_is_not_opened(damage: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    make(tmp_path / "c")
    damage(tmp_path / "c")
    with pytest.raises(InputError, match=message) as caught:
        Corpus(tmp_path / "c")
    assert "\n" not in str(caught.value) and str(tmp_path / "c") in str(caught.value)


READS: dict[str, Callable[[Corpus], Any]] = {
    "samples-00000.parquet": lambda found: list(found.samples()),
    IMAGES: lambda found: list(found.image_rows()),
    "images-00000.tar": lambda found: found.image_bytes(image(0).image_id),
    IMAGE_IDS: lambda found: found.image_bytes(image(0).image_id),
    IMAGE_PLACES: lambda found: found.image_bytes(image(0).image_id),
    IMAGE_FILES: lambda found: found.image_bytes(image(0).image_id),
    REJECTS: lambda found: found.rejects(),
}


@pytest.mark.parametrize("keep", [0, 30, -40])
@pytest.mark.parametrize("name", READS)
def test_a_shard_that_was_cut_off_is_named(name: str, keep: int, tmp_path: Path) -> None:
    make(tmp_path / "c")
    path = tmp_path / "c" / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"(unreadable|damaged) shard: .* in .*{name} \(make the corpus again\)"):
        READS[name](Corpus(tmp_path / "c"))


@pytest.mark.parametrize("name", READS)
def test_a_flipped_bit_is_noticed_by_who_reads_it(name: str, tmp_path: Path) -> None:
    make(tmp_path / "c", 1)
    path = tmp_path / "c" / name
    whole = path.read_bytes()
    ids = [image(0).image_id]
    for at in range(0, len(whole), max(1, len(whole) // 120)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(InputError, match=rf"{name}|image-|outside its workspace"):
            Corpus(tmp_path / "c").verify()
        if name == REJECTS:
            with pytest.raises(InputError, match=name):
                Corpus(tmp_path / "c").rejects()
        try:  # what a reader gets is either right or refused
            assert [s.image_id for s in Corpus(tmp_path / "c").samples()] == ids
            assert Corpus(tmp_path / "c").image_bytes(ids[0]) == image(0).data
        except InputError as error:
            assert str(tmp_path / "c") in str(error)


def test_a_corpus_without_a_hash_of_its_rejects_is_whole(tmp_path: Path) -> None:
    """Corpora of earlier versions have none, and stay finished."""
    made = make(tmp_path / "c", 3)
    manifest = {key: value for key, value in made.manifest.items() if key != "rejects_hash"}
    assert manifest != made.manifest
    (tmp_path / "c" / MANIFEST).write_text(json.dumps(manifest))
    old = Corpus(tmp_path / "c")
    old.verify()
    assert (old.rejects(), old.digest) == (made.rejects(), made.digest)
    assert finished(tmp_path / "c", made.manifest["made_by"]) == manifest


def test_a_shard_with_other_answers_is_not_read(tmp_path: Path) -> None:
    """It is a sound Parquet file; today's `raw` would have taken its answers over."""
    found = make(tmp_path / "c", 6)
    path = tmp_path / "c" / "samples-00000.parquet"
    table = pq.read_table(path)
    answers = table.column("answer").to_pylist()
    shifted = table.set_column(table.schema.get_field_index("answer"), table.schema.field("answer"), [answers[::-1]])
    pq.write_table(shifted, path)
    for read in (found.samples, lambda: found.columns("samples", ["answer"])):
        with pytest.raises(InputError, match=r"damaged shard: it has changed in .*samples-00000\.parquet"):
            list(read())


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"schema_version": true, "shards": {}}',
        '{"schema_version": {}, "shards": {}}',
        '{"schema_version": 1e400, "shards": {}}',
        '{"schema_version": ' + "1" * 5_000 + "}",
        "null",
        "7",
        json.dumps({"schema_version": SCHEMA_VERSION, "shards": [], "counts": 3}),
        " " * 100 + "\0",
    ],
    ids=range(9),
)
def test_a_manifest_of_any_kind_is_one_line(content: str, tmp_path: Path) -> None:
    make(tmp_path / "c")
    (tmp_path / "c" / MANIFEST).write_text(content)
    with pytest.raises(InputError, match=r"unreadable manifest|schema version") as caught:
        Corpus(tmp_path / "c")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("n_samples", -1),
        ("n_samples", "5"),
        ("n_images", 1.5),
        ("counts", [{"source": "s"}]),
        ("counts", {"s": 1}),
        ("rejects", [[]]),
        ("shards", {"samples-00000.parquet": None}),
        ("shards", {"../other/samples-00000.parquet": "0"}),
        ("made_by", []),
        ("notes", "none"),
        ("digest", 5),
    ],
)
def test_a_manifest_with_a_value_of_another_type_is_refused(key: str, value: Any, tmp_path: Path) -> None:
    manifest = make(tmp_path / "c").manifest
    for changed in (manifest | {key: value}, {k: v for k, v in manifest.items() if k != key}):
        if changed == manifest or (key not in changed and key in ("notes", "digest")):
            continue
        write_json(tmp_path / "c" / MANIFEST, changed)
        with pytest.raises(InputError, match=r"unreadable manifest: .*manifest\.json") as caught:
            Corpus(tmp_path / "c")
        assert "\n" not in str(caught.value)


def test_a_huge_manifest_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "c")
    monkeypatch.setattr("geozero.corpus.layout.MAX_MANIFEST_BYTES", 100)
    with pytest.raises(InputError, match="unreadable manifest: more than 0 MB"):
        Corpus(tmp_path / "c")


def test_json_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "a.json", {"é": [1, tmp_path, "\ud800"], "sample": sample(1)})
    assert json.loads((tmp_path / "a.json").read_text())["é"] == [1, str(tmp_path), "\ud800"]
    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="No space left"):
        write_json(tmp_path / "a.json", {})
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"] and "é" in (tmp_path / "a.json").read_text()


@pytest.mark.parametrize("size", [0, 1, 511, 512, 15_000, 8**11 - 1])
@pytest.mark.parametrize("name", ["a.jpg", "0123456789abcdef0123456789abcdef.png"])
def test_headers_of_shards_are_those_of_tarfile(name: str, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    assert tar_shards._header(name.encode(), size) == member.tobuf(tarfile.USTAR_FORMAT)
