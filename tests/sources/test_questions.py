"""The sets of questions, expressions and instructions: exact records from their layouts, and what their traps cost."""

from __future__ import annotations

import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_question_sets, make_sources
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import BadRecord, InputError
from geozero.sources import Record, Rejected, Source, get, open_tree
from geozero.sources.mixed.vhm import Vhm
from geozero.sources.mixed.vrsbench import VrsBench
from geozero.sources.questions.rsvqa_hr import RsvqaHr
from geozero.sources.readers.conversations import bare_expression, bare_question, box_in, offered_classes, tagged, turns
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.rsvqa import area_bin
from geozero.sources.scenes.fmow import Fmow, the_object

SETS = tuple(make_question_sets.SETS)


@pytest.fixture
def alone(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        make_question_sets.SETS[name](tmp_path)
        return tmp_path

    return make


def read(source: Source | str, root: Path) -> tuple[list[Record], list[Rejected]]:
    data_set = get(source) if isinstance(source, str) else source
    with open_tree(root) as tree:
        items = list(data_set.records(data_set.find(tree)))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


def reasons(rejects: list[Rejected]) -> list[tuple[str, str]]:
    return [(r.key, r.reason) for r in rejects]


def change(path: Path, edit: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# --- all of them ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
def test_an_archive_gives_the_same_records(name: str, alone: Callable[[str], Path]) -> None:
    root = alone(name)
    packed = Path(shutil.make_archive(str(root.parent / f"packed-{name}"), "zip", root))
    assert read(name, packed) == read(name, root)


@pytest.mark.parametrize("name", SETS)
def test_an_empty_directory_is_one_clear_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match=f"no {get(name).title} found: looked for .*found notes.txt"):
        read(name, tmp_path)


LISTS = {
    "rsvqa_hr": "RSVQA_HR/USGS_split_train_questions.json",
    "vrsbench": "VRSBench/VRSBench_train.json",
    "skyeye": "SkyEye-968k/vqa/UCMvqa.json",
    "vhm": "VHM-Instruct/list_sft.json",
}


@pytest.mark.parametrize(("name", "file"), LISTS.items())
def test_a_list_that_breaks_off_stops_with_one_line(name: str, file: str, alone: Callable[[str], Path]) -> None:
    root = alone(name)
    (root / file).write_text((root / file).read_text()[:-40])
    with pytest.raises(InputError, match="malformed annotation file: ") as caught:
        read(name, root)
    assert "\n" not in str(caught.value) and Path(file).name in str(caught.value)


@pytest.mark.parametrize("junk", [None, 7, "text", [], {}, {"image": 3}, {"image_id": "a.jpg"}])
@pytest.mark.parametrize(("name", "file"), LISTS.items())
def test_a_junk_item_costs_itself(name: str, file: str, junk: Any, alone: Callable[[str], Path]) -> None:
    root = alone(name)
    before = read(name, root)
    change(root / file, lambda content: (content if isinstance(content, list) else content["questions"]).append(junk))
    records, rejects = read(name, root)
    assert records == before[0]
    assert len(rejects) == len(before[1]) + (name != "rsvqa_hr")  # there it is an inactive placeholder


# --- RSVQA-HR ---------------------------------------------------------------------------------------------


def test_hr_reads_both_tests_and_prefers_png(alone: Callable[[str], Path]) -> None:
    records, rejects = read("rsvqa_hr", alone("rsvqa_hr"))
    assert [(r.key, r.split, r.image, r.question_type, r.answer) for r in records] == [
        ("train/0", "train", "Data/0.png", "area", "1934m2"),
        ("train/2", "train", "Data/0.png", "count", "12"),
        ("train/4", "train", "Data/0.png", "area", "0m2"),
        ("val/3", "val", "Data/1.png", "comp", "no"),
        ("test/5", "test", "Data/2.png", "area", "no area"),
        ("test/6", "test", "Data/2.png", "presence", "no"),
        ("test_phili/1", "test", "Data/3.png", "presence", "yes"),
    ]
    assert rejects == []


def test_hr_one_test_and_bins_by_parameter(alone: Callable[[str], Path]) -> None:
    root = alone("rsvqa_hr")
    records, rejects = read(RsvqaHr(test="test_phili", answers="binned"), root)
    assert [(r.key, r.answer) for r in records] == [
        ("train/0", "more than 1000m2"),
        ("train/2", "12"),
        ("train/4", "0m2"),
        ("val/3", "no"),
        ("test_phili/1", "yes"),
    ]
    records, rejects = read(RsvqaHr(test="test", answers="binned"), root)
    assert [r.key for r in records][-1] == "test/6" and reasons(rejects) == [("test/5", "answer_not_an_area")]


@pytest.mark.parametrize(
    ("area", "expected"),
    [
        ("0m2", "0m2"),
        ("1m2", "between 0m2 and 10m2"),
        ("10m2", "between 0m2 and 10m2"),
        ("10.5m2", "between 10m2 and 100m2"),
        ("1000 m2", "between 100m2 and 1000m2"),
        ("1001m2", "more than 1000m2"),
    ],
)
def test_area_bins(area: str, expected: str) -> None:
    assert area_bin(area) == expected


@pytest.mark.parametrize("area", ["", "12", "m2", "-3m2", "1e5m2", "9" * 5_000 + "m2", "٣m2"])
def test_area_bins_refuse_what_is_no_area(area: str) -> None:
    with pytest.raises(BadRecord, match="answer_not_an_area"):
        area_bin(area)


@pytest.mark.parametrize("number", [-1, 10**12])
def test_an_absurd_id_costs_itself_and_no_memory(number: int, alone: Callable[[str], Path]) -> None:
    root = alone("rsvqa_hr")
    change(root / "RSVQA_HR" / "USGS_split_val_answers.json", lambda c: c["answers"][3].update(id=number))
    _, rejects = read("rsvqa_hr", root)
    assert reasons(rejects) == [(f"val/answer/{number}", "record_malformed"), ("val/3", "answer_missing")]


# --- fMoW -------------------------------------------------------------------------------------------------


def test_fmow_asks_for_the_category_of_each_rgb_image(alone: Callable[[str], Path]) -> None:
    records, rejects = read("fmow", alone("fmow"))
    assert [(r.task, r.split, r.answer, r.image_key) for r in records] == [
        ("scene_cls", "train", "airport", "fmow/train/airport_0_0_rgb"),
        ("scene_cls", "train", "airport", "fmow/train/airport_0_1_rgb"),
        ("scene_cls", "train", "airport", "fmow/train/airport_1_0_rgb"),
        ("scene_cls", "train", "multi-unit residential", "fmow/train/multi-unit_residential_0_0_rgb"),
        ("scene_cls", "val", "airport", "fmow/val/airport_0_0_rgb"),
        ("scene_cls", "val", "lake or pond", "fmow/val/lake_or_pond_3_2_rgb"),
    ]
    assert {len(r.classes) for r in records} == {62}
    assert reasons(rejects) == [("test", "label_missing"), ("train/castle/castle_0", "class_unknown")]


def test_fmow_boxes_by_parameter(alone: Callable[[str], Path]) -> None:
    records, rejects = read(Fmow(grounding=True, val_as="test"), alone("fmow"))
    asked = [(r.split, r.key.rpartition("/")[2], r.text, r.box) for r in records if r.task == "grounding"]
    assert asked == [
        ("train", "airport_0_0_rgb.json", "the airport", (5, 6, 25, 16)),  # listed twice, besides {"ID": -1}
        ("test", "lake_or_pond_3_2_rgb.json", "the lake or pond", (30, 30, 70, 70)),  # refused at ingest
    ]
    assert [(r.key.rpartition("/")[2], r.reason) for r in rejects][:4] == [
        ("airport_0_1_rgb.json", "object_missing"),
        ("airport_1_0_rgb.json", "object_not_unique"),
        ("multi-unit_residential_0_0_rgb.json", "category_conflict"),
        ("airport_0_0_rgb.json", "object_not_visible"),
    ]
    assert {r.drawn_on for r in records if r.task == "grounding"} == {(48, 40)}


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"bounding_boxes": 3}', "[" * 100_000, '{"bounding_boxes": [{"ID": 1}]}']
)
def test_fmow_broken_json_costs_the_box_alone(content: str, alone: Callable[[str], Path]) -> None:
    root = alone("fmow")
    path = root / "fMoW-rgb" / "train" / "airport" / "airport_0" / "airport_0_0_rgb.json"
    path.write_text(content)
    records, rejects = read(Fmow(grounding=True), root)
    assert len(records) == 7 and rejects[0].reason in ("json_malformed", "record_malformed")


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, "3", 4], [1, 2, float("nan"), 4], [True, 2, 3, 4], {}])
def test_fmow_malformed_boxes(box: Any) -> None:
    with pytest.raises(BadRecord, match="malformed"):
        the_object({"bounding_boxes": [{"ID": 1, "box": box, "category": "dam"}]}, "dam")


# --- RSVG -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rsvg_reads_torch_pickles(alone: Callable[[str], Path]) -> None:
    root = alone("rsvg")
    records, rejects = read("rsvg", root)
    expected = [
        ("train/0", "train", "images/1.jpg", "rsvg/images/1", "The red ship", (4.5, 5.0, 20.25, 18.0)),
        ("train/1", "train", "images/1.jpg", "rsvg/images/1", "A line", (8.0, 8.0, 8.0, 20.0)),
        ("val/0", "val", "images/2.jpg", "rsvg/images/2", "A lake", (1.0, 2.0, 30.0, 39.0)),
    ]
    assert [(r.key, r.split, r.image, r.image_key, r.text, r.box) for r in records] == expected
    assert reasons(rejects) == [("train/2", "record_malformed"), ("test/0", "image_missing")]
    for split in ("train", "val", "test"):  # beside the directory
        shutil.move(root / "rsvg" / f"rsvg_{split}.pth", root)
    assert read("rsvg", root) == (records, rejects)
    (root / "rsvg_val.pth").unlink()
    assert ("rsvg_val.pth", "split_missing") in reasons(read("rsvg", root)[1])


@pytest.mark.slow
def test_rsvg_reads_numpy_arrays_and_nothing_else_of_numpy(alone: Callable[[str], Path]) -> None:
    import numpy as np
    import torch

    root = alone("rsvg")
    rows = [
        (
            "1.jpg",
            np.array([4.5, 5.0, 20.25, 18.0], np.float32),
            np.str_("The red ship"),
            np.array(["NN"]),
            np.int64(1),
        ),
        (np.str_("1.jpg"), [np.float64(1), np.float64(2), np.int32(9), 9], "A lake", [], 1),
        ("1.jpg", np.array([1, 2, 9, 9]), "A field", [], 1),
    ]
    path = root / "rsvg" / "rsvg_train.pth"
    for content in (rows, np.array([*rows, None], dtype=object)):
        torch.save(content, path)
        found = [r for r in read("rsvg", root)[0] if r.split == "train"]
        assert [r.text for r in found] == ["The red ship", "A lake", "A field"]
        assert [r.box for r in found][:2] == [(4.5, 5, 20.25, 18), (1, 2, 9, 9)]
    torch.save(rows, path, _use_new_zipfile_serialization=False)
    path.write_bytes(
        path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    )  # as NumPy 1 has it
    assert len([r for r in read("rsvg", root)[0] if r.split == "train"]) == 3
    torch.save([np.load], path)
    with pytest.raises(InputError, match=r"refused.*rsvg_train.pth"):
        read("rsvg", root)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("pwned"),))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "pickle"])
def test_rsvg_code_in_a_pickle_is_refused_and_not_run(
    form: str, alone: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    root = alone("rsvg")
    monkeypatch.chdir(root)
    buffer = io.BytesIO()
    if form == "torch":
        torch.save([Evil()], buffer)
    else:
        pickle.dump([Evil()], buffer)
    (root / "rsvg" / "rsvg_train.pth").write_bytes(buffer.getvalue())
    with pytest.raises(InputError, match=r"(refused|no torch file).*rsvg_train.pth") as caught:
        read("rsvg", root)
    assert "\n" not in str(caught.value) and not (root / "pwned").exists()


@pytest.mark.slow
def test_rsvg_damaged_files_are_one_line(alone: Callable[[str], Path]) -> None:
    root = alone("rsvg")
    path = root / "rsvg" / "rsvg_train.pth"
    whole = path.read_bytes()
    for data in (b"", b"text", whole[:100], whole[:-30], whole[:200] + b"\0" * 50 + whole[250:]):
        path.write_bytes(data)
        try:
            read("rsvg", root)
        except InputError as error:
            assert "\n" not in str(error) and "rsvg_train.pth" in str(error)


def test_rsvg_without_images_says_where_they_go(tmp_path: Path) -> None:
    (tmp_path / "rsvg_train.pth").write_bytes(b"never read")
    with pytest.raises(InputError, match="no directory 'images' with the lists"):
        read("rsvg", tmp_path)


# --- VRSBench ---------------------------------------------------------------------------------------------


def test_vrsbench_records(alone: Callable[[str], Path]) -> None:
    records, rejects = read("vrsbench", alone("vrsbench"))
    assert [
        (r.split, r.task, r.image_key, r.text, r.answer or r.references or r.box, r.question_type) for r in records
    ] == [
        ("train", "vqa", "vrsbench/dior/00002_0000", "Is there a ship?", "Yes", None),
        ("train", "vqa", "vrsbench/dior/00002_0000", "How many ships?", "2", None),
        ("train", "vqa", "vrsbench/dota/P1427_0151", "What colour?", "red", None),
        ("train", "grounding", "vrsbench/dota/P1427_0151", "The red ship", (16, 16, 48, 32), None),
        ("train", "grounding", "vrsbench/dota/P1427_0151", "The ship at the edge", (0, 16, 64, 32), None),
        ("train", "grounding", "vrsbench/dota/P1427_0151", "An inverted one", (48, 16, 16, 32), None),  # ingest
        ("train", "caption", "vrsbench/dior/00002_0000", "", ("Two ships lie in a harbor.",), None),
        ("test", "caption", "vrsbench/dota/P0003_0002", "", ("A ship at sea.",), None),
        ("test", "grounding", "vrsbench/dota/P0003_0002", "The ship", (6.4, 6.4, 19.2, 32), "non-unique"),
        ("test", "vqa", "vrsbench/dota/P0003_0002", "How many?", "1", "object quantity"),
    ]
    assert reasons(rejects) == [
        ("VRSBench_train.json[7]", "task_unknown"),
        ("VRSBench_train.json[8]", "several_boxes"),
        ("VRSBench_train.json[9]", "image_missing"),
    ]
    assert [r.text for r in records if r.repaired == ("box_clamped",)] == ["The ship at the edge", "The ship"]
    assert {r.image for r in records} == {
        "Images_train/Images_train/00002_0000.png",
        "Images_train/Images_train/P1427_0151.png",
        "Images_val/P0003_0002.png",
    }


def test_vrsbench_boxes_outside_may_be_refused(alone: Callable[[str], Path]) -> None:
    records, _ = read(VrsBench(outside="refuse"), alone("vrsbench"))
    edge = next(r for r in records if r.text == "The ship at the edge")
    assert edge.box == pytest.approx((-6.4, 16, 83.2, 32))  # ingest refuses it
    assert not any(r.repaired for r in records)


def test_vrsbench_without_some_lists_or_images(alone: Callable[[str], Path]) -> None:
    top = alone("vrsbench") / "VRSBench"
    (top / "VRSBench_train.json").unlink()
    records, rejects = read("vrsbench", top)
    assert {r.split for r in records} == {"test"} and reasons(rejects)[0] == ("VRSBench_train.json", "split_missing")
    shutil.make_archive(str(top / "Images_val"), "zip", top, "Images_val")
    shutil.rmtree(top / "Images_val")
    shutil.rmtree(top / "Images_train")
    assert read("vrsbench", top)[0] == records
    (top / "Images_val.zip").unlink()
    with pytest.raises(InputError, match="no images with the lists"):
        read("vrsbench", top)


# --- SkyEye -----------------------------------------------------------------------------------------------


def test_skyeye_finds_images_in_the_sets_they_come_from(alone: Callable[[str], Path]) -> None:
    records, rejects = read("skyeye", alone("skyeye"))
    assert [(r.task, r.image, r.image_key, r.text, r.answer or r.references or r.box) for r in records] == [
        ("caption", "Sydney_captions/imgs/1.tif", "skyeye/sydney/1", "", ("Many houses .",)),
        ("caption", "UCM_captions/imgs/1.tif", "skyeye/ucm/1", "", ("A field .",)),
        ("vqa", "UCM_captions/imgs/1.tif", "skyeye/ucm/1", "Is it a field?", "yes"),
        ("grounding", "rsvg/images/1.jpg", "skyeye/rsvg/1", "the ship", (12, 20, 36, 40)),
        ("vqa", "UCM_captions/imgs/1.tif", "skyeye/ucm/1", "Is it a field?", "yes"),
    ]
    assert {r.split for r in records} == {"train"} and len({r.key for r in records}) == len(records)
    assert reasons(rejects) == [
        ("caption_UCM_train/1#0", "image_missing"),
        ("UCM_Conversa/0#1", "dialogue_not_a_task"),
        ("rsvg/1", "record_malformed"),
    ]
    assert [r.text for r in records if r.repaired == ("box_clamped",)] == ["the ship"]


def test_skyeye_unknown_fields_stop_with_what_was_seen(alone: Callable[[str], Path]) -> None:
    root = alone("skyeye")
    (root / "SkyEye-968k" / "vqa" / "UCMvqa.json").write_text('[{"pic": "1.tif", "q": "?", "a": "!"}]')
    with pytest.raises(InputError, match=r"unknown fields: a, pic, q in .*UCMvqa.json \(expected one of image, "):
        read("skyeye", root)


def test_skyeye_a_image_of_another_set_is_never_taken(alone: Callable[[str], Path]) -> None:
    root = alone("skyeye")
    shutil.rmtree(root / "UCM_captions")
    records, _ = read("skyeye", root)
    assert {r.image_key for r in records} == {"skyeye/sydney/1", "skyeye/rsvg/1"}


# --- VHM-Instruct -----------------------------------------------------------------------------------------


def test_vhm_takes_classes_questions_and_boxes_from_tars(alone: Callable[[str], Path]) -> None:
    records, rejects = read("vhm", alone("vhm"))
    assert [(r.key, r.task, r.image, r.image_key, r.text, r.answer or r.box) for r in records] == [
        ("0#0", "scene_cls", "AID/a_1.jpg", "vhm/AID/a_1", "", "bare land"),
        ("1#0", "scene_cls", "AID/a_1.jpg", "vhm/AID/a_1", "", "a castle"),  # not offered: refused at ingest
        ("2#0", "grounding", "DOIR-RSVG/b_1.jpg", "vhm/DOIR-RSVG/b_1", "the dam", (16, 16, 48, 32)),
        ("2#1", "vqa", "DOIR-RSVG/b_1.jpg", "vhm/DOIR-RSVG/b_1", "Is there a dam?", "Yes"),
        ("2#3", "grounding", "DOIR-RSVG/b_1.jpg", "vhm/DOIR-RSVG/b_1", "the lake", (16, 16, 48, 32)),
    ]
    assert records[0].classes == ("bare land", "bridge", "river")
    assert reasons(rejects) == [
        ("2#2", "task_not_taken"),
        ("3#0", "task_not_taken"),
        ("4#0", "dialogue_not_a_task"),
        ("5#0", "image_missing"),
    ]


def test_vhm_boxes_may_mean_pixels(alone: Callable[[str], Path]) -> None:
    root = alone("vhm")
    path = root / "VHM-Instruct" / "list_sft.json"
    path.write_text(path.read_text().replace("[250, 500, 750, 1000]", "[[1, 2, 30, 31]]"))
    records, _ = read(Vhm(boxes="pixels"), root)
    assert [r.box for r in records if r.text == "the dam"] == [(1, 2, 30, 31)]


# --- dialogues --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<image>\n[vqa] Is it?", "Is it?"),
        ("[vqa] Is it? A short answer to the question is", "Is it?"),
        ("[vqa] Question: Is it? Short answer:", "Is it?"),
        ("Based on the image, respond to this question with a short answer: Is it?", "Is it?"),
        ("Based on the image, respond to this question with a short answer: Is it?. Answer:", "Is it?"),
        ("Use the provided image to answer the question: Is it? Provide your answer as short as possible.", "Is it?"),
        ("Given the image, answer the following question with no more than three words. Is it?", "Is it?"),
        ('What is the answer to the following question? "Is it?"', "Is it?"),
        ('The question "Is it?" can be answered using the image. A short answer is', "Is it?"),
        ("Question: Is it?", "Is it?"),
        ("Q: Is it? A:", "Is it?"),
        ("Is it?\nAnswer the question using a single word or phrase.", "Is it?"),
        ("{VQA} Is it? Answer with one word or short phrase.", "Is it?"),
        ("Is it?\nAnswer in one word or a short phrase.", "Is it?"),
        ("What answer is on the sign?", "What answer is on the sign?"),
        ("Is the question: short answer?", "Is the question: short answer?"),
    ],
)
def test_questions_are_unwrapped(text: str, expected: str) -> None:
    assert bare_question(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[refer] Give me the location of <p> the red ship </p>", "the red ship"),
        ("[refer] give me the location of the red ship", "the red ship"),
        ("[refer] locate <p></p>", ""),  # refused at ingest
        ("[refer] where is the red ship ?", "the red ship"),
        ("from this image, tell me the location of the red ship", "the red ship"),
        ("[refer] the location of the red ship is", "the red ship"),
        ("The red ship.", "The red ship."),
    ],
)
def test_expressions_are_unwrapped(text: str, expected: str) -> None:
    assert bare_expression(text) == expected


@given(st.text(max_size=60))
def test_unwrapping_never_fails_and_never_adds(text: str) -> None:
    for unwrap in (bare_question, bare_expression):
        assert len(unwrap(text)) <= len(" ".join(text.split()))
    tagged(text)
    offered_classes(text)


def test_classes_offered() -> None:
    assert offered_classes("one of the following classes. Classes: a b, c, d. \nAnswer in one word") == (
        "a b",
        "c",
        "d",
    )
    assert offered_classes("What is it?") == ()


@given(st.lists(st.floats(0, 1000), min_size=4, max_size=4), st.integers(1, 5000), st.integers(1, 5000))
def test_a_box_in_a_text_is_scaled_to_the_image(box: list[float], width: int, height: int) -> None:
    text = "{" + "".join(f"<{v:.4f}>" for v in box) + "}"
    found, moved = box_in(text, (width, height), "norm1000", clamp=True)
    assert not moved
    for value, pixel, side in zip(box, found, (width, height, width, height), strict=True):
        assert pixel == pytest.approx(value / 1000 * side, abs=side * 1e-7)


@given(st.lists(st.integers(-300, 300), min_size=4, max_size=4))
def test_a_clamped_box_lies_inside(box: list[int]) -> None:
    found, moved = box_in(str(box), (50, 80), "norm100", clamp=True)
    assert all(0 <= v <= side for v, side in zip(found, (50, 80, 50, 80), strict=True))
    assert moved == any(not 0 <= v <= 100 for v in box)


@pytest.mark.parametrize("text", ["", "nowhere", "{<1><2><3>}", "{<1><2><3><nan>}", "[1, 2, 3]", "[1, 2, 3, 4, 5]"])
def test_texts_without_a_box(text: str) -> None:
    with pytest.raises(BadRecord, match="box_missing"):
        box_in(text, (10, 10), "norm100", clamp=True)


@pytest.mark.parametrize(
    "spoken",
    [
        None,
        [],
        [{"from": "human", "value": "a"}],
        [{"from": "gpt", "value": "a"}, {"from": "human", "value": "b"}],
        [{"from": "human", "value": "a"}, 3],
        [{"from": "human"}, {"from": "gpt", "value": "b"}],
    ],
)
def test_malformed_dialogues(spoken: Any) -> None:
    with pytest.raises(BadRecord, match="malformed"):
        turns({"conversations": spoken})


# --- images by name -------------------------------------------------------------------------------------


def test_images_are_found_by_path_then_by_name(tmp_path: Path) -> None:
    data = make_sources.encoded(make_sources.make_image(1, (12, 7)))
    for name in ("a/x/1.jpg", "b/x/1.jpg", "b/2.tif", "ucm captions/imgs/3.jpg"):
        make_sources.write(tmp_path / name, data)
    make_sources.write(tmp_path / "broken.jpg", data[:10])
    with open_tree(tmp_path) as tree:
        images = ImageFiles(tree)
        assert len(images) == 5 and images.size("a/x/1.jpg") == (12, 7)
        assert images.find("a/x/1.jpg") == "a/x/1.jpg" and images.find("root/b/x/1.jpg") == "b/x/1.jpg"
        assert (
            images.find("2.jpg") == "b/2.tif" and images.find("3", near=("UCM-Captions",)) == "ucm captions/imgs/3.jpg"
        )
        for name, near, reason in (
            ("x/1.jpg", (), "image_ambiguous"),
            ("4.jpg", (), "image_missing"),
            ("", (), "image_missing"),
            ("../../etc/passwd", (), "image_missing"),
            ("3.jpg", ("sydney", "era"), "image_missing"),
        ):
            with pytest.raises(BadRecord, match=reason):
                images.find(name, near)
        for _ in range(2):
            with pytest.raises(BadRecord, match="image_"):
                images.size("broken.jpg")
