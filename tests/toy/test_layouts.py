"""The toy data sets keep the rules of the real layouts, and no scene is used twice."""

from __future__ import annotations

import hashlib
import itertools
import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from PIL import Image

from geozero.common.errors import InputError
from geozero.toy.model.pretrain import FIRST_SEED, PretrainConfig
from geozero.toy.world import layouts
from geozero.toy.world.layouts import SETS, SPLITS, SUITE_SETS, scene_seed, world_sizes, write_world
from geozero.toy.world.scene import SCENE_CLASSES

SIZES = world_sizes({"aid": 10, "rsvqa_lr": 6, "rsicd": 12, "dior_rsvg": 6}, val=3, test=4)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "easy"
    write_world(root, seed=5, sizes=SIZES)
    return root


@pytest.fixture(scope="module")
def hard_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy") / "hard"
    write_world(root, seed=5, sizes=SIZES, hard=True)
    return root


def hashes(root: Path) -> dict[str, str]:
    files = sorted(p for p in root.rglob("*") if p.is_file())
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_aid_has_class_folders_and_counted_names(world: Path) -> None:
    folders = sorted(p.name for p in (world / "AID").iterdir())
    assert folders == sorted(SCENE_CLASSES)
    for folder in folders:
        names = {p.name for p in (world / "AID" / folder).iterdir()}
        assert names == {f"{folder.lower()}_{n}.jpg" for n in range(1, len(names) + 1)}
    assert sum(1 for _ in (world / "AID").rglob("*.jpg")) == 17


def test_rsvqa_lists_are_indexed_by_id_and_split_by_image(world: Path) -> None:
    folder = world / "RSVQA_LR"
    rows = {
        (name, kind): json.loads((folder / f"{name}_{kind}.json").read_text())[kind]
        for name in ("all", *(f"LR_split_{split}" for split in SPLITS))
        for kind in ("images", "questions", "answers")
    }
    for items in rows.values():
        assert [row["id"] for row in items] == list(range(len(items)))
    assert len(rows["all", "images"]) == 13 and len(rows["all", "questions"]) == 65
    seen: list[int] = []
    for split, count in zip(SPLITS, (6, 3, 4), strict=True):
        images, questions, answers = (rows[f"LR_split_{split}", kind] for kind in ("images", "questions", "answers"))
        assert len(images) == 13  # full length; the other lists end with their last active item
        assert questions[-1]["active"] and answers[-1]["active"]
        for row in images + questions + answers:
            assert row["active"] or set(row) == {"id", "active"}
        active = [row for row in images if row["active"]]
        assert len(active) == count
        for image in active:
            seen.append(image["id"])
            assert Image.open(folder / "Images_LR" / f"{image['id']}.tif").size == (96, 96)
            assert len(image["questions_ids"]) == 5
            for number in image["questions_ids"]:
                question = questions[number]
                assert question["active"] and question["img_id"] == image["id"]
                answer = answers[question["answers_ids"][0]]
                assert answer["question_id"] == number and isinstance(answer["answer"], str)
        assert sum(row["active"] for row in questions) == 5 * count
    assert sorted(seen) == list(range(13))


def test_rsicd_has_five_sentences_some_repeated(world: Path) -> None:
    data = json.loads((world / "RSICD" / "dataset_rsicd.json").read_text())
    assert data["dataset"] == "rsicd"
    splits = [image["split"] for image in data["images"]]
    assert [splits.count(split) for split in SPLITS] == [12, 3, 4]
    repeated = 0
    for number, image in enumerate(data["images"]):
        assert image["imgid"] == number and (world / "RSICD" / "RSICD_images" / image["filename"]).is_file()
        assert [s["sentid"] for s in image["sentences"]] == image["sentids"] == list(range(5 * number, 5 * number + 5))
        for sentence in image["sentences"]:
            assert sentence["tokens"] == [t for t in sentence["raw"].split() if t not in (",", ".")]
        repeated += len({s["raw"] for s in image["sentences"]}) < 5
    assert 0 < repeated < len(data["images"])


def test_dior_lists_are_object_indices_over_sorted_annotations(world: Path) -> None:
    folder = world / "DIOR_RSVG"
    owner: list[str] = []
    for path in sorted((folder / "Annotations").glob("*.xml")):
        width, height = Image.open(folder / "JPEGImages" / f"{path.stem}.jpg").size
        objects = ET.parse(path).getroot().findall("object")
        assert 1 <= len(objects) <= 2
        for item in objects:
            owner.append(path.stem)
            x1, y1, x2, y2 = (int(item.findtext(f"bndbox/{k}", "")) for k in ("xmin", "ymin", "xmax", "ymax"))
            assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
            assert item.findtext("description", "").startswith("the ")
    lists = {split: [int(line) for line in (folder / f"{split}.txt").read_text().split()] for split in SPLITS}
    assert sorted(itertools.chain(*lists.values())) == list(range(len(owner)))
    images = {split: {owner[index] for index in indices} for split, indices in lists.items()}
    assert [len(images[split]) for split in SPLITS] == [6, 3, 4]
    assert not images["train"] & images["test"] and not images["train"] & images["val"]


def test_the_hard_world_is_all_test(hard_world: Path) -> None:
    data = json.loads((hard_world / "RSICD" / "dataset_rsicd.json").read_text())
    assert {image["split"] for image in data["images"]} == {"test"}
    assert (hard_world / "DIOR_RSVG" / "train.txt").read_text() == ""
    assert (hard_world / "DIOR_RSVG" / "test.txt").read_text()
    questions = json.loads((hard_world / "RSVQA_LR" / "LR_split_train_questions.json").read_text())["questions"]
    assert questions == []
    assert sum(1 for _ in (hard_world / "AID").rglob("*.jpg")) == 4


def test_no_image_occurs_twice(world: Path, hard_world: Path) -> None:
    images = [h for root in (world, hard_world) for name, h in hashes(root).items() if name.endswith((".jpg", ".tif"))]
    assert len(set(images)) == len(images) == 17 + 13 + 19 + 13 + 4 * 4


def test_seed_blocks_are_disjoint() -> None:
    names = (*SETS, "pretrain", "samples", *SUITE_SETS)
    blocks = [
        (scene_seed(seed, name, split, 0, hard), scene_seed(seed, name, split, 199_999, hard))
        for seed in (0, 1)
        for name in names
        for split, hard in (("train", False), ("val", False), ("test", False), ("test", True))
    ]
    ordered = sorted([*blocks, (FIRST_SEED, FIRST_SEED + PretrainConfig().scenes - 1)])
    assert all(low[1] < high[0] for low, high in itertools.pairwise(ordered))
    with pytest.raises(InputError):
        scene_seed(0, "aid", "train", 200_000)


def test_the_same_world_is_written_once_and_identically(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    again = tmp_path / "again"
    partial = tmp_path / ".again.partial"
    partial.mkdir()
    (partial / "left_by_a_killed_run").write_text("")
    steps: list[tuple[int, int]] = []
    write_world(again, seed=5, sizes=SIZES, progress=lambda done, total: steps.append((done, total)))
    assert hashes(again) == hashes(world)
    assert steps[-1] == (62, 62) and not partial.exists()
    monkeypatch.setattr(layouts, "render", lambda scene: pytest.fail("rendered a finished world again"))
    write_world(again, seed=5, sizes=SIZES)


def test_a_killed_run_leaves_nothing_that_looks_finished(tmp_path: Path) -> None:
    class Killed(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 5:
            raise Killed

    with pytest.raises(Killed):
        write_world(tmp_path / "w", seed=5, sizes=SIZES, progress=stop)
    assert not (tmp_path / "w").exists()


def test_other_things_in_the_way_are_never_overwritten(world: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="other parameters"):
        write_world(world, seed=6, sizes=SIZES)
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="something other"):
        write_world(tmp_path, seed=5, sizes=SIZES)
    with pytest.raises(InputError, match="toy sizes"):
        write_world(tmp_path / "new", seed=5, sizes={"moon": {"train": 3}})
