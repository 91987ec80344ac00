"""What a training would take: memory of a GPU, hours, disk. Formulas and assumptions are in docs/training.md.

Bytes are counted per parameter and per token; 1 GB is 10⁹ bytes. The numbers are for choosing a machine, within about a
quarter; a smoke run on it (`smoke: true`) replaces the assumed speed by a measured one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from geozero.params import A2grpo, OptimizationConfig, Params, SupervisedConfig
from geozero.training import arguments
from geozero.training.estimate.model_size import ModelSize

GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ZERO = {"zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}  # DeepSpeed's ZeRO stage
CHECKPOINTS = arguments.SAVE_TOTAL_LIMIT + 1  # on disk at a time: those kept, and the one being written
OVERHEAD = 4.0 * GB  # assumed: the CUDA context, NCCL's buffers, fragments
ADAM_MOMENTS, MASTER = 2, 4  # moments per parameter; bytes of DeepSpeed's float32 copy (and of each moment there)
ADAPTER_BYTES = 16  # per LoRA parameter: weight, gradient and two moments, all float32
LOGIT_BYTES = 10  # per logit: in the model's type, in float32, and its gradient
PROMPT_TEXT, DIRECT_ANSWER = 80, 12  # tokens, assumed
TOKENS_PER_WORD = 1.5
ANSWER_TOKENS = 16  # tags and answer behind a thought, assumed


@dataclass(frozen=True)
class Estimate:
    """GB of one GPU by part, seconds per step, GB of disk.

    Attributes:
        parts: what each thing takes, in GB, at the training's peak.
        sampling: what vLLM takes at its peak beside the weights, in GB; 0 without.
        step_seconds: assumed; None on a CPU.
        disk: GB at the most crowded moment.
    """

    parts: dict[str, float]
    sampling: float
    step_seconds: float | None
    disk: float

    @property
    def peak(self) -> float:
        return max(sum(self.parts.values()), self.sampling)


def estimate(
    shape: ModelSize, params: Params, settings: OptimizationConfig, planned: Mapping[str, Any], pixels: int
) -> Estimate:
    """Estimate a stage from its model's size and the trainer's arguments.

    Args:
        planned: `arguments.of_stage`.
        pixels: of a typical image, for the hours; memory goes by `model.max_pixels`.
    """
    hardware, size = params.hardware, BYTES[params.model.dtype]
    n, zero = arguments.world(hardware), ZERO.get(hardware.deepspeed or "", 0)
    lora, whole = settings.tuner == "lora", shape.parameters * size
    frozen = shape.vision if settings.freeze_vit else 0
    trained = shape.adapter(settings.lora.rank) if lora else shape.parameters - frozen
    parts = {"weights": whole / (n if zero == 3 else 1)}
    if lora:
        parts["adapter and optimiser"] = trained * ADAPTER_BYTES
    else:
        parts["gradients"] = trained * size / (n if zero >= 2 else 1)
        states = trained * ((ADAM_MOMENTS + 1) * MASTER if zero else ADAM_MOMENTS * size) / (n if zero else 1)
        parts["optimiser"] = 0.0 if (hardware.deepspeed or "").endswith("offload") else states
        if isinstance(settings, A2grpo) and settings.beta > 0:
            parts["reference"] = parts["weights"]
    if zero == 3:
        parts["gathered layers"] = 2 * shape.layer * size
    micro, checkpointing = int(planned["per_device_train_batch_size"]), bool(planned["gradient_checkpointing"])
    parts["activations"] = micro * _activations(shape, params, settings, size, checkpointing)
    parts["overhead"] = OVERHEAD if arguments.on_gpus(hardware) else 0.0
    sampling = 0.0
    if isinstance(settings, A2grpo) and settings.vllm == "colocate":
        sampling = settings.vllm_memory * hardware.gpu_memory + OVERHEAD / GB
    saved = trained * (MASTER * (ADAM_MOMENTS + 1) if lora or zero else ADAM_MOMENTS * size)
    disk = CHECKPOINTS * saved + whole * (2 if lora else CHECKPOINTS + 1)
    return Estimate(
        parts={name: value / GB for name, value in parts.items()},
        sampling=sampling,
        step_seconds=_step_seconds(shape, params, settings, pixels) if arguments.on_gpus(hardware) else None,
        disk=disk / GB,
    )


def _activations(
    shape: ModelSize, params: Params, settings: OptimizationConfig, size: int, checkpointing: bool
) -> float:
    """Bytes per sample: layer inputs (with checkpointing) or all that backward needs, and the logits.

    Sequences are as long as they may be. The MLP's three wide tensors and about eight of the hidden size are kept per
    token and layer where nothing is recomputed (attention through a fused kernel keeps no square matrix).
    """
    image = shape.image_tokens(params.model.max_pixels)
    learned = settings.max_completion_tokens if isinstance(settings, A2grpo) else image + PROMPT_TEXT + DIRECT_ANSWER
    tokens = image + PROMPT_TEXT + learned if isinstance(settings, A2grpo) else learned
    tokens, learned = min(tokens, params.model.max_length), min(learned, params.model.max_length)
    layer = (8 * shape.hidden + 3 * shape.intermediate) * size
    text = tokens * (shape.layers * shape.hidden * size + layer if checkpointing else shape.layers * layer)
    patches, block = image * shape.merge**2, (8 * shape.vision_hidden + 2 * shape.vision_intermediate) * size
    inputs = shape.vision_hidden * size
    if settings.freeze_vit:
        vision = patches * inputs
    else:
        vision = patches * (
            block + shape.vision_layers * inputs if checkpointing else shape.vision_layers * block + inputs
        )
    return float(text + vision + learned * shape.vocabulary * LOGIT_BYTES)


def _step_seconds(shape: ModelSize, params: Params, settings: OptimizationConfig, pixels: int) -> float:
    """2 FLOP per parameter and token forward, as much again for each gradient that is needed, and once more where
    activations are recomputed; sampled tokens at their own assumed speed."""
    hardware, n = params.hardware, arguments.world(params.hardware)
    prompt = shape.image_tokens(min(pixels, params.model.max_pixels)) + PROMPT_TEXT
    passes = 2 if settings.tuner == "lora" else 3  # forward and the activations' gradients; the weights' too
    passes += hardware.gradient_checkpointing is not False
    sampling = 0.0
    if isinstance(settings, A2grpo):
        answer = min(settings.max_completion_tokens, TOKENS_PER_WORD * settings.thought_words + ANSWER_TOKENS)
        sequences = settings.prompts_per_step * settings.group_size
        passes += settings.beta > 0
        sampling = sequences * answer / (hardware.sample_tokens * n)
    else:
        assert isinstance(settings, SupervisedConfig)
        answer, sequences = DIRECT_ANSWER, settings.batch_size
    flops = sequences * (prompt + answer) * 2 * passes * shape.parameters
    return flops / (hardware.train_tflops * 1e12 * n) + sampling
