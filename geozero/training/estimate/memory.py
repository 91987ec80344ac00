"""What stays in a GPU's memory while it trains, and how a colocated vLLM shares it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from geozero.params import A2grpo, Hardware, OptimizationConfig, Params
from geozero.training.estimate.model_size import ModelSize

GB = 1e9
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
ZERO = {"zero1": 1, "zero2": 2, "zero3": 3, "zero2_offload": 2, "zero3_offload": 3}  # DeepSpeed's ZeRO stage
ADAM_MOMENTS, MASTER = 2, 4  # moments per parameter; bytes of DeepSpeed's float32 copy (and of each moment there)
ADAPTER_BYTES = 16  # per LoRA parameter: weight, gradient and two moments, all float32
OVERHEAD = 4.0 * GB  # assumed: the CUDA context, NCCL's buffers, fragments
LOGIT_BYTES = 10  # per logit: in the model's type, in float32, and its gradient
PROMPT_TEXT, DIRECT_ANSWER = 80, 12  # tokens, assumed
MARGIN = 0.9  # of a GPU's memory that an estimate may fill


@dataclass(frozen=True)
class Colocation:
    """How a colocated vLLM and the trainer share a GPU.

    Attributes:
        sleep_level: 0: vLLM keeps its memory while the trainer works; 1: its cache is freed and its weights go to the
            host; 2: both are freed.
        offload: whether the trainer's states go to the host while vLLM samples.
        sampling: bytes on a GPU while vLLM samples.
        per_engine: GPUs that one engine is spread over.
    """

    sleep_level: int
    offload: bool
    sampling: float
    per_engine: int


def zero(hardware: Hardware) -> int:
    """DeepSpeed's ZeRO stage; 0 without."""
    return ZERO.get(hardware.deepspeed or "", 0)


def trained(shape: ModelSize, settings: OptimizationConfig) -> int:
    """Parameters that learn; LoRA adapts every linear layer of the language model."""
    if settings.tuner == "lora":
        return shape.layers * settings.lora.rank * sum(inputs + outputs for inputs, outputs in shape.linear)
    return shape.parameters - (shape.vision if settings.freeze_vit else 0)


def states(shape: ModelSize, params: Params, settings: OptimizationConfig, n: int) -> dict[str, float]:
    """Bytes per GPU of weights, gradients, optimiser and reference, over `n` training processes."""
    hardware, size, stage = params.hardware, BYTES[params.model.dtype], zero(params.hardware)
    learned, whole = trained(shape, settings), shape.parameters * size
    parts = {"weights": whole / (n if stage == 3 else 1)}
    if settings.tuner == "lora":
        parts["adapter and optimiser"] = learned * ADAPTER_BYTES
    else:
        parts["gradients"] = learned * size / (n if stage >= 2 else 1)
        optimiser = learned * ((ADAM_MOMENTS + 1) * MASTER if stage else ADAM_MOMENTS * size) / (n if stage else 1)
        parts["optimiser"] = 0.0 if (hardware.deepspeed or "").endswith("offload") else optimiser
        if isinstance(settings, A2grpo) and settings.beta > 0:
            parts["reference"] = parts["weights"]
    if stage == 3:
        parts["gathered layers"] = 2.0 * shape.layer * size
    return parts


def working(
    shape: ModelSize, params: Params, settings: OptimizationConfig, micro: int, checkpointing: bool
) -> dict[str, float]:
    """Bytes per GPU that come and go with a pass over `micro` samples, and what CUDA takes."""
    return {"activations": micro * _activations(shape, params, settings, checkpointing), "overhead": OVERHEAD}


def colocation(
    states: Mapping[str, float], training: Mapping[str, float], settings: OptimizationConfig, hardware: Hardware
) -> Colocation | None:
    """How vLLM and the trainer share a GPU: as the parameters say, else with as little moved as memory allows.

    Args:
        states: bytes that stay on a GPU while vLLM samples, unless they are offloaded.
        training: all bytes on a GPU while it trains.

    Returns:
        None without a colocated vLLM.
    """
    if not isinstance(settings, A2grpo) or settings.vllm != "colocate":
        return None
    resident = sum(states.values())
    room, vllm = MARGIN * hardware.gpu_memory * GB, settings.vllm_memory * hardware.gpu_memory * GB
    level = (
        (0 if sum(training.values()) + vllm <= room else 1) if settings.sleep_level is None else settings.sleep_level
    )
    offload = resident + vllm + OVERHEAD > room if settings.offload is None else settings.offload
    sampling = vllm + OVERHEAD + (0.0 if offload else resident)
    return Colocation(level, offload, sampling, settings.vllm_tensor_parallel)


def _activations(shape: ModelSize, params: Params, settings: OptimizationConfig, checkpointing: bool) -> float:
    """Bytes per sample: layer inputs (with checkpointing) or all that backward needs, and the logits.

    Sequences are as long as they may be. The MLP's three wide tensors and about eight of the hidden size are kept per
    token and layer where nothing is recomputed (attention through a fused kernel keeps no square matrix).
    """
    size, image = BYTES[params.model.dtype], shape.image_tokens(params.model.max_pixels)
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
