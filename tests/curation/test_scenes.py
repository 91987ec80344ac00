"""Scenes: bands and stretches by numbers, tiles that cover everything, boxes that come back where they were."""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from fixtures import make_sources
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.raster import Stretch, choose_bands, to_rgb
from geozero.corpus.store import Corpus
from geozero.curation.ingest.ingest import ingest
from geozero.curation.tiling.scenes import Tile, open_scene, tiles
from geozero.curation.tiling.tile import tile_scenes
from geozero.sources import get, with_options

REFLECTANCE = np.arange(0, 10_000, 100, dtype=np.uint16).reshape(1, 10, 10)


# --- pixels -----------------------------------------------------------------------------------------------


def test_percentiles_become_black_and_white() -> None:
    limits = Stretch(low=0, high=100).limits(REFLECTANCE)
    assert limits == [(0.0, 9900.0)]
    grey = to_rgb(REFLECTANCE, limits)
    assert grey.shape == (10, 10, 3) and grey.dtype == np.uint8
    assert grey[0, 0].tolist() == [0, 0, 0] and grey[-1, -1].tolist() == [255] * 3
    assert np.array_equal(grey[..., 0].ravel(), np.round(np.arange(100) / 99 * 255))


def test_a_range_is_the_same_for_every_scene_and_cuts_what_lies_beyond() -> None:
    limits = Stretch("range", 0, 3000).limits(REFLECTANCE)
    grey = to_rgb(REFLECTANCE, limits)[..., 0].ravel()
    assert limits == [(0, 3000)] and grey[15] == round(1500 / 3000 * 255) and set(grey[30:]) == {255}


def test_bands_stretch_each_by_itself_or_together() -> None:
    bands = np.concatenate([REFLECTANCE, REFLECTANCE // 10, REFLECTANCE * 0 + 7])
    own, joint = (Stretch(low=0, high=100, joint=one).limits(bands) for one in (False, True))
    assert own == [(0, 9900), (0, 990), (7, 7)] and joint == [(0, 9900)] * 3
    assert to_rgb(bands, own)[-1, -1].tolist() == [255, 255, 0]
    assert to_rgb(bands, joint)[-1, -1].tolist() == [255, 26, 0]


def test_masked_and_broken_pixels_count_for_nothing_and_are_black() -> None:
    values = REFLECTANCE.astype(float)
    values[0, 0, :3] = [np.nan, np.inf, 1e30]
    masked = np.ma.masked_array(values, values == 1e30)
    limits = Stretch(low=0, high=100).limits(masked)
    assert limits == [(300, 9900)]
    assert to_rgb(masked, limits)[0, :3].ravel().tolist() == [0] * 9
    nothing = np.ma.masked_all((1, 2, 2))
    assert not to_rgb(nothing, Stretch().limits(nothing)).any()


def test_without_a_stretch_only_8_bits_pass() -> None:
    bytes_ = (REFLECTANCE // 100).astype(np.uint8)
    assert np.array_equal(to_rgb(bytes_, Stretch("none").limits(bytes_))[..., 0], bytes_[0])
    with pytest.raises(BadRecord, match="uint16: choose a stretch"):
        Stretch("none").limits(REFLECTANCE)


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"), [(13, (4, 3, 2), (4, 3, 2)), (4, (), (1, 2, 3)), (2, (), (1,)), (1, (), (1,))]
)
def test_bands_are_chosen(count: int, wanted: tuple[int, ...], chosen: tuple[int, ...]) -> None:
    assert choose_bands(count, wanted) == chosen


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: choose_bands(3, (1, 2)),
        lambda: choose_bands(3, (1, 2, 4)),
        lambda: choose_bands(3, (0, 1, 2)),
        lambda: Stretch(low=98, high=2),
        lambda: Stretch(high=101),
        lambda: tiles(10, 10, 0),
        lambda: tiles(10, 10, 4, 4),
    ],
)
def test_wrong_parameters_are_one_line(wrong: Any) -> None:
    with pytest.raises(InputError):
        wrong()


# --- tiles ------------------------------------------------------------------------------------------------

SIZE = st.integers(1, 300)


@given(SIZE, SIZE, st.integers(1, 120), st.data())
def test_tiles_cover_the_scene_and_hold_every_small_box(
    width: int, height: int, side: int, data: st.DataObject
) -> None:
    overlap = data.draw(st.integers(0, side - 1))
    cut = tiles(width, height, side, overlap)
    covered = np.zeros((height, width), bool)
    for tile in cut:
        assert 0 <= tile.x <= width - tile.width and 0 <= tile.y <= height - tile.height
        assert (tile.width, tile.height) == (min(side, width), min(side, height))
        covered[tile.y : tile.y + tile.height, tile.x : tile.x + tile.width] = True
    assert covered.all() and len(set(cut)) == len(cut)
    w, h = (data.draw(st.integers(1, max(1, min(overlap, length)))) for length in (width, height))
    x, y = data.draw(st.integers(0, width - w)), data.draw(st.integers(0, height - h))
    if overlap:
        assert max(tile.part_of((x, y, x + w, y + h)) for tile in cut) == 1.0


@given(SIZE, SIZE, st.integers(8, 120), st.lists(st.floats(0, 300), min_size=4, max_size=4))
def test_boxes_go_into_tiles_and_come_back(width: int, height: int, side: int, numbers: list[float]) -> None:
    x1, x2 = sorted(min(v, width) for v in numbers[:2])
    y1, y2 = sorted(min(v, height) for v in numbers[2:])
    assume(x2 - x1 > 1e-3 and y2 - y1 > 1e-3)
    box, parts = (x1, y1, x2, y2), 0.0
    for tile in tiles(width, height, side):
        inside = tile.box_into(box)
        if inside is None:
            assert tile.part_of(box) == 0
            continue
        assert 0 <= inside[0] < inside[2] <= tile.width and 0 <= inside[1] < inside[3] <= tile.height
        back = tile.box_out_of(inside)
        assert all(abs(a - b) < 1e-9 for a, b in zip(back, _common(box, tile), strict=True))
        parts += tile.part_of(box)
    assert parts > 1 - 1e-6  # nothing of it is in no tile


def _common(box: tuple[float, float, float, float], tile: Tile) -> tuple[float, float, float, float]:
    return (
        max(box[0], tile.x),
        max(box[1], tile.y),
        min(box[2], tile.x + tile.width),
        min(box[3], tile.y + tile.height),
    )


# --- scenes on disk ---------------------------------------------------------------------------------------


def fake_rasterio(monkeypatch: pytest.MonkeyPatch, bands: np.ndarray) -> None:
    """What of rasterio is used, on an array."""

    class Source:
        count, height, width = bands.shape

        def __enter__(self) -> Source:
            return self

        def __exit__(self, *error: object) -> None:
            pass

        def read(self, chosen: list[int], window: Any = None, out_shape: Any = None, masked: bool = False) -> Any:
            assert masked
            part = bands[np.array(chosen) - 1]
            if window is not None:
                return np.ma.masked_array(part[:, slice(*window[0]), slice(*window[1])])
            assert out_shape[0] == len(chosen) and max(out_shape[1:]) <= 1024
            return np.ma.masked_array(part)

    fake, errors = ModuleType("rasterio"), ModuleType("rasterio.errors")
    errors.RasterioError = type("RasterioError", (Exception,), {})  # type: ignore[attr-defined]

    def opened(path: Path, driver: str) -> Source:
        assert path.is_absolute() and driver == {".tif": "GTiff", ".png": "PNG"}[path.suffix]
        return Source()

    fake.open, fake.errors = opened, errors  # type: ignore[attr-defined]
    fake.Env = lambda **options: nullcontext()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "rasterio", fake)


def annotated(path: Path, name: str) -> Path:
    """A small ship wholly inside, one across two tiles, and a hangar."""
    boxes = [(1, [2, 3, 8, 6]), (1, [28, 4, 20, 10]), (2, [40, 30, 10, 10])]
    rows = [{"id": n, "image_id": 9, "category_id": c, "bbox": box} for n, (c, box) in enumerate(boxes)]
    categories = [{"id": 1, "name": "ship"}, {"id": 2, "name": "hangar"}]
    content = {"images": [{"id": 9, "file_name": name}], "annotations": rows, "categories": categories}
    path.write_text(json.dumps(content))
    return path


def test_a_deep_scene_becomes_tiles_that_ingest_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bands = np.random.default_rng(1).integers(0, 9_000, (5, 40, 64), dtype=np.uint16)
    fake_rasterio(monkeypatch, bands)
    (tmp_path / "bay.tif").write_bytes(b"")
    notes = annotated(tmp_path / "bay.json", "bay.tif")
    made = tile_scenes(
        [tmp_path / "bay.tif"],
        tmp_path / "out",
        notes,
        side=40,
        overlap=8,
        bands=(4, 3, 2),
        stretch=Stretch("range", 0, 9000),
    )
    assert (made.tiles, made.objects, made.vague) == (2, 3, 1)
    first = np.asarray(Image.open(tmp_path / "out" / "bay" / "bay_0_0.png"))
    assert np.array_equal(first[..., 0], np.round(bands[3, :, :40] / 9000 * 255).astype(np.uint8))
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    second = [row for row in written["annotations"] if row["image_id"] == 1]
    assert [(row["bbox"], row["iscrowd"]) for row in second] == [([4, 4, 20, 10], 0), ([16, 30, 10, 10], 0)]
    ingest("coco", tmp_path / "out", tmp_path / "c")
    # in the first tile a ship is cut off, so that "the ship" could be either: nobody asks
    samples = list(Corpus(tmp_path / "c").samples())
    assert sorted(s.box for s in samples if s.box) == [(4, 4, 24, 14), (16, 30, 26, 40)]
    (scene,) = {s.image_key for s in samples}
    assert scene.startswith("coco/bay-")
    again = tile_scenes([tmp_path / "bay.tif"], tmp_path / "out", side=64)
    assert again.tiles == 1 and not (tmp_path / "out" / "annotations.json").exists()


def test_boxes_of_a_scene_of_another_size_are_refused(tmp_path: Path) -> None:
    make_sources.make_image(1, (70, 50)).save(tmp_path / "a.png")
    notes = annotated(tmp_path / "a.json", "a.png")
    content = json.loads(notes.read_text())
    content["images"][0] |= {"width": 140, "height": 100}
    notes.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"boxes of a.png are those of 140x100 px, the scene has 70x50"):
        tile_scenes([tmp_path / "a.png"], tmp_path / "out", notes, side=32)
    assert not (tmp_path / "out").exists()


def test_a_deep_scene_without_a_stretch_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rasterio(monkeypatch, np.ones((4, 40, 64), np.uint16))
    (tmp_path / "bay.tif").write_bytes(b"")
    with pytest.raises(InputError, match="choose a stretch"):
        tile_scenes([tmp_path / "bay.tif"], tmp_path / "out", stretch=Stretch("none"))
    assert not (tmp_path / "out").exists()


def test_a_16_bit_png_goes_through_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_rasterio(monkeypatch, np.ones((1, 40, 64), np.uint16))
    Image.fromarray(np.ones((40, 64), np.uint16)).save(tmp_path / "deep.png")
    assert tile_scenes([tmp_path / "deep.png"], tmp_path / "out").tiles == 1


def test_an_8_bit_tiff_needs_no_rasterio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    make_sources.make_image(1).save(tmp_path / "a.tif")
    assert tile_scenes([tmp_path / "a.tif"], tmp_path / "out").tiles == 1


def test_ordinary_images_are_tiled_as_they_are(tmp_path: Path) -> None:
    image = make_sources.make_image(1, (70, 50))
    image.save(tmp_path / "a.png")
    made = tile_scenes([tmp_path / "a.png"], tmp_path / "out", side=32, overlap=4, stretch=Stretch("none"))
    assert made.tiles == 6
    last = Image.open(tmp_path / "out" / "a" / "a_38_18.png")
    assert np.array_equal(np.asarray(last), np.asarray(image)[18:50, 38:70])


def test_bad_scenes_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rasterio", None)
    (tmp_path / "a.tif").write_bytes(b"x")
    (tmp_path / "b.png").write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    make_sources.write(tmp_path / "sub" / "c.png", make_sources.encoded(make_sources.make_image(1), "PNG"))
    make_sources.write(tmp_path / "c.png", make_sources.encoded(make_sources.make_image(1), "PNG"))
    out = tmp_path / "out"
    wrong: list[tuple[list[Path], dict[str, Any], str]] = [
        ([tmp_path / "a.tif"], {}, r"need rasterio: pip install 'geozero\[geo\]'"),
        ([tmp_path / "b.png"], {}, "image_unreadable"),
        ([tmp_path / "none.png"], {}, "no such scene"),
        ([tmp_path / "c.png", tmp_path / "sub" / "c.png"], {}, "two scenes of one name"),
        ([], {}, "no scenes"),
        ([tmp_path / "c.png"], {"annotations": tmp_path / "b.png"}, "malformed annotations"),
        ([tmp_path / "c.png"], {"annotations": annotated(tmp_path / "n.json", "d.png")}, "names must be the same"),
        ([tmp_path / "c.png"], {"least_part": 0}, "least part"),
        ([tmp_path / "c.png"], {"bands": (1, 2, 9)}, "bands 1, 2, 9 of a scene with 3"),
    ]
    for scenes, options, message in wrong:
        with pytest.raises(InputError, match=message):
            tile_scenes(scenes, out, **options)
        assert not out.exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("mine")
    with pytest.raises(InputError, match="the output exists and is something else"):
        tile_scenes([tmp_path / "c.png"], tmp_path / "other")
    with open_scene(tmp_path / "c.png") as scene:
        assert (scene.width, scene.height, scene.count) == (48, 40, 3)


# --- one scene, one split; and nothing of anybody else's is removed ---------------------------------------------


def scenes_of(place: Path, n: int) -> list[Path]:
    place.mkdir(parents=True, exist_ok=True)
    for number in range(n):
        make_sources.make_image(number, (96, 64)).save(place / f"scene{number}.png")
    return sorted(place.glob("*.png"))


def splits_by_scene(corpus: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for sample in Corpus(corpus).samples():
        found.setdefault(sample.image_key, set()).add(sample.split)
    return found


def boxes_of(scenes: list[Path], file: Path) -> Path:
    """A box in every 16 pixels of every scene, each of a category of its own, so that every tile is asked about."""
    places = [(x, y) for x in range(0, 96, 16) for y in range(0, 64, 16)]
    rows = [
        {"id": n * 100 + k, "image_id": n, "category_id": k, "bbox": [x, y, 15, 15]}
        for n in range(len(scenes))
        for k, (x, y) in enumerate(places)
    ]
    images = [{"id": n, "file_name": path.name} for n, path in enumerate(scenes)]
    categories = [{"id": k, "name": f"thing {chr(97 + k)}"} for k in range(len(places))]
    file.write_text(json.dumps({"images": images, "annotations": rows, "categories": categories}))
    return file


def test_tiles_of_one_scene_are_in_one_split_whatever_is_asked_about_them(tmp_path: Path) -> None:
    scenes = scenes_of(tmp_path / "scenes", 12)
    notes = boxes_of(scenes, tmp_path / "notes.json")
    tile_scenes(scenes, tmp_path / "all/wide", notes, side=48, overlap=16)
    tile_scenes(scenes, tmp_path / "all/narrow", notes, side=32, overlap=8)  # the same pixels once more
    ingest(with_options(get("coco"), ["ratio=0.5/0.2"]), tmp_path / "all", tmp_path / "coco")
    found = splits_by_scene(tmp_path / "coco")
    assert len(found) == 12 and all(len(splits) == 1 for splits in found.values())
    assert len(set().union(*found.values())) > 1

    moved, rows = tmp_path / "moved", ["image,question,answer"]
    for number, tile in enumerate(sorted((tmp_path / "all/wide").rglob("*.png"))):
        place = moved / ("wet" if number % 2 else "dry")
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(tile, place)
        rows.append(f"{place.name}/{tile.name},Is it tile {number}?,yes")
    shutil.copy(tmp_path / "all/wide/tiles.manifest", moved)
    listed = [{"filename": row.split(",")[0], "sentences": [{"raw": row.split(",")[1]}]} for row in rows[1:]]
    for name, text in (("class_folders", ""), ("questions", "\n".join(rows)), ("captions_json", "")):
        (moved / "t.csv").write_text(text) if name == "questions" else (moved / "t.csv").unlink(missing_ok=True)
        if name == "captions_json":
            (moved / "t.json").write_text(json.dumps({"images": listed}))
        ingest(with_options(get(name), ["ratio=0.5/0.2"]), moved, tmp_path / name)
        found = splits_by_scene(tmp_path / name)
        assert len(found) == 12 and all(len(splits) == 1 for splits in found.values()), name


def test_a_scene_in_two_official_splits_is_refused_in_the_second(tmp_path: Path) -> None:
    tile_scenes(scenes_of(tmp_path / "scenes", 2), tmp_path / "tiles", side=48, overlap=16)
    for tile in (tmp_path / "tiles").rglob("*.png"):
        whole = tile.name.startswith("scene0")
        place = tmp_path / "set" / ("train" if whole or tile.name.endswith("_0_0.png") else "test") / "a"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(tile, place)
    shutil.copy(tmp_path / "tiles/tiles.manifest", tmp_path / "set")
    manifest = ingest("class_folders", tmp_path / "set", tmp_path / "c")
    assert {row["reason"] for row in manifest["rejects"]} == {"scene_in_two_splits"}
    assert all(len(splits) == 1 for splits in splits_by_scene(tmp_path / "c").values())


def test_two_scenes_of_one_name_are_two(tmp_path: Path) -> None:
    for n, place in enumerate(("a", "b")):
        make_sources.write(tmp_path / place / "s.png", make_sources.encoded(make_sources.make_image(n), "PNG"))
        tile_scenes([tmp_path / place / "s.png"], tmp_path / "out" / place, side=32)
    keys = [json.loads((tmp_path / f"out/{p}/tiles.manifest").read_text())["tiles"].values() for p in ("a", "b")]
    assert len({*keys[0], *keys[1]}) == 2


@pytest.mark.parametrize("what", ["added", "edited", "given", "scene", "link"])
def test_what_tile_did_not_write_it_does_not_remove(what: str, tmp_path: Path) -> None:
    scenes = scenes_of(tmp_path / "scenes", 1)
    notes, out = boxes_of(scenes, tmp_path / "notes.json"), tmp_path / "out"
    tile_scenes(scenes, out, notes, side=48)
    if what == "added":
        (out / "scene0/mine.txt").write_text("mine")
    elif what == "edited":
        (out / "annotations.json").write_text(notes.read_text())
    elif what == "given":
        notes = out / "annotations.json"
    elif what == "scene":
        scenes = [*scenes, *sorted((out / "scene0").glob("*.png"))[:1]]
    else:
        out.rename(tmp_path / "elsewhere")
        out.symlink_to(tmp_path / "elsewhere")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="choose another --out"):
        tile_scenes(scenes, out, notes, side=48)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
