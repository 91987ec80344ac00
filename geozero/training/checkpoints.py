"""Checkpoints of a run: which are whole, which it resumes from, and the plain model at its end."""

from __future__ import annotations

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.atomic import replacing
from geozero.common.errors import InputError
from geozero.engines.checkpoint import is_whole, weight_files
from geozero.params import Model
from geozero.training import arguments
from geozero.training.launcher.launch import LAUNCHER

PREFIX = "checkpoint-"
STATE = "trainer_state.json"  # the trainer writes it last
ADAPTER = "adapter_config.json"  # in a LoRA checkpoint
NOT_THE_MODELS = ("*.bin", "*.pt", "*.pth", "*.safetensors", "*.safetensors.index.json", "args.json", STATE)


@dataclass(frozen=True, order=True)
class Checkpoint:
    """A whole checkpoint of a run, after `step` optimiser steps."""

    step: int
    path: Path


def fault(path: Path) -> str | None:
    """Why training cannot resume from this checkpoint (a kill while it was written), or None if it is whole."""
    try:
        step = json.loads((path / STATE).read_text())["global_step"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"no readable {STATE}"
    if step != step_of(path):
        return f"{STATE} belongs to step {step}"
    weights = [*weight_files(path), *path.glob("adapter_model.bin")]
    if not weights:
        return "no weights"
    if cut := [file.name for file in weights if not is_whole(file)]:
        return f"{cut[0]} is cut off"
    for index in path.glob("*.safetensors.index.json"):
        try:
            names = set(json.loads(index.read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{index.name} is unreadable"
        if any(not (path / name).is_file() for name in names):
            return "a weight file is missing"
    latest = path / "latest"
    if latest.is_file():  # DeepSpeed keeps its state in a directory of its own
        states = sorted((path / latest.read_text().strip()).glob("*optim_states.pt"))
    else:
        states = [path / "optimizer.pt", path / "scheduler.pt"]
    if not states or not all(file.is_file() and zipfile.is_zipfile(file) for file in states):
        return "the optimiser's state is missing or cut off"
    return None


def step_of(path: Path) -> int:
    """The step in a checkpoint's name; −1 for another name."""
    number = path.name.removeprefix(PREFIX)
    return int(number) if path.name.startswith(PREFIX) and number.isdecimal() else -1


def newest(run: Path, log: Callable[[str], object] | None = None) -> Checkpoint | None:
    """The newest whole checkpoint of a run; incomplete ones are removed, since nothing can use them.

    Args:
        log: called with a line about each one removed.
    """
    found = sorted((step_of(path), path) for path in run.glob(f"{PREFIX}*") if path.is_dir() and step_of(path) >= 0)
    whole = None
    for step, path in found:
        reason = fault(path)
        if reason is None:
            whole = Checkpoint(step, path)
            continue
        if log is not None:
            log(f"{path.name} is incomplete ({reason}); removing it")
        shutil.rmtree(path)
    return whole


def history(path: Path) -> list[dict[str, Any]]:
    """What the trainer logged on the way to a whole checkpoint, one row per step or validation."""
    rows: list[dict[str, Any]] = json.loads((path / STATE).read_text()).get("log_history", [])
    return rows


def best(run: Path, metric: str) -> Checkpoint | None:
    """The whole checkpoint with the highest validation `metric`, the later of two equals; None without any.

    The trainer keeps every validation's result in the state of each later checkpoint.
    """
    last = newest(run)
    if last is None:
        return None
    scores = {row["step"]: row[f"eval_{metric}"] for row in history(last.path) if f"eval_{metric}" in row}
    kept = [(score, step) for step, score in scores.items() if (run / f"{PREFIX}{step}").is_dir()]
    step = max(kept)[1] if kept else None
    return None if step is None else Checkpoint(step, run / f"{PREFIX}{step}")


def assemble(weights: Path, base: Path, out: Path) -> None:
    """Write the plain model: the trained weights, and everything else as the base has it.

    A trainer's own copy of the configuration differs in what it needed itself (no cache, its generation settings);
    training changes weights only. Written under a temporary name; weights are hard links where they can be.

    Raises:
        InputError: there are no weights.
    """
    files = weight_files(weights)
    if not files:
        raise InputError("no trained weights to make a model of", str(weights))
    with replacing(out) as temporary:
        temporary.mkdir()
        for file in sorted(base.iterdir()):
            if file.is_file() and not any(file.match(pattern) for pattern in NOT_THE_MODELS):
                shutil.copy(file, temporary)  # follows links: a hub's cache holds links only
        for file in [*files, *weights.glob("*.safetensors.index.json")]:
            _link_or_copy(file, temporary / file.name)


def assemble_model(checkpoint: Path, base: Path, model: Model, out: Path, **options: Any) -> None:
    """`assemble` for a checkpoint; ms-swift first merges a LoRA adapter into its base.

    Args:
        options: of `process.run`.
    """
    if not (checkpoint / ADAPTER).is_file():
        assemble(checkpoint, base, out)
        return
    merged = out.with_name(f"{out.name}-merged")
    shutil.rmtree(merged, ignore_errors=True)
    try:
        words = arguments.flatten(arguments.export(base, checkpoint, model, merged))
        process.run([sys.executable, "-m", LAUNCHER, "export", *words], **options)
        assemble(merged, base, out)
    finally:
        shutil.rmtree(merged, ignore_errors=True)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)
