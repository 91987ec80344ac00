"""The nine leaks between the sets (and the matrix of shared images): keys as the adapters write them, found by name
even where bytes and looks differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from build_world import corpus, drops, keyed, pair, sample
from fixtures import make_question_sets, make_sources

from geozero.corpus.images import store
from geozero.corpus.store import Corpus
from geozero.curation.decontamination.merge import raw
from geozero.curation.decontamination.name_maps import KNOWN, SETS, known_as, names_of
from geozero.curation.decontamination.overlap_matrix import overlap_matrix
from geozero.curation.ingest.ingest import ingest
from geozero.sources import SOURCES, get, with_options
from geozero.sources.captions.sydney_captions import SydneyCaptions
from geozero.sources.captions.ucm_captions import UcmCaptions
from geozero.sources.readers.class_names import UCM
from geozero.sources.toy import RENDERED

INNOCENT = "s/innocent"


def kept(tmp_path: Path, trained: list[str], evaluated: list[str]) -> tuple[set[str], list[tuple[str, str]]]:
    """Keys that are left to train on, and what was dropped; every image has its own bytes and looks."""
    rows = [keyed(n, key) for n, key in enumerate([*trained, INNOCENT])]
    one = corpus(tmp_path / "train", *rows)
    two = corpus(tmp_path / "test", *(keyed(100 + n, key, "test") for n, key in enumerate(evaluated)))
    raw([one], [two], tmp_path / "raw")
    return {s.image_key for s in Corpus(tmp_path / "raw").samples()} - {INNOCENT}, drops(tmp_path / "raw")


# --- one test a leak --------------------------------------------------------------------------------------


def test_1_rsicd_holds_aid_by_file_name_at_another_size(tmp_path: Path) -> None:
    trained = ["rsicd/airport/airport_1", "rsicd/airport/airport_2", "rsicd/00001", "rsicd/playfields/playfields_1"]
    left, dropped = kept(tmp_path, trained, ["aid/Airport/airport_1", "aid/BareLand/bareland_7"])
    assert left == set(trained[1:])
    assert dropped == [("leak_key", "rsicd/airport/airport_1 is aid/Airport/airport_1")]
    smaller = make_sources.make_image(3, (200, 200)).resize((75, 75))  # as RSICD's 224 of AID's 600, under no such name
    image = store(make_sources.encoded(smaller))
    one = corpus(tmp_path / "a", (image, sample(image, "rsicd/00007", source="rsicd")), pair(4, INNOCENT))
    large = store(make_sources.encoded(make_sources.make_image(3, (200, 200))))
    two = corpus(tmp_path / "b", (large, sample(large, "aid/River/river_3", "test", source="aid")))
    raw([one], [two], tmp_path / "raw2")
    assert [reason for reason, _ in drops(tmp_path / "raw2")] == ["leak_near"]


def test_2_ucm_captions_are_ucm_and_others_hold_them_too(tmp_path: Path) -> None:
    captions = [UcmCaptions().image_key(f"{n}.tif") for n in (1, 101, 250, 2100)]
    assert captions[2] == "ucm_captions/baseballdiamond/250"
    others = ["vhm/UCM/beach05", "skyeye/ucm/401", "skyeye/ucm/buildings01", "skyeye/sydney/1"]
    evaluated = ["ucm/agricultural/agricultural00", "ucm/baseballdiamond/baseballdiamond49", "ucm/beach/beach05"]
    evaluated += ["ucm/buildings/buildings00", "ucm/buildings/buildings01", "ucm/tenniscourt/tenniscourt99"]
    left, dropped = kept(tmp_path, captions + others, evaluated)
    assert left == {captions[1], "skyeye/sydney/1"}
    details = dict(detail.split(" is ", 1) for _, detail in dropped)
    assert details[captions[0]] == "ucm/agricultural/agricultural00 (the map of these names is inferred)"
    assert details["vhm/UCM/beach05"] == "ucm/beach/beach05"
    assert len({names_of(UcmCaptions().image_key(f"{n}.tif")) for n in range(1, 2101)}) == 2100
    assert names_of("ucm_captions/2101") == ("ucm_captions/2101",)


def test_3_nwpu_captions_are_resisc45_and_vhm_holds_it(tmp_path: Path) -> None:
    trained = ["nwpu_captions/airplane/airplane_001", "vhm/NWPU-RESISC45/storage_tank_700", "skyeye/nwpu/lake_003"]
    evaluated = [f"resisc45/{c}/{c}_{n}" for c, n in (("airplane", "001"), ("storage_tank", "700"), ("lake", "004"))]
    assert kept(tmp_path, trained, evaluated)[0] == {"skyeye/nwpu/lake_003"}


def test_4_vrsbench_is_cut_from_dior_and_dota(tmp_path: Path) -> None:
    trained = [
        "vrsbench/dior/00002_0000",
        "vrsbench/dior/00003_0000",
        "vrsbench/dota/P1427_0151",
        "vhm/DOIR-RSVG/00004",
    ]
    evaluated = ["dior_rsvg/JPEGImages/00002", "dior_rsvg/JPEGImages/00004", "vrsbench/dota/P1427_0009"]
    assert kept(tmp_path, trained, evaluated)[0] == {"vrsbench/dior/00003_0000"}


def test_5_dior_rsvg_shares_images_between_its_own_splits(tmp_path: Path) -> None:
    make_sources.dior_rsvg(tmp_path / "root")
    ingest("dior_rsvg", tmp_path / "root", tmp_path / "c")
    found = Corpus(tmp_path / "c")
    tested = {s.image_id for s in found.samples() if s.split != "train"}
    assert tested & {s.image_id for s in found.samples("train")}  # else the fixture has lost its trap
    raw([tmp_path / "c"], [], tmp_path / "raw")
    assert not tested & {s.image_id for s in Corpus(tmp_path / "raw").samples()}
    assert {reason for reason, _ in drops(tmp_path / "raw")} == {"leak_exact"}


@pytest.mark.parametrize(
    ("trained", "evaluated"),
    [
        ("skyeye/rsvqa_lr/17", "rsvqa_lr/Images_LR/17"),
        ("skyeye/rsvqa_hr/17", "rsvqa_hr/Data/17"),
        ("skyeye/rsvg/00012", "rsvg/images/00012"),
        ("skyeye/dior/00012", "dior_rsvg/JPEGImages/00012"),
        ("skyeye/rsicd/pond_3", "rsicd/pond/pond_3"),
        ("skyeye/rsicd/00003", "rsicd/00003"),
        ("skyeye/rsicd/pond_3", "aid/Pond/pond_3"),
        ("skyeye/sydney/243", SydneyCaptions().image_key("243.tif")),
        ("skyeye/nwpu/airplane_001", "nwpu_captions/airplane/airplane_001"),
        ("skyeye/ucm/101", "ucm_captions/airplane/101"),
    ],
)
def test_6_skyeye_repackages_other_sets(trained: str, evaluated: str, tmp_path: Path) -> None:
    assert kept(tmp_path, [trained, "skyeye/era/1"], [evaluated])[0] == {"skyeye/era/1"}


def test_7_rsvqa_hr_shares_regions_and_rsvqa_lr_sits_in_vhm(tmp_path: Path) -> None:
    left, _ = kept(tmp_path, ["vhm/RSVQA-LR/5", "vhm/RSVQA-LR/6"], ["rsvqa_lr/Images_LR/5"])
    assert left == {"vhm/RSVQA-LR/6"}
    make_question_sets.rsvqa_hr(tmp_path / "root")
    phili = with_options(get("rsvqa_hr"), ["test=test_phili"])
    ingest(phili, tmp_path / "root", tmp_path / "hr")
    assert [s.image_key for s in Corpus(tmp_path / "hr").samples("test")] == ["rsvqa_hr/Data/3"]
    manifest = raw([tmp_path / "hr"], [], tmp_path / "raw3")  # what no name can tell is told
    assert "shares regions with train" in manifest["notes"]["known_leaks"]["rsvqa_hr"]


def test_8_fmow_repeats_a_place(tmp_path: Path) -> None:
    trained = ["fmow/train/airport_0_1_rgb", "fmow/train/airport_1_0_rgb", "vhm/fMoW/airport_0_0_msrgb"]
    trained += ["fmow/train/multi-unit_residential_3_0_rgb", "vhm/fMoW/multi-unit_residential_4_0_rgb"]
    evaluated = ["fmow/val/airport_0_0_rgb", "fmow/train/airport_1_2_rgb", "fmow/val/multi-unit_residential_3_1_rgb"]
    left, _ = kept(tmp_path, trained, evaluated)
    assert left == {trained[0], trained[3], trained[4]}  # the numbers of train and val are not the same places


def test_9_sentences_that_repeat_are_told_and_kept(tmp_path: Path) -> None:
    left, _ = kept(tmp_path, ["ucm_captions/agricultural/2"], ["ucm_captions/agricultural/3"])
    assert left == {"ucm_captions/agricultural/2"}
    notes = Corpus(tmp_path / "raw").manifest["notes"]["known_leaks"]
    assert "573 of 1,050" in notes["ucm_captions"] and set(notes) == {"ucm_captions"}


# --- the maps themselves ----------------------------------------------------------------------------------


def test_every_set_of_the_maps_is_a_source_and_the_classes_are_the_sources_own() -> None:
    from geozero.curation.decontamination import name_maps

    assert (SETS.keys() | KNOWN.keys()) - SOURCES.keys() == set()
    assert sorted(UCM) == list(UCM) and len(UCM) == 21  # the map counts through them
    assert {*SETS.values(), *name_maps.PARTS.values()} == {rule.family for rule in name_maps.RULES}


def test_every_source_says_whose_images_it_shows() -> None:
    from geozero.curation.decontamination.name_maps import REPACKAGED, UNSHARED

    real = {name for name, source in SOURCES.items() if not source.generic} - RENDERED.keys()
    assert real - {*SETS, *REPACKAGED, *UNSHARED} == set(), "add it to SETS, REPACKAGED or UNSHARED in name_maps.py"
    assert not {*SETS} & {*REPACKAGED, *UNSHARED}


@pytest.mark.parametrize(
    "key",
    ["toy_rsicd/airport/airport_1", "toy_aid/Airport/airport_1", "neon/x/1", "coco/images/1", "vhm/corwdAI/airport_1"],
)
def test_other_keys_stay_as_they_are(key: str) -> None:
    assert known_as(key) == ((key,), True)


def test_keys_of_the_fixtures_are_known_to_the_maps(tmp_path: Path) -> None:
    """The adapters write keys that the maps read: a change of a key's form would silence a rule."""
    makers: dict[str, Callable[[Path], None]] = {
        "vrsbench": make_question_sets.vrsbench,
        "rsvg": make_question_sets.rsvg,
    }
    makers |= {"fmow": make_question_sets.fmow, "aid": make_sources.aid, "rsvqa_lr": make_sources.rsvqa_lr}
    for name, make in makers.items():
        make(tmp_path / name)
        ingest(name, tmp_path / name, tmp_path / f"{name}_corpus")
        for one in Corpus(tmp_path / f"{name}_corpus").samples():
            assert one.image_key not in names_of(one.image_key), one.image_key


# --- the matrix -------------------------------------------------------------------------------------------


def test_the_matrix_counts_each_image_once_in_the_surest_way(tmp_path: Path) -> None:
    smaller = store(make_sources.encoded(make_sources.make_image(3, (64, 64)).resize((40, 40))))
    one = corpus(
        tmp_path / "a",
        *(keyed(1, "aid/Pond/pond_1"), keyed(2, "aid/Pond/pond_2", "test"), keyed(3, "aid/Pond/pond_3")),
    )
    two = corpus(
        tmp_path / "b",
        keyed(1, "rsicd/pond/pond_9"),
        keyed(50, "rsicd/pond/pond_2"),
        (smaller, sample(smaller, "rsicd/00003", source="rsicd")),
        keyed(60, "rsicd/00060"),
    )
    found = overlap_matrix([Corpus(one), Corpus(two)], 4)
    assert found["sources"] == ["aid", "rsicd"] and found["pictures"] == [3, 4]
    assert [found[way] for way in ("bytes", "name", "looks")] == [[[0, 1], [1, 0]]] * 3
    assert overlap_matrix([Corpus(one), Corpus(two)], -1)["looks"] == [[0, 0], [0, 0]]
    assert overlap_matrix([], 4)["sources"] == []
    assert np.array(found["bytes"]).dtype == int


def test_raw_notes_who_leaks_into_whom(tmp_path: Path) -> None:
    kept(tmp_path, ["rsicd/pond/pond_1", "rsicd/pond/pond_2"], ["aid/Pond/pond_1", "aid/Pond/pond_2"])
    notes = Corpus(tmp_path / "raw").manifest["notes"]
    assert notes["leaks"] == [{"source": "rsicd", "evaluated_in": "aid", "reason": "leak_key", "n": 2}]
    assert notes["shared_pictures"]["sources"] == ["aid", "rsicd", "s"]
    assert notes["shared_pictures"]["name"][1] == [2, 0, 0]
