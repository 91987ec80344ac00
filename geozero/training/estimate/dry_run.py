"""The whole plan of a stage in words, for `--dry-run`: model, data, steps, memory, hours, disk, arguments."""

from __future__ import annotations

import itertools
import json
import shlex
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.engines import checkpoint as models
from geozero.params import A2grpo, Mark, Model, Section
from geozero.training import arguments
from geozero.training.estimate import model_size
from geozero.training.estimate.cost import Estimate, estimate
from geozero.training.launcher.launch import LAUNCHER
from geozero.training.metrics import TARGET, read
from geozero.training.stage_spec import StageSpec

PIXELS = 512 * 512  # of a typical image, assumed where there is no data yet
SAMPLED_ROWS = 1_000  # samples whose sizes are averaged
SPEED = "train_speed(s/it)"


def lines(recipe: StageSpec, directory: Path) -> Iterator[str]:
    """The plan, one `name<TAB>value` a line; what is missing (model, data, GPUs) is named, and is no error here.

    Raises:
        InputError: batches, groups and devices do not fit together.
    """
    params, settings, hardware = recipe.params, recipe.settings, recipe.params.hardware
    planned = arguments.of_stage(recipe, directory)
    yield f"profile\t{params.profile}{', smoke run' if params.smoke else ''}"
    shape = model_size.read(recipe.base)
    known = f"{_number(shape.parameters)} parameters" if shape else "of unknown size"
    if not recipe.base.is_dir():
        known += f", not here yet (hf download {recipe.base})"
    tuner = f"LoRA of rank {settings.lora.rank}" if settings.tuner == "lora" else "all weights"
    frozen = ", the vision tower frozen" if settings.freeze_vit else ""
    yield f"model\t{recipe.base}, {known}; trained: {tuner}{frozen}, {params.model.dtype}"
    n, pixels, data = _data(recipe)
    yield f"data\t{data}"
    size = recipe.batch_size
    unit = "prompts" if recipe.kind == "grpo" else "samples"
    turns = "" if n is None else f", {settings.steps * size / n:.2f} times the data"
    per_step = f"{size} {unit} a step"
    if isinstance(settings, A2grpo):
        per_step += f" × {settings.group_size} completions"
    yield f"steps\t{settings.steps} of {per_step}{turns}"
    devices = arguments.devices(hardware)
    what = "GPU" if arguments.on_gpus(hardware) else "CPU process"
    yield (
        f"devices\t{hardware.nodes} × {devices} {what}; {planned['per_device_train_batch_size']} a forward pass, "
        f"{planned['gradient_accumulation_steps']} passes a step; DeepSpeed: {hardware.deepspeed or 'no'}"
    )
    if isinstance(settings, A2grpo):
        yield f"sampling\t{'vLLM, ' + settings.vllm if settings.vllm != 'off' else 'the trainer itself'}"
        last = f"best of val by {settings.val_prompts} prompts" if recipe.validates else "the last checkpoint"
        yield f"keeps\t{last}; up to {settings.resample} resamplings a step; order: {settings.order}"
    if shape is not None:
        found = estimate(shape, params, settings, planned, pixels)
        yield from _costs(recipe, found)
    if isinstance(settings, A2grpo) and settings.vllm == "server":
        words = arguments.flatten(arguments.rollout_server(params, recipe.base))
        yield f"first\t{shlex.join([sys.executable, '-m', LAUNCHER, 'rollout', *words])}"
    yield f"command\t{shlex.join(arguments.launch_command(recipe.kind, planned, hardware))}"


def _data(recipe: StageSpec) -> tuple[int | None, int, str]:
    """Samples, pixels of a typical one, and a line about both."""
    try:
        corpus = Corpus(recipe.corpus)
    except InputError as missing:
        return None, PIXELS, f"not there yet: {missing}"
    counts = [row for row in corpus.manifest["counts"] if row["split"] == "train"]
    n = sum(row["n"] for row in counts)
    by_task = {task: sum(row["n"] for row in counts if row["task"] == task) for task in {r["task"] for r in counts}}
    tasks = ", ".join(f"{task} {count}" for task, count in sorted(by_task.items()))
    sizes = [
        s.width * s.height for s in itertools.islice(corpus.samples("train"), SAMPLED_ROWS) if s.width and s.height
    ]
    pixels = int(statistics.mean(sizes)) if sizes else PIXELS
    used = f"; {min(n, recipe.limit)} of them" if recipe.limit is not None else ""
    return n, pixels, f"{recipe.corpus}, {n} training samples ({tasks}){used}; typically {pixels} pixels"


def _costs(recipe: StageSpec, found: Estimate) -> Iterator[str]:
    hardware, settings = recipe.params.hardware, recipe.settings
    parts = ", ".join(f"{name} {value:.3g}" for name, value in found.parts.items())
    place = f"of {hardware.gpu_memory:g} GB a GPU" if arguments.on_gpus(hardware) else "in the process"
    sampling = f"; vLLM while it samples {found.sampling:.3g}" if found.sampling else ""
    verdict = "; TOO LITTLE MEMORY" if arguments.on_gpus(hardware) and found.peak > hardware.gpu_memory else ""
    yield f"memory\t{found.peak:.3g} GB {place} (estimate: {parts}{sampling}){verdict}"
    measured = measured_seconds(recipe)
    seconds = measured or found.step_seconds
    if seconds is None:
        yield "hours\tunknown on a CPU before a run of this shape; a smoke run measures it"
    else:
        hours = seconds * settings.steps / 3600
        gpus = arguments.world(hardware)
        how = "measured by an earlier run" if measured else (
            f"assumed: {hardware.train_tflops:g} TFLOP/s and {hardware.sample_tokens:g} sampled tokens/s a GPU"
        )  # fmt: skip
        yield f"hours\t{hours:.3g} ({hours * gpus:.3g} GPU hours), {seconds:.3g} s a step ({how})"
    yield f"disk\t{found.disk:.3g} GB at most, {arguments.SAVE_TOTAL_LIMIT} checkpoints kept"


def measured_seconds(recipe: StageSpec) -> float | None:
    """Seconds a step of the newest run of the same shape (a smoke run's, say) under the same directory."""
    for record in sorted(recipe.out_root.glob(f"{recipe.name}-*/stage.json"), key=_age, reverse=True):
        try:
            made = json.loads(record.read_text())
            if made["hardware"] != recipe.params.hardware.model_dump():
                continue
            model = Model.model_validate({"path": "", **made["model"]})
            settings = type(recipe.settings).model_validate(made["settings"])
            if (_shape(model), _shape(settings)) != (_shape(recipe.params.model), _shape(recipe.settings)):
                continue
        except (OSError, ValueError, KeyError, TypeError):
            continue
        speeds = [row[SPEED] for row in read(record.with_name(TARGET)) if SPEED in row]
        if speeds:
            return float(speeds[-1])
    return None


def _shape(section: Section) -> dict[str, Any]:
    """The parameters that a step's time depends on."""
    return section.model_dump(exclude=section.marked(Mark.NOT_SPEED) | section.marked(Mark.NOT_TRAINING))


def _number(n: int) -> str:
    return f"{n / 1e9:.2f} billion" if n >= 1e8 else f"{n / 1e6:.2f} million"


def _age(path: Path) -> float:
    return path.stat().st_mtime


def resolve_base(model: Path) -> Path:
    """The base model's directory, or a published model's name: a plan needs no weights.

    Raises:
        InputError: it is neither.
    """
    return model if str(model) in model_size.PUBLISHED else models.resolve(model)
