"""The vision stage of pre-training: heads over the image tokens teach the encoder what is where.

Each merged image token covers a cell of 16×16 pixels. Linear heads read it: which kind of object has its centre there,
its colour, its box, the digits of the box, whether it is the largest or smallest of its kind, what lies nearest to it;
and, averaged over the cells, the scene class, how many objects of each kind there are and in which colours: the
encoder counts, so that the small text model only has to read. The heads are thrown away. [ours]
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero.toy.model.build import MERGE, PATCH
from geozero.toy.model.optimization import optimisers, train_resumably
from geozero.toy.world.referring import area, centre
from geozero.toy.world.scene import COLOURS, KINDS, SCENE_CLASSES, Scene

CELL = PATCH * MERGE
KIND_WEIGHT, COLOUR_WEIGHT, BOX_WEIGHT, CLASS_WEIGHT = 3.0, 1.0, 10.0, 0.5
DIGIT_WEIGHT, EXTREME_WEIGHT, NEAREST_WEIGHT = 2.0, 0.5, 0.5
COUNT_WEIGHT, SEEN_WEIGHT = 1.0, 2.0  # of the whole image: counts by kind; which colours of which kind are seen
MOST_COUNTED = 5  # larger counts share a class
DIGITS = (100, 10)  # what a coordinate's first and second digit stand for, in 0..1000
REPORT_EVERY = 200
HELD_OUT = 500  # last scenes, only for measuring


@dataclass(frozen=True)
class VisionTargets:
    """The contents of each cell, `cells`: `kind` (n, g, g), 0 = nothing; `colour` (n, g, g); `box` (n, g, g, 4) as
    shares of the side; `extreme` (n, g, g, 2), whether it is the largest, the smallest of its kind; `near_kind` and
    `near_colour` (n, g, g) of the object nearest to it, the kind 0 = none. Of the whole image: `scene` class (n),
    `count` by kind (n, kinds), colours `seen` of each kind (n, kinds · colours)."""

    cells: dict[str, npt.NDArray[Any]]
    scene: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    seen: npt.NDArray[np.float32]


def targets(scenes: Sequence[Scene]) -> VisionTargets:
    """The cells' contents; where two centres share a cell, the larger object counts."""
    side = scenes[0].size // CELL
    shape = (len(scenes), side, side)
    whole = {name: np.zeros(shape, np.int64) for name in ("kind", "colour", "near_kind", "near_colour")}
    shares = {"box": np.zeros((*shape, 4), np.float32), "extreme": np.zeros((*shape, 2), np.float32)}
    cells: dict[str, npt.NDArray[Any]] = {**whole, **shares}
    count = np.asarray([[min(MOST_COUNTED, scene.count(kind)) for kind in KINDS] for scene in scenes])
    seen = np.zeros((len(scenes), len(KINDS) * len(COLOURS)), np.float32)
    for i, scene in enumerate(scenes):
        for item in sorted(scene.objects, key=area):
            x, y = centre(item, scene.size)
            at = (i, min(side - 1, int(y * side)), min(side - 1, int(x * side)))
            cells["kind"][at] = KINDS.index(item.kind) + 1
            cells["colour"][at] = COLOURS.index(item.colour)
            cells["box"][at] = np.asarray(item.box) / scene.size
            same = [area(o) for o in scene.objects if o.kind == item.kind]
            cells["extreme"][at] = area(item) == max(same), area(item) == min(same)
            others = [
                (math.dist(centre(o, scene.size), (x, y)), k) for k, o in enumerate(scene.objects) if o is not item
            ]
            if others:
                near = scene.objects[min(others)[1]]
                cells["near_kind"][at] = KINDS.index(near.kind) + 1
                cells["near_colour"][at] = COLOURS.index(near.colour)
            seen[i, KINDS.index(item.kind) * len(COLOURS) + COLOURS.index(item.colour)] = 1
    classes = list(SCENE_CLASSES)
    return VisionTargets(cells, np.asarray([classes.index(s.scene_class) for s in scenes]), count, seen)


def patches(pixels: npt.NDArray[np.uint8]) -> Any:
    """Qwen2VLImageProcessor's patches of (n, h, w, 3) pixels, made at once: (n · h/8 · w/8, 3 · 2 · 8 · 8)."""
    import torch

    n, height, width, _ = pixels.shape
    x = torch.as_tensor(np.ascontiguousarray(pixels)).float().permute(0, 3, 1, 2) / 127.5 - 1
    x = x.reshape(n, 3, height // CELL, MERGE, PATCH, width // CELL, MERGE, PATCH).permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x.unsqueeze(6).expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)  # a still image is two equal frames
    return x.reshape(n * (height // PATCH) * (width // PATCH), -1)


def read_out(visual: Any, pixels: npt.NDArray[np.uint8]) -> tuple[Any, Any]:
    """Image tokens (n, cells, hidden) and the deep-stack features of the same shape."""
    import torch

    n, height, width, _ = pixels.shape
    grid = torch.tensor([[1, height // PATCH, width // PATCH]] * n)
    out = visual(patches(pixels), grid_thw=grid)
    return out.pooler_output.reshape(n, -1, out.pooler_output.shape[-1]), out.deepstack_features[0].reshape(
        n, -1, out.pooler_output.shape[-1]
    )


def as_read(tokens: Any, deep: Any) -> Any:
    """What the text model holds at an image token after its first layer: the token and its deep-stack features.

    The heads read this sum, so that the deep-stack's weights are trained too. At random, they add noise to every token.
    """
    return tokens + deep


def encode(visual: Any, pixels: npt.NDArray[np.uint8], log: Callable[[str], None]) -> tuple[Any, Any]:
    """`see` over many images without gradients."""
    import torch

    with torch.no_grad():
        parts = [read_out(visual, pixels[start : start + 100]) for start in range(0, len(pixels), 100)]
    log(f"encoded {len(pixels)} scenes")
    return torch.cat([p for p, _ in parts]), torch.cat([d for _, d in parts])


def warm_up(
    visual: Any,
    scenes: Sequence[Scene],
    pixels: npt.NDArray[np.uint8],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    checkpoint: Path | None,
    log: Callable[[str], None],
) -> None:
    """Train the encoder with the heads; images are flipped and transposed at random (a scene has no up)."""
    import torch

    truth = targets(scenes)
    hidden = visual.config.out_hidden_size
    sizes = {
        "kind": len(KINDS) + 1,
        "colour": len(COLOURS),
        "box": 4,
        "digit": 4 * len(DIGITS) * 10,
        "extreme": 2,
        "near_kind": len(KINDS) + 1,
        "near_colour": len(COLOURS),
        "scene": len(SCENE_CLASSES),
        "count": len(KINDS) * (MOST_COUNTED + 1),
        "seen": len(KINDS) * len(COLOURS),
    }
    heads = torch.nn.ModuleDict({name: torch.nn.Linear(hidden, size) for name, size in sizes.items()})
    weights = [*visual.parameters(), *heads.parameters()]
    rest = [*heads.parameters(), *visual.patch_embed.parameters(), *visual.pos_embed.parameters()]
    train = len(scenes) - HELD_OUT

    def loss_of(step: int) -> Any:
        if step and step % REPORT_EVERY == 0:
            log(f"vision step {step} of {steps}: {measure(visual, heads, pixels, truth)}")
        rng = np.random.default_rng((seed, step))
        rows = rng.choice(train, batch, replace=False)
        x, cells = turned(pixels[rows], truth.cells, rows, rng)
        return head_loss(heads, as_read(*read_out(visual, x)), cells, truth, rows)

    steppers = optimisers(weights, learning_rate, steps, rest)
    train_resumably(torch.nn.ModuleList([visual, heads]), weights, steppers, steps, loss_of, checkpoint, log)
    log(f"vision step {steps} of {steps}: {measure(visual, heads, pixels, truth)}")


def head_loss(
    heads: Any, tokens: Any, cells: Mapping[str, Any], truth: VisionTargets, rows: npt.NDArray[np.int64]
) -> Any:
    """Weighted sum of the heads' losses on image tokens (n, cells, hidden)."""
    import torch
    import torch.nn.functional as F

    occupied = cells["kind"] > 0
    held = tokens[occupied]
    box, average = cells["box"][occupied], tokens.mean(1)
    near = cells["near_kind"][occupied]
    counts = heads["count"](average).view(-1, MOST_COUNTED + 1)
    return (
        KIND_WEIGHT * F.cross_entropy(heads["kind"](tokens).flatten(0, 1), cells["kind"].flatten())
        + COLOUR_WEIGHT * F.cross_entropy(heads["colour"](held), cells["colour"][occupied])
        + BOX_WEIGHT * (heads["box"](held) - box).abs().mean()
        + DIGIT_WEIGHT * F.cross_entropy(heads["digit"](held).view(-1, 10), digits(box).flatten())
        + EXTREME_WEIGHT * F.binary_cross_entropy_with_logits(heads["extreme"](held), cells["extreme"][occupied])
        + NEAREST_WEIGHT * F.cross_entropy(heads["near_kind"](held), near)
        + NEAREST_WEIGHT
        * F.cross_entropy(heads["near_colour"](held[near > 0]), cells["near_colour"][occupied][near > 0])
        + CLASS_WEIGHT * F.cross_entropy(heads["scene"](average), torch.as_tensor(truth.scene[rows]))
        + COUNT_WEIGHT * F.cross_entropy(counts, torch.as_tensor(truth.count[rows]).flatten())
        + SEEN_WEIGHT * F.binary_cross_entropy_with_logits(heads["seen"](average), torch.as_tensor(truth.seen[rows]))
    )


def digits(box: Any) -> Any:
    """First and second digit of each coordinate in 0..1000 of boxes (n, 4) in 0..1: (n, 4, 2).

    The text model writes a coordinate digit by digit. Digits that can be read off the image token by a linear map are
    what it needs; from the coordinate's value alone it did not learn them (docs/experiments.md).
    """
    import torch

    value = (box * 1000).round().long().clamp(0, 999)
    return torch.stack([value // unit % 10 for unit in DIGITS], -1)


def turned(
    x: npt.NDArray[np.uint8],
    cells: Mapping[str, npt.NDArray[Any]],
    rows: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.uint8], dict[str, Any]]:
    """One of the eight symmetries of the square for the whole batch: pixels, and what is in each cell (n, cells, …)."""
    import torch

    maps = {name: values[rows] for name, values in cells.items()}
    for axis in (1, 2):
        if rng.random() < 0.5:
            x, maps = np.flip(x, axis), {name: np.flip(values, axis) for name, values in maps.items()}
            low, high = (1, 3) if axis == 1 else (0, 2)
            box = maps["box"].copy()
            box[..., low], box[..., high] = 1 - maps["box"][..., high], 1 - maps["box"][..., low]
            maps["box"] = box
    if rng.random() < 0.5:
        x, maps = x.swapaxes(1, 2), {name: values.swapaxes(1, 2) for name, values in maps.items()}
        maps["box"] = maps["box"][..., [1, 0, 3, 2]]
    return x, {name: torch.as_tensor(np.ascontiguousarray(values)).flatten(1, 2) for name, values in maps.items()}


def measure(visual: Any, heads: Any, pixels: npt.NDArray[np.uint8], truth: VisionTargets) -> str:
    """Held-out figures in one line: presence and count of kinds, colour, box IoU ≥ 0.5, scene class, digits, …"""
    import torch

    rows = np.arange(len(pixels) - HELD_OUT, len(pixels))
    cells = {name: torch.as_tensor(values[rows]).flatten(1, 2) for name, values in truth.cells.items()}
    with torch.no_grad():
        tokens = torch.cat([as_read(*read_out(visual, pixels[rows[i : i + 100]])) for i in range(0, HELD_OUT, 100)])
        kind, occupied = cells["kind"], cells["kind"] > 0
        held = tokens[occupied]
        guess = heads["kind"](tokens).argmax(-1)
        counts = torch.stack([(guess == k).sum(1) for k in range(1, len(KINDS) + 1)], 1)
        needed = torch.stack([(kind == k).sum(1) for k in range(1, len(KINDS) + 1)], 1)
        a, b = heads["box"](held), cells["box"][occupied]
        overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(0).prod(1)
        union = (a[:, 2:] - a[:, :2]).clamp(0).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - overlap
        first, second = (heads["digit"](held).view(-1, 4, 2, 10).argmax(-1) == digits(b)).float().mean((0, 1))
        counted = heads["count"](tokens.mean(1)).view(HELD_OUT, len(KINDS), -1).argmax(-1)
        right = {
            "presence": (counts > 0) == (needed > 0),
            "count": counts == needed,
            "colour": heads["colour"](held).argmax(-1) == cells["colour"][occupied],
            "box": overlap / union >= 0.5,
            "first digit": first,
            "second digit": second,
            "largest or smallest": (heads["extreme"](held) > 0) == (cells["extreme"][occupied] > 0.5),
            "nearest kind": heads["near_kind"](held).argmax(-1) == cells["near_kind"][occupied],
            "nearest colour": heads["near_colour"](held).argmax(-1) == cells["near_colour"][occupied],
            "scene": heads["scene"](tokens.mean(1)).argmax(-1) == torch.as_tensor(truth.scene[rows]),
            "count from the average": counted == torch.as_tensor(truth.count[rows]),
        }
    return ", ".join(f"{name} {values.float().mean():.3f}" for name, values in right.items())
