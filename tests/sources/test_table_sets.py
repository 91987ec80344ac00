"""Tables of one's own data as people have them: several in one directory, lost shards, images by path, odd values."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.situations.forms import image, put

from geozero.common.errors import BadRecord, InputError
from geozero.sources import Record, Rejected, get, open_tree, with_options

NAMES = ["pond", "beach"]


def images(n: int, with_bytes: bool = True) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": image() if with_bytes else None, "path": f"im{k}.jpg"} for k in range(n)], kind)


def table(path: Path, column: pa.Array, labels: Sequence[Any], named: bool = False, name: str = "image") -> None:
    content = pa.table({name: column, "label": pa.array(labels)})
    if named:
        about = {"info": {"features": {"label": {"names": NAMES, "_type": "ClassLabel"}}}}
        content = content.replace_schema_metadata({b"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(content, path)


def read(source: str, root: Path, *options: str) -> tuple[list[Record], list[Rejected]]:
    data_set = with_options(get(source), options)
    with open_tree(root) as tree:
        home = data_set.find(tree)
        items = list(data_set.records(home))
        for item in items:
            if isinstance(item, Record):
                assert home.read(item.image)
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


def two_configurations(root: Path) -> None:
    for name in ("v1", "v2"):
        table(root / name / "train-00000-of-00001.parquet", images(2), NAMES)


def two_revisions(root: Path) -> None:
    for name in ("0a1b", "2c3d"):
        table(root / f"datasets--x--y/snapshots/{name}/data/train.parquet", images(2), NAMES)


def lost_shard(root: Path) -> None:
    for number in (0, 2):
        table(root / f"data/train-0000{number}-of-00003.parquet", images(2), NAMES)


def second_download(root: Path) -> None:
    table(root / "train-00000-of-00001.parquet", images(2), NAMES)
    shutil.copy(root / "train-00000-of-00001.parquet", root / "train-00000-of-00001 (1).parquet")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (two_configurations, "several configurations of one: in v1, v2"),
        (two_revisions, "several data sets"),
        (lost_shard, r"1 of 3 shards are missing, such as data/train-00001-of-00003\.parquet"),
        (second_download, "seems to be a copy"),
    ],
)
@pytest.mark.parametrize("source", ["class_folders", "questions", "captions_json"])
def test_tables_that_are_not_one_data_set_stop(
    source: str, make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match=f"{message}|several files could be"):
        read(source, tmp_path)
    if source == "class_folders":
        with pytest.raises(InputError, match=message):
            read(source, tmp_path)


def test_copies_of_a_csv_stop(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", image())
    for name in ("train.csv", "train (1).csv"):
        put(tmp_path, name, "image,question,answer\na.jpg,what is it?,ship\n")
    with pytest.raises(InputError, match="seems to be a copy"):
        read("questions", tmp_path)


def test_shards_and_splits_of_one_table_are_read_together(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for number in (0, 1):
            table(tmp_path / f"data/{split}-0000{number}-of-00002.parquet", images(2), NAMES)
    assert len(read("class_folders", tmp_path)[0]) == 8


def test_a_label_without_a_name_is_no_class(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", images(3), [0, 1, 7], named=True)
    table(tmp_path / "test.parquet", images(2), [-1, None], named=True)
    records, rejects = read("class_folders", tmp_path)
    assert [record.answer for record in records] == NAMES and {r.classes for r in records} == {("beach", "pond")}
    assert [reject.reason for reject in rejects] == ["class_unknown"] * 3


FORMS: Mapping[str, Callable[[], pa.Array]] = {
    "dictionary": lambda: pa.array([image(), image()]).dictionary_encode(),
    "large": lambda: pa.array([image(), image()], pa.large_binary()),
    "lists": lambda: pa.array([[one] for one in images(2).to_pylist()], pa.list_(images(0).type)),
    "structs": lambda: images(2),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_other_columns(form: str, tmp_path: Path) -> None:
    name = "images" if form == "lists" else "image"
    table(tmp_path / "train.parquet", FORMS[form](), NAMES, name=name)
    assert [record.answer for record in read("class_folders", tmp_path)[0]] == NAMES


def test_a_row_of_two_images_is_refused(tmp_path: Path) -> None:
    two = pa.array([images(2).to_pylist()], pa.list_(images(0).type))
    table(tmp_path / "train.parquet", two, NAMES[:1], name="images")
    data_set = get("class_folders")
    with open_tree(tmp_path) as tree:
        (record,) = data_set.records(data_set.find(tree))
        assert isinstance(record, Record)
        with pytest.raises(BadRecord, match="2 images"):
            tree.read(record.image)


def test_images_by_their_path_alone(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", images(2, with_bytes=False), NAMES)
    for k in range(2):
        put(tmp_path, f"images/im{k}.jpg", image())
    assert [record.answer for record in read("class_folders", tmp_path)[0]] == NAMES


@pytest.mark.parametrize("folders", [("images", "masks"), ("JPEGImages",)])
def test_directories_of_all_images_are_no_classes(folders: tuple[str, ...], tmp_path: Path) -> None:
    for folder in folders:
        put(tmp_path, f"{folder}/a.jpg", image())
    with pytest.raises(InputError, match="no class folders"):
        read("class_folders", tmp_path)


def test_another_directory_beside_those_of_the_splits_is_no_class(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in NAMES:
            put(tmp_path, f"{split}/{name}/{split}.jpg", image())
    put(tmp_path, "samples/a.jpg", image())
    records, rejects = read("class_folders", tmp_path)
    assert [(record.split, record.answer) for record in records] == [
        (split, name) for split in ("test", "train") for name in sorted(NAMES)
    ]
    assert [(reject.key, reject.reason) for reject in rejects] == [("samples", "class_unknown")]


def test_nothing_written_as_nan_is_no_answer(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", image())
    rows = [f'{{"image": "a.jpg", "question": "How many ships?", "answer": {answer}}}\n' for answer in ("NaN", "3")]
    put(tmp_path, "q.jsonl", "".join(rows))
    records, rejects = read("questions", tmp_path)
    assert [record.answer for record in records] == ["3"] and [r.reason for r in rejects] == ["answer_missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("image,question,answer,answer\na.jpg,what?,ship,harbor\n", "two columns are called 'answer'"),
        ("sep=;\nimage;question;answer\na.jpg;what?;ship\n", "'sep='"),
    ],
)
def test_a_csv_with_a_head_that_misleads_stops(text: str, message: str, tmp_path: Path) -> None:
    put(tmp_path, "a.jpg", image())
    put(tmp_path, "q.csv", text)
    with pytest.raises(InputError, match=message):
        read("questions", tmp_path, *(["delimiter=;"] if "sep" in text else []))
