"""`ingest --images link`: the bytes stay in the user's files and archives, and a file that changes there is named."""

from __future__ import annotations

import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from fixtures import make_sources

from geozero.common.errors import InputError
from geozero.corpus.sample import digest
from geozero.corpus.store import Corpus
from geozero.curation.decontamination.merge import raw
from geozero.curation.ingest.ingest import ingest


def places(out: Path) -> list[tuple[str, bytes]]:
    """The file of each image, and what lies there."""
    corpus = Corpus(out)
    rows = [(corpus.image_file(int(corpus.entries_of([r["image_id"]])["file"][0]))[0], r) for r in corpus.image_rows()]
    return [(os.path.relpath(path, out.parent), row["bytes"]) for path, row in rows]


@pytest.mark.parametrize("kind", ["directory", "tar", "zip", "zip in tar", "packed zip", "tar.gz"])
def test_linked_images_stay_where_they_are(kind: str, tmp_path: Path) -> None:
    """Those that are stored as they are, in files and uncompressed archives; a palette PNG is stored anew."""
    root = tmp_path / "data" / "AID"
    for number in range(3):
        data = make_sources.encoded(make_sources.make_image(number, (16, 16)))
        make_sources.write(root / "River" / f"river_{number}.jpg", data)
    image = make_sources.make_image(7, (16, 16)).convert("P")
    make_sources.write(root / "River" / "river_3.png", make_sources.encoded(image, "PNG"))
    source = root
    if kind != "directory":
        name = {"tar": "AID.tar", "tar.gz": "AID.tar.gz", "zip in tar": "all.tar"}.get(kind, "AID.zip")
        source = tmp_path / "data" / name
        if "zip" in kind:
            method = zipfile.ZIP_DEFLATED if kind == "packed zip" else zipfile.ZIP_STORED
            with zipfile.ZipFile(tmp_path / "data" / "AID.zip", "w", method) as packed:
                for path in sorted(root.rglob("*.*")):
                    packed.write(path, path.relative_to(root.parent))
        if "tar" in kind:
            with tarfile.open(source, "w:gz" if kind == "tar.gz" else "w") as tar:
                tar.add(*((tmp_path / "data" / "AID.zip", "AID.zip") if kind == "zip in tar" else (root, "AID")))
    plain = ingest("aid", source, tmp_path / "copied")
    linked = ingest("aid", source, tmp_path / "linked", images="link")
    assert ingest("aid", source, tmp_path / "linked", images="link") == linked
    assert {k: v for k, v in linked.items() if k not in ("made_by", "shards")} == {
        k: v for k, v in plain.items() if k not in ("made_by", "shards")
    }
    assert Corpus(tmp_path / "linked").digest == Corpus(tmp_path / "copied").digest
    found = places(tmp_path / "linked")
    assert [data for _, data in found] == [data for _, data in places(tmp_path / "copied")]
    there = kind not in ("packed zip", "tar.gz")
    own = "linked/images-00000.tar"
    at = source.relative_to(tmp_path).as_posix()
    expected = [(f"{at}/River/river_{n}.jpg" if kind == "directory" else at) if there else own for n in range(3)]
    assert [path for path, _ in found] == [*expected, own]
    raw([tmp_path / "linked"], [], tmp_path / "raw")
    assert len(places(tmp_path / "raw")) > 0 and set(places(tmp_path / "raw")) <= set(found)


def test_a_linked_file_that_changes_is_named(tmp_path: Path) -> None:
    for number in range(2):
        data = make_sources.encoded(make_sources.make_image(number, (16, 16)))
        make_sources.write(tmp_path / "AID" / "River" / f"river_{number}.jpg", data)
    first = ingest("aid", tmp_path / "AID", tmp_path / "c", images="link")
    path = tmp_path / "AID" / "River" / "river_0.jpg"
    image_id = digest(path.read_bytes())
    data = bytearray(path.read_bytes())
    data[-10] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"damaged shard: image .* has changed in .*/river_0\.jpg \(.* refers to it"):
        Corpus(tmp_path / "c").image_bytes(image_id)
    assert ingest("aid", tmp_path / "AID", tmp_path / "c", images="link") != first
    Corpus(tmp_path / "c").image_bytes(digest(bytes(data)))
