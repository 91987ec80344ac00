"""The real-imagery shard: its files, its splits, and every answer derived once more from the annotations."""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import math
import re
import shutil
import sys
import zipfile
from collections import Counter, defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT
from PIL import Image

from geozero import tasks
from geozero.common.errors import InputError
from geozero.corpus import images
from geozero.corpus.sample import Sample, sample_id
from geozero.sources.base import Record, Rejected
from geozero.sources.mixed.neon import Neon
from geozero.sources.readers.tree import open_tree
from geozero.tasks.boxes import format_box

SHARD = ROOT / "data" / "samples" / "neon"
GOLDEN = {
    ("train", "presence"): 248,
    ("train", "count"): 212,
    ("train", "comp"): 66,
    ("train", "density"): 134,
    ("train", "corner"): 94,
    ("train", "extreme"): 81,
    ("train", "property"): 30,
    ("val", "presence"): 2,
    ("val", "count"): 19,
    ("val", "comp"): 4,
    ("val", "density"): 6,
    ("val", "corner"): 6,
    ("val", "extreme"): 4,
    ("val", "property"): 2,
    ("test", "presence"): 18,
    ("test", "count"): 37,
    ("test", "comp"): 15,
    ("test", "density"): 10,
    ("test", "corner"): 22,
    ("test", "extreme"): 13,
    ("test", "property"): 4,
}


def read(root: Path) -> list[Record | Rejected]:
    source = Neon()
    with open_tree(root) as tree:
        return list(source.records(source.find(tree)))


@pytest.fixture(scope="module")
def tiles() -> dict[str, dict[str, Any]]:
    listed = json.loads((SHARD / "annotations.json").read_text())["tiles"]
    return {tile["file"]: tile for tile in listed}


@pytest.fixture(scope="module")
def records() -> list[Record]:
    found = read(SHARD)
    assert not [r for r in found if isinstance(r, Rejected)]
    return [r for r in found if isinstance(r, Record)]


@pytest.fixture(scope="module")
def make() -> ModuleType:
    spec = importlib.util.spec_from_file_location("neon_make", SHARD / "make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["neon_make"] = module
    spec.loader.exec_module(module)
    return module


# --- the files -------------------------------------------------------------------------------------------------------


def test_shard_is_whole_and_small(tiles: dict[str, dict[str, Any]]) -> None:
    assert {f"tiles/{path.name}" for path in (SHARD / "tiles").iterdir()} == set(tiles)
    assert len(tiles) == 88
    for file in tiles:
        assert images.decode((SHARD / file).read_bytes()).size == (256, 256)
    tracked = [path for path in SHARD.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in tracked) <= 4 << 20


def test_tiles_hold_no_metadata(tiles: dict[str, dict[str, Any]]) -> None:
    for file in tiles:
        with Image.open(SHARD / file) as tile:
            assert not {"exif", "icc_profile", "comment", "xmp"} & set(tile.info)


def test_boxes_lie_inside_and_are_the_known_ones(tiles: dict[str, dict[str, Any]]) -> None:
    trees: Counter[str] = Counter()
    for tile in tiles.values():
        trees[tile["split"]] += len(tile["boxes"])
        for x1, y1, x2, y2 in tile["boxes"]:
            assert x1 >= 0 and y1 >= 0 and x2 <= 256 and y2 <= 256
            assert x2 - x1 >= 8 and y2 - y1 >= 8
    assert trees == {"train": 454, "test": 190, "val": 49}


def test_splits_share_no_ground(tiles: dict[str, dict[str, Any]]) -> None:
    by_image = defaultdict(list)
    for tile in tiles.values():
        by_image[tile["image"]].append(tile)
    sizes = json.loads((SHARD / "annotations.json").read_text())["images"]
    for image, own in by_image.items():
        for tile in own:
            assert 0 <= tile["x"] <= sizes[image]["width"] - 256
            assert 0 <= tile["y"] <= sizes[image]["height"] - 256
        for number, a in enumerate(own):
            for b in own[:number]:
                gap = max(abs(a["x"] - b["x"]), abs(a["y"] - b["y"])) - 256
                assert gap >= (0 if a["split"] == b["split"] else 128), (a["file"], b["file"])
    splits = {image: {tile["split"] for tile in own} for image, own in by_image.items()}
    assert splits == {"yell_528000_4978000": {"train"}, "yell_541000_4977000": {"test", "val"}}


def test_no_tile_looks_like_one_of_another_split(tiles: dict[str, dict[str, Any]]) -> None:
    hashes = {file: int(images.store((SHARD / file).read_bytes()).phash, 16) for file in tiles}
    nearest = min(
        (hashes[a] ^ hashes[b]).bit_count() for a in tiles for b in tiles if tiles[a]["split"] != tiles[b]["split"]
    )
    assert nearest > 8  # twice the radius of the near-duplicate check


# --- the questions ---------------------------------------------------------------------------------------------------


def test_golden_counts(records: list[Record]) -> None:
    assert Counter((r.split, r.question_type) for r in records) == GOLDEN
    assert len({r.key for r in records}) == len(records) == 1027


def test_records_make_valid_samples(records: list[Record]) -> None:
    ids = set()
    for r in records:
        key = sample_id("neon", r.key)
        question = tasks.get(r.task).question(key, r.text, r.classes)
        answer = format_box(r.box) if r.box else r.answer
        Sample(key, r.task, "neon", r.split, "0" * 32, r.image_key, question, answer, (), r.box, 256, 256).validate()
        ids.add(key)
        source, image, name = r.image_key.split("/")
        assert (source, r.image) == ("neon", f"tiles/{image}_{name}.jpg")
    assert len(ids) == len(records)


def test_no_answer_leads(records: list[Record]) -> None:
    answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for r in records:
        if r.task == "vqa":
            answers[r.split, str(r.question_type)][r.answer] += 1
    for (split, kind), counts in answers.items():
        if kind == "count":
            assert counts.most_common(1)[0][1] <= 0.4 * counts.total(), split
        else:
            assert len(counts) == 2 and max(counts.values()) - min(counts.values()) <= 1, (split, kind)
            assert kind == "comp" or len(set(counts.values())) == 1


def region_of(text: str) -> tuple[float, float, float, float]:
    """The part of the image that a question names, as shares of its sides."""
    words = re.sub(r"[?]", "", text)
    across, down = (0.0, 1.0), (0.0, 1.0)
    if " cell " in words:
        place = words.split("the ")[1].split(" cell")[0].split()
        thirds = {"top": 0, "left": 0, "middle": 1, "bottom": 2, "right": 2}
        row, column = (thirds[w] for w in (place if len(place) == 2 else ["middle", "middle"]))
        across, down = (column / 3, (column + 1) / 3), (row / 3, (row + 1) / 3)
    else:
        if " left " in words:
            across = (0.0, 0.5)
        if " right " in words:
            across = (0.5, 1.0)
        if " upper " in words:
            down = (0.0, 0.5)
        if " lower " in words:
            down = (0.5, 1.0)
    return across[0], down[0], across[1], down[1]


def trees_in(tile: dict[str, Any], region: tuple[float, float, float, float]) -> int:
    return sum(
        region[0] <= (x1 + x2) / 512 < region[2] and region[1] <= (y1 + y2) / 512 < region[3]
        for x1, y1, x2, y2 in tile["boxes"]
    )


def cover(boxes: list[list[int]], region: tuple[float, float, float, float]) -> float:
    x = np.arange(256) + 0.5
    inside = np.zeros((256, 256), dtype=bool)
    for x1, y1, x2, y2 in boxes:
        inside |= ((x > y1) & (x < y2))[:, None] & ((x > x1) & (x < x2))[None, :]
    asked = ((x / 256 > region[1]) & (x / 256 < region[3]))[:, None] & ((x / 256 > region[0]) & (x / 256 < region[2]))[
        None, :
    ]
    return float(inside[asked].mean())


def test_presence_and_count_follow_from_the_boxes(records: list[Record], tiles: dict[str, dict[str, Any]]) -> None:
    for r in records:
        if r.question_type == "presence":
            assert r.answer == ("yes" if trees_in(tiles[r.image], region_of(r.text)) else "no"), r
        if r.question_type == "count":
            assert r.answer == str(trees_in(tiles[r.image], region_of(r.text))), r


def test_no_is_said_only_where_nothing_stands(records: list[Record], tiles: dict[str, dict[str, Any]]) -> None:
    for r in records:
        if r.question_type == "presence" and r.answer == "no":
            tile, (x1, y1, x2, y2) = tiles[r.image], region_of(r.text)
            for box in tile["boxes"] + tile["unlabelled"]:
                across = min(box[2], x2 * 256) - max(box[0], x1 * 256)
                down = min(box[3], y2 * 256) - max(box[1], y1 * 256)
                assert min(across, down) < 1, (r, box)  # a third of 256 px is cut to whole pixels


def test_comparison_follows_from_the_boxes(records: list[Record], tiles: dict[str, dict[str, Any]]) -> None:
    for r in records:
        if r.question_type == "comp":
            first, second = r.text.rstrip("?").split(" than in the ")
            a = trees_in(tiles[r.image], region_of(first))
            b = trees_in(tiles[r.image], region_of(f"in the {second} "))
            assert abs(a - b) >= 2
            assert r.answer == ("yes" if a > b else "no"), r


def test_density_follows_from_the_boxes(records: list[Record], tiles: dict[str, dict[str, Any]]) -> None:
    for r in records:
        if r.question_type == "density":
            share = cover(tiles[r.image]["boxes"], region_of(r.text))
            assert share >= 0.30 if r.answer == "dense" else 0 < share <= 0.15, (r, share)


def test_an_expression_fits_one_tree_only(records: list[Record], tiles: dict[str, dict[str, Any]]) -> None:
    points = {
        "center": (128, 128),
        "upper left corner": (0, 0),
        "upper right corner": (256, 0),
        "lower left corner": (0, 256),
        "lower right corner": (256, 256),
    }
    for r in records:
        if r.task != "grounding":
            continue
        boxes = [tuple(map(float, box)) for box in tiles[r.image]["boxes"]]
        assert r.box in boxes and boxes.count(r.box) == 1
        others = [box for box in boxes if box != r.box]

        def score(box: tuple[float, ...], text: str = r.text) -> float:
            """Small for the tree that is meant."""
            x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
            if "nearest" in text:
                return math.dist((x, y), points[text.split("nearest to the ")[1]])
            places = {"leftmost": x, "rightmost": -x, "topmost": y, "bottommost": -y}
            return next(value for word, value in places.items() if word in text)

        if "only" in r.text:
            assert not others
        elif "largest" in r.text:
            area = (r.box[2] - r.box[0]) * (r.box[3] - r.box[1])
            assert all(area >= 1.4 * (b[2] - b[0]) * (b[3] - b[1]) for b in others), r
        else:
            assert all(score(r.box) + 12 <= score(b) for b in others), r


# --- bad input -------------------------------------------------------------------------------------------------------


def test_root_may_be_the_parent_or_an_archive(tmp_path: Path, records: list[Record]) -> None:
    archive = shutil.make_archive(str(tmp_path / "shard"), "zip", SHARD.parent, "neon")
    assert read(SHARD.parent) == records
    assert read(Path(archive)) == records


def small_shard(directory: Path, entries: Any) -> Path:
    (directory / "tiles").mkdir(parents=True)
    (directory / "tiles" / "a_r00c00.jpg").write_bytes(b"never opened here")
    (directory / "annotations.json").write_text(entries if isinstance(entries, str) else json.dumps({"tiles": entries}))
    return directory


def entry(**changes: Any) -> dict[str, Any]:
    good = {"file": "tiles/a_r00c00.jpg", "image": "a", "name": "r00c00", "split": "train"}
    return good | {"boxes": [[10, 10, 40, 40]], "slivers": [], "unlabelled": []} | changes


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (entry(boxes=[[10, 10, 40, 257]]), "box_outside_image"),
        (entry(boxes=[[40, 10, 10, 40]]), "box_outside_image"),
        (entry(boxes=[[10, 10, 40]]), "tile_malformed"),
        (entry(boxes=[[10.5, 10, 40, 40]]), "tile_malformed"),
        (entry(boxes=["abcd"]), "tile_malformed"),
        (entry(split="holdout"), "tile_malformed"),
        (entry(image=3), "tile_malformed"),
        ({"file": "tiles/a_r00c00.jpg"}, "tile_malformed"),
        (None, "tile_malformed"),
    ],
)
def test_a_bad_tile_costs_only_itself(tmp_path: Path, bad: Any, reason: str) -> None:
    first, *rest = read(small_shard(tmp_path / "neon", [bad, entry()]))
    assert isinstance(first, Rejected) and (first.key, first.reason) == ("tile 0", reason)
    assert rest == read(small_shard(tmp_path / "good" / "neon", [entry()]))
    assert "the only tree" in [r.text for r in rest if isinstance(r, Record)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"tiles": 3}', '{"images": {}}', '{"tiles": [1, ', "\x00"])
def test_malformed_annotations_are_one_clear_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"annotations\.json"):
        read(small_shard(tmp_path / "neon", text))


# --- the cut ---------------------------------------------------------------------------------------------------------

corner = st.integers(0, 700)
side = st.integers(1, 300)


@given(st.lists(st.tuples(corner, corner, side, side), max_size=8), st.integers(0, 500), st.integers(0, 500))
def test_cut_keeps_just_the_trees_that_are_half_inside(
    make: ModuleType, drawn: list[tuple[int, int, int, int]], left: int, top: int
) -> None:
    boxes = [(x, y, x + w, y + h) for x, y, w, h in drawn]
    expected: tuple[list[Any], list[Any]] = ([], [])
    for x1, y1, x2, y2 in boxes:
        columns = [x - left for x in range(x1, x2) if left <= x < left + 256]
        rows = [y - top for y in range(y1, y2) if top <= y < top + 256]
        if columns and rows:
            mostly = 2 * len(columns) * len(rows) >= (x2 - x1) * (y2 - y1) and min(len(columns), len(rows)) >= 8
            expected[not mostly].append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    kept, slivers = make.split_boxes(boxes, left, top)
    assert (kept, slivers) == (sorted(expected[0]), sorted(expected[1]))


def fake_wheel(path: Path, make: ModuleType) -> Any:
    """A wheel with one small image in place of the two real ones, and how make.py would know it."""
    pixels = np.random.default_rng(0).integers(0, 255, (260, 530, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    xml = "".join(
        f"<object><bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in ((5, 5, 25, 30), (250, 100, 290, 140))
    )
    data = {"x.png": buffer.getvalue(), "x.xml": f"<annotation>{xml}</annotation>".encode()}
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in data.items():
            wheel.writestr(f"deepforest/data/{name}", content)
    sums = [hashlib.sha256(content).hexdigest() for content in data.values()]
    return make.AerialImage("x", "x", *sums, {"train": (0,), "val": (256,)}, (0,), ((0, 200, 20, 220),))


def test_cut_is_repeatable_and_removes_what_it_did_not_make(
    make: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "IMAGES", (fake_wheel(tmp_path / "w.whl", make),))
    (tmp_path / "a" / "tiles").mkdir(parents=True)
    (tmp_path / "a" / "tiles" / "old.jpg").touch()
    for out in ("a", "b"):
        assert make.main(["--wheel", str(tmp_path / "w.whl"), "--out", str(tmp_path / out)]) == 0
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert [str(f) for f in files] == ["annotations.json", "tiles/x_r00c00.jpg", "tiles/x_r00c01.jpg"]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    first, second = json.loads((tmp_path / "a" / "annotations.json").read_text())["tiles"]
    assert (first["boxes"], first["slivers"]) == ([[5, 5, 25, 30]], [[250, 100, 256, 140]])
    assert (second["boxes"], second["split"]) == ([[0, 100, 34, 140]], "val")
    assert (first["unlabelled"], second["unlabelled"]) == ([[0, 200, 20, 220]], [])


@pytest.mark.parametrize("kind", ["missing", "no zip", "empty", "other"])
def test_a_wrong_wheel_is_one_line(
    make: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    path = tmp_path / "w.whl"
    if kind == "no zip":
        path.write_bytes(b"text")
    elif kind == "empty":
        zipfile.ZipFile(path, "w").close()
    elif kind == "other":
        with zipfile.ZipFile(path, "w") as wheel:
            wheel.writestr(f"deepforest/data/{make.IMAGES[0].stem}.png", b"another")
    assert make.main(["--wheel", str(path), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out" / "annotations.json").exists()
