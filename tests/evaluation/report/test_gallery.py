"""The gallery: images once, within a budget, and never from outside the inputs' directory."""

from __future__ import annotations

import base64
import io
import json
import random
from pathlib import Path
from typing import Any

import fake_report
import pytest
from PIL import Image

from geozero.evaluation.report import gallery
from geozero.evaluation.report.gallery import gather, right
from geozero.evaluation.report.schema import GalleryItem, Output, read_inputs

RNG = random.Random(5)
IMAGE = fake_report.jpeg(fake_report.scene(RNG, 96)[0])


MODELS = [("sft", "tagged"), ("a2grpo", "tagged")]


def packed_of(items: list[GalleryItem], folder: Path, budget: int = gallery.BUDGET_BYTES) -> gallery.Gallery:
    return gather(items, MODELS, folder / "page-images", budget)


def item(**values: Any) -> GalleryItem:
    return GalleryItem.model_validate({"id": "a", "task": "vqa", "question": "q?", **values})


def test_a_image_of_many_questions_is_stored_once(tmp_path: Path) -> None:
    other = fake_report.jpeg(fake_report.scene(RNG, 96)[0])
    packed = packed_of([item(image_jpeg_base64=p) for p in (IMAGE, IMAGE, other, IMAGE)], tmp_path)
    assert [row["image"] for row in json.loads(packed.index)] == [0, 0, 1, 0]
    (block,) = packed.image_blocks
    images = [Image.open(io.BytesIO(base64.b64decode(text))) for text in json.loads(block)]
    assert [p.format for p in images] == ["JPEG", "JPEG"]


def test_images_shrink_to_the_budget(tmp_path: Path) -> None:
    items = [item(image_jpeg_base64=fake_report.jpeg(fake_report.scene(RNG, 400)[0])) for _ in range(8)]
    sizes = []
    for budget in (10**9, 60_000, 20_000):
        first = json.loads(packed_of(items, tmp_path, budget).image_blocks[0])[0]
        sizes.append(Image.open(io.BytesIO(base64.b64decode(first))).width)
    assert sizes[0] == 384 and sizes[2] == 128 and sizes[0] > sizes[1] >= sizes[2]


def test_texts_shrink_to_the_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "TEXT_BUDGET_BYTES", 40_000)
    items = [item(question="ö" * 3000, answers=[{"thought": "w " * 1500, "answer": "x"}]) for _ in range(20)]
    (packed,) = packed_of(items, tmp_path).text_blocks
    assert len(packed.encode()) < 60_000
    assert "more characters" in json.loads(packed)[0]["question"]


def test_blocks_hold_a_hundred_images(tmp_path: Path) -> None:
    images = []
    for i in range(101):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8), (i, 0, 0)).save(buffer, "PNG")
        images.append(base64.b64encode(buffer.getvalue()).decode())
    packed = packed_of([item(image_jpeg_base64=p) for p in images], tmp_path)
    assert [len(json.loads(block)) for block in packed.image_blocks] == [100, 1]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"image_jpeg_base64": "%%%"},
        {"image_jpeg_base64": base64.b64encode(b"<svg onload=alert(1)>").decode()},
        {"image_path": "nowhere.jpg"},
    ],
)
def test_a_bad_image_costs_only_itself(tmp_path: Path, values: dict[str, str]) -> None:
    (tmp_path / "inside.jpg").write_bytes(base64.b64decode(IMAGE))
    packed = packed_of([item(**values), item(id="b", image_path=tmp_path / "inside.jpg")], tmp_path)
    assert [row["image"] for row in json.loads(packed.index)] == [None, 0]
    assert packed.faults[0].startswith("1 of 2 images could not be read (a: image_")


def test_a_gallery_file_cannot_name_files(tmp_path: Path) -> None:
    (tmp_path / "private.jpg").write_bytes(base64.b64decode(IMAGE))
    row = {"id": "a", "task": "vqa", "question": "q?", "image_path": str(tmp_path / "private.jpg")}
    (tmp_path / "gallery.json").write_text(json.dumps([row]))
    assert read_inputs(tmp_path).gallery[0].image_path is None


def test_sizes_come_from_the_image_where_they_are_not_given(tmp_path: Path) -> None:
    rows = json.loads(packed_of([item(image_jpeg_base64=IMAGE), item(width=10, height=20)], tmp_path).index)
    assert [row["size"] for row in rows] == [[96, 96], [10, 20]]


def test_images_that_do_not_fit_are_files_beside_the_page(tmp_path: Path) -> None:
    images = [fake_report.jpeg(fake_report.scene(RNG, 400)[0]) for _ in range(3)]
    packed = packed_of([item(image_jpeg_base64=p) for p in (*images, images[0])], tmp_path, budget=10)
    assert (packed.images, packed.image_blocks) == ("page-images/", [])
    assert [row["image"] for row in json.loads(packed.index)] == [0, 1, 2, 0]
    assert sorted(path.name for path in (tmp_path / "page-images").iterdir()) == ["0.jpg", "1.jpg", "2.jpg"]
    assert Image.open(tmp_path / "page-images/0.jpg").width == 384


def test_texts_lie_in_blocks_and_a_raw_completion_only_where_it_says_more(tmp_path: Path) -> None:
    plain = {"thought": "I see.", "answer": "x", "raw": "I see. <answer>x</answer>", "model": "sft", "mode": "tagged"}
    odd = {**plain, "raw": "I see. <answer>x</answer> And more.", "model": "a2grpo"}
    blocks = packed_of([item(answers=[plain, odd])] * (gallery.TEXTS_PER_BLOCK + 1), tmp_path).text_blocks
    assert [len(json.loads(block)) for block in blocks] == [gallery.TEXTS_PER_BLOCK, 1]
    assert json.loads(blocks[1])[0]["out"] == {"0": ["x", "I see.", "", []], "1": ["x", "I see.", odd["raw"], []]}


def test_what_is_filtered_by_stands_in_the_index(tmp_path: Path) -> None:
    output = {"answer": "x", "reward": 0.5, "flags": ["cut off"], "model": "a2grpo", "mode": "tagged"}
    packed = packed_of([item(task="scene_cls", answer="port", question_type="presence", answers=[output])], tmp_path)
    (row,) = json.loads(packed.index)
    assert (row["truth"], row["kind"], row["out"]) == ("port", "presence", {"1": [False, 0.5, ["cut off"]]})
    assert packed.choices["truth"] == ["port"] and packed.choices["flag"] == ["cut off"]


@pytest.mark.parametrize(
    ("task", "output", "expected"),
    [
        ("vqa", {"reward": 1.0}, True),
        ("vqa", {"reward": 0.0}, False),
        ("vqa", {"reward": 0.0, "right": True}, True),
        ("grounding", {"reward": 0.5}, True),
        ("grounding", {"reward": 0.49}, False),
        ("caption", {"reward": 0.99}, None),
        ("vqa", {}, None),
        ("another", {"reward": 1.0}, True),
    ],
)
def test_right_is_what_the_task_makes_of_the_reward(task: str, output: dict[str, Any], expected: bool | None) -> None:
    assert right(task, Output.model_validate(output)) is expected


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, None], [1, 2, 3, float("inf")], "1,2,3,4", [True, 1, 2, 3], {}])
def test_what_is_no_box_is_no_box(box: Any) -> None:
    found = Output.model_validate({"box": box, "boxes": [box, [1, 2, 3, 4]]})
    assert found.box is None and found.boxes == [(1, 2, 3, 4)]
    assert Output.model_validate({"boxes": 3}).boxes == []


def test_one_box_and_several_are_drawn_alike(tmp_path: Path) -> None:
    several = {"box": [1, 2, 3, 4], "boxes": [[1, 2, 3, 4], [5, 6, 7.26, 8]], "who": "m"}
    packed = packed_of([item(box=[1, 2, 3, 4], answers=[several]), item(answers=[{"answer": "x"}])], tmp_path)
    first, second = json.loads(packed.text_blocks[0])
    assert (first["boxes"], first["out"]["2"][3]) == ([[1, 2, 3, 4]], [[1, 2, 3, 4], [5, 6, 7.3, 8]])
    assert second["boxes"] == second["out"]["3"][3] == [] and packed.models[2:] == ["m", ""]


def test_answers_of_older_files_are_named_before_and_after_rl(tmp_path: Path) -> None:
    packed = packed_of([item(before={"answer": "yes"}, after={"answer": "no", "who": "mine"})], tmp_path)
    assert packed.models == ["SFT, tagged", "A²GRPO, tagged", "before RL", "mine"]
    assert packed_of([], tmp_path).count == 0
