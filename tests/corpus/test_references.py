"""Image bytes are stored once: a corpus refers to those of others, moves with them, is packed; nothing else is read."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from corpus_filling import fill, image, sample
from earlier_corpus import earlier

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.corpus.image_index import FILE_SCHEMA
from geozero.corpus.layout import IMAGE_FILES, MANIFEST
from geozero.corpus.packing import pack
from geozero.corpus.references import ROOTS
from geozero.corpus.sample import digest
from geozero.corpus.store import Corpus, CorpusWriter, file_hash, refer_images, subset


def make(path: Path, n: int = 6) -> Corpus:
    with CorpusWriter(path, {"command": "test"}) as writer:
        fill(writer, n)
        writer.notes = {"pictures": {"n": n}}
    return Corpus(path)


def derived(source: Path, out: Path) -> Corpus:
    """A corpus of the even samples, as `raw` and `select` make one."""
    found = Corpus(source)
    subset(found, [s for s in found.samples() if int(s.answer) % 2 == 0], out, {"command": "subset"})
    return Corpus(out)


def files_of(corpus: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pa.ipc.open_file(str(corpus / IMAGE_FILES)).read_all().to_pylist()
    return rows


def rewrite_files(corpus: Path, **changes: Any) -> None:
    """Change the first row of the file table as somebody who can write a manifest would."""
    rows = files_of(corpus)
    rows[0] |= changes
    with pa.ipc.new_file(str(corpus / IMAGE_FILES), FILE_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=FILE_SCHEMA))
    manifest = json.loads((corpus / MANIFEST).read_text())
    manifest["shards"][IMAGE_FILES] = file_hash(corpus / IMAGE_FILES)
    write_json(corpus / MANIFEST, manifest)


def check(corpus: Corpus, numbers: range = range(0, 6, 2)) -> None:
    corpus.verify()
    assert [s.id for s in corpus.samples()] == [sample(n).id for n in numbers]
    assert [(r["image_key"], r["bytes"]) for r in corpus.image_rows()] == [(f"s/{n}", image(n).data) for n in numbers]
    for n in numbers:
        assert corpus.image_bytes(image(n).image_id) == image(n).data
    with pytest.raises(KeyError):
        corpus.image_bytes(image(7).image_id)


def test_tar_and_its_readers_read_the_images(tmp_path: Path) -> None:
    """WebDataset takes what precedes the first dot as a sample's name and the rest as its field."""
    make(tmp_path / "c")
    with tarfile.open(tmp_path / "c" / "images-00000.tar") as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
    assert found == {f"{image(n).image_id}.jpg": image(n).data for n in range(6)}
    again = make(tmp_path / "d")
    assert again.manifest == Corpus(tmp_path / "c").manifest


def test_a_derived_corpus_holds_no_pixels_and_moves_with_its_workspace(tmp_path: Path) -> None:
    make(tmp_path / "ws" / "corpus" / "one")
    (tmp_path / "ws" / "dvc.yaml").touch()
    derived(tmp_path / "ws" / "corpus" / "one", tmp_path / "ws" / "raw")
    derived(tmp_path / "ws" / "raw", tmp_path / "ws" / "deep" / "hard")
    assert not list((tmp_path / "ws" / "raw").glob("*.tar")) and not (tmp_path / "ws" / ".geozero").exists()
    assert [row["path"] for row in files_of(tmp_path / "ws" / "raw")] == ["../corpus/one/images-00000.tar"]
    assert [row["path"] for row in files_of(tmp_path / "ws" / "deep/hard")] == ["../../corpus/one/images-00000.tar"]
    shutil.move(tmp_path / "ws", tmp_path / "moved")
    (tmp_path / "link").symlink_to("moved")
    for place in ("moved", "link"):
        check(Corpus(tmp_path / place / "raw"))
        check(Corpus(tmp_path / place / "deep" / "hard"))


def test_a_corpus_directory_may_be_a_link_to_another_disk(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "params.yaml").touch()
    (tmp_path / "ws" / "data").symlink_to("../disk")
    make(tmp_path / "ws" / "data" / "corpus" / "one")
    check(derived(tmp_path / "ws" / "data" / "corpus" / "one", tmp_path / "ws" / "data" / "raw"))


def test_images_of_several_corpora_are_listed_once(tmp_path: Path) -> None:
    make(tmp_path / "a", 4)
    make(tmp_path / "b", 6)
    with CorpusWriter(tmp_path / "raw", {}) as writer:
        for name in ("a", "b"):
            refer_images(writer, Corpus(tmp_path / name), {image(n).image_id for n in range(0, 6, 2)})
        writer.add_image(image(9), "s/9")
        for n in (0, 2, 4, 9):
            assert writer.add(sample(n))
    found = Corpus(tmp_path / "raw")
    assert [row["image_key"] for row in found.image_rows()] == ["s/0", "s/2", "s/4", "s/9"]
    paths = ["../a/images-00000.tar", "../b/images-00000.tar", "images-00000.tar"]
    assert [row["path"] for row in files_of(tmp_path / "raw")] == paths and not found.is_packed


@pytest.mark.parametrize("form", ["today's", "earlier"])
def test_pack_puts_the_images_inside(form: str, tmp_path: Path) -> None:
    make(tmp_path / "c")
    source = derived(tmp_path / "c", tmp_path / "raw")
    if form == "earlier":
        source = earlier(tmp_path / "raw", tmp_path / "v1")
        check(source)
    manifest = pack(source.path, tmp_path / "away" / "packed")
    shutil.rmtree(tmp_path / "c")
    found = Corpus(tmp_path / "away" / "packed")
    check(found)
    assert found.digest == source.digest and found.is_packed and found.manifest == manifest
    for name in ("n_samples", "n_images", "counts", "made_by"):
        assert found.manifest[name] == source.manifest[name]
    if form == "earlier":
        before = (found.path / MANIFEST).stat().st_ino
        assert pack(source.path, found.path) == manifest and (found.path / MANIFEST).stat().st_ino == before
    with pytest.raises(InputError, match="cannot be packed into itself"):
        pack(found.path, found.path)


def test_the_identity_of_a_corpus_is_its_content(tmp_path: Path) -> None:
    """What finished under it stays finished, wherever the images lie; a corpus of the earlier form keeps its own."""
    one = make(tmp_path / "c")
    subset(one, list(one.samples()), tmp_path / "refers", {})
    old = earlier(tmp_path / "c", tmp_path / "v1")
    assert Corpus(tmp_path / "refers").digest == one.digest != old.digest
    assert old.digest == digest(json.dumps(old.manifest["shards"]).encode())


def test_a_corpus_derived_from_one_of_the_earlier_form_holds_its_images(tmp_path: Path) -> None:
    make(tmp_path / "c")
    earlier(tmp_path / "c", tmp_path / "v1")
    found = derived(tmp_path / "v1", tmp_path / "raw")
    check(found)
    assert found.is_packed


# --- what is missing, changed or out of bounds ------------------------------------------------------------


def test_a_flipped_pixel_is_named_where_it_is_read(tmp_path: Path) -> None:
    make(tmp_path / "c")
    raw = derived(tmp_path / "c", tmp_path / "raw")
    path = tmp_path / "c" / "images-00000.tar"
    data = bytearray(path.read_bytes())
    data[data.index(image(2).data)] ^= 1
    path.write_bytes(data)
    assert raw.image_bytes(image(0).image_id) == image(0).data
    for read in (
        lambda: raw.image_bytes(image(2).image_id),
        raw.verify,
        lambda: derived(tmp_path / "c", tmp_path / "d"),
    ):
        with pytest.raises(InputError, match=r"damaged shard: .* in .*/c/images-00000\.tar"):
            read()
    assert not (tmp_path / "d").exists()
    make(tmp_path / "c")  # who made it makes it again
    check(Corpus(tmp_path / "raw"))


@pytest.mark.parametrize("what", ["gone", "shorter", "another", "a pipe", "a directory"])
def test_a_file_that_is_another_is_named(what: str, tmp_path: Path) -> None:
    make(tmp_path / "c")
    derived(tmp_path / "c", tmp_path / "raw")
    path = tmp_path / "c" / "images-00000.tar"
    size = path.stat().st_size
    path.unlink()
    if what == "shorter":
        path.write_bytes(b"x")
    elif what == "another":
        path.write_bytes(bytes(size))
    elif what == "a pipe":
        os.mkfifo(path)
    elif what == "a directory":
        path.mkdir()
    with pytest.raises(InputError, match=r"(damaged shard|cannot be read).* in .*/c/images-00000\.tar") as caught:
        Corpus(tmp_path / "raw").image_bytes(image(2).image_id)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["/etc/passwd", "../../../../../../etc/passwd", "../../outside/images-00000.tar"])
def test_what_lies_outside_the_workspace_is_refused(name: str, tmp_path: Path) -> None:
    make(tmp_path / "outside")
    make(tmp_path / "ws" / "c")
    (tmp_path / "ws" / "params.yaml").touch()
    derived(tmp_path / "ws" / "c", tmp_path / "ws" / "raw")
    rewrite_files(tmp_path / "ws" / "raw", path=name)
    found = Corpus(tmp_path / "ws" / "raw")
    for read in (lambda: found.image_bytes(image(0).image_id), found.verify, lambda: pack(found.path, tmp_path / "p")):
        with pytest.raises(InputError, match=r"it refers to '.*', outside its workspace in .*/ws/raw"):
            read()


def test_what_the_user_named_outside_the_workspace_is_read(tmp_path: Path) -> None:
    """A line in the workspace says so, which a corpus from elsewhere does not bring along."""
    make(tmp_path / "elsewhere" / "c")
    (tmp_path / "ws").mkdir()
    (tmp_path / "ws" / "params.yaml").touch()
    check(derived(tmp_path / "elsewhere" / "c", tmp_path / "ws" / "data" / "raw"))
    assert (tmp_path / "ws" / ROOTS).read_text() == f"{tmp_path}/elsewhere/c\n"
    shutil.move(tmp_path / "ws", tmp_path / "moved")
    check(Corpus(tmp_path / "moved" / "data" / "raw"))
    (tmp_path / "moved" / ROOTS).unlink()
    with pytest.raises(InputError, match=r"outside its workspace .*add that directory to .*/\.geozero/image-roots"):
        Corpus(tmp_path / "moved" / "data" / "raw").image_bytes(image(0).image_id)


def test_without_a_workspace_corpora_move_together(tmp_path: Path) -> None:
    make(tmp_path / "here" / "in" / "c")
    derived(tmp_path / "here" / "in" / "c", tmp_path / "here" / "out" / "raw")
    shutil.move(tmp_path / "here", tmp_path / "there")
    check(Corpus(tmp_path / "there" / "out" / "raw"))


@pytest.mark.parametrize("changes", [{"size": 1 << 40}, {"size": -1}, {"path": "images-\0.tar"}, {"path": ""}])
def test_a_forged_file_table_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    make(tmp_path / "c")
    rewrite_files(tmp_path / "c", **changes)
    with pytest.raises(InputError):
        Corpus(tmp_path / "c").image_bytes(image(0).image_id)
