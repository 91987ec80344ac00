"""The four data sets and their toy twins: what each layout becomes, and what its traps cost."""

from __future__ import annotations

import json
import random
import string
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from fixtures import make_sources
from hypothesis import given
from hypothesis import strategies as st

from geozero.common.errors import BadRecord, InputError
from geozero.sources import ADAPTERS, SOURCES, Ratio, Record, Rejected, Source, base, get, modules, open_tree
from geozero.sources.base import stem
from geozero.sources.questions.rsvqa_lr import RsvqaLr
from geozero.sources.readers.class_folders import label_text
from geozero.sources.readers.karpathy_captions import distinct_sentences
from geozero.sources.readers.rsvqa import count_bin
from geozero.sources.scenes.aid import FOLDERS, Aid

PACKAGE = Path(base.__file__).parent
SETS = ("aid", "rsvqa_lr", "rsicd", "dior_rsvg")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_sources.write_all(tmp_path)
    return tmp_path


def read(source: Source | str, root: Path) -> tuple[list[Record], list[Rejected]]:
    data_set = get(source) if isinstance(source, str) else source
    with open_tree(root) as tree:
        items = list(data_set.records(data_set.find(tree)))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Rejected)]


def reasons(rejects: list[Rejected]) -> list[tuple[str, str]]:
    return [(r.key, r.reason) for r in rejects]


# --- all of them ------------------------------------------------------------------------------------------


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"unknown source 'uad' .one of aid, rsvqa_lr"):
        get("uad")


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_says_who_it_is(name: str) -> None:
    source = SOURCES[name]
    assert source.name == name and source.title and source.licence and source.citation and source.layout
    assert source.tasks and source.size and all(c == " ".join(c.split()) for c in source.classes)
    module = __import__(type(source).__module__, fromlist=["x"])
    assert all(word in module.__doc__ for word in ("Layout", "Splits", "Licence"))


@pytest.mark.parametrize("name", SETS)
def test_a_toy_set_is_the_real_adapter_under_another_name(name: str, root: Path) -> None:
    real, real_rejects = read(name, root)
    toy, _ = read(f"toy_{name}", root)
    hard, _ = read(f"toy_{name}_hard", root)
    assert type(get(f"toy_{name}")) is type(get(name)) and real
    expected = [replace(r, image_key=r.image_key.replace(name, f"toy_{name}", 1)) for r in real]
    if name == "aid":  # its label set is what the tree holds, the stray folder as well; its own ratio
        expected = [replace(r, classes=toy[0].classes, split=t.split) for r, t in zip(expected, toy, strict=False)]
        toy = [t for t in toy if "Thumbnails" not in t.key]
        hard = [h for h in hard if "Thumbnails" not in h.key]
    assert toy == expected
    assert {h.split for h in hard} == {"test"} and len(hard) == len(toy)
    assert all(h.image_key.startswith(f"toy_{name}_hard/") for h in hard)
    assert real_rejects


@pytest.mark.parametrize("name", SETS)
def test_a_tree_of_another_set_is_one_clear_line(name: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(InputError, match=f"no {get(name).title} found: looked for .*found notes.txt"):
        read(name, tmp_path)


@pytest.mark.parametrize("name", SETS)
def test_the_root_may_be_above_or_be_the_tree_itself(name: str, root: Path) -> None:
    with open_tree(root) as tree:
        home = get(name).find(tree).where()
    assert read(name, Path(home)) == read(name, root)


@given(st.floats(0, 1), st.floats(0, 1), st.lists(st.text(string.ascii_letters, min_size=1), min_size=1, unique=True))
def test_a_ratio_splits_by_the_key_alone(train: float, val: float, keys: list[str]) -> None:
    if train + val > 1:
        with pytest.raises(InputError):
            Ratio(train, val)
        return
    ratio = Ratio(train, val)
    alone = {key: ratio.split(key) for key in keys}
    assert {key: ratio.split(key) for key in reversed(keys)} == alone
    assert train > 0 or "train" not in alone.values()


def test_a_ratio_gives_its_shares() -> None:
    counted = Counter(Ratio(0.5, 0.1).split(f"aid/River/river_{n}") for n in range(4_000))
    assert counted["train"] == pytest.approx(2_000, abs=130) and counted["val"] == pytest.approx(400, abs=80)
    assert set(map(Ratio(0, 0).split, map(str, range(99)))) == {"test"}


@pytest.mark.parametrize(
    ("path", "expected"), [("a/b.jpg", "b"), ("b", "b"), (".x", ".x"), ("a.b/c.d.tif", "c.d"), ("a.b/c", "c")]
)
def test_stem(path: str, expected: str) -> None:
    assert stem(path) == expected


# --- AID --------------------------------------------------------------------------------------------------


def test_aid_labels_are_the_folders_in_words() -> None:
    assert len(FOLDERS) == len(set(FOLDERS)) == 30
    assert [label_text(f) for f in ("BareLand", "Airport", "sea_ice", "multi-unit_residential")] == [
        "bare land",
        "airport",
        "sea ice",
        "multi-unit residential",
    ]
    assert len(get("aid").classes) == 30 and list(get("aid").classes) == sorted(get("aid").classes)


def test_aid_reads_class_folders(root: Path) -> None:
    records, rejects = read("aid", root)
    assert Counter(r.answer for r in records) == {"airport": 4, "bare land": 3, "storage tanks": 4}
    assert records[4] == Record(
        task="scene_cls",
        split="test",
        key="BareLand/bareland_1.jpg",
        image="BareLand/bareland_1.jpg",
        image_key="aid/BareLand/bareland_1",
        answer="bare land",
        classes=get("aid").classes,
    )
    assert reasons(rejects) == [("Thumbnails", "class_unknown")]


def test_aid_ratio_is_a_parameter(root: Path) -> None:
    records, _ = read(Aid(ratio=Ratio(train=0, val=1)), root)
    assert {r.split for r in records} == {"val"}


# --- RSVQA-LR ---------------------------------------------------------------------------------------------


def rewrite(path: Path, change: Callable[[list[dict[str, object]]], object]) -> None:
    content = json.loads(path.read_text())
    change(next(iter(content.values())))
    path.write_text(json.dumps(content))


def test_rsvqa_joins_questions_and_answers_by_id(root: Path) -> None:
    records, rejects = read("rsvqa_lr", root)
    assert [(r.key, r.image, r.question_type, r.text, r.answer) for r in records] == [
        ("train/0", "Images_LR/0.tif", "presence", "Is a road present?", "yes"),
        ("train/1", "Images_LR/0.tif", "count", "What is the number of buildings?", "37"),
        ("train/5", "Images_LR/2.tif", "presence", "Is a farmland present?", "no"),  # the image is missing: ingest
        ("val/2", "Images_LR/1.tif", "rural_urban", "Is it a rural or an urban area", "rural"),
        ("test/4", "Images_LR/3.tif", "count", "What is the number of roads?", "0"),
    ]
    assert reasons(rejects) == [("train/6", "image_not_in_split")]


def test_rsvqa_answers_may_be_binned(root: Path) -> None:
    records, _ = read(RsvqaLr(answers="binned"), root)
    assert [r.answer for r in records] == ["yes", "between 10 and 100", "no", "rural", "0"]


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        ("0", "0"),
        ("1", "between 0 and 10"),
        ("10", "between 0 and 10"),
        ("11", "between 10 and 100"),
        ("100", "between 10 and 100"),
        ("1000", "between 100 and 1000"),
        ("1001", "more than 1000"),
    ],
)
def test_rsvqa_bins(count: str, expected: str) -> None:
    assert count_bin(count) == expected


@pytest.mark.parametrize("answer", ["yes", "", "-3", "1.5", "9" * 5_000, "²"])
def test_rsvqa_bins_refuse_what_is_no_count(answer: str) -> None:
    with pytest.raises(BadRecord, match="answer_not_a_count"):
        count_bin(answer)


def test_rsvqa_broken_records_cost_themselves(root: Path) -> None:
    top = root / "RSVQA_LR"
    rewrite(top / "LR_split_train_answers.json", lambda rows: rows[0].update(question_id=1))
    rewrite(top / "LR_split_train_answers.json", lambda rows: rows[1].pop("answer"))
    rewrite(top / "LR_split_train_questions.json", lambda rows: rows[5].update(img_id="2"))
    rewrite(top / "LR_split_test_questions.json", lambda rows: rows.append("no object"))  # type: ignore[arg-type]
    records, rejects = read("rsvqa_lr", root)
    assert [r.key for r in records] == ["val/2", "test/4"]
    assert reasons(rejects) == [
        ("train/answer/1", "record_malformed"),
        ("train/0", "answer_of_another_question"),
        ("train/1", "answer_missing"),
        ("train/5", "record_malformed"),
        ("train/6", "image_not_in_split"),
    ]


def test_rsvqa_takes_the_place_in_the_list_where_an_id_is_missing(root: Path) -> None:
    for kind in ("questions", "answers", "images"):
        rewrite(root / "RSVQA_LR" / f"LR_split_train_{kind}.json", lambda rows: [row.pop("id") for row in rows])
    records, _ = read("rsvqa_lr", root)
    assert [r.key for r in records][:3] == ["train/0", "train/1", "train/5"]


def test_rsvqa_a_missing_split_is_listed_and_a_missing_list_stops(root: Path) -> None:
    top = root / "RSVQA_LR"
    for kind in ("questions", "answers", "images"):
        (top / f"LR_split_val_{kind}.json").unlink()
    records, rejects = read("rsvqa_lr", root)
    assert {r.split for r in records} == {"train", "test"} and ("LR_split_val", "split_missing") in reasons(rejects)
    (top / "LR_split_test_answers.json").unlink()
    with pytest.raises(InputError, match=r"file missing: LR_split_test_answers.json"):
        read("rsvqa_lr", root)


def test_rsvqa_reads_the_images_from_the_archive_beside_the_lists(root: Path) -> None:
    import shutil

    top = root / "RSVQA_LR"
    expected = read("rsvqa_lr", top)
    shutil.make_archive(str(top / "Images_LR"), "zip", top, "Images_LR")
    shutil.rmtree(top / "Images_LR")
    assert read("rsvqa_lr", top) == expected


def test_rsvqa_an_item_without_an_id_stops_where_places_are_not_ids(root: Path) -> None:
    path = root / "RSVQA_LR" / "LR_split_train_questions.json"
    rewrite(path, lambda rows: (rows.pop(3), rows[4].pop("id")))
    with pytest.raises(InputError, match="item 4: some items have no id, and the ids of others are not their places"):
        read("rsvqa_lr", root)


def test_rsvqa_lists_that_mark_nothing_as_active_say_so(root: Path) -> None:
    rewrite(root / "RSVQA_LR" / "LR_split_train_images.json", lambda rows: [row.pop("active") for row in rows])
    with pytest.raises(InputError, match="none of its 4 items says whether it is active"):
        read("rsvqa_lr", root)


# --- RSICD ------------------------------------------------------------------------------------------------


def test_rsicd_dedupes_references_and_names_images(root: Path) -> None:
    records, rejects = read("rsicd", root)
    assert [(r.key, r.split, r.image, r.image_key, r.references) for r in records] == [
        (
            "airport_1.jpg",
            "train",
            "RSICD_images/airport_1.jpg",
            "rsicd/airport/airport_1",
            ("many planes are parked .", "two runways cross ."),
        ),
        ("00001.jpg", "val", "RSICD_images/00001.jpg", "rsicd/00001", ("a lake .",)),
        (
            "bareland_7.jpg",
            "test",
            "RSICD_images/bareland_7.jpg",
            "rsicd/bareland/bareland_7",
            ("bare land lies open .", "it is brown ."),
        ),
        ("gone_1.jpg", "train", "RSICD_images/gone_1.jpg", "rsicd/gone/gone_1", ("nobody saw this .",)),
    ]
    assert reasons(rejects) == [
        ("00002.jpg", "split_unknown"),
        ("00003.jpg", "references_missing"),
        ("images[6]", "record_malformed"),
    ]


@given(st.lists(st.text(alphabet="aB \t", max_size=4), max_size=6))
def test_distinct_sentences_keep_the_first_of_each(raws: list[str]) -> None:
    cleaned = [" ".join(raw.split()) for raw in raws if raw.strip()]
    sentences = [{"raw": raw} for raw in raws]
    if not cleaned:
        with pytest.raises(BadRecord, match="references_missing"):
            distinct_sentences(sentences)
        return
    kept = distinct_sentences(sentences)
    assert len({k.casefold() for k in kept}) == len(kept)
    assert {k.casefold() for k in kept} == {c.casefold() for c in cleaned}
    first = {c.casefold(): c for c in reversed(cleaned)}
    assert list(kept) == [first[folded] for folded in dict.fromkeys(c.casefold() for c in cleaned)]


def test_rsicd_malformed_list_is_one_clear_line(root: Path) -> None:
    path = root / "RSICD" / "dataset_rsicd.json"
    path.write_text(path.read_text()[:-40])
    with pytest.raises(InputError, match=r"malformed annotation file: .*dataset_rsicd.json"):
        read("rsicd", root)


# --- DIOR-RSVG --------------------------------------------------------------------------------------------


def test_dior_counts_objects_over_sorted_files(root: Path) -> None:
    records, rejects = read("dior_rsvg", root)
    assert [(r.key, r.split, r.image, r.text, r.box) for r in records] == [
        ("00001/0", "train", "JPEGImages/00001.jpg", "The ship on the left", (4, 5, 20, 18)),
        ("00001/1", "test", "JPEGImages/00001.jpg", "The ship on the right", (25, 5, 40, 18)),
        ("00002/0", "train", "JPEGImages/00002.jpg", "A large airplane", (10, 10, 30, 30)),  # by position
        ("00010/0", "val", "JPEGImages/00010.jpg", "The vehicle in the upper left", (1, 1, 9, 9)),
        ("00010/1", "train", "JPEGImages/00010.jpg", "A long bridge", (0, 20, 49, 30)),
        ("00010/2", "train", "JPEGImages/00010.jpg", "A dam beyond the edge", (0, 20, 53, 30)),  # refused at ingest
        ("00010/3", "train", "JPEGImages/00010.jpg", "A dam without width", (8, 8, 8, 20)),
    ]
    assert {r.image_key for r in records} == {f"dior_rsvg/JPEGImages/{n}" for n in make_sources.DIOR_OBJECTS}
    assert reasons(rejects) == [("00010/4", "expression_missing")]


def test_dior_broken_objects_cost_themselves_and_shift_nothing(root: Path) -> None:
    top = root / "DIOR_RSVG"
    path = top / "Annotations" / "00001.xml"
    path.write_text(path.read_text().replace("<xmin>4<", "<xmin>left<").replace("<ymax>18</ymax>", "<ymax>nan</ymax>"))
    records, rejects = read("dior_rsvg", root)
    assert [r.key for r in records] == ["00002/0", "00010/0", "00010/1", "00010/2", "00010/3"]
    assert reasons(rejects) == [
        ("00001/0", "box_malformed"),
        ("00001/1", "box_not_finite"),
        ("00010/4", "expression_missing"),
    ]


COPY = "<annotation><filename>00002.jpg</filename></annotation>"


def test_dior_boxes_come_with_the_size_that_they_were_drawn_on(root: Path) -> None:
    path = root / "DIOR_RSVG" / "Annotations" / "00001.xml"
    sized = "<size><width>800</width><height>600</height><depth>3</depth></size><object>"
    path.write_text(path.read_text().replace("<object>", sized, 1))
    records, _ = read("dior_rsvg", root)
    assert [r.drawn_on for r in records[:3]] == [(800, 600), (800, 600), None]


BOMB = '<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><annotation><object><name>&b;</name></object></annotation>'


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("Annotations/00002.xml", "<annotation><object>", "unreadable annotation .xml_malformed"),
        ("Annotations/00002.xml", BOMB, "unreadable annotation .xml_unsafe"),
        ("Annotations/00010.xml", "<annotation/>", "index 7 in the split files, but 3 annotation files hold 3 objects"),
        ("train.txt", "0\n2\n4\n5\n", "hold 8 objects, the split files name 7 indices"),
        (
            "Annotations/00002 (1).xml",
            COPY,
            r"\(1\).xml and .* are both of 00002.jpg",
        ),
        ("train.txt", "0\n1\n", "object 1 stands in train.txt and in test.txt"),
        ("train.txt", "0\n00002.jpg\n", "line 2 is '00002.jpg', expected the index of an object"),
        ("val.txt", "-1\n", "line 1 is '-1'"),
        ("val.txt", "9" * 5_000, "line 1 is '999"),
    ],
)
def test_dior_what_would_shift_the_indices_stops(file: str, content: str, message: str, root: Path) -> None:
    (root / "DIOR_RSVG" / file).write_text(content)
    with pytest.raises(InputError, match=message):
        read("dior_rsvg", root)


def test_dior_a_missing_annotation_or_list_stops(root: Path) -> None:
    top = root / "DIOR_RSVG"
    (top / "Annotations" / "00001.xml").unlink()
    with pytest.raises(InputError, match="all later indices would name other objects"):
        read("dior_rsvg", root)
    (top / "val.txt").unlink()
    with pytest.raises(InputError, match=r"file missing in .*val.txt"):
        read("dior_rsvg", root)


# --- any damage at all ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("seed", range(6))
def test_random_damage_gives_records_rejects_or_one_line(name: str, seed: int, root: Path) -> None:
    rng = random.Random(f"{name} {seed}")
    files = [p for p in sorted(root.rglob("*")) if p.suffix in (".json", ".xml", ".txt")]
    for path in files:
        data = bytearray(path.read_bytes())
        for _ in range(rng.randint(0, 2)):
            data[rng.randrange(len(data))] = rng.choice(b'0"{}[]<>&,x\x00\xff') if data else 0
        path.write_bytes(bytes(data))
    try:
        read(name, root)
    except InputError as error:
        assert "\n" not in str(error)


def test_an_adapter_is_imported_when_its_data_set_is_asked_for() -> None:
    """Else the bytes of one adapter would be part of what every other data set was read by."""
    code = (
        "import sys; from geozero.sources import get; get('toy_rsicd')\n"
        "print(*(name for name in sys.modules if name.startswith('geozero.sources.') and name.count('.') == 3))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    adapters = {name for name in done.stdout.split() if ".readers." not in name}
    assert adapters == {"geozero.sources.captions.rsicd"}


def test_every_adapter_is_registered() -> None:
    kinds = ("boxes", "captions", "mixed", "questions", "scenes")
    written = {f"{path.parent.name}.{path.stem}" for kind in kinds for path in (PACKAGE / kind).glob("[!_]*.py")}
    registered = {place.partition(":")[0] for place in ADAPTERS.values()}
    assert written - registered == {
        "mixed.neon_questions",
        "mixed.toy_suite",
    }  # a part of neon's; only in the toy world
    assert modules("toy_aid_hard") == ("geozero.sources.scenes.aid", "geozero.sources.toy")
