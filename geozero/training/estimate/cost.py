"""What a training would take: memory of a GPU, hours, disk. Formulas and assumptions stand in docs/training.md.

Bytes are counted a parameter and a token; 1 GB is 10⁹ bytes. The numbers are for choosing a machine, within about a
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
STAGE = {"zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}
CHECKPOINTS = arguments.SAVE_TOTAL_LIMIT + 1  # on disk at a time: those kept, and the one being written
OVERHEAD = 4.0  # GB, assumed: the CUDA context, NCCL's buffers, fragments
ADAM_MOMENTS, MASTER = 2, 4  # moments a parameter; bytes of DeepSpeed's float32 copy (and of each moment there)
ADAPTER_BYTES = 16  # of a LoRA parameter: weight, gradient and two moments, float32 all
LOGIT_BYTES = 10  # a logit: in the model's type, in float32, and its gradient
PROMPT_TEXT, DIRECT_ANSWER = 80, 12  # tokens, assumed
TOKENS_A_WORD = 1.5
ANSWER_TOKENS = 16  # tags and answer behind a thought, assumed


@dataclass(frozen=True)
class Estimate:
    """GB of one GPU by part, hours of the whole run, GB of disk.

    Attributes:
        parts: what each thing takes, in GB, at the training's peak.
        training: the sum of the parts.
        sampling: what vLLM takes at its peak beside the weights; 0 without.
        step_seconds: assumed; None on a CPU.
        disk: at the most crowded moment.
    """

    parts: dict[str, float]
    training: float
    sampling: float
    step_seconds: float | None
    disk: float

    @property
    def peak(self) -> float:
        return max(self.training, self.sampling)


def estimate(
    shape: ModelSize, params: Params, settings: OptimizationConfig, planned: Mapping[str, Any], pixels: int
) -> Estimate:
    """Estimate a stage from its model's shape and ms-swift's arguments.

    Args:
        planned: `arguments.sft` or `arguments.grpo`.
        pixels: of a typical image, for the hours; memory goes by `model.max_pixels`.
    """
    hardware, size = params.hardware, BYTES[params.model.dtype]
    n = arguments.world(hardware)
    zero = STAGE.get(params.hardware.deepspeed or "", 0)
    offloads = (params.hardware.deepspeed or "").endswith("offload")
    lora = settings.tuner == "lora"
    frozen = shape.vision if settings.freeze_vit else 0
    trained = shape.adapter(settings.lora.rank) if lora else shape.parameters - frozen
    whole = shape.parameters * size
    parts = {"weights": whole / (n if zero == 3 else 1)}
    if lora:
        parts["adapter and optimiser"] = trained * ADAPTER_BYTES
    else:
        parts["gradients"] = trained * size / (n if zero >= 2 else 1)
        states = trained * ((ADAM_MOMENTS + 1) * MASTER if zero else ADAM_MOMENTS * size) / (n if zero else 1)
        parts["optimiser"] = 0.0 if offloads else states
    if isinstance(settings, A2grpo) and settings.beta > 0 and not lora:
        parts["reference"] = whole / (n if zero == 3 else 1)
    if zero == 3:
        parts["gathered layers"] = 2 * shape.layer * size
    micro = int(planned["per_device_train_batch_size"])
    parts["activations"] = _activations(shape, params, settings, micro, size, bool(planned["gradient_checkpointing"]))
    parts["overhead"] = OVERHEAD * GB if arguments.on_gpus(hardware) else 0.0
    training = sum(parts.values())
    sampling = 0.0
    if isinstance(settings, A2grpo) and settings.vllm == "colocate":
        sampling = settings.vllm_memory * hardware.gpu_memory * GB + OVERHEAD * GB
    saved = trained * (MASTER * (ADAM_MOMENTS + 1) if lora or zero else ADAM_MOMENTS * size)
    checkpoint = saved + (0 if lora else whole)
    return Estimate(
        parts={name: value / GB for name, value in parts.items()},
        training=training / GB,
        sampling=sampling / GB,
        step_seconds=_step_seconds(shape, params, settings, trained, pixels),
        disk=(CHECKPOINTS * checkpoint + (2 if lora else 1) * whole) / GB,
    )


def _activations(
    shape: ModelSize, params: Params, settings: OptimizationConfig, micro: int, size: int, checkpointing: bool
) -> float:
    """Bytes of one micro-batch: layer inputs (with checkpointing) or all that backward needs, and the logits.

    Sequences are as long as they may be. The MLP's three wide tensors and about eight of the hidden size are kept a
    token and layer where nothing is recomputed (attention through a fused kernel keeps no square matrix).
    """
    image = shape.image_tokens(params.model.max_pixels)
    if isinstance(settings, A2grpo):
        answer = settings.max_completion_tokens
        tokens = min(image + PROMPT_TEXT + answer, params.model.max_length)
    else:
        tokens = answer = min(image + PROMPT_TEXT + DIRECT_ANSWER, params.model.max_length)
    layer = (8 * shape.hidden + 3 * shape.intermediate) * size
    patches = image * shape.merge**2
    block = (8 * shape.vision_hidden + 2 * shape.vision_intermediate) * size
    seen = 0 if settings.freeze_vit else patches * block * (1 if checkpointing else shape.vision_layers)
    seen += (
        patches * shape.vision_hidden * size * (shape.vision_layers if checkpointing and not settings.freeze_vit else 1)
    )
    kept = tokens * (shape.layers * shape.hidden * size + layer if checkpointing else shape.layers * layer)
    return float(micro * (kept + seen + answer * shape.vocabulary * LOGIT_BYTES))


def _step_seconds(
    shape: ModelSize, params: Params, settings: OptimizationConfig, trained: int, pixels: int
) -> float | None:
    """Seconds a step: 2 FLOP a parameter and token forward, as much again for each gradient that is needed, and once
    more where activations are recomputed; sampled tokens at their own assumed speed."""
    hardware = params.hardware
    if not arguments.on_gpus(hardware):
        return None
    n = arguments.world(hardware)
    prompt = shape.image_tokens(min(pixels, params.model.max_pixels)) + PROMPT_TEXT
    passes = 2 if settings.tuner == "lora" else 3  # forward and the activations' gradients; the weights' too
    passes += hardware.gradient_checkpointing is not False
    sampling = 0.0
    if isinstance(settings, A2grpo):
        answer = min(settings.max_completion_tokens, TOKENS_A_WORD * settings.thought_words + ANSWER_TOKENS)
        sequences = settings.prompts_per_step * settings.group_size
        passes += settings.beta > 0
        sampling = sequences * answer / (hardware.sample_tokens * n)
    else:
        assert isinstance(settings, SupervisedConfig)
        answer, sequences = DIRECT_ANSWER, settings.batch_size
    flops = sequences * (prompt + answer) * 2 * passes * shape.parameters
    return flops / (hardware.train_tflops * 1e12 * n) + sampling
