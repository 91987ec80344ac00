"""Ingest: exact samples from the fixtures, each image decoded once, every refusal listed, bad input in one line."""

from __future__ import annotations

import errno
import gc
import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from fixtures import make_sources
from hypothesis import given
from hypothesis import strategies as st
from paths import FIXTURES

from geozero import tasks
from geozero.common.errors import BadRecord, InputError
from geozero.corpus import images
from geozero.corpus.sample import digest
from geozero.corpus.store import Corpus
from geozero.curation.card.inspect import inspect
from geozero.curation.ingest import decoding
from geozero.curation.ingest import ingest as ingest_module
from geozero.curation.ingest.checks import Checks, clamped, is_latin, with_checks
from geozero.curation.ingest.ingest import KnownImage, ingest, to_sample
from geozero.sources import Record, get, with_options

SETS = ("aid", "rsvqa_lr", "rsicd", "dior_rsvg")
REFUSED = {
    ("rsvqa_lr", "train"): ["train/5", "train/6"],
    ("dior_rsvg", "train"): ["00010/2", "00010/3"],
    ("dior_rsvg", "val"): ["00010/4"],
}
GOLDEN = FIXTURES / "sources_golden.json"


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("fixtures")
    make_sources.write_all(root)
    return root


@pytest.fixture
def root(fixtures: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(fixtures, tmp_path / "root"))


def golden_rows(root: Path, place: Path) -> dict[str, Any]:
    """What stands in sources_golden.json: all samples and rejects of the fixtures but for the bytes' hashes."""
    found: dict[str, Any] = {}
    for name in SETS:
        ingest(name, root, place / name)
        corpus = Corpus(place / name)
        rows = [s.to_row() for s in corpus.samples()]
        for row in rows:
            del row["image_id"]  # the JPEG encoder's version decides
            row["classes"] = len(row["classes"])
        found[name] = {"samples": rows, "rejects": corpus.rejects()}
    return found


def test_the_fixtures_give_exactly_the_golden_samples(fixtures: Path, tmp_path: Path) -> None:
    assert golden_rows(fixtures, tmp_path) == json.loads(GOLDEN.read_text())


def test_images_are_stored_once_and_joined_by_content(fixtures: Path, tmp_path: Path) -> None:
    manifest = ingest("dior_rsvg", fixtures, tmp_path / "c")
    corpus = Corpus(tmp_path / "c")
    assert (manifest["n_samples"], manifest["n_images"], manifest["n_rejects"]) == (5, 3, 3)
    for sample in corpus.samples():
        name = sample.image_key.rsplit("/", 1)[1]
        data = (fixtures / "DIOR_RSVG" / "JPEGImages" / f"{name}.jpg").read_bytes()
        assert sample.image_id == digest(data) and corpus.image_bytes(sample.image_id) == data
    tif = next(Corpus(tmp_path / "c").image_rows())
    assert tif["image_key"] == "dior_rsvg/JPEGImages/00001"


def test_every_image_is_decoded_once(fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[str] = Counter()

    def counted(data: bytes, *how: Any) -> images.StoredImage:
        calls[digest(data)] += 1
        return images.store(data, *how)

    for module in (ingest_module, decoding):
        monkeypatch.setattr(module, "store", counted)
    for name in SETS:
        ingest(name, fixtures, tmp_path / name)
    assert calls and set(calls.values()) == {1}


def test_a_image_whose_first_record_is_refused_is_stored_for_the_next(root: Path, tmp_path: Path) -> None:
    path = root / "DIOR_RSVG" / "Annotations" / "00001.xml"
    path.write_text(path.read_text().replace("<xmin>4<", "<xmin>400<"))
    manifest = ingest("dior_rsvg", root, tmp_path / "c")
    assert (manifest["n_samples"], manifest["n_images"]) == (4, 3)
    assert len(list(Corpus(tmp_path / "c").image_rows())) == 3


def test_a_image_with_nothing_but_refused_records_is_not_stored(root: Path, tmp_path: Path) -> None:
    path = root / "DIOR_RSVG" / "Annotations" / "00002.xml"
    path.write_text(path.read_text().replace(">10<", ">90<"))
    assert ingest("dior_rsvg", root, tmp_path / "c")["n_images"] == 2


@pytest.mark.parametrize("kind", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("name", SETS)
def test_an_archive_gives_the_same_corpus_as_its_directory(name: str, kind: str, root: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "archive"), kind, root)
    packed, unpacked = ingest(name, Path(archive), tmp_path / "a"), ingest(name, root, tmp_path / "b")
    assert packed == unpacked and packed["shards"]
    assert list(Corpus(tmp_path / "a").samples()) == list(Corpus(tmp_path / "b").samples())


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("name", ["rsvqa_lr", "dior_rsvg"])
def test_one_split_is_that_part_of_all(name: str, split: Any, fixtures: Path, tmp_path: Path) -> None:
    ingest(name, fixtures, tmp_path / "all")
    ingest(name, fixtures, tmp_path / "one", split)
    everything, one = Corpus(tmp_path / "all"), Corpus(tmp_path / "one")
    assert list(one.samples()) == list(everything.samples(split))
    assert [r["key"] for r in one.rejects()] == REFUSED.get((name, split), [])


def test_run_twice_it_does_nothing_and_sees_what_changed(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "c"
    first = ingest("rsicd", root, out)
    before = (out / "manifest.json").stat().st_ino
    assert ingest("rsicd", root, out) == first
    assert (out / "manifest.json").stat().st_ino == before
    path = root / "RSICD" / "dataset_rsicd.json"
    path.write_text(path.read_text().replace("a lake", "a pond"))  # the same size
    assert ingest("rsicd", root, out) != first
    assert {s.answer for s in Corpus(out).samples("val")} == {"a pond ."}
    assert ingest("rsicd", root, out, "val")["n_samples"] == 1
    (out / "samples-00000.parquet").unlink()
    assert ingest("rsicd", root, out, "val")["n_samples"] == 1 and (out / "samples-00000.parquet").exists()


def test_the_manifest_names_no_place_of_this_machine(fixtures: Path, tmp_path: Path) -> None:
    manifest = ingest("aid", fixtures, tmp_path / "c")
    assert str(tmp_path) not in json.dumps(manifest) and str(fixtures) not in json.dumps(manifest)
    assert manifest["made_by"]["options"]["licence"] == get("aid").licence


@pytest.mark.parametrize(
    ("name", "split", "change", "message"),
    [
        ("uad", "all", "", "unknown source"),
        ("aid", "dev", "", "unknown split 'dev'"),
        ("aid", "all", "rm -r AID_dataset", "no AID found"),
        (
            "rsicd",
            "all",
            "rm -r RSICD/RSICD_images; mkdir RSICD/images; touch RSICD/images/x",
            "4 rejected as image_mis",
        ),
        ("rsicd", "all", """echo '{"images": []}' > RSICD/dataset_rsicd.json""", "no sample of RSICD could be made"),
        ("rsicd", "all", "echo '{' > RSICD/dataset_rsicd.json", "malformed annotation file"),
        ("rsvqa_lr", "val", "rm RSVQA_LR/Images_LR/1.tif", "1 rejected as image_missing"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str, split: Any, change: str, message: str, root: Path, tmp_path: Path
) -> None:
    assert os.system(f"cd {root} && {{ {change or 'true'}; }}") == 0
    with pytest.raises(InputError, match=message):
        ingest(name, root, tmp_path / "c", split)
    assert [p.name for p in tmp_path.iterdir()] == ["root"]


def test_an_older_corpus_survives_a_failed_run(root: Path, tmp_path: Path) -> None:
    first = ingest("rsicd", root, tmp_path / "c")
    (root / "RSICD" / "dataset_rsicd.json").write_text('{"images": [{}]}')
    with pytest.raises(InputError):
        ingest("rsicd", root, tmp_path / "c")
    assert Corpus(tmp_path / "c").manifest == first


@pytest.mark.parametrize("where", ["image", "last shard"])
@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "no space left"), (errno.EDQUOT, "quota"), (errno.EROFS, "read-only")]
)
def test_a_full_disk_is_one_line(
    where: str, number: int, message: str, fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(*((pq.ParquetWriter, "write_table") if where == "image" else (pq, "write_table")), full)
    with pytest.raises(InputError, match=message):
        ingest("aid", fixtures, tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_one_line(fixtures: Path, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("")
    with pytest.raises(InputError, match="a file stands where the corpus is to go"):
        ingest("aid", fixtures, tmp_path / "c")


def test_members_left_out_of_an_archive_are_listed(fixtures: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.write(fixtures / "RSICD" / "RSICD_images" / "00001.jpg", "AID/River/river_1.jpg")
        archive.writestr("../../AID/River/river_2.jpg", b"x")
    ingest("aid", tmp_path / "t.zip", tmp_path / "c")
    assert [(r["key"], r["reason"]) for r in Corpus(tmp_path / "c").rejects()] == [
        ("../../AID/River/river_2.jpg", "member_unsafe_name")
    ]


# --- boxes and texts --------------------------------------------------------------------------------------

EDGE = st.floats(-3, 103, allow_nan=False)


@given(EDGE, EDGE, EDGE, EDGE, st.sampled_from([0.0, 1.0, 2.5]))
def test_a_box_is_moved_by_at_most_the_tolerance(x1: float, y1: float, x2: float, y2: float, tolerance: float) -> None:
    box = clamped((x1, y1, x2, y2), 100, 80, tolerance)
    assert all(abs(a - b) <= tolerance for a, b in zip(box, (x1, y1, x2, y2), strict=True))
    if min(x1, y1) >= -tolerance and x2 <= 100 + tolerance and y2 <= 80 + tolerance:
        assert box[0] >= 0 and box[1] >= 0 and box[2] <= 100 and box[3] <= 80
    else:
        assert box == (x1, y1, x2, y2)


def record(**changes: Any) -> Record:
    values = {"task": "vqa", "split": "train", "key": "1", "image": "a.jpg", "image_key": "s/a", "text": "how many?"}
    return Record(**{**values, "answer": "3", **changes})  # type: ignore[arg-type]


def test_ids_come_from_what_is_asked_not_from_how() -> None:
    image = KnownImage("0" * 32, 10, 10)
    base = to_sample("s", record(), image)
    assert base.id == to_sample("s", record(image="b.jpg", split="test"), KnownImage("1" * 32, 20, 20)).id
    others = [{"key": "2"}, {"text": "how few?"}, {"answer": "4"}]
    assert (
        len({base.id, *(to_sample("s", record(**o), image).id for o in others), to_sample("t", record(), image).id})
        == 5
    )
    assert base.question.startswith("how many?\n")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"text": " "}, "question_empty"),
        ({"text": "a\ud800"}, "text_not_unicode"),
        ({"answer": "\udfff"}, "text_not_unicode"),
        ({"references": ("x" * 20_001,)}, "text_too_long"),
        ({"image_key": "s/\ud83d"}, "text_not_unicode"),
    ],
)
def test_texts_that_cannot_be_kept(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        Checks().check_text(record(**changes))


@pytest.mark.parametrize(
    ("options", "changes", "reason"),
    [
        (["longest=5"], {"answer": "a bridge"}, "text_too_long: 9"),
        (["shortest=3"], {"answer": "no"}, "text_too_short: no"),
        ([], {"text": "有多少艘船"}, "text_other_script"),
        ([], {"references": ("Ein Schiff .", "Один корабль .")}, "text_other_script"),
    ],
)
def test_bounds_of_texts(options: list[str], changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        with_checks(options).check_text(record(**changes))
    with_checks(["script=any"]).check_text(record(**changes))


def test_scripts_are_told_by_most_letters() -> None:
    assert is_latin("") and is_latin("12 m²") and is_latin("Häuser in São Paulo (Кремль)") and not is_latin("道路")


@pytest.mark.parametrize("options", [["longest=many"], ["longest"], ["outside=away"], ["lenght=3"]])
def test_a_wrong_check_is_one_line(options: list[str]) -> None:
    with pytest.raises(InputError, match="check"):
        with_checks(options)


@pytest.mark.parametrize(
    ("question", "answer", "wrong"),
    [
        ("What is the area covered by buildings? Give a response of yes or no.", "1934m2", True),
        ("What is the area covered by buildings? Give a response of yes or no.", "No.", False),
        ("Is there a ship?", "1934m2", True),
        ("Is there a ship?", "12", True),
        ("Is there a ship?", "Yes, two", False),
        ("Is there a ship?\nAnswer with a single word or phrase.", "3", True),
        ("Is it 3 or 4 ships?", "3", False),
        ("Is it a rural or an urban area", "rural", False),
        ("How many ships?", "yes", True),
        ("How many ships?", "no ships at all", False),
        ("What is the number of roads?", "12", False),
        ("What is the area of the lake?", "No", True),
        ("Are there more roads than farmlands?", "no", False),
        ("What colour?", "yes", False),
    ],
)
def test_answers_that_cannot_answer(question: str, answer: str, wrong: bool) -> None:
    assert tasks.get("vqa").contradicts(question, answer) is wrong


@pytest.mark.parametrize("choice", ["refuse", "keep"])
def test_contradictions_are_refused_or_counted(choice: str, root: Path, tmp_path: Path) -> None:
    before = ingest("rsvqa_lr", root, tmp_path / "c")["n_samples"]
    path = next((root / "RSVQA_LR").glob("*train_answers.json"))
    path.write_text(path.read_text().replace('"answer": "yes"', '"answer": "1934m2"'))
    manifest = ingest("rsvqa_lr", root, tmp_path / "c", checks=with_checks([f"contradictions={choice}"]))
    assert manifest["n_samples"] == before - (choice == "refuse")
    found = [r["reason"] for r in Corpus(tmp_path / "c").rejects() if r["reason"] == "answer_contradicts"]
    assert len(found) == (choice == "refuse")
    assert manifest["notes"].get("mended", {}) == ({} if choice == "refuse" else {"answer_contradicts": 1})


ASKED = """image,question,answer,type
a.jpg,Is there a ship?,yes,presence
a.jpg,is there a SHIP,No.,presence
a.jpg,Is there a ship?,Yes.,presence
copy.jpg,Is there a ship?,no,presence
b.jpg,Is there a ship?,no,presence
a.jpg,Is there a car?,no,presence
"""


@pytest.mark.parametrize(("options", "kept"), [([], 6), (["conflicts=keep"], 6), (["conflicts=refuse"], 4)])
def test_a_second_answer_to_the_same_question_is_counted_or_refused(
    options: list[str], kept: int, tmp_path: Path
) -> None:
    encoded = [make_sources.encoded(make_sources.make_image(number)) for number in range(2)]
    for name, data in (("a.jpg", encoded[0]), ("copy.jpg", encoded[0]), ("b.jpg", encoded[1])):
        make_sources.write(tmp_path / "own" / name, data)
    make_sources.write(tmp_path / "own" / "asked.csv", ASKED)
    manifest = ingest("questions", tmp_path / "own", tmp_path / "c", checks=with_checks(options))
    corpus = Corpus(tmp_path / "c")
    rejects = [(r["reason"], r["detail"]) for r in corpus.rejects()]
    found = manifest["notes"].get("mended", {}).get("answer_conflicts", 0)
    page = inspect(tmp_path / "c", html=tmp_path / "page.html", card=tmp_path)
    assert page and "answer_conflicts" in (tmp_path / "page.html").read_text()
    assert "| questions | answer_conflicts | 2 |" in (tmp_path / "README.md").read_text()
    assert (manifest["n_samples"], found, len(rejects)) == (kept, 2 * (kept == 6), 2 * (kept == 4))
    if rejects:  # the same wrong answer again, too: the first one alone stays
        assert rejects == [
            ("answer_conflicts", f"{said}, before otherwise")
            for said in ("is there a SHIP: No.", "Is there a ship?: no")
        ]


def test_one_image_in_two_class_folders_is_a_conflict(tmp_path: Path) -> None:
    for number, name in ((1, "pond/a"), (1, "pond/copy"), (1, "river/a"), (2, "river/b")):
        make_sources.write(tmp_path / "own" / f"{name}.jpg", make_sources.encoded(make_sources.make_image(number)))
    manifest = ingest("class_folders", tmp_path / "own", tmp_path / "c")
    assert manifest["n_samples"] == 4 and manifest["notes"]["mended"] == {"answer_conflicts": 1}


def test_what_was_fixed_of_a_refused_record_is_not_counted(root: Path, tmp_path: Path) -> None:
    path = root / "DIOR_RSVG" / "Annotations" / "00001.xml"
    path.write_text(path.read_text().replace("<xmin>4<", "<xmin>-1<").replace("<xmax>20<", "<xmax>0<"))
    manifest = ingest("dior_rsvg", root, tmp_path / "c")
    assert manifest["n_samples"] == 4 and manifest["notes"]["mended"] == {"box_clamped": 1}


@pytest.mark.parametrize(("options", "kept"), [([], 5), (["outside=refuse"], 3), (["box_tolerance=0.5"], 3)])
def test_boxes_at_the_edge_are_moved_and_counted_or_refused(
    options: list[str], kept: int, root: Path, tmp_path: Path
) -> None:
    path = root / "DIOR_RSVG" / "Annotations" / "00001.xml"
    path.write_text(path.read_text().replace("<xmin>4<", "<xmin>-1<"))  # the fixture has one more at the edge
    manifest = ingest("dior_rsvg", root, tmp_path / "c", checks=with_checks(options))
    assert manifest["n_samples"] == kept
    assert manifest["notes"].get("mended") == ({"box_clamped": 2} if kept == 5 else None)
    assert manifest["notes"]["pictures"]["n"] == 3


def test_another_wording_of_a_size_makes_no_other_corpus(root: Path, tmp_path: Path) -> None:
    ingest("aid", root, tmp_path / "c")
    manifest = tmp_path / "c" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("10,000 images", "10,000 pictures"))
    before = manifest.stat().st_mtime_ns
    assert "10,000 pictures" in manifest.read_text()
    ingest("aid", root, tmp_path / "c")
    assert manifest.stat().st_mtime_ns == before


def test_an_option_that_is_new_makes_no_other_corpus_while_it_has_its_default(tmp_path: Path) -> None:
    make_sources.write(tmp_path / "set" / "q.csv", b"image,question,answer\na.jpg,Is a ship present?,yes\n")
    make_sources.write(tmp_path / "set" / "a.jpg", make_sources.encoded(make_sources.make_image(1)))
    ingest("questions", tmp_path / "set", tmp_path / "c")
    path = tmp_path / "c" / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["made_by"]["options"]["task"]  # as an older version wrote it
    path.write_text(json.dumps(manifest))
    ingest("questions", tmp_path / "set", tmp_path / "c")
    assert "task" not in json.loads(path.read_text())["made_by"]["options"]
    ingest(with_options(get("questions"), ["question=question", "name=mine"]), tmp_path / "set", tmp_path / "c")
    assert json.loads(path.read_text())["made_by"]["options"]["task"] == "vqa"


def test_a_lone_surrogate_in_a_list_costs_its_record(root: Path, tmp_path: Path) -> None:
    path = root / "RSICD" / "dataset_rsicd.json"
    path.write_text(path.read_text().replace("a lake", "a \\ud800 lake").replace("gone_1", "gone_\\ud800"))
    ingest("rsicd", root, tmp_path / "c")
    rejects = {r["key"]: r["reason"] for r in Corpus(tmp_path / "c").rejects()}
    assert rejects["00001.jpg"] == "text_not_unicode" and rejects["gone_?.jpg"] == "text_not_unicode"


def test_a_log_gets_a_line_now_and_then(
    fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("geozero.common.progress.LINE_SECONDS", 0.0)
    ingest("rsicd", fixtures, tmp_path / "c")
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1] == "ingest rsicd: 3 samples, 4 rejected"


@pytest.mark.parametrize("name", ["images-00000.tar", "samples-00000.parquet", "image-places.npy", "manifest.json"])
def test_a_damaged_corpus_is_made_again(name: str, fixtures: Path, tmp_path: Path) -> None:
    whole = ingest("rsicd", fixtures, tmp_path / "c")
    path = tmp_path / "c" / name
    state = path.stat()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))  # nothing but its bytes shows it
    assert ingest("rsicd", fixtures, tmp_path / "c") == whole
    Corpus(tmp_path / "c").verify()


def test_images_do_not_pile_up_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "ALONE", 1_000)
    monkeypatch.setattr(ingest_module, "IMAGES_PER_BATCH", 4)
    for number in range(60):
        data = make_sources.encoded(make_sources.make_image(number, (16, 16)))
        make_sources.write(tmp_path / "AID" / "River" / f"river_{number}.jpg", data)
    calls, alive = 0, 0

    def watched(data: bytes, *how: Any) -> images.StoredImage:
        nonlocal calls, alive
        calls += 1
        if calls == 60:
            alive = sum(type(thing) is images.StoredImage for thing in gc.get_objects())
        return images.store(data, *how)

    monkeypatch.setattr(decoding, "store", watched)
    gc.collect()  # what other tests left
    ingest("aid", tmp_path, tmp_path / "c")
    assert 0 < alive <= 2 * 4


if __name__ == "__main__":  # writes the golden file anew; read the difference before committing it
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        make_sources.write_all(Path(place) / "root")
        rows = golden_rows(Path(place) / "root", Path(place))
    GOLDEN.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")


# --- frames -----------------------------------------------------------------------------------------------


def boxed(root: Path, width: int, height: int) -> Path:
    """COCO boxes drawn on an image of this size; the one that lies there has 48x40 px."""
    make_sources.write(root / "1.jpg", make_sources.encoded(make_sources.make_image(1)))
    content = {
        "images": [{"id": 1, "file_name": "1.jpg", "width": width, "height": height}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [8, 8, 16, 8]}],
        "categories": [{"id": 1, "name": "ship"}],
    }
    (root / "boxes.json").write_text(json.dumps(content))
    return root


def test_a_box_drawn_on_a_image_of_another_size_is_refused_or_scaled(tmp_path: Path) -> None:
    kept = ingest("coco", boxed(tmp_path / "same", 48, 40), tmp_path / "a")
    assert kept["n_samples"] == 1 and "mended" not in kept["notes"]
    ingest("coco", boxed(tmp_path / "unsaid", 0, 0), tmp_path / "b")
    root = boxed(tmp_path / "other", 96, 80)
    with pytest.raises(InputError, match="1 rejected as box_of_other_size"):
        ingest("coco", root, tmp_path / "c")
    scaled = ingest("coco", root, tmp_path / "c", checks=with_checks(["resized=scale"]))
    assert [s.box for s in Corpus(tmp_path / "c").samples()] == [(4, 4, 12, 8)]
    assert scaled["notes"]["mended"] == {"box_scaled": 1}


def test_an_optional_data_set_that_is_not_there_is_said_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from geozero.cli import app

    def run(*words: str) -> int:
        monkeypatch.setattr("sys.argv", ["geozero", "ingest", "aid", *words])
        with pytest.raises(SystemExit) as ended:
            app.main()
        return int(ended.value.code or 0)

    make_sources.rsicd(tmp_path / "data")
    asked = ("--root", str(tmp_path / "data"), "--out", str(tmp_path / "aid"))
    assert run(*asked) == 2 and not (tmp_path / "aid").exists()
    assert run(*asked, "--optional") == 0
    assert "skipped" in capsys.readouterr().out and list((tmp_path / "aid").iterdir()) == []
    make_sources.aid(tmp_path / "data")  # now it is there
    assert run(*asked, "--optional") == 0 and len(Corpus(tmp_path / "aid")) == 10
    shutil.rmtree(tmp_path / "data" / "AID_dataset")  # and gone again: the old corpus goes with it
    assert run(*asked, "--optional") == 0 and list((tmp_path / "aid").iterdir()) == []
    (tmp_path / "data" / "RSICD.zip").write_bytes(b"PK\x03\x04 cut off")  # there, but damaged
    assert run(*asked, "--optional") == 2
    mine = tmp_path / "mine"
    make_sources.write(mine / "thesis.txt", "x")
    assert run("--root", str(tmp_path / "nowhere"), "--out", str(mine), "--optional") == 2
    assert (mine / "thesis.txt").exists()


def test_a_small_archive_of_large_files_takes_little_memory(tmp_path: Path) -> None:
    import tracemalloc
    import zipfile

    with zipfile.ZipFile(tmp_path / "AID.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for n in range(20):
            archive.writestr(f"AID/River/river_{n}.jpg", bytes(8 << 20))  # blank, and no image
    tracemalloc.start()
    with pytest.raises(InputError, match="20 rejected as image_unreadable"):
        ingest("aid", tmp_path / "AID.zip", tmp_path / "c")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 110 << 20, f"{most >> 20} MB of 160 MB at a time"


def test_a_half_unpacked_set_names_its_archive(root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (root / "AID_dataset" / "AID.zip").write_bytes(b"never opened")
    with caplog.at_level("WARNING"):
        ingest("aid", root, tmp_path / "c")
    assert "10 images of 10,000 published, 10 samples of 10,000 published" in caplog.text
    assert "not looked into, because the set was found unpacked: ../AID.zip" in caplog.text
