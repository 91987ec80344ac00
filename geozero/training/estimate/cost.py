"""What a training would take: memory of a GPU and of the host, hours, disk. Formulas are in docs/training.md.

Bytes are counted per parameter and per token; 1 GB is 10⁹ bytes. The numbers are for choosing a machine; a smoke run on
it (`smoke: true`) replaces the estimated speed by a measured one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from geozero.common import process
from geozero.common.errors import InputError
from geozero.params import A2grpo, Hardware, OptimizationConfig, Params, SupervisedConfig
from geozero.training import arguments
from geozero.training.estimate import memory
from geozero.training.estimate.memory import BYTES, DIRECT_ANSWER, GB, PROMPT_TEXT, Colocation
from geozero.training.estimate.model_size import ModelSize
from geozero.training.estimate.step_time import PCIE, Batch, Gpus, StepTime, sampling_time, step_time

CHECKPOINTS = arguments.SAVE_TOTAL_LIMIT + 1  # on disk at a time: those kept, and the one being written
TOKENS_PER_WORD = 1.5
ANSWER_TOKENS = 16  # tags and answer behind a thought, assumed
ZERO_STD = 0.4  # share of groups without a spread, assumed where nothing was measured
PROCESS = 5.0 * GB  # host memory of a training process on a GPU, assumed: libraries, CUDA, buffers
MIN_PIXELS = 65_536  # of Qwen3-VL's published processor, which holds unless `model.min_pixels` is set
LOADER = 1.0 * GB  # … and of each of its loader workers


@dataclass(frozen=True)
class Measured:
    """What an earlier run of the same shape logged; None where there is none.

    Attributes:
        completion: mean length of its completions, in tokens.
        resampled: completions sampled in place of others, for each completion that is trained on.
    """

    completion: float | None = None
    resampled: float | None = None


@dataclass(frozen=True)
class Estimate:
    """GB of one GPU by part, GB of a node's host memory by part, a step's seconds by part, GB of disk.

    Attributes:
        parts: what each thing takes on a GPU while it trains, in GB, at the training's peak.
        sampling: what a GPU holds while vLLM samples, in GB; 0 without a colocated one.
        host: what each thing takes of a node's memory, in GB.
        step: None on a CPU.
        validation: seconds of each checkpoint's validation.
        disk: GB at the most crowded moment.
        colocation: how vLLM and the trainer share a GPU.
    """

    parts: dict[str, float]
    sampling: float
    host: dict[str, float]
    step: StepTime | None
    validation: float
    disk: float
    colocation: Colocation | None

    @property
    def peak(self) -> float:
        return max(sum(self.parts.values()), self.sampling)


def estimate(
    shape: ModelSize,
    params: Params,
    settings: OptimizationConfig,
    planned: Mapping[str, Any],
    pixels: int,
    measured: Measured | None = None,
) -> Estimate:
    """Estimate a stage from its model's size and the trainer's arguments.

    Args:
        planned: `arguments.of_stage`.
        pixels: of a typical image, for the hours; memory goes by `model.max_pixels`.
        measured: what an earlier run of the same shape logged.
    """
    hardware, size, n = params.hardware, BYTES[params.model.dtype], arguments.world(params.hardware)
    micro, checkpointing = int(planned["per_device_train_batch_size"]), bool(planned["gradient_checkpointing"])
    states = memory.states(shape, params, settings, n)
    parts = states | memory.working(shape, params, settings, micro, checkpointing)
    found = memory.colocation(states, parts, settings, hardware) if arguments.on_gpus(hardware) else None
    if isinstance(settings, A2grpo) and found is not None and found.sleep_level == 0:
        parts["vLLM"] = settings.vllm_memory * hardware.gpu_memory * GB
    if not arguments.on_gpus(hardware):
        parts["overhead"] = 0.0
    host = _host(shape, params, settings, states, found, int(planned["dataloader_num_workers"]))
    lora, whole = settings.tuner == "lora", shape.parameters * size
    trained = memory.trained(shape, settings)
    saved = trained * (memory.MASTER * 3 if lora or memory.zero(hardware) else memory.ADAM_MOMENTS * size)
    disk = CHECKPOINTS * saved + whole * (2 if lora else CHECKPOINTS + 1)
    step, validation = None, 0.0
    if arguments.on_gpus(hardware):
        moved = (sum(states.values()) if found and found.offload else 0.0) + (
            whole / found.per_engine if found and found.sleep_level == 1 else 0.0
        )
        batch, gpus = _batch(shape, params, settings, planned, pixels, measured or Measured()), _gpus(params, settings)
        step = step_time(shape, batch, gpus, moved)
        if isinstance(settings, A2grpo) and settings.keep == "best":
            asked = replace(batch, sequences=settings.val_prompts, group=1)
            validation = sampling_time(shape, asked, gpus) + 2 * moved / PCIE
    return Estimate(
        parts={name: value / GB for name, value in parts.items()},
        sampling=found.sampling / GB if found else 0.0,
        host={name: value / GB for name, value in host.items()} if arguments.on_gpus(hardware) else {},
        step=step,
        validation=validation,
        disk=disk / GB,
        colocation=found,
    )


def check_host_memory(
    shape: ModelSize, params: Params, settings: OptimizationConfig, planned: Mapping[str, Any]
) -> None:
    """Refuse to start a training on GPUs whose host memory would not suffice: the kernel would kill it without a word.

    Raises:
        InputError: the estimate exceeds what the machine or its container has, or `hardware.host_memory`.
    """
    parts = estimate(shape, params, settings, planned, 0).host
    needed, there = sum(parts.values()), host_memory(params.hardware)
    if needed > there:
        listed = ", ".join(f"{name} {value:.3g}" for name, value in parts.items())
        raise InputError(
            f"about {needed:.3g} GB of host memory are needed on each node ({listed}) and there are {there:.3g}",
            "hardware",
            "lower hardware.gpus or hardware.loader_workers, set a2grpo.offload: false or a2grpo.sleep_level: 2; where "
            "the estimate is wrong, raise hardware.host_memory",
        )


def host_memory(hardware: Hardware) -> float:
    """GB of a node's memory: as stated, else this machine's, or what its container is allowed."""
    return hardware.host_memory or process.memory_limit() / GB


def _host(
    shape: ModelSize,
    params: Params,
    settings: OptimizationConfig,
    states: Mapping[str, float],
    found: Colocation | None,
    workers: int,
) -> dict[str, float]:
    """Bytes of a node's memory by part; loading reads weights through the page cache, which gives way."""
    per_node, size = arguments.devices(params.hardware), BYTES[params.model.dtype]
    parts = {"processes": PROCESS, "loader workers": workers * LOADER}
    if (params.hardware.deepspeed or "").endswith("offload"):
        n = arguments.world(params.hardware)
        parts["optimiser"] = memory.trained(shape, settings) * 3 * memory.MASTER / n
    if found is not None:
        if found.offload:
            parts["offloaded while vLLM samples"] = sum(states.values())
        if found.sleep_level == 1:
            parts["vLLM's weights while it sleeps"] = shape.parameters * size / found.per_engine
        if settings.tuner == "lora" and memory.zero(params.hardware) < 3:
            parts["frozen weights kept for the merge"] = shape.adapted * size
    return {name: value * per_node for name, value in parts.items()}


def _gpus(params: Params, settings: OptimizationConfig) -> Gpus:
    hardware = params.hardware
    reached = hardware.train_tflops
    return Gpus(
        n=arguments.world(hardware),
        tflops=hardware.gpu_tflops,
        bandwidth=hardware.gpu_bandwidth,
        sharded=memory.zero(hardware) == 3,
        mfu=None if reached is None else reached / hardware.gpu_tflops,
        per_engine=settings.vllm_tensor_parallel if isinstance(settings, A2grpo) else 1,
        sample_tokens=hardware.sample_tokens,
    )


def _batch(
    shape: ModelSize,
    params: Params,
    settings: OptimizationConfig,
    planned: Mapping[str, Any],
    pixels: int,
    measured: Measured,
) -> Batch:
    """What a step works on, by the parameters and what was measured."""
    model = params.model
    least = model.min_pixels or min(MIN_PIXELS, model.max_pixels // 4)
    prompt = shape.image_tokens(min(max(pixels, least), model.max_pixels)) + PROMPT_TEXT
    lora, checkpointing = settings.tuner == "lora", bool(planned["gradient_checkpointing"])
    update, micro = (2.0 if lora else 3.0) + checkpointing, int(planned["per_device_train_batch_size"])
    if not isinstance(settings, A2grpo):
        assert isinstance(settings, SupervisedConfig)
        n = settings.batch_size
        return Batch(n, prompt, DIRECT_ANSWER, DIRECT_ANSWER, micro, update=update)  # loader workers prepare images
    cap = settings.max_completion_tokens
    assumed = min(cap, TOKENS_PER_WORD * settings.thought_words + ANSWER_TOKENS)
    draws = tuple(ZERO_STD**draw for draw in range(1, settings.resample + 1))
    return Batch(
        sequences=settings.prompts_per_step * settings.group_size,
        prompt=prompt,
        completion=measured.completion or assumed,
        cap=cap,
        micro=micro,
        images=2 * settings.prompts_per_step,  # once in the trainer, once in what samples
        group=settings.group_size,
        update=update,
        forwards=(settings.beta > 0) * (2.0 if lora else 1.0),  # LoRA's sampling policy is asked once more
        rounds=(1.0, *(draws if measured.resampled is None else (measured.resampled,))),
    )
