"""Splits of class folders: directories, lists beside them, and what is named because it is not followed."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

import pytest

from geozero.common.errors import InputError
from geozero.sources import Record, Rejected, get, open_tree, with_options
from geozero.sources.readers.splits import split_lists


def put(root: Path, *names: str, data: bytes = b"never opened") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)


def read(name: str, root: Path, *options: str) -> tuple[list[Record], list[Rejected], str]:
    source = with_options(get(name), options)
    with open_tree(root) as tree:
        home = source.find(tree)
        items = list(source.records(home))
        rule = home.notes.get("splits", "")
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)], rule


@pytest.mark.parametrize("wrapper", ["", "AID/", "x/AID_dataset/"])
@pytest.mark.parametrize("words", [("train", "val", "test"), ("Training", "validation", "testing"), ("train", "dev")])
def test_directories_called_as_splits_are_followed(wrapper: str, words: tuple[str, ...], tmp_path: Path) -> None:
    put(tmp_path, *(f"{wrapper}{w}/{c}/{c.lower()}_{n}.jpg" for w in words for c in ("River", "Pond") for n in (1, 2)))
    records, rejects, rule = read("aid", tmp_path)
    assert Counter(r.split for r in records) == dict.fromkeys(("train", "val", "test")[: len(words)], 4)
    assert not rejects and rule == f"by directory or file: {', '.join(sorted(words))}"
    # one name in several splits is several images
    assert len({r.image_key for r in records}) == len(records)


def test_keys_stay_plain_where_names_differ(tmp_path: Path) -> None:
    put(tmp_path, "AID/train/River/river_1.jpg", "AID/test/River/river_2.jpg")
    assert {r.image_key for r in read("aid", tmp_path)[0]} == {"aid/River/river_1", "aid/River/river_2"}


def test_one_split_alone_is_still_a_split(tmp_path: Path) -> None:
    put(tmp_path, *(f"AID/test/River/river_{n}.jpg" for n in range(8)))
    for root in (tmp_path, tmp_path / "AID", tmp_path / "AID" / "test"):
        assert Counter(r.split for r in read("aid", root)[0]) == {"test": 8}


def test_images_beside_the_directories_of_splits_are_listed(tmp_path: Path) -> None:
    put(tmp_path, "AID/train/River/river_1.jpg", "AID/test/River/river_2.jpg", "AID/Pond/pond_1.jpg")
    records, rejects, _ = read("aid", tmp_path)
    assert len(records) == 2 and [(r.key, r.reason) for r in rejects] == [("Pond/pond_1.jpg", "in_no_split")]


NASC = ("circle farmland", "snowberg", "residential")


@pytest.mark.parametrize("names", [("NaSC-TG2", ""), ("", ""), ("", "NaSC_TG2_RGB/")])
def test_nasc_is_known_by_its_name_or_its_classes(names: tuple[str, str], tmp_path: Path) -> None:
    top = "".join(f"{name.strip('/')}/" for name in names if name)
    put(tmp_path, *(f"{top}{s}/{c}/{c}_{s}.jpg" for s in ("train", "test") for c in NASC))
    put(tmp_path, "NaSC_TG2_MS/beach/1.tif", "NaSC_TG2_MS/residential/1.tif")
    records, _, _ = read("nasc_tg2", tmp_path)
    assert Counter(r.split for r in records) == {"train": 3, "test": 3}


def test_a_copy_with_splits_beside_plain_class_folders_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, *(f"images/airplane/airplane_{n}.png" for n in range(4)))
    put(tmp_path, "parts/train/airplane/airplane_0.png", "parts/test/airplane/airplane_1.png")
    with caplog.at_level(logging.WARNING):
        records, _, rule = read("ucm", tmp_path)
    assert len(records) == 4 and "by hash, 0.8/0/0.2" in rule and "the directories in parts: give one as --root" in rule
    assert "in parts" in caplog.text
    assert Counter(r.split for r in read("ucm", tmp_path / "parts")[0]) == {"train": 1, "test": 1}


UCM = [f"agricultural{n:02}" for n in range(6)]


def lists(root: Path, name: str, form: str = "{}.tif") -> None:
    for split, stems in (("train", UCM[:3]), ("val", UCM[3:4]), ("test", UCM[4:])):
        put(root, name.format(split), data="".join(form.format(s) + "\n" for s in stems).encode())


@pytest.mark.parametrize("where", ["", "UCMerced_LandUse/", "UCMerced_LandUse/Images/"])
@pytest.mark.parametrize("form", ["{}.tif", "{}.jpg", "{}", "agricultural/{}.tif", "Images/Agricultural/{}.tif"])
def test_torchgeo_lists_are_followed(where: str, form: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"UCMerced_LandUse/Images/agricultural/{s}.tif" for s in UCM))
    lists(tmp_path, where + "uc_merced-{}.txt", form)
    records, rejects, rule = read("ucm", tmp_path)
    assert [r.split for r in records] == ["train"] * 3 + ["val"] + ["test"] * 2 and not rejects
    assert rule.startswith("lists ") and rule.count("uc_merced-") == 3


def test_eurosat_lists_are_followed_and_chosen(tmp_path: Path) -> None:
    put(tmp_path, *(f"2750/SeaLake/SeaLake_{n}.jpg" for n in (1, 2, 3)))
    for split, a, b in (("train", 1, 3), ("val", 2, 2), ("test", 3, 1)):
        put(tmp_path, f"eurosat-{split}.txt", data=f"SeaLake_{a}.jpg\n".encode())
        put(tmp_path, f"eurosat-spatial-{split}.txt", data=f"SeaLake_{b}.jpg\n".encode())
    assert [r.split for r in read("eurosat", tmp_path)[0]] == ["train", "val", "test"]
    assert [r.split for r in read("eurosat", tmp_path, "lists=eurosat-spatial")[0]] == ["test", "val", "train"]
    with pytest.raises(InputError, match="no lists 'other' of train, val and test"):
        read("eurosat", tmp_path, "lists=other")


def test_tables_of_kaggle_are_followed(tmp_path: Path) -> None:
    put(tmp_path, *(f"EuroSAT/SeaLake/SeaLake_{n}.jpg" for n in (1, 2, 3)))
    for split, n in (("train", 3), ("validation", 1), ("test", 2)):
        put(tmp_path, f"EuroSAT/{split}.csv", data=f",Filename,Label\n0,SeaLake/SeaLake_{n}.jpg,9\n".encode())
    assert [r.split for r in read("eurosat", tmp_path)[0]] == ["val", "test", "train"]


def test_lists_that_are_incomplete_are_named(tmp_path: Path) -> None:
    put(tmp_path, *(f"UCMerced_LandUse/Images/agricultural/{s}.tif" for s in UCM))
    lists(tmp_path, "uc_merced-{}.txt")
    (tmp_path / "uc_merced-val.txt").unlink()
    records, _, rule = read("ucm", tmp_path)
    assert len(records) == 6 and "not followed, because incomplete" in rule and "uc_merced-test.txt" in rule


def test_names_that_could_be_several_images_stop(tmp_path: Path) -> None:
    put(tmp_path, "12class_tif/pond/0001.tif", "12class_tif/river/0001.tif")
    for split in ("train", "val", "test"):
        put(tmp_path, f"{split}.txt", data=b"0001.tif\n" if split == "train" else b"")
    with pytest.raises(InputError, match=r"line 1: 0001.tif could be 2 images"):
        read("siri_whu", tmp_path)
    put(tmp_path, "train.txt", data=b"pond/0001.tif\n")
    put(tmp_path, "test.txt", data=b"river/0001.tif\n")
    assert [r.split for r in read("siri_whu", tmp_path)[0]] == ["train", "test"]


def test_names_of_lists(tmp_path: Path) -> None:
    put(tmp_path, "a-train.txt", "a_val.csv", "train.txt", "retrain.txt", "contest.txt", "b.c-test.txt", "readme.txt")
    with open_tree(tmp_path) as tree:
        assert split_lists(tree) == {
            "a": {"train": "a-train.txt", "val": "a_val.csv"},
            "": {"train": "train.txt"},
            "b.c": {"test": "b.c-test.txt"},
        }


PATTERNNET = [
    "airplane",
    "baseball_field",
    "beach",
    "cemetery",
    "christmas_tree_farm",
    "crosswalk",
    "ferry_terminal",
    "oil_well",
]
STRANGE = ["river", "forest", "kiosk", "silo", "quarry"]


@pytest.mark.parametrize("top", ["PatternNet/images", "NWPU-RESISC45"])
def test_another_set_is_refused_whatever_its_directory_is_called(top: str, tmp_path: Path) -> None:
    put(tmp_path, *(f"{top}/{c}/{c}{n:03}.jpg" for c in PATTERNNET for n in range(2)))
    with pytest.raises(InputError, match=r"its folders are PatternNet's \(8 of them, 2 are RESISC45's"):
        read("resisc45", tmp_path)


def test_a_set_of_unknown_classes_is_refused(tmp_path: Path) -> None:
    put(tmp_path, *(f"RESISC45/{c}/{c}.jpg" for c in STRANGE))
    with pytest.raises(InputError, match="no RESISC45 found: its folders are another data set's"):
        read("resisc45", tmp_path)
