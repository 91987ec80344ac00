"""Anybody's own data: class folders, captions, boxes and tables of questions, and the options of a source."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fixtures import make_own_data, make_sources
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

from geozero.common.errors import InputError
from geozero.sources import SOURCES, Ratio, Record, Rejected, Source, get, open_tree, with_options
from geozero.sources.custom.boxes import split_of_path
from geozero.sources.custom.common import split_named

SETS = tuple(make_own_data.SETS)


@pytest.fixture
def alone(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        make_own_data.SETS[name](tmp_path / "data")
        return tmp_path / "data"

    return make


def read(name: str, root: Path, *options: str) -> tuple[list[Record], list[Rejected]]:
    data_set = with_options(get(name), options)
    with open_tree(root) as tree:
        items = list(data_set.records(data_set.find(tree)))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


def reasons(rejects: list[Rejected]) -> list[tuple[str, str]]:
    return [(r.key, r.reason) for r in rejects]


@pytest.mark.parametrize("name", SETS)
def test_own_data_has_a_name_of_its_own(name: str, alone: Callable[[str], Path]) -> None:
    root = alone(name)
    records, rejects = read(name, root)
    renamed, same = read(name, root, "name=harbours", "licence=mine")
    assert [r.image_key for r in renamed] == [r.image_key.replace(name, "harbours", 1) for r in records]
    assert rejects == same and all(r.image_key.startswith(f"{name}/") for r in records)
    assert get(name).generic


@pytest.mark.parametrize("name", SETS)
def test_nothing_there_is_one_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InputError, match=r"no .*found"):
        read(name, tmp_path)


# --- class folders ----------------------------------------------------------------------------------------


def test_class_folders(alone: Callable[[str], Path]) -> None:
    records, rejects = read("class_folders", alone("class_folders"), "ratio=1/0")
    expected = [
        (f"{folder}/{n}.png", label, f"class_folders/{folder}/{n}")
        for folder, label in (("Oil_tank", "oil tank"), ("wind farm", "wind farm"))
        for n in range(3)
    ]
    assert [(r.key, r.answer, r.image_key) for r in records if "more" not in r.key] == expected
    assert {r.classes for r in records} == {("oil tank", "wind farm")} and {r.split for r in records} == {"train"}
    assert reasons(rejects) == [("wind farm/more", "class_unknown")]


@pytest.mark.parametrize("parts", [("train", "valid", "Test"), ("val",)])
def test_class_folders_with_a_split(parts: tuple[str, ...], tmp_path: Path) -> None:
    for part in parts:
        for folder in ("a", "b"):
            make_sources.write(tmp_path / "x" / part / folder / "1.jpg", b"never opened")
    make_sources.write(tmp_path / "logo.jpg", b"never opened")
    records, rejects = read("class_folders", tmp_path)
    assert [(r.key, r.split, r.answer) for r in records] == [
        (f"{part}/{folder}/1.jpg", split_named(part), folder) for part in sorted(parts) for folder in ("a", "b")
    ]
    assert rejects == []


# --- captions ---------------------------------------------------------------------------------------------


def test_captions(alone: Callable[[str], Path]) -> None:
    root = alone("captions_json")
    records, rejects = read("captions_json", root, "ratio=0/1")
    assert [(r.key, r.split, r.image, r.references) for r in records] == [
        ("train2014/a.jpg", "train", "pictures/train2014/a.jpg", ("A ship .",)),
        ("b.jpg", "test", "pictures/x/b.jpg", ("Two ships .",)),
        ("d.jpg", "val", "pictures/x/d.jpg", ("Four ships .",)),
    ]
    assert reasons(rejects) == [("c.jpg", "split_unknown")]
    shutil.copy(root / "captions.json", root / "pictures" / "other.json")
    with pytest.raises(InputError, match=r"several files could be .*captions.json, pictures/other.json .*--set file="):
        read("captions_json", root)
    assert read("captions_json", root, "file=pictures/other.json", "ratio=0/1") == (records, rejects)
    with pytest.raises(InputError, match=r"no such file: gone.json"):
        read("captions_json", root, "file=gone.json")


# --- boxes ------------------------------------------------------------------------------------------------


def test_boxes_become_expressions(alone: Callable[[str], Path]) -> None:
    records, rejects = read("coco", alone("coco"))
    assert [(r.task, r.split, r.image, r.text, r.box) for r in records] == [
        ("grounding", "val", "images/1.jpg", "the oil tank", (2, 4, 12, 12))
    ]
    assert reasons(rejects) == [
        ("annotations/instances_val.json/annotations[5]", "box_malformed"),
        ("annotations/instances_val.json/annotations[6]", "category_unknown"),
        ("annotations/instances_val.json/images[2]", "image_missing"),
        ("annotations/instances_val.json/7", "image_not_listed"),
    ]


def test_questions_about_boxes_by_parameter(alone: Callable[[str], Path]) -> None:
    records, _ = read("coco", alone("coco"), "questions=presence,count")
    asked = [(r.image, r.text, r.answer) for r in records if r.task == "vqa"]
    assert [a for a in asked if a[2] != "no"] == [
        ("images/1.jpg", "Is there an oil tank in the image?", "yes"),
        ("images/1.jpg", "Is there a ship in the image?", "yes"),
        ("images/1.jpg", "What is the number of oil tank objects in the image?", "1"),
        ("images/1.jpg", "What is the number of ship objects in the image?", "2"),
        ("images/2.jpg", "Is there an oil tank in the image?", "yes"),  # its box is broken: there, and not counted
        ("images/2.jpg", "Is there a ship in the image?", "yes"),  # a crowd, the same
    ]
    absent = [a for a in asked if a[2] == "no"]
    assert ("images/1.jpg", "Is there a bridge in the image?", "no") in absent
    assert Counter(image for image, _, _ in absent) == {"images/1.jpg": 1, "images/2.jpg": 1}
    assert len({r.key for r in records}) == len(records)


def test_all_boxes_of_a_class_by_parameter(alone: Callable[[str], Path]) -> None:
    records, rejects = read("coco", alone("coco"), "questions=detection", "most_boxes=1")
    asked = [(r.image, r.text, r.boxes, r.question_type) for r in records if r.task == "detection"]
    assert asked == [
        ("images/1.jpg", "oil tank", ((2, 4, 12, 12),), "oil tank"),
        ("images/1.jpg", "bridge", (), "bridge"),  # an absent one; nothing where no class is sure to be complete
    ]
    assert [(r.key.rpartition("/")[0], r.detail) for r in rejects if r.reason == "too_many_boxes"] == [
        ("annotations/instances_val.json/1/detection", "2 ship in images/1.jpg")
    ]
    records, _ = read("coco", alone("coco"), "questions=detection")
    assert [r.boxes for r in records if r.text == "ship"] == [((0, 0, 6.5, 6), (10, 10, 16, 16))]


def test_voc_boxes(alone: Callable[[str], Path]) -> None:
    records, rejects = read("voc", alone("voc"))
    assert [(r.task, r.split, r.image, r.text, r.box, r.drawn_on) for r in records] == [
        ("grounding", "train", "JPEGImages/a.JPG", "the oil tank", (2, 4, 12, 12), (24, 24)),
        ("grounding", "test", "JPEGImages/b.JPG", "the bridge", (3, 3, 9, 9), (24, 24)),
        ("grounding", "train", "JPEGImages/c.JPG", "the ship", (4, 4, 8, 8), (48, 48)),  # refused at ingest
    ]
    assert reasons(rejects) == [
        ("Annotations/b.xml/1", "box_malformed"),
        ("Annotations/gone.xml", "image_missing"),
    ]
    records, _ = read("voc", alone("voc"), "questions=presence,count,detection")
    assert [r.text for r in records if r.task == "detection" and r.image == "JPEGImages/a.JPG"][:2] == [
        "oil tank",
        "ship",
    ]
    assert ("JPEGImages/b.JPG", "ship") not in {(r.image, r.text) for r in records if r.task == "detection"}


def test_voc_lists_that_overlap_stop(alone: Callable[[str], Path]) -> None:
    root = alone("voc")
    (root / "ImageSets" / "Main" / "val.txt").write_text("b\n")
    with pytest.raises(InputError, match=r"line 1: b stands in the list of (test|val), too"):
        read("voc", root)


def test_voc_beside_the_images_in_directories_of_splits(alone: Callable[[str], Path]) -> None:
    root = alone("voc")
    for split, name in (("train", "a"), ("valid", "b")):
        (root / split).mkdir()
        (root / "Annotations" / f"{name}.xml").rename(root / split / f"{name}.xml")
        (root / "JPEGImages" / f"{name}.JPG").rename(root / split / f"{name}.JPG")
    for folder in ("Annotations", "JPEGImages", "ImageSets"):
        shutil.rmtree(root / folder)
    assert [(r.split, r.image) for r in read("voc", root)[0]] == [("train", "train/a.JPG"), ("val", "valid/b.JPG")]


def test_yolo_boxes(alone: Callable[[str], Path]) -> None:
    records, rejects = read("yolo", alone("yolo"))
    assert [(r.split, r.image, r.text, r.box) for r in records] == [
        ("train", "images/train/a.jpg", "the oil tank", (3, 0, 9, 8)),
        ("train", "images/train/a.jpg", "the ship", pytest.approx((2.4, 1.6, 9.6, 9.6))),
        ("val", "images/val/c.jpg", "the ship", (0, 0, 24, 16)),
    ]
    assert reasons(rejects) == [("labels/train/b.txt:3", "category_unknown"), ("labels/val/c.txt:1", "box_in_pixels")]
    records, _ = read("yolo", alone("yolo"), "questions=detection")
    asked = [(r.text, len(r.boxes)) for r in records if r.task == "detection" and r.image == "images/train/b.jpg"]
    assert asked[0] == ("ship", 2) and asked[1][1] == 0


@pytest.mark.parametrize(
    ("file", "text", "ok"),
    [
        ("classes.txt", "oil_tank\nship\n", True),
        ("obj.names", "oil tank\nship\n", True),
        ("data.yaml", "names: [oil_tank, ship]", True),
        ("data.yaml", "names: 7", False),
        ("data.yaml", "names: [[a], ship]", False),
        ("data.yaml", "a: &a [x, x]\nnames: [*a, *a]", False),
        ("data.yaml", "{", False),
        ("notes.txt", "", False),
    ],
)
def test_yolo_names_of_classes(file: str, text: str, ok: bool, alone: Callable[[str], Path]) -> None:
    root = alone("yolo")
    (root / "data.yaml").unlink()
    (root / file).write_text(text)
    if ok:
        assert [r.text for r in read("yolo", root)[0]] == ["the oil tank", "the ship", "the ship"]
        return
    with pytest.raises(InputError, match=r"no names of classes|no list of names|cannot be read") as caught:
        read("yolo", root)
    assert "\n" not in str(caught.value)


def test_roboflow_exports_are_read(alone: Callable[[str], Path]) -> None:
    root = alone("yolo")
    for split, to in (("train", "train"), ("val", "valid")):
        for kind in ("images", "labels"):
            (root / to).mkdir(exist_ok=True)
            (root / kind / split).rename(root / to / kind)
    assert [(r.split, r.image) for r in read("yolo", root)[0]][::2] == [
        ("train", "train/images/a.jpg"),
        ("val", "valid/images/c.jpg"),
    ]


def test_two_images_of_one_id_are_refused(alone: Callable[[str], Path]) -> None:
    root = alone("coco")
    path = root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    content["images"][1]["id"] = 1
    path.write_text(json.dumps(content))
    records, rejects = read("coco", root)
    assert records == [] and [r.reason for r in rejects].count("image_id_twice") == 2
    content["categories"].append({"id": 3, "name": "harbor"})
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="category 3 is 'oil tank' and 'harbor'"):
        read("coco", root)


def test_a_json_of_another_form_is_named(alone: Callable[[str], Path]) -> None:
    root = alone("coco")
    (root / "captions.json").write_text('{"images": []}')
    with pytest.raises(InputError, match=r"no list 'categories' \(found images\) in .*captions.json"):
        read("coco", root)
    assert read("coco", root, "file=annotations/instances_val.json")[0]


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("instances_train2017.json", "train"),
        ("valid/_annotations.coco.json", "val"),
        ("train/test.json", "test"),
        ("constrained.json", None),
    ],
)
def test_splits_from_paths(path: str, split: str | None) -> None:
    assert split_of_path(path) == split


# --- tables of questions ----------------------------------------------------------------------------------


EXPECTED = [
    ("train", "pictures/a.jpg", "Is there a ship, or not?", "yes", "presence"),
    ("val", "pictures/sub/a.jpg", "How many ships?", "3", None),
]


def test_questions_from_a_table(alone: Callable[[str], Path]) -> None:
    root = alone("questions")
    records, rejects = read("questions", root)
    assert [(r.split, r.image, r.text, r.answer, r.question_type) for r in records] == EXPECTED
    assert [r.reason for r in rejects] == ["split_unknown", "image_missing", "columns_wrong"]


@pytest.mark.parametrize("form", ["tsv", "jsonl", "json"])
def test_the_same_questions_in_another_form(form: str, alone: Callable[[str], Path]) -> None:
    root = alone("questions")
    expected = read("questions", root)[0]
    (root / "vqa.csv").unlink()
    rows = make_own_data.QUESTIONS
    if form == "tsv":
        lines = ["\t".join(rows[0]), *("\t".join(v.replace("\n", " ") for v in row.values()) for row in rows)]
        text = "\n".join(lines)
    else:
        text = json.dumps(rows) if form == "json" else "\n".join(["", *map(json.dumps, rows), "{broken"])
    (root / f"vqa.{form}").write_text(text)
    records, rejects = read("questions", root)
    assert [(r.split, r.image, r.text, r.answer, r.question_type) for r in records] == EXPECTED
    assert [r.image_key for r in records] == [r.image_key for r in expected]
    assert [r.reason for r in rejects] == ["split_unknown", "image_missing", *["line_malformed"] * (form == "jsonl")]


@pytest.mark.parametrize(
    ("options", "read_as"),
    [
        ("a lake|a river", ("a lake", "a river")),
        (["a lake", 3, True], ("a lake", "3", "yes")),
        (["(A) a lake", "(B) a river"], ("a lake", "a river")),
        ("A. a lake | B. a  river", ("a lake", "a river")),
        (["A. Smith", "B12"], ("A. Smith", "B12")),
        ("", ()),
        (None, ()),
    ],
)
def test_options_make_multiple_choice(options: Any, read_as: tuple[str, ...], alone: Callable[[str], Path]) -> None:
    root = alone("questions")
    (root / "vqa.csv").unlink()
    row = {"image": "a.jpg", "question": "What is it?", "answer": "a lake", "Options": options}
    (root / "q.json").write_text(json.dumps([row]))
    (record,), _ = read("questions", root)
    assert (record.task, record.classes) == ("multiple_choice" if read_as else "vqa", read_as)
    (record,), _ = read("questions", root, "task=multiple_choice")
    assert (record.task, record.classes) == ("multiple_choice", read_as)


def test_columns_may_have_other_names(alone: Callable[[str], Path]) -> None:
    root = alone("questions")
    (root / "vqa.csv").write_text("Bild;Frage;Antwort\npictures/b.jpg;Schiff?;ja\n")
    with pytest.raises(InputError, match=r"no column 'image' \(found Bild;Frage;Antwort\)"):
        read("questions", root)
    records, _ = read("questions", root, "delimiter=;", "image=Bild", "question=Frage", "answer=Antwort")
    assert [(r.text, r.answer) for r in records] == [("Schiff?", "ja")]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"", "no column 'image' .found none"),
        ("a.csv", b"image,question,answer\na.jpg,\xff,yes\n", "not UTF-8"),
        ("a.csv", b'image,question,answer\na.jpg,"open,yes\n', "line 2: unexpected end of data"),
        ("a.jsonl", b"\xff\xfe", "not UTF-8"),
        ("a.jsonl", b'{"photo": "a.jpg"}', "no column 'image' .found photo"),
        ("a.json", b'[{"image": "a.jpg", "question": "x?", "ans', "malformed annotation file"),
        ("a.json", b"{}", "not a list"),
    ],
)
def test_a_broken_table_is_one_line(name: str, data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    (tmp_path / "a.jpg").write_bytes(b"never opened")
    with pytest.raises(InputError, match=message) as caught:
        read("questions", tmp_path)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=80) | st.text(alphabet='image,question"\n\r ', max_size=80).map(str.encode))
def test_any_bytes_are_rows_or_one_line(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        for form in ("csv", "jsonl"):
            path = Path(place) / f"a.{form}"
            path.write_bytes(b"image,question,answer\n" * (form == "csv") + data)
            try:
                records, _ = read("questions", Path(place))
                assert records == []  # there are no images
            except InputError as error:
                assert "\n" not in str(error)
            path.unlink()


# --- options ----------------------------------------------------------------------------------------------


def test_options_fill_the_fields_of_a_source() -> None:
    def value(name: str, option: str) -> Any:
        return getattr(with_options(get(name), [option]), option.partition("=")[0])

    assert value("rsvqa_hr", "test=test_phili") == "test_phili" and value("rsvqa_lr", "answers=binned") == "binned"
    assert value("aid", "ratio=0.2/0.1") == Ratio(0.2, 0.1) and value("ucm", "stratify=no") is False
    assert value("coco", "questions=presence, count") == ("presence", "count")
    assert value("rsicd", "forced_split=test") == "test" and value("questions", "delimiter==") == "="
    assert with_options(get("aid"), []) == get("aid")


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("aid", "ratio", "unknown option 'ratio' of AID in --set .one of name, title"),
        ("aid", "split=train", "unknown option 'split=train'"),
        ("aid", "ratio=0.8", "'0.8' is no ratio"),
        ("aid", "ratio=a/b", "could not convert"),
        ("aid", "ratio=0.9/0.2", "split shares 0.9 and 0.2"),
        ("aid", "stratify=maybe", "'maybe' is neither true nor false"),
        ("rsvqa_lr", "answers=raww", "'raww' is not one of raw, binned"),
        ("rsicd", "forced_split=dev", "'dev' is not one of train, val, test"),
        ("coco", "questions=area", "unknown question 'area' .any of presence, count, detection"),
        ("coco", "name=a/b", "name 'a/b' in --set"),
        ("questions", "delimiter=ab", "delimiter 'ab'"),
    ],
)
def test_a_wrong_option_is_one_line(name: str, option: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_options(get(name), [option])


def test_the_command_line_sets_options(alone: Callable[[str], Path], tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from geozero.cli.app import app
    from geozero.corpus.store import Corpus

    command = ["ingest", "coco", "--root", str(alone("coco")), "--out", str(tmp_path / "c")]
    result = CliRunner().invoke(app, [*command, "--set", "name=tanks", "--set", "questions=count"])
    assert result.exit_code == 0, result.output
    samples = list(Corpus(tmp_path / "c").samples())
    assert {s.source for s in samples} == {"tanks"} and {s.question_type for s in samples} == {None, "count"}
    result = CliRunner().invoke(app, [*command, "--set", "colour=red"])
    assert isinstance(result.exception, InputError) and "unknown option 'colour=red'" in str(result.exception)


DOCS = (ROOT / "docs" / "sources.md").read_text()


def test_the_commands_of_the_docs_are_right() -> None:
    lines = [shlex.split(line) for line in DOCS.splitlines() if line.startswith("geozero ingest ")]
    for _, _, name, *words in lines:
        options = [after for word, after in pairwise(words) if word == "--set"]
        assert with_options(get(name), options) != get(name) or not options
    assert {words[2] for words in lines} > set(SETS)


def test_the_docs_list_every_source() -> None:
    missing = {name for name in SOURCES if not name.startswith("toy_") and f"`{name}`" not in DOCS}
    assert missing == set(), "add a row to docs/sources.md"


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_every_option_can_be_said(source: Source) -> None:
    import dataclasses

    for field in dataclasses.fields(source):
        value = getattr(source, field.name)
        if isinstance(value, str):
            assert with_options(source, [f"{field.name}={value}"]) == source


# --- names and frames as other machines write them --------------------------------------------------------


def test_a_image_is_found_by_its_name_in_another_case_or_unicode_form(tmp_path: Path) -> None:
    for name in ("Hafen.JPG", "Ko\u0308ln.jpg"):  # as macOS writes an umlaut
        make_sources.write(tmp_path / "pictures" / name, make_sources.encoded(make_sources.make_image(1)))
    rows = "image,question,answer\nhafen.jpg,Is there a ship?,yes\nK\u00f6ln.jpg,Is there a ship?,no\nbonn.jpg,Why?,x\n"
    (tmp_path / "q.csv").write_text(rows, encoding="utf-8")
    records, rejects = read("questions", tmp_path)
    assert [r.image for r in records] == ["pictures/Hafen.JPG", "pictures/Ko\u0308ln.jpg"]
    assert reasons(rejects) == [("q.csv/4", "image_missing")]


def test_names_that_differ_in_case_alone_are_two_images(tmp_path: Path) -> None:
    for name in ("a/x.jpg", "a/X.jpg"):
        make_sources.write(tmp_path / name, make_sources.encoded(make_sources.make_image(1)))
    (tmp_path / "q.csv").write_text("image,question,answer\nx.jpg,Who?,a\nX.jpg,Who?,b\n")
    assert [r.image for r in read("questions", tmp_path)[0]] == ["a/x.jpg", "a/X.jpg"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("q.csv", "\ufeffImage, Question ,ANSWER,Split,,\r\n1.jpg,Who?,a,val,,\r\n"),
        ("q.jsonl", '{"IMAGE": "1.jpg", "Question": "Who?", "answer": "a", "SPLIT": "val"}\n'),
        ("q.json", '[{"IMAGE": "1.jpg", "Question": "Who?", "answer": "a", "SPLIT": "val"}]'),
    ],
)
def test_columns_are_known_in_any_case(file: str, text: str, tmp_path: Path) -> None:
    make_sources.write(tmp_path / "1.jpg", make_sources.encoded(make_sources.make_image(1)))
    (tmp_path / file).write_bytes(text.encode())
    records, rejects = read("questions", tmp_path)
    assert [(r.image, r.text, r.answer, r.split) for r in records] == [("1.jpg", "Who?", "a", "val")] and not rejects


def test_a_box_without_an_area_counts_as_vague(tmp_path: Path) -> None:
    make_sources.write(tmp_path / "1.jpg", make_sources.encoded(make_sources.make_image(1)))
    boxes = [{"id": n, "image_id": 1, "category_id": 1, "bbox": b} for n, b in enumerate([[1, 1, 5, 5], [3, 3, 0, 4]])]
    content = {"images": [{"id": 1, "file_name": "1.jpg"}], "annotations": boxes}
    (tmp_path / "b.json").write_text(json.dumps(content | {"categories": [{"id": 1, "name": "ship"}]}))
    records, rejects = read("coco", tmp_path, "questions=presence,count")
    assert [(r.text, r.answer) for r in records] == [("Is there a ship in the image?", "yes")]
    assert [r.reason for r in rejects] == ["box_degenerate"]
