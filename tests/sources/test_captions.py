"""The caption sets: Karpathy's form and NWPU's own, told apart, with their sentences and keys."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_caption_sets, make_sources
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import InputError
from geozero.sources import Record, Rejected, Source, get, open_tree
from geozero.sources.captions.nwpu_captions import NwpuCaptions
from geozero.sources.captions.ucm_captions import UcmCaptions
from geozero.sources.readers.karpathy_captions import plain_text

EXPECTED = {
    "ucm_captions": [
        (
            "1.tif",
            "train",
            "imgs/1.tif",
            "ucm_captions/agricultural/1",
            ("There is a piece of farmland .", "It is a piece of farmland ."),
        ),
        ("100.tif", "val", "imgs/100.tif", "ucm_captions/agricultural/100", ("There is a piece of farmland .",)),
        ("101.tif", "test", "imgs/101.tif", "ucm_captions/airplane/101", ("An airplane stands on the apron .",)),
        ("2100.tif", "train", "imgs/2100.tif", "ucm_captions/tenniscourt/2100", ("A tennis court .",)),
        ("2101.tif", "train", "imgs/2101.tif", "ucm_captions/2101", ("One too many .",)),
    ],
    "sydney_captions": [
        ("1.tif", "train", "images/1.tif", "sydney_captions/residential/1", ("A residential area .",)),
        ("243.tif", "test", "images/243.tif", "sydney_captions/airport/243", ("A runway and some planes .",)),
        ("613.tif", "val", "images/613.tif", "sydney_captions/runway/613", ("A long runway .",)),
        ("614.tif", "val", "images/614.tif", "sydney_captions/614", ("Nobody has seen it .",)),  # missing: ingest
    ],
    "nwpu_captions": [
        (
            "airplane/airplane_001.jpg",
            "train",
            "NWPU_images/airplane/airplane_001.jpg",
            "nwpu_captions/airplane/airplane_001",
            ("A white plane .", "It's parked here ."),
        ),
        (
            "airplane/airplane_111.jpg",
            "train",
            "NWPU_images/airplane/airplane_111.jpg",
            "nwpu_captions/airplane/airplane_111",
            ("This image does not exist .",),
        ),
        (
            "storage_tank/storage_tank_700.jpg",
            "test",
            "NWPU_images/storage_tank/storage_tank_700.jpg",
            "nwpu_captions/storage_tank/storage_tank_700",
            ("Two tanks - side by side .",),
        ),
    ],
}
REFUSED = {"nwpu_captions": [("airplane[2]", "record_malformed")]}
LISTS = {"ucm_captions": "UCM_captions", "sydney_captions": "Sydney_captions"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_caption_sets.write_all(tmp_path)
    return tmp_path


def read(source: Source | str, root: Path) -> tuple[list[Record], list[Rejected]]:
    data_set = get(source) if isinstance(source, str) else source
    with open_tree(root) as tree:
        items = list(data_set.records(data_set.find(tree)))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", EXPECTED)
def test_each_set_among_the_others(name: str, root: Path) -> None:
    make_sources.rsicd(root)
    records, rejects = read(name, root)
    assert [(r.key, r.split, r.image, r.image_key, r.references) for r in records] == EXPECTED[name]
    assert {r.task for r in records} == {"caption"} and {r.text for r in records} == {""}
    assert [(r.key, r.reason) for r in rejects] == REFUSED.get(name, [])


@pytest.mark.parametrize("name", LISTS)
def test_sets_of_one_form_are_told_apart_by_their_lists(name: str, root: Path) -> None:
    for number, folder in enumerate(LISTS.values()):
        shutil.move(root / folder, root / f"download {number}")
    records, _ = read(name, root)
    assert [r.image_key for r in records] == [row[3] for row in EXPECTED[name]]


def test_a_list_of_the_other_set_is_refused(root: Path) -> None:
    shutil.rmtree(root / "Sydney_captions")
    with pytest.raises(InputError, match=r"no Sydney-Captions found: dataset.json is another data set's"):
        read("sydney_captions", root)


def test_a_list_that_says_nothing_goes_by_its_directory(root: Path) -> None:
    for folder in LISTS.values():
        change(root / folder / "dataset.json", lambda content: content.pop("dataset"))
    for name in LISTS:
        assert len(read(name, root)[0]) == len(EXPECTED[name])


@pytest.mark.parametrize(
    ("name", "count", "message"),
    [
        ("ucm_captions", 613, "613 images, which is Sydney-Captions' number"),
        ("sydney_captions", 2_100, "2,100 images, which is UCM-Captions' number"),
    ],
)
def test_exchanged_archives_of_images_stop(name: str, count: int, message: str, root: Path) -> None:
    folder = root / LISTS[name] / ("imgs" if name == "ucm_captions" else "images")
    shutil.rmtree(folder)
    folder.mkdir()
    for n in range(1, count + 1):
        (folder / f"{n}.tif").touch()
    with pytest.raises(InputError, match=message):
        read(name, root)


def test_one_sample_a_sentence_by_parameter(root: Path) -> None:
    records, _ = read(UcmCaptions(each="sentence"), root)
    assert [(r.key, r.references) for r in records][:3] == [
        ("1.tif#0", ("There is a piece of farmland .",)),
        ("1.tif#1", ("It is a piece of farmland .",)),
        ("100.tif#0", ("There is a piece of farmland .",)),
    ]
    assert len({r.key for r in records}) == len(records) == 6
    assert len(read(NwpuCaptions(each="sentence"), root)[0]) == 4


def test_nwpu_broken_items_cost_themselves(root: Path) -> None:
    def edit(content: Any) -> None:
        content["airplane"][0].update(split="restval")
        content["airplane"][1].update(raw=["no text"])
        content["storage_tank"].append({"filename": "x.jpg", "split": "test"})

    change(root / "NWPU-Captions" / "dataset_nwpu.json", edit)
    records, rejects = read("nwpu_captions", root)
    assert len(records) == 1
    assert [(r.key, r.reason) for r in rejects] == [
        ("airplane/airplane_001.jpg", "split_unknown"),
        ("airplane/airplane_111.jpg", "record_malformed"),
        ("airplane[2]", "record_malformed"),
        ("storage_tank/x.jpg", "references_missing"),
    ]


@pytest.mark.parametrize("cut", [1, 2, 40, 300])
@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("ucm_captions", "UCM_captions/dataset.json"),
        ("nwpu_captions", "NWPU-Captions/dataset_nwpu.json"),
    ],
)
def test_a_list_that_breaks_off_is_one_clear_line(name: str, file: str, cut: int, root: Path) -> None:
    (root / file).write_text((root / file).read_text()[:-cut])
    try:
        read(name, root)
    except InputError as error:
        assert "malformed annotation file" in str(error) and "\n" not in str(error)
    else:
        assert name == "ucm_captions" and cut <= 40  # what is cut off stands behind the list


@given(st.text(max_size=20))
def test_plain_text_is_printable_and_stays_as_it_is(text: str) -> None:
    once = plain_text(text)
    assert once.isprintable() and once == once.strip() and plain_text(once) == once
