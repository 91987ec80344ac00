"""Boxes and splits of one's own data that could be read wrongly in silence: other frames, other numbers, lists."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from fixtures.situations.forms import image, put
from PIL import Image

from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.curation.ingest.checks import with_checks
from geozero.curation.ingest.ingest import ingest
from geozero.sources import get, with_options

SIZE = (800, 600)


def turned(size: tuple[int, int]) -> bytes:
    """A JPEG that viewers show with its sides exchanged."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x112] = 6
    Image.open(io.BytesIO(image(size))).save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


def coco(root: Path, n: int = 2, name: str = "boxes.json", first: int = 0, **fields: Any) -> dict[str, Any]:
    """`n` images with one ship each; `fields` are those of the annotations, `bbox` among them."""
    content: dict[str, Any] = {"categories": [{"id": 1, "name": "ship"}, {"id": 2, "name": "Ship"}]}
    content["images"] = [
        {"id": k, "file_name": f"{k}.jpg", "width": SIZE[0], "height": SIZE[1]} for k in range(first, first + n)
    ]
    content["annotations"] = [
        {"id": k, "image_id": k, "category_id": 1, "bbox": [10, 20, 100, 50], **fields} for k in range(first, first + n)
    ]
    for k in range(first, first + n):
        if not (root / f"{k}.jpg").exists():
            put(root, f"{k}.jpg", image(SIZE))
    put(root, name, content)
    return content


def voc(root: Path, names: list[str], edges: dict[str, float]) -> None:
    for name in names:
        box = "".join(f"<{edge}>{value}</{edge}>" for edge, value in edges.items())
        inside = f"<object><name>ship</name><bndbox>{box}</bndbox></object>"
        put(root, f"Annotations/{name}.xml", f"<annotation><filename>{name}.jpg</filename>{inside}</annotation>")
        put(root, f"JPEGImages/{name}.jpg", image(SIZE))


def yolo(root: Path, names: list[str], line: str = "0 0.5 0.5 0.1 0.1", about: str = "names: [ship, harbor]") -> None:
    for name in names:
        put(root, f"images/{name}.jpg", image(SIZE))
        put(root, f"labels/{name}.txt", line + "\n")
    if about:
        put(root, "data.yaml", about)


EDGES = {"xmin": 10.0, "ymin": 20.0, "xmax": 110.0, "ymax": 70.0}


def result(source: str, root: Path, *options: str) -> tuple[Counter[str], Counter[str]]:
    """Samples by split; rejects by reason."""
    sets = [after for word, after in pairwise(options) if word == "--set"]
    checks = [after for word, after in pairwise(options) if word == "--check"]
    out = root.parent / "out"
    manifest = ingest(with_options(get(source), sets), root, out, checks=with_checks(checks))
    splits: Counter[str] = Counter()
    for row in manifest["counts"]:
        splits[row["split"]] += row["n"]
    return splits, Counter({row["reason"]: row["n"] for row in manifest["rejects"]})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


def shares_coco(root: Path) -> str:
    coco(root, bbox=[0.1, 0.2, 0.3, 0.4])
    return "coco"


def shares_voc(root: Path) -> str:
    voc(root, ["a"], {"xmin": 0.1, "ymin": 0.2, "xmax": 0.3, "ymax": 0.4})
    return "voc"


def sides_in_voc(root: Path) -> str:
    voc(root, ["a"], {"x": 100, "y": 200, "width": 140, "height": 230})
    return "voc"


def other_mode(root: Path) -> str:
    coco(root, bbox_mode=4)
    return "coco"


def sizes_as_texts(root: Path) -> str:
    content = coco(root)
    for item in content["images"]:
        item |= {"width": "1600", "height": 1200.0}
    put(root, "boxes.json", content)
    return "coco"


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (shares_coco, "box_in_shares"),
        (shares_voc, "box_in_shares"),
        (sides_in_voc, "box_malformed"),
        (sizes_as_texts, "box_of_other_size"),
        (other_mode, "box_malformed"),
    ],
)
def test_boxes_in_another_frame_are_refused(make: Callable[[Path], str], reason: str, root: Path) -> None:
    with pytest.raises(InputError, match=f"rejected as {reason}"):
        result(make(root), root)


def test_a_box_of_the_image_before_it_was_turned_is_never_scaled(root: Path) -> None:
    put(root, "0.jpg", turned(SIZE))
    coco(root, 1)
    with pytest.raises(InputError, match="rejected as box_of_other_size"):
        result("coco", root, "--check", "resized=scale")


def test_corners_in_cocos_place_stop_unless_bbox_mode_says_what_they_are(root: Path) -> None:
    content = coco(root, 24)
    for k, item in enumerate(content["annotations"]):
        item["bbox"] = [20 * k + 5, 20, 20 * k + 40, 70]
    put(root, "boxes.json", content)
    with pytest.raises(InputError, match="seem to be corners"):
        result("coco", root)
    for item in content["annotations"]:
        item["bbox_mode"] = 0
    put(root, "boxes.json", content)
    result("coco", root)
    boxes = [sample.box for sample in Corpus(root.parent / "out").samples()]
    assert sorted(box for box in boxes if box) == sorted((20 * k + 5, 20, 20 * k + 40, 70) for k in range(24))


def test_categories_of_one_name_are_one(root: Path) -> None:
    content = coco(root, 2)
    content["annotations"].append({"id": 9, "image_id": 0, "category_id": 2, "bbox": [300, 300, 50, 50]})
    put(root, "boxes.json", content)
    result("coco", root, "--set", "questions=count,presence")
    samples = list(Corpus(root.parent / "out").samples())
    assert Counter(sample.task for sample in samples) == {"grounding": 1, "vqa": 4}
    assert sorted(sample.answer for sample in samples if sample.task == "vqa") == ["1", "2", "yes", "yes"]


def test_an_image_that_is_listed_twice_is_refused(root: Path) -> None:
    content = coco(root, 2)
    content["images"].append({**content["images"][0], "id": 5})
    put(root, "boxes.json", content)
    assert result("coco", root)[1] == {"image_listed_twice": 2}


def test_an_image_in_the_files_of_two_splits_stops(root: Path) -> None:
    coco(root, 4, "train.json")
    coco(root, 2, "test.json", first=3)
    with pytest.raises(InputError, match=r"3\.jpg is annotated here for train, and elsewhere for test"):
        result("coco", root)


def test_trainval_is_trained_on(root: Path) -> None:
    coco(root, 20, "trainval.json")
    coco(root, 3, "test.json", first=30)
    assert result("coco", root)[0] == {"train": 20, "test": 3}


LISTS = {
    "flags": {"ImageSets/Main/train.txt": "{}  1", "ImageSets/Main/test.txt": "{} -1"},
    "trainval": {"ImageSets/Main/trainval.txt": "{}", "ImageSets/Main/test.txt": "{}"},
    "years": {"train2012.txt": "{}", "test2012.txt": "{}"},
    "paths": {"train.txt": "./images/{}.jpg", "test.txt": "./images/{}.jpg"},
}


@pytest.mark.parametrize("names", ["a{}", "scene.{}"])
@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize("source", ["voc", "yolo"])
def test_lists_of_names_are_followed(source: str, lists: str, names: str, root: Path) -> None:
    all_names = [names.format(k) for k in range(20)]
    if source == "voc":
        voc(root, all_names, EDGES)
    else:
        yolo(root, all_names)
    for (file, line), listed in zip(LISTS[lists].items(), (all_names[:12], all_names[12:18]), strict=True):
        put(root, file, "".join(line.format(name) + "\n" for name in listed))
    assert result(source, root) == ({"train": 12, "test": 6}, {"in_no_split": 2})


def test_the_halves_of_trainval_are_told_apart(root: Path) -> None:
    names = [f"a{k}" for k in range(9)]
    voc(root, names, EDGES)
    for split, listed in {"train": names[:4], "val": names[4:6], "trainval": names[:6], "test": names[6:]}.items():
        put(root, f"ImageSets/Main/{split}.txt", "\n".join(listed))
    assert result("voc", root)[0] == {"train": 4, "val": 2, "test": 3}


def test_dots_in_names_are_no_suffix(root: Path) -> None:
    yolo(root, ["train/a_jpg.rf.0f3c", "valid/b_jpg.rf.77aa"])
    put(root, "images/train/a_jpg.jpg", image(SIZE))  # another image, whose name is the beginning of it
    assert result("yolo", root) == ({"train": 1, "val": 1}, {})


@pytest.mark.parametrize(
    ("files", "line", "message"),
    [
        ({"data.yaml": "names: [ship]\nkpt_shape: [2, 2]\n"}, "0 .5 .5 .1 .1 .4 .4 .6 .6", "keypoints"),
        ({"data.yaml": "nc: 3\nnames: [ship, harbor]\n"}, "0 .5 .5 .1 .1", "'nc' is 3"),
        ({"a.yaml": "names: [ship, harbor]", "b.yaml": "names: [harbor, ship]"}, "0 .5 .5 .1 .1", "differently"),
        ({"labels/classes.txt": "ship\nharbor\n", "classes.txt": "harbor\nship\n"}, "0 .5 .5 .1 .1", "differently"),
        ({"data.yaml": "names: [ship]"}, "0 .6 .6 .7 .7", "seem to be corners"),
    ],
)
def test_labels_that_mean_something_else_stop(files: dict[str, str], line: str, message: str, root: Path) -> None:
    yolo(root, [f"a{k}" for k in range(20)], line, about="")
    for file, text in files.items():
        put(root, file, text)
    if "corners" in message:
        put(root, "labels/a0.txt", "0 .1 .1 .2 .2\n")
    with pytest.raises(InputError, match=message):
        result("yolo", root)


def test_a_blank_line_among_the_classes_shifts_no_number(root: Path) -> None:
    yolo(root, ["a"], "2 .5 .5 .1 .1", about="")
    put(root, "classes.txt", "ship\n\nharbor\n")
    result("yolo", root)
    assert "the harbor" in next(Corpus(root.parent / "out").samples()).question
