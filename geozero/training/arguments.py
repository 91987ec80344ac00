"""From typed parameters to ms-swift's arguments; nothing here starts anything."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import InputError
from geozero.engines.vllm_inprocess import SAMPLER, cache_bytes
from geozero.params import A2grpo, Hardware, Model, OptimizationConfig, Params

NUM_SAVES = 5  # checkpoints a run: what a kill costs is a fifth of it at most
SAVE_TOTAL_LIMIT = 2
CALLBACK = "geozero"  # `callbacks.SaveOnSigtermCallback`, registered by the launcher
MIXED_DTYPES = {"float32": {}, "bfloat16": {"bf16": True}, "float16": {"fp16": True}}
BEST_METRIC = "answer_reward"  # what the best checkpoint is chosen by, as the trainer logs it for `val`
DEEPSPEED = ("zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")  # ms-swift's own files
LOADER_WORKERS = 4


def devices(hardware: Hardware) -> int:
    """Processes that train on a node: `NPROC_PER_NODE` if set, else `hardware.gpus`, else one a visible GPU, else 1.

    Raises:
        InputError: the variable is no number.
    """
    wanted = os.environ.get("NPROC_PER_NODE")
    if wanted is not None:
        if not wanted.isdecimal() or int(wanted) < 1:
            raise InputError(f"NPROC_PER_NODE={wanted} is not a number of processes", hint="set 1 or more")
        return int(wanted)
    return hardware.gpus or max(1, visible_gpus())


def visible_gpus() -> int:
    """GPUs that this process may use."""
    if not process.has_gpu():
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip()])
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def on_gpus(hardware: Hardware) -> bool:
    """Whether the arguments are for GPUs: this machine has one, or the profile says how many it wants."""
    return hardware.gpus is not None or process.has_gpu()


def check_hardware(hardware: Hardware) -> None:
    """Refuse to start where the profile's GPUs are not, or what it wants beside the locked environment.

    Raises:
        InputError: fewer GPUs are visible than processes are to train on them; DeepSpeed or flash attention is missing.
    """
    if hardware.gpus is not None and visible_gpus() < devices(hardware):
        raise InputError(
            f"the profile wants {devices(hardware)} GPUs a node and {visible_gpus()} are visible",
            "hardware.gpus",
            "choose a profile for this machine, or set hardware.gpus",
        )
    for field, wanted, package, install in (
        ("deepspeed", hardware.deepspeed, "deepspeed", "--no-deps --no-build-isolation -r requirements/deepspeed.txt"),
        ("attention", hardware.attention == "flash_attn", "flash_attn", "flash-attn --no-build-isolation"),
    ):
        if wanted and importlib.util.find_spec(package) is None:
            raise InputError(f"{package} is not installed", f"hardware.{field}", f"pip install {install}")


def sft(params: Params, settings: OptimizationConfig, rows: Path, base: Path, out: Path) -> dict[str, Any]:
    """ms-swift's arguments of an SFT stage (the filtering model's too); `settings.extra` has the last word."""
    micro, accumulation = _batches("batch_size", settings.batch_size, settings.micro_batch_size, params.hardware)
    return {
        **_common(params, settings, rows, base, out),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        **({"lora_dropout": settings.lora.dropout} if settings.tuner == "lora" else {}),
        **{name: value for name, value in settings.extra.items() if name != "callbacks"},
    }


def grpo(
    params: Params,
    settings: A2grpo,
    rows: Path,
    base: Path,
    out: Path,
    val_rows: Path | None = None,
    probe_rows: Path | None = None,
) -> dict[str, Any]:
    """ms-swift's arguments of A²GRPO and the method's own (`a2grpo.MethodArguments`).

    Args:
        val_rows: validation prompts, answered once each at every checkpoint.
        probe_rows: questions that are asked on the way, to be looked at.
    """
    completions = settings.prompts_per_step * settings.group_size
    micro, accumulation = _batches(
        "prompts_per_step × group_size", completions, settings.micro_batch_size, params.hardware
    )
    if micro * accumulation % settings.group_size:
        raise InputError(
            f"{settings.prompts_per_step} prompts a step do not divide among {world(params.hardware)} devices",
            "a2grpo.prompts_per_step",
            "make it a multiple of the number of devices",
        )
    return {
        **_common(params, settings, rows, base, out),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulation,
        "num_generations": settings.group_size,
        "max_completion_length": settings.max_completion_tokens,
        "temperature": settings.temperature,
        "beta": settings.beta,
        "thinking_weight": settings.thinking_weight,
        "support": settings.support,
        "gate_k": settings.gate_k,
        "gate_tau": settings.gate_tau,
        "gate": settings.gate,
        "kl_tokens": settings.kl_tokens,
        "thought_words": settings.thought_words,
        "thought_words_max": settings.thought_words_max,
        "diversity": settings.diversity,
        "uniform_groups": settings.uniform_groups,
        "resample": settings.resample,
        "boxes": params.model.boxes,
        "log_completions": True,
        "log_entropy": settings.guards.entropy.limit is not None,
        **({} if settings.order == "shuffled" else {"dataset_shuffle": False}),
        **({} if val_rows is None else _validation(val_rows, micro, settings.val_prompts, world(params.hardware))),
        **({} if probe_rows is None else {"probe_rows": probe_rows, "probe_steps": settings.probe_steps}),
        **_vllm(params, settings, base),
        **({"lora_dropout": 0.0} if settings.tuner == "lora" else {}),  # the ratio needs one policy, not two
        **{name: value for name, value in settings.extra.items() if name != "callbacks"},
    }


def rollout_server(params: Params, base: Path) -> dict[str, Any]:
    """Arguments of the vLLM server that `a2grpo.vllm: server` asks; it starts before the training does."""
    return {
        "model": base,
        "model_type": params.model.model_type,
        "template": params.model.template,
        "torch_dtype": params.model.dtype,
        "max_pixels": params.model.max_pixels,
        "vllm_max_model_len": params.model.max_length,
        "vllm_tensor_parallel_size": params.a2grpo.vllm_tensor_parallel,
        "vllm_engine_kwargs": {"logits_processors": [SAMPLER]},
        "vllm_enable_lora": params.a2grpo.tuner == "lora",
        **({"vllm_max_lora_rank": params.a2grpo.lora.rank} if params.a2grpo.tuner == "lora" else {}),
        "host": "0.0.0.0",
        "port": address(params.a2grpo.vllm_server)[1],
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


def world(hardware: Hardware) -> int:
    """Processes that train, over all nodes."""
    return devices(hardware) * hardware.nodes


def _batches(name: str, total: int, micro: int, hardware: Hardware) -> tuple[int, int]:
    """Per-device batch and accumulation whose product over all devices is exactly `total`."""
    n = world(hardware)
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


def _common(params: Params, settings: OptimizationConfig | A2grpo, rows: Path, base: Path, out: Path) -> dict[str, Any]:
    model, hardware = params.model, params.hardware
    gpu = on_gpus(hardware)
    checkpointing = hardware.gradient_checkpointing
    workers = hardware.loader_workers
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
        **MIXED_DTYPES[model.dtype],
        "attn_impl": hardware.attention,
        "max_pixels": model.max_pixels,
        "max_length": model.max_length,
        "tuner_type": settings.tuner,
        **(_lora(settings) if settings.tuner == "lora" else {}),
        "freeze_vit": settings.freeze_vit,
        "freeze_aligner": settings.freeze_vit,
        "gradient_checkpointing": gpu if checkpointing is None else checkpointing,
        "max_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "warmup_ratio": settings.warmup_ratio,
        "seed": params.seed,
        "data_seed": params.seed,
        "save_strategy": "steps",
        "save_steps": max(1, settings.steps // NUM_SAVES),
        "save_total_limit": SAVE_TOTAL_LIMIT,
        "logging_steps": 1,
        "disable_tqdm": True,
        "callbacks": [CALLBACK, *settings.extra.get("callbacks", [])],
        "dataset_num_proc": 1,
        "dataloader_num_workers": (LOADER_WORKERS if gpu else 0) if workers is None else workers,
        "deepspeed": None if hardware.deepspeed is None else _deepspeed(hardware.deepspeed),
        **({} if gpu else {"use_cpu": True, "ddp_backend": "gloo" if world(hardware) > 1 else None}),
    }


def _lora(settings: OptimizationConfig | A2grpo) -> dict[str, Any]:
    lora = settings.lora
    return {"lora_rank": lora.rank, "lora_alpha": lora.alpha, "target_modules": lora.targets}


def _deepspeed(name: str) -> str:
    """ms-swift's own name, or the absolute path of a configuration."""
    if name in DEEPSPEED:
        return name
    path = Path(name)
    try:
        known = isinstance(json.loads(path.read_text()), dict)
    except (OSError, ValueError):
        known = False
    if not known:
        raise InputError(
            f"'{name}' is no DeepSpeed configuration", "hardware.deepspeed", f"{', '.join(DEEPSPEED)}, or a JSON file"
        )
    return str(path.resolve())


def _validation(rows: Path, micro: int, wanted: int, n_devices: int) -> dict[str, Any]:
    """One answer to every validation prompt at each checkpoint; the best one is never cleared away.

    Args:
        wanted: prompts, where they are not written yet.

    Raises:
        InputError: fewer prompts than devices, of which each has to answer one.
    """
    n = rows.read_bytes().count(b"\n") if rows.is_file() else wanted
    if n < n_devices:
        raise InputError(f"{n} validation prompts for {n_devices} devices", "a2grpo.val_prompts", "or keep: last")
    return {
        "val_dataset": rows,
        "eval_strategy": "steps",
        "num_generations_eval": 1,
        "per_device_eval_batch_size": min(micro, n // n_devices),
        "metric_for_best_model": BEST_METRIC,
        "greater_is_better": True,
    }


def _vllm(params: Params, settings: A2grpo, base: Path) -> dict[str, Any]:
    if settings.vllm == "off":
        return {"use_vllm": False}
    common: dict[str, Any] = {"use_vllm": True, "vllm_mode": settings.vllm}
    if settings.vllm == "server":
        host, port = address(settings.vllm_server)
        return {**common, "vllm_server_host": host, "vllm_server_port": port}
    engine: dict[str, Any] = {"logits_processors": [SAMPLER]}
    common["vllm_max_model_len"] = params.model.max_length
    if not on_gpus(params.hardware):
        if (base / "config.json").is_file():
            engine["kv_cache_memory_bytes"] = cache_bytes(base, params.model.max_length)
        return {**common, "vllm_engine_kwargs": engine, "vllm_enforce_eager": True, "sleep_level": 0}
    return {
        **common,
        "vllm_engine_kwargs": engine,
        "vllm_gpu_memory_utilization": settings.vllm_memory,
        "vllm_tensor_parallel_size": settings.vllm_tensor_parallel,
        "sleep_level": 1,  # it gives its memory back while the trainer works, and the other way round
        "offload_model": True,
        "offload_optimizer": True,
    }


def address(server: str) -> tuple[str, int]:
    """Host and port of `a2grpo.vllm_server`.

    Raises:
        InputError: it is not HOST:PORT.
    """
    host, _, port = server.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"'{server}' is not host:port", "a2grpo.vllm_server", "such as 127.0.0.1:8000")
    return host, int(port)
