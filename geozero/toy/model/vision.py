"""The vision stage of pre-training: heads over the image tokens teach the encoder what is where.

Each merged image token covers a cell of 16×16 pixels. Linear heads read it: which kind of object has its centre there,
its colour, its box, and, averaged over the cells, the scene class. In a second phase the average must also show how
many objects of each kind there are and in which colours: the encoder counts, so that the small text model only has to
read. The heads are thrown away. [ours]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero.toy.model.build import MERGE, PATCH
from geozero.toy.world.scene import COLOURS, KINDS, SCENE_CLASSES, Scene

CELL = PATCH * MERGE
KIND_WEIGHT, COLOUR_WEIGHT, BOX_WEIGHT, CLASS_WEIGHT = 3.0, 1.0, 10.0, 0.5
COUNT_WEIGHT, SEEN_WEIGHT = 1.0, 4.0  # second phase: counts by kind; which colours of which kind are seen
MOST_COUNTED = 5  # larger counts share a class
WEIGHT_DECAY = 0.02
REPORT_EVERY = 200
HELD_OUT = 500  # last scenes, only for measuring


@dataclass(frozen=True)
class VisionTargets:
    """The contents of each cell: kind (n, g, g), 0 = nothing; colour (n, g, g); box (n, g, g, 4) as shares of the side;
    scene class (n); of the whole image: count by kind (n, kinds), colours seen of each kind (n, kinds · colours)."""

    kind: npt.NDArray[np.int64]
    colour: npt.NDArray[np.int64]
    box: npt.NDArray[np.float32]
    scene: npt.NDArray[np.int64]
    count: npt.NDArray[np.int64]
    seen: npt.NDArray[np.float32]


def targets(scenes: Sequence[Scene]) -> VisionTargets:
    """The cells' contents; where two centres share a cell, the larger object counts."""
    side = scenes[0].size // CELL
    kind = np.zeros((len(scenes), side, side), np.int64)
    colour = np.zeros_like(kind)
    box = np.zeros((len(scenes), side, side, 4), np.float32)
    count = np.asarray([[min(MOST_COUNTED, scene.count(kind)) for kind in KINDS] for scene in scenes])
    seen = np.zeros((len(scenes), len(KINDS) * len(COLOURS)), np.float32)
    for i, scene in enumerate(scenes):
        for item in sorted(scene.objects, key=lambda o: (o.box[2] - o.box[0]) * (o.box[3] - o.box[1])):
            column = min(side - 1, int((item.box[0] + item.box[2]) / 2 // CELL))
            row = min(side - 1, int((item.box[1] + item.box[3]) / 2 // CELL))
            kind[i, row, column] = KINDS.index(item.kind) + 1
            colour[i, row, column] = COLOURS.index(item.colour)
            box[i, row, column] = np.asarray(item.box) / scene.size
            seen[i, KINDS.index(item.kind) * len(COLOURS) + COLOURS.index(item.colour)] = 1
    classes = list(SCENE_CLASSES)
    return VisionTargets(kind, colour, box, np.asarray([classes.index(s.scene_class) for s in scenes]), count, seen)


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


def encode(visual: Any, pixels: npt.NDArray[np.uint8], log: Callable[[str], None]) -> tuple[Any, Any]:
    """`see` over many images without gradients."""
    import torch

    with torch.no_grad():
        parts = [read_out(visual, pixels[start : start + 100]) for start in range(0, len(pixels), 100)]
    log(f"encoded {len(pixels)} scenes")
    return torch.cat([p for p, _ in parts]), torch.cat([d for _, d in parts])


def optimisers(weights: Sequence[Any], learning_rate: float, steps: int, rest: Sequence[Any] = ()) -> list[Any]:
    """(optimiser, schedule) pairs: Muon for matrices, AdamW for vectors and for what `rest` names; one-cycle rates.

    Muon needs about half the steps here (docs/experiments.md).
    """
    import torch

    outside = {id(w) for w in rest}
    matrices = [w for w in weights if w.ndim == 2 and id(w) not in outside]
    inside = {id(w) for w in matrices}
    others = [w for w in weights if id(w) not in inside]
    made = [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=WEIGHT_DECAY, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=learning_rate, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98)),
    ]
    cycle = torch.optim.lr_scheduler.OneCycleLR
    return [(o, cycle(o, learning_rate, total_steps=steps, pct_start=0.1, cycle_momentum=False)) for o in made]


def take_step(weights: Sequence[Any], steppers: Iterable[tuple[Any, Any]]) -> None:
    """Apply the gradients, clipped to norm 1, with each optimiser and its schedule."""
    import torch

    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    for optimiser, schedule in steppers:
        optimiser.step()
        schedule.step()
        optimiser.zero_grad()


def warm_up(
    visual: Any,
    scenes: Sequence[Scene],
    pixels: npt.NDArray[np.uint8],
    *,
    steps: int,
    batch: int,
    learning_rate: float,
    seed: int,
    whole: bool,
    log: Callable[[str], None],
) -> None:
    """Train the encoder with the heads; images are flipped and transposed at random (a scene has no up).

    Args:
        whole: the second phase, with the heads that count over the whole image.
    """
    import torch
    import torch.nn.functional as F

    truth = targets(scenes)
    hidden = visual.config.out_hidden_size
    heads = torch.nn.ModuleDict(
        {
            "kind": torch.nn.Linear(hidden, len(KINDS) + 1),
            "colour": torch.nn.Linear(hidden, len(COLOURS)),
            "box": torch.nn.Linear(hidden, 4),
            "scene": torch.nn.Linear(hidden, len(SCENE_CLASSES)),
            "count": torch.nn.Linear(hidden, len(KINDS) * (MOST_COUNTED + 1)),
            "seen": torch.nn.Linear(hidden, len(KINDS) * len(COLOURS)),
        }
    )
    weights = [*visual.parameters(), *heads.parameters()]
    rest = [*heads.parameters(), *visual.patch_embed.parameters(), *visual.pos_embed.parameters()]
    steppers = optimisers(weights, learning_rate, steps, rest)
    rng = np.random.default_rng(seed)
    train = len(scenes) - HELD_OUT
    for step in range(steps):
        rows = rng.choice(train, batch, replace=False)
        x, kind, colour, box = turned(pixels[rows], truth, rows, rng)
        tokens, _ = read_out(visual, x)
        occupied = kind > 0
        loss = (
            KIND_WEIGHT * F.cross_entropy(heads["kind"](tokens).flatten(0, 1), kind.flatten())
            + COLOUR_WEIGHT * F.cross_entropy(heads["colour"](tokens)[occupied], colour[occupied])
            + BOX_WEIGHT * (heads["box"](tokens)[occupied] - box[occupied]).abs().mean()
            + CLASS_WEIGHT * F.cross_entropy(heads["scene"](tokens.mean(1)), torch.as_tensor(truth.scene[rows]))
        )
        if whole:
            counts = heads["count"](tokens.mean(1)).view(-1, MOST_COUNTED + 1)
            seen = heads["seen"](tokens.mean(1))
            loss = loss + COUNT_WEIGHT * F.cross_entropy(counts, torch.as_tensor(truth.count[rows]).flatten())
            loss = loss + SEEN_WEIGHT * F.binary_cross_entropy_with_logits(seen, torch.as_tensor(truth.seen[rows]))
        loss.backward()
        take_step(weights, steppers)
        if (step + 1) % REPORT_EVERY == 0:
            log(f"vision step {step + 1} of {steps}: loss {loss.item():.3f}, {measure(visual, heads, pixels, truth)}")


def turned(
    x: npt.NDArray[np.uint8], truth: VisionTargets, rows: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], Any, Any, Any]:
    """One of the eight symmetries of the square for the whole batch: pixels, kind, colour and box of each cell."""
    import torch

    kind, colour, box = truth.kind[rows], truth.colour[rows], truth.box[rows]
    if rng.random() < 0.5:
        x, kind, colour, box = x[:, :, ::-1], kind[:, :, ::-1], colour[:, :, ::-1], box[:, :, ::-1]
        box = np.stack([1 - box[..., 2], box[..., 1], 1 - box[..., 0], box[..., 3]], -1)
    if rng.random() < 0.5:
        x, kind, colour, box = x[:, ::-1], kind[:, ::-1], colour[:, ::-1], box[:, ::-1]
        box = np.stack([box[..., 0], 1 - box[..., 3], box[..., 2], 1 - box[..., 1]], -1)
    if rng.random() < 0.5:
        x, kind, colour = x.transpose(0, 2, 1, 3), kind.transpose(0, 2, 1), colour.transpose(0, 2, 1)
        box = box.transpose(0, 2, 1, 3)[..., [1, 0, 3, 2]]
    flat = (torch.as_tensor(np.ascontiguousarray(a)).flatten(1, 2) for a in (kind, colour, box))
    return x, *flat


def measure(visual: Any, heads: Any, pixels: npt.NDArray[np.uint8], truth: VisionTargets) -> str:
    """Held-out figures in one line: presence and count of kinds, colour, box IoU ≥ 0.5, scene class."""
    import torch

    rows = np.arange(len(pixels) - HELD_OUT, len(pixels))
    with torch.no_grad():
        tokens = torch.cat([read_out(visual, pixels[rows[i : i + 100]])[0] for i in range(0, HELD_OUT, 100)])
        kind = torch.as_tensor(truth.kind[rows]).flatten(1)
        occupied = kind > 0
        guess = heads["kind"](tokens).argmax(-1)
        counts = torch.stack([(guess == k).sum(1) for k in range(1, len(KINDS) + 1)], 1)
        needed = torch.stack([(kind == k).sum(1) for k in range(1, len(KINDS) + 1)], 1)
        presence = ((counts > 0) == (needed > 0)).float().mean()
        count = (counts == needed).float().mean()
        colour = (heads["colour"](tokens).argmax(-1) == torch.as_tensor(truth.colour[rows]).flatten(1))[occupied]
        a, b = heads["box"](tokens)[occupied], torch.as_tensor(truth.box[rows]).flatten(1, 2)[occupied]
        overlap = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(0).prod(1)
        union = (a[:, 2:] - a[:, :2]).clamp(0).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - overlap
        scene = (heads["scene"](tokens.mean(1)).argmax(-1) == torch.as_tensor(truth.scene[rows])).float().mean()
        counted = heads["count"](tokens.mean(1)).view(HELD_OUT, len(KINDS), -1).argmax(-1)
        pooled = (counted == torch.as_tensor(truth.count[rows])).float().mean()
    return (
        f"presence {presence:.3f}, count {count:.3f}, colour {colour.float().mean():.3f}, "
        f"box {(overlap / union >= 0.5).float().mean():.3f}, scene {scene:.3f}, "
        f"count from the average {pooled:.3f}"
    )
