"""The toy world's scenes are determined, balanced and drawn where they say."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import cache

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from geozero.common.errors import InputError
from geozero.toy.world import scene as module
from geozero.toy.world.facts import COUNT_PRIOR
from geozero.toy.world.scene import COLOURS, KINDS, SCENE_CLASSES, Scene, SceneObject, render, sample_scene

SEEDS = st.integers(0, 2**40)


@cache
def scenes(hard: bool, count: int = 800) -> list[Scene]:
    return [sample_scene(seed, hard=hard) for seed in range(count)]


def object_mask(item: SceneObject, size: int) -> npt.NDArray[np.bool_]:
    """The pixels (size, size) that at least half of an object covers, its shadow not counted."""
    mask = Image.new("L", (size * 4, size * 4), 0)
    draw = ImageDraw.Draw(mask)
    for polygon in module._outline(item):
        draw.polygon((polygon * 4 - 0.5).reshape(-1).tolist(), fill=255)
    return np.asarray(mask.reduce(4)) >= 128


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("size", [96, 160])
def test_a_seed_gives_the_same_scene_and_pixels(size: int, hard: bool) -> None:
    first, second = sample_scene(11, size, hard), sample_scene(11, size, hard)
    assert first == second
    image = render(first)
    assert image.shape == (size, size, 3) and image.dtype == np.uint8
    assert np.array_equal(image, render(second))
    assert not np.array_equal(image, render(sample_scene(12, size, hard)))


def test_the_class_asked_for_is_given_and_leaves_other_classes_possible() -> None:
    for name in SCENE_CLASSES:
        assert sample_scene(3, scene_class=name).scene_class == name
        assert render(sample_scene(3, scene_class=name)).std() > 3


@pytest.mark.parametrize(("size", "name"), [(20, None), (300, None), (96, "Moon")])
def test_wrong_use_is_named(size: int, name: str | None) -> None:
    with pytest.raises(InputError, match="toy scene"):
        sample_scene(1, size, scene_class=name)


@settings(max_examples=60, deadline=None)
@given(SEEDS, st.sampled_from([96, 128, 200]), st.booleans())
def test_boxes_are_inside_apart_and_tight(seed: int, size: int, hard: bool) -> None:
    scene = sample_scene(seed, size, hard)
    for item in scene.objects:
        x1, y1, x2, y2 = item.box
        assert 0 <= x1 < x2 <= size and 0 <= y1 < y2 <= size
        assert item.kind in KINDS and item.colour in COLOURS
        assert 9 <= item.length * 96 / size <= 36
        rows, columns = np.nonzero(object_mask(item, size))
        drawn = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        # a corner fills less than half of its pixel, so the mask may end a little earlier than the box
        slack = 2.0 * size / 96 + 1.0
        assert all(abs(a - b) <= slack for a, b in zip(drawn, item.box, strict=True)), (item, drawn)
    for a, b in itertools.combinations(scene.objects, 2):
        assert a.box[2] < b.box[0] or b.box[2] < a.box[0] or a.box[3] < b.box[1] or b.box[3] < a.box[1]
    assert scene.land == ("urban" if scene.count("building") >= 3 else "rural")


def test_leaving_an_object_out_changes_the_image_there_and_only_there() -> None:
    checked = 0
    for scene in scenes(False)[:14]:
        full = render(scene).astype(int)
        for index, item in enumerate(scene.objects):
            rest = replace(scene, objects=scene.objects[:index] + scene.objects[index + 1 :])
            change = np.abs(full - render(rest)).max(axis=2)
            mask = object_mask(item, scene.size)
            assert (change[mask] > 12).mean() > 0.6, (scene.seed, index)
            if item.kind != "ship":  # a ship may take its pond away
                x1, y1, x2, y2 = (int(v) for v in item.box)
                far = np.ones_like(mask)
                far[max(0, y1 - 10) : y2 + 11, max(0, x1 - 10) : x2 + 11] = False
                # a pond without a ship may lie where the object was
                assert (change[far] > 12).mean() < 0.12, (scene.seed, index)
            checked += 1
    assert checked > 40


@pytest.mark.parametrize("hard", [False, True])
def test_classes_land_and_kinds_are_balanced(hard: bool) -> None:
    drawn = scenes(hard)
    share = {name: np.mean([s.scene_class == name for s in drawn]) for name in SCENE_CLASSES}
    assert all(0.09 < value < 0.16 for value in share.values()), share
    assert 0.42 < np.mean([s.land == "urban" for s in drawn]) < 0.58
    assert max(len(s.objects) for s in drawn) <= (9 if hard else 7)
    for kind in KINDS:
        present = [s.count(kind) > 0 for s in drawn]
        assert 0.38 < np.mean(present) < (0.75 if kind == "building" else 0.62), kind
        for name in SCENE_CLASSES:  # no class gives a kind away
            inside = [p for p, s in zip(present, drawn, strict=True) if s.scene_class == name]
            assert 0.2 < np.mean(inside) < 0.92, (kind, name)


def test_the_prior_of_counts_is_the_world_s() -> None:
    drawn = scenes(False) + scenes(True)
    for kind, prior in COUNT_PRIOR.items():
        assert abs(sum(prior) - 1) < 1e-9
        for number, expected in enumerate(prior):
            assert abs(np.mean([s.count(kind) == number for s in drawn]) - expected) < 0.04, (kind, number)


def test_hard_scenes_are_noisier_and_smaller() -> None:
    def grain(hard: bool) -> float:
        images = [render(s).astype(float) for s in scenes(hard)[:15]]
        return float(np.median([np.abs(p[1:-1, 1:-1] * 2 - p[1:-1, :-2] - p[1:-1, 2:]).mean() for p in images]))

    def length(hard: bool) -> float:
        return float(np.mean([o.length for s in scenes(hard) for o in s.objects]))

    assert grain(True) > 1.2 * grain(False)
    assert length(True) < 0.92 * length(False)
