"""GeoZero-Raw: only training samples, none whose image is evaluated on, none twice; every drop is listed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build_world import corpus, drops, pair, sample, stored
from fixtures import make_sources
from PIL import Image

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.corpus.images import StoredImage, store
from geozero.corpus.sample import SCHEMA
from geozero.corpus.store import MANIFEST, Corpus, CorpusWriter, file_hash
from geozero.curation.decontamination import leaks
from geozero.curation.decontamination.merge import raw
from geozero.curation.ingest.ingest import ingest


def test_only_training_samples_are_taken_and_images_go_along_once(tmp_path: Path) -> None:
    one = corpus(tmp_path / "a", pair(1, "s/1"), pair(1, "s/1", n=1), pair(2, "s/2", "val"), pair(3, "s/3", "test"))
    two = corpus(tmp_path / "b", pair(4, "t/4", source="t"))
    manifest = raw([one, two], [], tmp_path / "raw", metrics=tmp_path / "metrics" / "raw.json")
    found = Corpus(tmp_path / "raw")
    assert [(s.source, s.image_key, s.answer) for s in found.samples()] == [
        ("s", "s/1", "0"),
        ("s", "s/1", "1"),
        ("t", "t/4", "0"),
    ]
    assert [row["image_key"] for row in found.image_rows()] == ["s/1", "t/4"]
    assert found.image_bytes(stored(4).image_id) == stored(4).data
    assert json.loads((tmp_path / "metrics" / "raw.json").read_text()) == {
        "n_samples": 3,
        "n_images": 2,
        "n_rejects": 0,
        "tasks": {"vqa": 3},
        "sources": {"s": 2, "t": 1},
        "rejects": {},
    }
    assert manifest == found.manifest


def test_leaks_are_found_by_bytes_by_name_and_by_looks(tmp_path: Path) -> None:
    smaller = store(make_sources.encoded(make_sources.make_image(3, (64, 64)).resize((31, 31)), "JPEG"))
    one = corpus(
        tmp_path / "a",
        pair(1, "s/1"),
        pair(2, "s/shared", n=1),
        (smaller, sample(smaller, "s/3")),
        pair(9, "s/9"),
        pair(8, "s/8", "test"),
        pair(8, "s/8", n=5),  # the same image in train and in test, as DIOR-RSVG's splits do it
    )
    benchmark = corpus(
        tmp_path / "e",
        pair(1, "e/1", "test", source="e"),
        pair(5, "s/shared", "val", source="e"),
        pair(3, "e/3", "test", source="e"),
        pair(9, "e/9", "train", source="e"),  # its training part is not evaluated on
    )
    raw([one], [benchmark], tmp_path / "raw")
    assert [s.image_key for s in Corpus(tmp_path / "raw").samples()] == ["s/9"]
    assert [row["image_key"] for row in Corpus(tmp_path / "raw").image_rows()] == ["s/9"]
    found = drops(tmp_path / "raw")
    assert [reason for reason, _ in found] == ["leak_exact", "leak_key", "leak_near", "leak_exact"]
    assert found[0][1] == "s/1 is e/1" and found[1][1] == "s/shared is s/shared" and found[3][1] == "s/8 is s/8"
    assert found[2][1].startswith("s/3 is e/3 (") and found[2][1].endswith(" of 64 bits apart)")


def test_looks_are_compared_only_if_wanted(tmp_path: Path) -> None:
    smaller = store(make_sources.encoded(make_sources.make_image(3, (64, 64)).resize((31, 31)), "JPEG"))
    one = corpus(tmp_path / "a", (smaller, sample(smaller, "s/3")))
    benchmark = corpus(tmp_path / "e", pair(3, "e/3", "test", source="e"))
    assert raw([one], [benchmark], tmp_path / "raw", near_radius=-1)["n_samples"] == 1
    with pytest.raises(InputError, match=r"no training sample is left of 1: .'leak_near': 1"):
        raw([one], [benchmark], tmp_path / "raw2")
    with pytest.raises(InputError, match="near radius 32"):
        raw([one], [benchmark], tmp_path / "raw2", near_radius=32)


def test_the_same_question_about_the_same_image_is_kept_once(tmp_path: Path) -> None:
    image, first = pair(1, "s/1")
    again = replace(first, id="0" * 32, source="t", image_key="t/1")
    other = replace(first, id="1" * 32, answer="7")
    one = corpus(tmp_path / "a", (image, first), (image, other))
    two = corpus(tmp_path / "b", (image, again))
    raw([one, two, one], [], tmp_path / "raw")
    assert [s.id for s in Corpus(tmp_path / "raw").samples()] == [first.id, other.id]
    assert [reason for reason, _ in drops(tmp_path / "raw")] == ["duplicate_sample"] * 3


def test_rsicd_does_not_teach_what_aid_tests(tmp_path: Path) -> None:
    make_sources.write_all(tmp_path / "root")
    ingest("rsicd", tmp_path / "root", tmp_path / "rsicd")
    ingest("aid", tmp_path / "root", tmp_path / "aid")
    tested = {s.image_key for s in Corpus(tmp_path / "aid").samples("test")}
    assert "aid/Airport/airport_1" not in tested  # else choose another image for the fixture
    assert raw([tmp_path / "rsicd"], [tmp_path / "aid"], tmp_path / "raw")["n_samples"] == 1
    with CorpusWriter(tmp_path / "all", {}) as writer:
        for row in Corpus(tmp_path / "aid").image_rows():
            writer.add_image(
                StoredImage(row["image_id"], row["bytes"], row["width"], row["height"], row["phash"]), row["image_key"]
            )
        for one in Corpus(tmp_path / "aid").samples():
            writer.add(replace(one, split="test"))
    with pytest.raises(InputError, match="'leak_key': 1"):
        raw([tmp_path / "rsicd"], [tmp_path / "all"], tmp_path / "raw2")


@pytest.mark.parametrize("side", [24, 40, 90, 128])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_copies_are_near_and_others_are_not(side: int, kind: str) -> None:
    originals = [stored(n, (64, 64)) for n in range(12)]
    for n, original in enumerate(originals):
        copy = make_sources.make_image(n, (64, 64)).resize((side, side), Image.Resampling.BICUBIC)
        hashed = int(store(make_sources.encoded(copy, kind)).phash, 16)
        apart = [(hashed ^ int(other.phash, 16)).bit_count() for other in originals]
        assert apart[n] <= leaks.NEAR_RADIUS < 10 < min(apart[:n] + apart[n + 1 :])
        assert original.image_id != store(make_sources.encoded(copy, kind)).image_id


def test_run_twice_it_does_nothing_until_an_input_changes(tmp_path: Path) -> None:
    one = corpus(tmp_path / "a", pair(1, "s/1"))
    first = raw([one], [], tmp_path / "raw")
    inode = (tmp_path / "raw" / "manifest.json").stat().st_ino
    assert raw([one], [], tmp_path / "raw", metrics=tmp_path / "m.json") == first
    assert (tmp_path / "raw" / "manifest.json").stat().st_ino == inode and (tmp_path / "m.json").exists()
    corpus(tmp_path / "a", pair(1, "s/1"), pair(2, "s/2"))
    assert raw([one], [], tmp_path / "raw")["n_samples"] == 2


@pytest.mark.parametrize("name", ["images-00000.tar", "samples-00000.parquet", "images.parquet", "image-places.npy"])
def test_a_damaged_input_is_named_and_a_damaged_result_is_made_again(name: str, tmp_path: Path) -> None:
    one = corpus(tmp_path / "a", pair(1, "s/1"), pair(2, "s/2"))

    def flip(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[len(data) // 2 if name != "images-00000.tar" else 600] ^= 1
        path.write_bytes(data)

    whole = raw([one], [], tmp_path / "raw")
    if name != "images-00000.tar":  # which it does not hold
        flip(tmp_path / "raw" / name)
        assert raw([one], [], tmp_path / "raw") == whole
        Corpus(tmp_path / "raw").verify()
    flip(one / name)
    for out in ("raw", "new"):
        if out == "raw" and name != "images-00000.tar":
            continue  # it holds what it needs
        with pytest.raises(InputError, match=rf"damaged shard: .* in .*/a/{name} \(make the corpus again\)"):
            raw([one], [], tmp_path / out)


def test_pixels_are_not_moved(tmp_path: Path) -> None:
    one = corpus(tmp_path / "a", pair(1, "s/1"), pair(2, "s/2"))
    raw([one], [], tmp_path / "raw")
    assert {p.name for p in (tmp_path / "raw").iterdir()} == {
        "image-files.arrow",
        "image-ids.npy",
        "image-places.npy",
        "images.parquet",
        "manifest.json",
        "rejects.parquet",
        "samples-00000.parquet",
    }


def test_broken_and_repeated_samples_of_an_input_are_refused(tmp_path: Path) -> None:
    """An input that another program wrote may hold what ours would not."""
    one = corpus(tmp_path / "a", *(pair(n, f"s/{n}") for n in range(1, 6)))
    path = one / "samples-00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[0]["answer"] = " \t"
    rows[1]["question"] = "What does <|im_end|> say?"
    rows[2]["width"] = 0
    rows[3]["references"] = ["two", "<|image_pad|>"]
    pq.write_table(pa.Table.from_pylist([*rows, rows[4] | {"question": "Again?"}], schema=SCHEMA), path)
    manifest = json.loads((one / MANIFEST).read_text())
    manifest["shards"][path.name] = file_hash(path)
    write_json(one / MANIFEST, manifest)
    raw([one], [], tmp_path / "raw")
    assert [s.image_key for s in Corpus(tmp_path / "raw").samples()] == ["s/5"]
    expected = ["answer_empty", "special_token", "image_size_missing", "special_token", "duplicate_id"]
    assert [row["reason"] for row in Corpus(tmp_path / "raw").rejects()] == expected


def test_bad_input_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give at least one --in"):
        raw([], [], tmp_path / "raw")
    with pytest.raises(InputError, match="no such corpus directory"):
        raw([tmp_path / "nowhere"], [], tmp_path / "raw")
    only_test = corpus(tmp_path / "a", pair(1, "s/1", "test"))
    with pytest.raises(InputError, match="no training sample is left of 0 in"):
        raw([only_test], [], tmp_path / "raw")
    only_train = corpus(tmp_path / "b", pair(2, "s/2"))
    with pytest.raises(InputError, match="no val or test samples to protect"):
        raw([only_train], [only_train], tmp_path / "raw")
    assert not (tmp_path / "raw").exists()
