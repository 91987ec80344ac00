"""Parquet files of the Hugging Face hub: the layouts of five mirrors, and anybody's own."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.make_sources import encoded, make_image

from geozero.common.errors import BadRecord, InputError
from geozero.curation.ingest.ingest import ingest
from geozero.sources import Record, Rejected, get, open_tree, with_options
from geozero.sources.readers.tables import Table

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def jpeg(number: int) -> bytes:
    return encoded(make_image(number))


def write(
    path: Path,
    images: list[Any],
    columns: dict[str, Any] | None = None,
    names: dict[str, list[str]] | None = None,
    image: str = "image",
    **options: Any,
) -> None:
    """A file as `datasets` writes it: images as structs, or as plain bytes; names of classes in the metadata."""
    kind = STRUCT if isinstance(images[0], dict) else pa.binary()
    table = pa.table({image: pa.array(images, kind), **{k: pa.array(v) for k, v in (columns or {}).items()}})
    features: dict[str, Any] = {image: {"_type": "Image"}}
    features |= {name: {"names": labels, "_type": "ClassLabel"} for name, labels in (names or {}).items()}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), path, **options)


def inside(number: int, path: str | None) -> dict[str, Any]:
    return {"bytes": jpeg(number), "path": path}


def read(name: str, root: Path, *options: str) -> tuple[list[Record], list[Rejected]]:
    source = with_options(get(name), options)
    with open_tree(root) as tree:
        items = list(source.records(source.find(tree)))
        for item in items:
            assert isinstance(item, Rejected) or tree.at(source.find(tree).where()[len(str(root)) :].strip("/")).read(
                item.image
            )
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


RESISC = ["airplane", "airport", "baseball diamond", "snowberg", "no class of it"]


def test_resisc45_with_splits_and_shards(tmp_path: Path) -> None:
    for shard in (0, 1):
        rows = [inside(10 * shard + n, f"airport_{10 * shard + n:03}.jpg") for n in range(3)]
        file = tmp_path / "data" / f"train-0000{shard}-of-00002-abc.parquet"
        write(file, rows, {"label": [1, 2, 4]}, {"label": RESISC})
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [inside(90, None)], {"label": [3]}, {"label": RESISC})
    records, rejects = read("resisc45", tmp_path)
    assert Counter((r.split, r.answer) for r in records) == {
        ("train", "airport"): 2,
        ("train", "baseball diamond"): 2,
        ("test", "snowberg"): 1,
    }
    assert {r.image_key for r in records} >= {"resisc45/airport/airport_010", "resisc45/snowberg/test_00000000"}
    assert [r.reason for r in rejects] == ["class_unknown", "class_unknown"] and rejects[0].detail == "no class of it"
    notes = ingest("resisc45", tmp_path, tmp_path / "c")["notes"]
    assert notes["splits"] == "by directory or file: test, train" and notes["published"]["images"] == [5, 31_500]


@pytest.mark.parametrize(("name", "labels"), [("ucm", ["agricultural", "baseball diamond"]), ("whu_rs19", ["Airport"])])
def test_other_class_sets_of_one_file(name: str, labels: list[str], tmp_path: Path) -> None:
    rows = [inside(n, None) for n in range(4)]
    write(tmp_path / "data" / "train-00000-of-00001.parquet", rows, {"label": [0] * 4}, {"label": labels})
    records, _ = read(name, tmp_path)
    assert Counter(r.split for r in records) == {"train": 4} and len({r.image_key for r in records}) == 4


def test_a_whole_set_in_files_called_train_has_no_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from geozero.sources.base import Published
    from geozero.sources.scenes.ucm import Ucm

    monkeypatch.setattr(Ucm, "published", Published(images=10))
    rows = [inside(n, None) for n in range(10)]
    write(tmp_path / "train-0.parquet", rows, {"label": [0] * 10}, {"label": ["river"]})
    assert Counter(r.split for r in read("ucm", tmp_path)[0]) == {"train": 8, "test": 2}


def test_labels_of_another_set_are_no_place_for_it(tmp_path: Path) -> None:
    labels = ["AnnualCrop", "SeaLake", "Forest"]
    write(tmp_path / "train.parquet", [inside(1, None)], {"label": [0]}, {"label": labels})
    with pytest.raises(InputError, match="no UC Merced Land Use found"):
        read("ucm", tmp_path)


def test_rsicd_with_captions_as_lists(tmp_path: Path) -> None:
    for split, name in (("train", "rsicd_images/airport_1.jpg"), ("valid", "rsicd_images/00001.jpg")):
        columns = {"filename": [name], "captions": [["Many planes .", "many planes .", "A runway ."]]}
        write(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [inside(len(split), "x.jpg")], columns)
    records, rejects = read("rsicd", tmp_path)
    assert [(r.split, r.key, r.image_key, r.references) for r in records] == [
        ("train", "airport_1.jpg", "rsicd/airport/airport_1", ("Many planes .", "A runway .")),
        ("val", "00001.jpg", "rsicd/00001", ("Many planes .", "A runway .")),
    ]
    assert not rejects
    with pytest.raises(InputError, match="no UCM-Captions found"):
        read("ucm_captions", tmp_path)


@pytest.mark.parametrize("form", ["struct of lists", "list of structs"])
def test_dior_rsvg_with_objects(form: str, tmp_path: Path) -> None:
    boxes, texts = [[4, 5, 20, 18], [1, 1, 9, 9]], ["The ship on the left", "The vehicle"]
    objects: Any = {"bbox": boxes, "captions": texts, "categories": ["ship", "vehicle"]}
    if form == "list of structs":
        objects = [{"bbox": box, "caption": text} for box, text in zip(boxes, texts, strict=True)]
    for split in ("train", "val"):
        write(
            tmp_path / "data" / f"{split}-0.parquet", [inside(1, None)], {"path": ["00001.jpg"], "objects": [objects]}
        )
    records, _ = read("dior_rsvg", tmp_path)
    assert [(r.split, r.key, r.image_key, r.box, r.text) for r in records][1:3] == [
        ("train", "00001/1", "dior_rsvg/JPEGImages/00001", (1, 1, 9, 9), "The vehicle"),
        ("val", "val/00001/0", "dior_rsvg/JPEGImages/00001", (4, 5, 20, 18), "The ship on the left"),
    ]
    assert ingest("dior_rsvg", tmp_path, tmp_path / "c")["n_images"] == 1


def test_dior_rsvg_with_widths_for_corners_stops(tmp_path: Path) -> None:
    objects = {"bbox": [[30, 30, 10, 5]], "captions": ["The ship"]}
    write(tmp_path / "train.parquet", [inside(1, None)], {"objects": [objects]})
    with pytest.raises(InputError, match="1 of 1 boxes are no corners"):
        read("dior_rsvg", tmp_path)


@pytest.mark.parametrize("image", ["image", "img"])
@pytest.mark.parametrize("plain", [False, True])
def test_own_labels(plain: bool, image: str, tmp_path: Path) -> None:
    for split, n in (("train", 3), ("validation", 1), ("test", 2)):
        rows = [jpeg(n + k) if plain else inside(n + k, f"{split}{k}.jpg") for k in range(n)]
        write(tmp_path / split / "0000.parquet", rows, {"label": ["bareLand"] * n}, image=image)
    records, _ = read("class_folders", tmp_path, "name=own")
    assert Counter(r.split for r in records) == {"train": 3, "val": 1, "test": 2}
    assert {r.answer for r in records} == {"bare land"} and len({r.image_key for r in records}) == 6


CAPTIONS = {
    "text": ({"caption": ["A ship ."]}, ("A ship .",)),
    "list": ({"captions": [["A ship .", "A sea ."]]}, ("A ship .", "A sea .")),
    "structs": ({"sentences": [[{"raw": "A ship ."}, {"raw": "A sea ."}]]}, ("A ship .", "A sea .")),
    "struct": ({"captions": [{"text": ["A ship ."]}]}, ("A ship .",)),
    "columns": ({"caption_1": ["A ship ."], "caption_2": ["A sea ."]}, ("A ship .", "A sea .")),
}


@pytest.mark.parametrize("form", CAPTIONS)
def test_own_captions(form: str, tmp_path: Path) -> None:
    columns, expected = CAPTIONS[form]
    write(tmp_path / "data" / "test-0.parquet", [inside(1, "a.jpg")], columns)
    (record,), _ = read("captions_json", tmp_path, "name=own")
    assert (record.split, record.references, record.image_key) == ("test", expected, "own/a")


def test_own_captions_of_an_image_folder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "a.jpg").write_bytes(jpeg(len(split)))
        (tmp_path / split / "metadata.jsonl").write_text(json.dumps({"file_name": "a.jpg", "text": f"In {split} ."}))
    records, rejects = read("captions_json", tmp_path)
    assert [(r.split, r.image, r.references) for r in records] == [
        ("test", "test/a.jpg", ("In test .",)),
        ("train", "train/a.jpg", ("In train .",)),
    ]
    assert not rejects


def test_own_questions(tmp_path: Path) -> None:
    columns = {"question": ["Is it?", "How many?"], "answer": ["yes", "3"], "type": ["presence", "count"]}
    for shard in (0, 1):
        rows = [inside(5, "same.jpg"), inside(5, "same.jpg")]
        write(tmp_path / "data" / f"val-0000{shard}-of-00002.parquet", rows, columns, image="picture")
    records, _ = read("questions", tmp_path, "name=own")
    assert Counter((r.split, r.text, r.answer, r.question_type) for r in records) == {
        ("val", "Is it?", "yes", "presence"): 2,
        ("val", "How many?", "3", "count"): 2,
    }
    assert {r.image_key for r in records} == {"own/same"}
    assert ingest(with_options(get("questions"), ["name=own"]), tmp_path, tmp_path / "c")["n_images"] == 1


def test_a_single_file_may_be_the_root(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [inside(1, None)], {"label": [0]}, {"label": ["river"]})
    write(tmp_path / "other.parquet", [inside(1, None)], {"label": [0]}, {"label": ["SeaLake"]})
    assert len(read("ucm", tmp_path / "train.parquet")[0]) == 1


def test_images_are_read_in_any_order_over_row_groups(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [inside(n, None) for n in range(30)], {"n": list(range(30))}, row_group_size=7)
    with open_tree(tmp_path) as tree:
        table = Table(tree, "a.parquet")
        members = [row["image"] for _, row in table.rows()]
        assert (table.n_rows, table.columns, len(members)) == (30, ["n"], 30)
        for n in (0, 1, 2, 29, 3, 13, 14, 15, 0, 28):
            assert tree.read(members[n]) == jpeg(n)


def test_a_row_without_an_image_costs_itself(tmp_path: Path) -> None:
    rows = [inside(1, None), {"bytes": None, "path": "gone.jpg"}, {"bytes": b"no image", "path": None}]
    write(tmp_path / "train.parquet", rows, {"label": [0] * 3}, {"label": ["river"]})
    manifest = ingest("ucm", tmp_path, tmp_path / "c")
    assert manifest["n_samples"] == 1
    assert {r["reason"]: r["n"] for r in manifest["rejects"]} == {"image_missing": 1, "image_unreadable": 1}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no Parquet file, or a damaged one"),
        (b"PAR1" + b"\0" * 40 + b"PAR1", "no Parquet file, or a damaged one"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
    ],
)
def test_what_is_no_parquet_file_is_one_line(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(data)
    with pytest.raises(InputError, match=message) as caught:
        read("questions", tmp_path)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_costs_what_it_holds(tmp_path: Path) -> None:
    rows = [inside(n, None) for n in range(20)]
    write(tmp_path / "train.parquet", rows, {"label": [0] * 20}, {"label": ["river"]}, compression="none")
    data = bytearray((tmp_path / "train.parquet").read_bytes())
    with open_tree(tmp_path) as tree:
        list(Table(tree, "train.parquet").rows())
    data[4:40] = bytes(36)  # the first page of images
    (tmp_path / "train.parquet").write_bytes(bytes(data))
    with open_tree(tmp_path) as tree:
        members = [row["image"] for _, row in Table(tree, "train.parquet").rows()]
        with pytest.raises(BadRecord, match="file_unreadable"):
            tree.read(members[0])


def test_an_unrelated_broken_file_blocks_no_sound_set(tmp_path: Path) -> None:
    write(tmp_path / "ucm" / "train.parquet", [inside(1, None)], {"label": [0]}, {"label": ["river"]})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "train.parquet").write_bytes(b"broken")
    assert len(read("ucm", tmp_path)[0]) == 1


@pytest.mark.parametrize("name", ["ucm", "class_folders"])
def test_numbers_without_names_say_what_is_missing(name: str, tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [inside(1, None), inside(2, None)], {"label": [0, 1]})
    with pytest.raises(InputError, match="'label' holds numbers, and the schema does not say which classes"):
        read(name, tmp_path)


def test_numbers_get_their_names_from_the_images(tmp_path: Path) -> None:
    rows = [inside(n, f"{kind}{n:02}.tif") for n, kind in enumerate(["river", "beach", "river"])]
    write(tmp_path / "test.parquet", rows, {"label": [7, 2, 7]})
    records, _ = read("ucm", tmp_path)
    assert [(r.split, r.answer, r.image_key) for r in records][:2] == [
        ("test", "river", "ucm/river/river00"),
        ("test", "beach", "ucm/beach/beach01"),
    ]
