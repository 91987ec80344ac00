"""Optimisers of pre-training, and a training loop that a kill costs at most some minutes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

WEIGHT_DECAY = 0.02
SAVE_EVERY = 200  # steps between two checkpoints inside a stage: one to three minutes


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


def train_resumably(
    module: Any,
    weights: Sequence[Any],
    steppers: Sequence[tuple[Any, Any]],
    steps: int,
    loss_of: Callable[[int], Any],
    checkpoint: Path | None,
    log: Callable[[str], None],
) -> None:
    """`steps` steps on `loss_of(step)`, which must depend on the step and the weights alone.

    Args:
        module: what holds the weights; its state is saved every SAVE_EVERY steps with that of the optimisers, so that
            a killed stage continues to the very weights it would have reached.
        checkpoint: the file for that, removed at the end; None saves nothing.
    """
    import torch

    start = 0
    if checkpoint and checkpoint.is_file():
        kept = torch.load(checkpoint, weights_only=True)
        module.load_state_dict(kept["module"])
        for pair, states in zip(steppers, kept["steppers"], strict=True):
            for part, state in zip(pair, states, strict=True):
                part.load_state_dict(state)
        start = kept["step"]
        log(f"resuming at step {start} of {steps}")
    for step in range(start, steps):
        loss_of(step).backward()
        take_step(weights, steppers)
        if checkpoint and (step + 1) % SAVE_EVERY == 0 and step + 1 < steps:
            states = [[part.state_dict() for part in pair] for pair in steppers]
            part_file = checkpoint.with_suffix(".part")
            part_file.parent.mkdir(parents=True, exist_ok=True)
            torch.save({"step": step + 1, "module": module.state_dict(), "steppers": states}, part_file)
            os.replace(part_file, checkpoint)
    if checkpoint:
        checkpoint.unlink(missing_ok=True)
