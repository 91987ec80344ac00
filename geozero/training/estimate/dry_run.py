"""The whole plan of a stage in words, for `--dry-run`: model, data, steps, memory, hours, disk, arguments."""

from __future__ import annotations

import itertools
import json
import shlex
import statistics
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.engines import checkpoint as models
from geozero.params import A2grpo, Hardware, Mark, Model, Section
from geozero.training import arguments
from geozero.training.estimate import model_size
from geozero.training.estimate.cost import Estimate, Measured, estimate, host_memory
from geozero.training.launcher.launch import LAUNCHER
from geozero.training.metrics import TARGET, read
from geozero.training.stage_spec import STAGE, StageSpec

PIXELS = 512 * 512  # of a typical image, assumed where there is no data yet
SAMPLED_ROWS = 1_000  # samples whose sizes are averaged
SPEED, COMPLETION, RESAMPLED = "train_speed(s/it)", "completions/mean_length", "resampled_share"


def lines(spec: StageSpec, directory: Path) -> Iterator[str]:
    """The plan, one `name<TAB>value` per line; what is missing (model, data, GPUs) is named, and is no error here.

    Raises:
        InputError: batches, groups and devices do not fit together.
    """
    params, settings, hardware = spec.params, spec.settings, spec.params.hardware
    planned, on_gpus = arguments.of_stage(spec, directory), arguments.on_gpus(hardware)
    rl = settings if isinstance(settings, A2grpo) else None
    yield f"profile\t{params.profile}{', smoke run' if params.smoke else ''}"
    shape = model_size.read(spec.base)
    size = f"{_number(shape.parameters)} parameters" if shape else "of unknown size"
    missing = "" if spec.base.is_dir() else f", not here yet (hf download {spec.base})"
    tuner = f"LoRA of rank {settings.lora.rank}" if settings.tuner == "lora" else "all weights"
    frozen = ", the vision tower and its aligner frozen" if settings.freeze_vit else ""
    if frozen and settings.tuner != "lora":
        tuner = "the language model's weights"
    yield f"model\t{spec.base}, {size}{missing}; trained: {tuner}{frozen}, {params.model.dtype}"
    n, pixels, data = _data(spec)
    yield f"data\t{data}"
    per_step = (
        f"{spec.batch_size} prompts per step × {rl.group_size} completions"
        if rl
        else f"{spec.batch_size} samples per step"
    )
    epochs = "" if n is None else f", {settings.steps * spec.batch_size / n:.2f} times the data"
    yield f"steps\t{settings.steps} of {per_step}{epochs}"
    yield (
        f"devices\t{hardware.nodes} × {arguments.devices(hardware)} {'GPU' if on_gpus else 'CPU process'}; "
        f"{planned['per_device_train_batch_size']} per forward pass, {planned['gradient_accumulation_steps']} passes "
        f"per step; DeepSpeed: {hardware.deepspeed or 'no'}"
    )
    if rl:
        yield f"sampling\t{'the trainer itself' if rl.vllm == 'off' else f'vLLM, {rl.vllm}'}"
        kept = f"best of val by {rl.val_prompts} prompts" if spec.validates else "the last checkpoint"
        yield f"keeps\t{kept}; up to {rl.resample} resamplings per step; order: {rl.order}"
    if shape is not None:
        yield from _costs(spec, estimate(shape, params, settings, planned, pixels, measured(spec)))
    if rl and rl.vllm == "server":
        words = arguments.flatten(arguments.rollout_server(params, spec.base))
        yield f"first\t{shlex.join([sys.executable, '-m', LAUNCHER, 'rollout', *words])}"
    yield f"command\t{shlex.join(arguments.launch_command(spec.kind, planned, hardware))}"


def _data(spec: StageSpec) -> tuple[int | None, int, str]:
    """Samples, pixels of a typical one, and a line about both."""
    try:
        corpus = Corpus(spec.corpus)
    except InputError as missing:
        return None, PIXELS, f"not there yet: {missing}"
    by_task: Counter[str] = Counter()
    for row in corpus.manifest["counts"]:
        by_task[row["task"]] += row["n"] if row["split"] == "train" else 0
    n = by_task.total()
    tasks = ", ".join(f"{task} {count}" for task, count in sorted(by_task.items()) if count)
    samples = itertools.islice(corpus.samples("train"), SAMPLED_ROWS)
    sizes = [s.width * s.height for s in samples if s.width and s.height]
    pixels = int(statistics.mean(sizes)) if sizes else PIXELS
    used = f"; {min(n, spec.limit)} of them" if spec.limit is not None else ""
    return n, pixels, f"{spec.corpus}, {n} training samples ({tasks}){used}; typically {pixels} pixels"


def _costs(spec: StageSpec, found: Estimate) -> Iterator[str]:
    hardware, on_gpus = spec.params.hardware, arguments.on_gpus(spec.params.hardware)
    place = f"of {hardware.gpu_memory:g} GB per GPU" if on_gpus else "in the process"
    shared = ""
    if found.colocation is not None:
        kept = "; the trainer's states go to the host" if found.colocation.offload else ""
        shared = f"; while vLLM samples {found.sampling:.3g}{kept}; it sleeps at level {found.colocation.sleep_level}"
    verdict = "; TOO LITTLE MEMORY" if on_gpus and found.peak > hardware.gpu_memory else ""
    yield f"memory\t{found.peak:.3g} GB {place} (estimate: {_parts(found.parts)}{shared}){verdict}"
    if found.host:
        total, there = sum(found.host.values()), host_memory(hardware)
        is_here = process.has_gpu() or hardware.host_memory is not None  # else the plan is for another machine
        place, verdict = (
            f" of {there:.3g}" if is_here else "",
            "; TOO LITTLE MEMORY" if is_here and total > there else "",
        )
        yield f"host memory\t{total:.3g}{place} GB per node (estimate: {_parts(found.host)}){verdict}"
    seconds = measured_seconds(spec)
    if seconds is None and found.step is None:
        yield "hours\tunknown on a CPU before a run of this shape; a smoke run measures it"
    else:
        how, steps = "measured by an earlier run", spec.settings.steps
        if seconds is None:
            assert found.step is not None
            one, seconds = found.step, found.step.total
            times = {"sampling": one.sampling, "passes without gradients": one.forwards, "update": one.update}
            how = f"estimate: {_parts(times | {'host': one.host})}; MFU {one.mfu:.0%}"
        total = seconds * steps + found.validation * arguments.NUM_SAVES
        checked = f", {found.validation:.3g} s per validation" if found.validation else ""
        hours, n = total / 3600, arguments.world(hardware)
        yield f"hours\t{hours:.3g} ({hours * n:.3g} GPU hours), {seconds:.3g} s per step ({how}){checked}"
    yield f"disk\t{found.disk:.3g} GB at most, {arguments.SAVE_TOTAL_LIMIT} checkpoints kept"


def _parts(parts: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in parts.items() if value)


def measured_seconds(spec: StageSpec) -> float | None:
    """Seconds per step of the newest run of the same shape (a smoke run's, say) under the same directory."""
    values = _logged(spec, SPEED)
    return values[-1] if values else None


def measured(spec: StageSpec) -> Measured:
    """What the newest run of the same shape logged that decides a step's time, on average."""
    completion, resampled = _logged(spec, COMPLETION), _logged(spec, RESAMPLED)
    return Measured(
        completion=statistics.mean(completion) if completion else None,
        resampled=statistics.mean(resampled) if resampled else None,
    )


def _logged(spec: StageSpec, metric: str) -> list[float]:
    """A metric's values in the newest run of the same shape that logged it; none without such a run."""
    records = spec.out_root.glob(f"{spec.name}-*/{STAGE}")
    here = (_shape(spec.params.model), _shape(spec.settings), _shape(spec.params.hardware))
    for path in sorted(records, key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            record = json.loads(path.read_text())
            model = Model.model_validate({"path": "", **record["model"]})
            settings = type(spec.settings).model_validate(record["settings"])
            there = (_shape(model), _shape(settings), _shape(Hardware.model_validate(record["hardware"])))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        values = [row[metric] for row in read(path.with_name(TARGET)) if metric in row] if there == here else []
        if values:
            return values
    return []


def _shape(section: Section) -> dict[str, Any]:
    """The parameters that a step's time depends on."""
    return section.model_dump(exclude=section.marked(Mark.NOT_SPEED) | section.marked(Mark.NOT_TRAINING))


def _number(n: int) -> str:
    return f"{n / 1e9:.2f} billion" if n >= 1e8 else f"{n / 1e6:.2f} million"


def resolve_base(model: Path) -> Path:
    """The base model's directory, or a published model's name: a plan needs no weights.

    Raises:
        InputError: it is neither.
    """
    try:
        return models.resolve(model)
    except InputError:
        if str(model) not in model_size.PUBLISHED:
            raise
        return model
