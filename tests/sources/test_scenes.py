"""The scene classification sets: what each layout becomes, how they are told apart, and their splits."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import make_scene_sets, make_sources
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import Ambiguous, InputError
from geozero.sources import SOURCES, Ratio, Record, Rejected, get, open_tree
from geozero.sources.readers.class_folders import ClassFolders, alnum_key, label_text
from geozero.sources.readers.class_names import FMOW, SCENE_SETS
from geozero.sources.scenes.resisc45 import Resisc45

CLASS_COUNTS = {"aid": 30, "resisc45": 45, "eurosat": 10, "nasc_tg2": 10, "whu_rs19": 19, "ucm": 21, "siri_whu": 12}
CLASS_FOLDER_SETS = {
    name: source
    for name, source in SOURCES.items()
    if isinstance(source, ClassFolders) and source.labels is not None and not source.generic
}


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scene")
    make_scene_sets.write_all(root)
    make_sources.write_all(root)
    return root


@pytest.fixture
def alone(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        make_scene_sets.SETS[name](tmp_path)
        return tmp_path

    return make


def read(name: str, root: Path) -> tuple[list[Record], list[Rejected]]:
    source = get(name)
    with open_tree(root) as tree:
        items = list(source.records(source.find(tree)))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


@pytest.mark.parametrize(("name", "count"), CLASS_COUNTS.items())
def test_label_sets_are_whole(name: str, count: int) -> None:
    classes = get(name).classes
    assert len(set(classes)) == count and list(classes) == sorted(classes)
    assert all(c == c.lower() and "_" not in c for c in classes)


def test_no_two_folders_of_a_set_have_the_same_letters() -> None:
    for names in (*SCENE_SETS, FMOW):
        assert len(set(map(alnum_key, names))) == len(set(map(label_text, names))) == len(names)


EXPECTED = {  # key → label, image key
    "resisc45": {
        "airplane/airplane_001.jpg": ("airplane", "resisc45/airplane/airplane_001"),
        "baseball diamond/baseball_diamond_005.jpg": (
            "baseball diamond",
            "resisc45/baseball_diamond/baseball_diamond_005",
        ),
        "snowberg/snowberg_005.jpg": ("snowberg", "resisc45/snowberg/snowberg_005"),
    },
    "eurosat": {"SeaLake/SeaLake_10.jpg": ("sea lake", "eurosat/SeaLake/SeaLake_10")},
    "nasc_tg2": {"circle_farmland/2.jpg": ("circular farmland", "nasc_tg2/circular_farmland/2")},
    "whu_rs19": {
        "footballField/footballField_01.jpg": ("football field", "whu_rs19/footballField/footballField_01"),
        "railwayStation/railwayStation_02.jpg": ("railway station", "whu_rs19/railwayStation/railwayStation_02"),
    },
    "ucm": {
        "baseballdiamond/baseballdiamond00.tif": ("baseball diamond", "ucm/baseballdiamond/baseballdiamond00"),
        "tenniscourt/tenniscourt99.tif": ("tennis court", "ucm/tenniscourt/tenniscourt99"),
    },
    "siri_whu": {
        "idle_land/0001.tif": ("idle land", "siri_whu/idle_land/0001"),
        "pond/0002.tif": ("pond", "siri_whu/pond/0002"),
    },
}
SIZES = {"resisc45": 15, "eurosat": 6, "nasc_tg2": 6, "whu_rs19": 6, "ucm": 9, "siri_whu": 6}
READ_ELSEWHERE = {"aid"}  # curation/test_ingest.py


@pytest.mark.parametrize(
    ("table", "listed"), [("CLASS_COUNTS", CLASS_COUNTS), ("EXPECTED", EXPECTED), ("SIZES", SIZES)]
)
def test_every_set_of_class_folders_is_in_the_tables_above(table: str, listed: dict[str, object]) -> None:
    assert CLASS_FOLDER_SETS.keys() - listed.keys() - READ_ELSEWHERE == set(), f"add it to {table}"


@pytest.mark.parametrize("name", CLASS_FOLDER_SETS)
def test_every_set_of_class_folders_is_told_apart_from_the_others(name: str) -> None:
    assert CLASS_FOLDER_SETS[name].labels in SCENE_SETS, "add its folders to SCENE_SETS in readers/class_names.py"


@pytest.mark.parametrize("name", SIZES)
def test_each_set_alone_and_among_the_others(name: str, originals: Path, alone: Callable[[str], Path]) -> None:
    records, rejects = read(name, originals)
    assert len(records) == SIZES[name]
    found = {r.key: (r.answer, r.image_key) for r in records}
    assert found.items() >= EXPECTED[name].items()
    assert {r.task for r in records} == {"scene_cls"} and {r.classes for r in records} == {get(name).classes}
    expected = [("Unsorted", "class_unknown")] if name == "whu_rs19" else []
    assert [(r.key, r.reason) for r in rejects] == expected
    assert read(name, alone(name)) == (records, rejects)


@pytest.mark.parametrize("name", SIZES)
def test_the_tree_itself_or_an_archive_may_be_given(name: str, alone: Callable[[str], Path]) -> None:
    root = alone(name)
    with open_tree(root) as tree:
        home = Path(get(name).find(tree).where())
    expected = read(name, root)
    assert read(name, home) == expected
    packed = Path(shutil.make_archive(str(root.parent / f"packed-{name}"), "zip", root))
    assert read(name, packed) == expected


@pytest.mark.parametrize("name", SIZES)
def test_a_set_is_not_taken_for_another(name: str, alone: Callable[[str], Path]) -> None:
    found = set()
    with open_tree(alone(name)) as tree:
        for other in CLASS_FOLDER_SETS.values():
            try:
                other.find(tree)
                found.add(other.name)
            except InputError:
                pass
    assert found == {name}


def test_class_folders_of_another_set_are_named_as_the_reason(alone: Callable[[str], Path]) -> None:
    with pytest.raises(InputError, match="no AID found: its folders are another data set's"):
        read("aid", alone("whu_rs19"))


def test_two_equal_places_are_ambiguous(alone: Callable[[str], Path]) -> None:
    root = alone("whu_rs19")
    shutil.copytree(root / "WHU-RS19", root / "copy" / "WHU-RS19")
    shutil.move(root / "WHU-RS19", root / "other" / "WHU-RS19")
    with pytest.raises(Ambiguous, match="could be any of copy/WHU-RS19/RSDataset, other/WHU-RS19/RSDataset"):
        read("whu_rs19", root)


# --- splits -----------------------------------------------------------------------------------------------


@given(st.floats(0, 1), st.floats(0, 1), st.sets(st.text(max_size=3), max_size=40))
def test_stratified_shares_hold_to_the_image(train: float, val: float, keys: set[str]) -> None:
    if train + val > 1:
        return
    splits = Counter(Ratio(train, val).stratified(keys).values())
    assert sum(splits.values()) == len(keys)
    assert abs(splits["train"] - train * len(keys)) <= 0.5 + 1e-9
    assert abs(splits["val"] - val * len(keys)) <= 1 + 1e-9


def test_one_image_more_moves_at_most_two() -> None:
    keys = [f"ucm/river/river{n:02}" for n in range(100)]
    ratio = Ratio(0.8, 0.1)
    before, after = ratio.stratified(keys[:99]), ratio.stratified(keys)
    assert sum(before[key] != after[key] for key in before) <= 2
    assert ratio.stratified(reversed(keys)) == after


def test_shares_hold_in_every_class(tmp_path: Path) -> None:
    for folder in ("river", "beach"):
        for n in range(20):
            make_sources.write(
                tmp_path / "UCMerced_LandUse" / "Images" / folder / f"{folder}{n:02}.tif", b"never opened"
            )
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in read("ucm", tmp_path)[0]:
        counts[record.answer][record.split] += 1
    assert counts == {"river": {"train": 16, "test": 4}, "beach": {"train": 16, "test": 4}}


@pytest.mark.parametrize("inside", [True, False])
def test_resisc45_follows_split_files(inside: bool, alone: Callable[[str], Path]) -> None:
    root = alone("resisc45")
    make_scene_sets.resisc45_splits(root / "NWPU-RESISC45" if inside else root)
    records, rejects = read("resisc45", root)
    assert {r.key: r.split for r in records} == {
        "airplane/airplane_001.jpg": "train",
        "airplane/airplane_002.jpg": "val",
        "snowberg/snowberg_001.jpg": "test",
        "snowberg/snowberg_002.jpg": "train",
    }
    assert Counter(r.reason for r in rejects) == {"in_no_split": 11}


def test_resisc45_without_all_split_files_goes_by_hash(alone: Callable[[str], Path]) -> None:
    root = alone("resisc45")
    make_scene_sets.resisc45_splits(root)
    (root / "resisc45-val.txt").unlink()
    records, _ = read("resisc45", root)
    assert Counter((r.answer, r.split) for r in records) == {
        (label, split): n
        for label in ("airplane", "baseball diamond", "snowberg")
        for split, n in Counter(Resisc45().ratio.stratified(map(str, range(5))).values()).items()
    }


def test_resisc45_overlapping_split_files_stop(alone: Callable[[str], Path]) -> None:
    root = alone("resisc45")
    make_scene_sets.resisc45_splits(root)
    (root / "resisc45-test.txt").write_text("airplane_001.jpg\n")
    with pytest.raises(InputError, match=r"line 1: airplane_001.jpg stands in resisc45-train.txt, too"):
        read("resisc45", root)


# --- what is not to be read -------------------------------------------------------------------------------


def test_thirteen_bands_are_no_image(tmp_path: Path) -> None:
    make_scene_sets.eurosat_bands(tmp_path)
    with pytest.raises(
        InputError, match=r"this is the 13-band variant of EuroSAT .*SeaLake/a.tif.*take the RGB archive"
    ):
        read("eurosat", tmp_path)


def test_nasc_needs_its_rgb_directory(alone: Callable[[str], Path]) -> None:
    root = alone("nasc_tg2")
    shutil.rmtree(root / "NaSC-TG2" / "NaSC_TG2_RGB")
    with pytest.raises(InputError, match=r"no NaSC-TG2 found: .*expected …RGB…/<class>/<image>"):
        read("nasc_tg2", root)


def test_the_usgs_set_is_an_unsupported_layout(tmp_path: Path) -> None:
    make_sources.write(tmp_path / "USGS dataset of SIRI-WHU" / "forest" / "1.tif", b"x")
    with pytest.raises(InputError, match="unsupported layout: the USGS set of SIRI-WHU"):
        read("siri_whu", tmp_path)
