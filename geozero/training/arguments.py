"""From typed parameters to ms-swift's arguments; nothing here starts anything."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geozero import process
from geozero.errors import InputError
from geozero.params import A2grpo, Model, Optimise, Params

SAVES = 5  # checkpoints a run: what a kill costs is a fifth of it at most
KEPT = 2
MIXED = {"float32": {}, "bfloat16": {"bf16": True}, "float16": {"fp16": True}}
VLLM_SHARE = 0.5  # of GPU memory while it samples; the trainer's states go to the host meanwhile
SUPPRESS = "geozero.engines.vllm_suppress:SuppressTokens"


def devices() -> int:
    """How many processes train: `NPROC_PER_NODE` if set, else one a visible GPU, else 1."""
    wanted = os.environ.get("NPROC_PER_NODE")
    if wanted is not None:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise InputError(f"NPROC_PER_NODE={wanted} is not a number of processes", mend="set 1 or more")
        return int(wanted)
    if not process.has_gpu():
        return 1
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([name for name in visible.split(",") if name.strip()]))
    return max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))


def sft(params: Params, settings: Optimise, rows: Path, base: Path, out: Path) -> dict[str, Any]:
    """ms-swift's arguments of an SFT stage (the filtering model's too); `settings.extra` has the last word."""
    micro, accumulation = _batches("batch_size", settings.batch_size, settings.micro_batch_size)
    return {
        **_common(params.model, settings, rows, base, out, params.seed),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        **settings.extra,
    }


def grpo(params: Params, rows: Path, base: Path, out: Path) -> dict[str, Any]:
    """ms-swift's arguments of A²GRPO and the method's own (`a2grpo.MethodArguments`)."""
    settings = params.a2grpo
    completions = settings.prompts_per_step * settings.group_size
    micro, accumulation = _batches("prompts_per_step × group_size", completions, settings.micro_batch_size)
    if micro * accumulation % settings.group_size:
        raise InputError(
            f"{settings.prompts_per_step} prompts a step do not divide among {devices()} devices",
            "a2grpo.prompts_per_step",
            "make it a multiple of the number of devices",
        )
    return {
        **_common(params.model, settings, rows, base, out, params.seed),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "num_generations": settings.group_size,
        "max_completion_length": settings.max_completion_tokens,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "thinking_weight": settings.thinking_weight,
        "gate_k": settings.gate_k,
        "gate_tau": settings.gate_tau,
        "thought_words": settings.thought_words,
        "thought_words_max": settings.thought_words_max,
        "uniform_groups": settings.uniform_groups,
        "boxes": params.model.boxes,
        "log_completions": True,
        **(_vllm(params.model) if settings.use_vllm else {"use_vllm": False}),
        **({"lora_dropout": 0.0} if settings.tuner == "lora" else {}),  # the ratio needs one policy, not two
        **settings.extra,
    }


def export(base: Path, adapter: Path, model: Model, out: Path) -> dict[str, Any]:
    """ms-swift's arguments that merge a LoRA adapter into its base."""
    return {
        "model": base,
        "model_type": model.model_type,
        "template": model.template,
        "torch_dtype": model.dtype,
        "adapters": adapter,
        "merge_lora": True,
        "output_dir": out,
        "load_args": False,
    }


def flatten(arguments: Mapping[str, Any]) -> list[str]:
    """As words of a command line: true and false for booleans, lists as several words, mappings as JSON.

    None leaves an argument out.
    """
    words: list[str] = []
    for name, value in arguments.items():
        if value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        words += [f"--{name}", *(_word(v) for v in values)]
    return words


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def _batches(name: str, total: int, micro: int) -> tuple[int, int]:
    """Per-device batch and accumulation whose product over all devices is exactly `total`."""
    n = devices()
    if total % n:
        raise InputError(f"{total} a step do not divide among {n} devices", name, "make it a multiple of that")
    micro = min(micro, total // n)
    if total // n % micro:
        raise InputError(
            f"{total // n} a step and device do not divide into forward passes of {micro}",
            "micro_batch_size",
            f"make it a divisor of {total // n}",
        )
    return micro, total // n // micro


def _common(model: Model, settings: Optimise | A2grpo, rows: Path, base: Path, out: Path, seed: int) -> dict[str, Any]:
    gpu = process.has_gpu()
    return {
        "model": base,
        "model_type": model.model_type,
        "template": model.template,
        "dataset": rows,
        "split_dataset_ratio": 0,
        "output_dir": out,
        "add_version": False,
        "check_model": False,
        "report_to": "none",
        "torch_dtype": model.dtype,
        "bf16": False,
        "fp16": False,
        **MIXED[model.dtype],
        "attn_impl": "sdpa",
        "max_pixels": model.max_pixels,
        "max_length": model.max_length,
        "tuner_type": settings.tuner,
        "freeze_vit": settings.freeze_vit,
        "freeze_aligner": settings.freeze_vit,
        "gradient_checkpointing": gpu,  # trades time for memory that only a large model lacks
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "warmup_ratio": settings.warmup_ratio,
        "seed": seed,
        "data_seed": seed,
        "save_strategy": "steps",
        "save_steps": max(1, settings.steps // SAVES),
        "save_total_limit": KEPT,
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataset_num_proc": 1,
        "dataloader_num_workers": 4 if gpu else 0,
        **({} if gpu else {"use_cpu": True, "ddp_backend": "gloo" if devices() > 1 else None}),
    }


def _vllm(model: Model) -> dict[str, Any]:
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_max_model_len": model.max_length,
        "vllm_gpu_memory_utilization": VLLM_SHARE,
        "sleep_level": 1,
        "offload_model": True,
        "offload_optimizer": True,
        "vllm_engine_kwargs": {"logits_processors": [SUPPRESS]},
    }
