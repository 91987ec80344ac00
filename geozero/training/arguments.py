"""From typed parameters to the trainer's command line; nothing here starts anything.

A parameter that carries an `Argument` in geozero/params.py is passed by name; this module adds what is computed from
several parameters, from the machine, or is the same for every run.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import InputError
from geozero.common.redaction import redacted
from geozero.engines.families import family_for, limits_at
from geozero.engines.families.base import MIN_PIXELS
from geozero.engines.vllm_inprocess import cache_bytes, shared_arguments
from geozero.params import A2grpo, Hardware, Model, OptimizationConfig, Params
from geozero.training.estimate import memory, model_size
from geozero.training.grpo.curriculum import rates_file
from geozero.training.grpo.thinking_scores import THINKING_SCORES
from geozero.training.launcher.launch import LAUNCHER
from geozero.training.launcher.multi_node import PORT, Node
from geozero.training.stage_spec import PROBE_ROWS, ROWS, VAL_ROWS, StageSpec

NUM_SAVES = 5  # checkpoints per run: a kill costs at most a fifth of it
SAVE_TOTAL_LIMIT = 2
CALLBACK = "geozero"  # `callbacks.CheckpointCallback`, registered by the launcher
MIXED_DTYPES = {"float32": {}, "bfloat16": {"bf16": True}, "float16": {"fp16": True}}
BEST_METRIC = "answer_reward"  # the best checkpoint has the highest, as the trainer logs it for `val`
DEEPSPEED = ("zero0", "zero1", "zero2", "zero3", "zero2_offload", "zero3_offload")  # ms-swift's own files
LOADER_WORKERS = 4


def devices(hardware: Hardware) -> int:
    """Training processes per node: `NPROC_PER_NODE` if set, else `hardware.gpus`, else one per visible GPU, else 1.

    Raises:
        InputError: the variable is no number.
    """
    given = os.environ.get("NPROC_PER_NODE")
    if given is None:
        return hardware.gpus or max(1, visible_gpus())
    if not given.isdecimal() or int(given) < 1:
        raise InputError(f"NPROC_PER_NODE={given} is not a number of processes", hint="set 1 or more")
    return int(given)


def world(hardware: Hardware) -> int:
    """Training processes over all nodes."""
    return devices(hardware) * hardware.nodes


def visible_gpus() -> int:
    """GPUs that this process may use."""
    if not process.has_gpu():
        return 0
    if process.VISIBLE_GPUS in os.environ:
        return len(process.visible_gpus())
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def on_gpus(hardware: Hardware) -> bool:
    """Whether the arguments are for GPUs: this machine has one, or the profile says how many it needs."""
    return hardware.gpus is not None or process.has_gpu()


def check_hardware(hardware: Hardware) -> None:
    """Refuse to start where the profile's GPUs, or the packages that it needs beside the locked ones, are missing.

    Raises:
        InputError: fewer GPUs are visible than processes are to train on them; DeepSpeed or flash attention is missing.
    """
    if hardware.gpus is not None and visible_gpus() < devices(hardware):
        raise InputError(
            f"the profile needs {devices(hardware)} GPUs per node and {visible_gpus()} are visible",
            "hardware.gpus",
            "choose a profile for this machine, or set hardware.gpus",
        )
    for field, needed, package, install in (
        ("deepspeed", hardware.deepspeed, "deepspeed", "--no-deps --no-build-isolation -r requirements/deepspeed.txt"),
        ("attention", hardware.attention == "flash_attn", "flash_attn", "flash-attn --no-build-isolation"),
    ):
        if needed and importlib.util.find_spec(package) is None:
            raise InputError(f"{package} is not installed", f"hardware.{field}", f"pip install {install}")


def check_masters(params: Params, section: str) -> None:
    """Refuse full training in bfloat16 without float32 master weights: most of its updates would round to nothing.

    In float16 ms-swift keeps trained weights in float32 itself.

    Args:
        section: of the stage: filter, sft or a2grpo.

    Raises:
        InputError: the stage would train so.
    """
    settings = getattr(params, section)
    planned = {
        "tuner_type": settings.tuner,
        "torch_dtype": params.model.dtype,
        "deepspeed": params.hardware.deepspeed,
        **settings.extra,
    }
    keeps_masters = planned["deepspeed"] or planned.get("fsdp")
    if (planned["tuner_type"], planned["torch_dtype"]) == ("full", "bfloat16") and not keeps_masters:
        raise InputError(
            "full training in bfloat16 without float32 master weights hardly learns: small updates are rounded away",
            f"{section}.tuner, model.dtype",
            f"set hardware.deepspeed (zero2, zero3: it keeps float32 masters), {section}.tuner: lora, or "
            "model.dtype: float32",
        )


def of_stage(spec: StageSpec, directory: Path) -> dict[str, Any]:
    """The trainer's arguments for a stage that lives in `directory`, where `spec.write_rows` writes its rows."""
    return grpo(spec, directory) if spec.kind == "grpo" else sft(spec, directory)


def sft(spec: StageSpec, directory: Path) -> dict[str, Any]:
    """ms-swift's arguments of an SFT stage (the filtering model's too)."""
    settings = spec.settings
    return {
        **_common(spec, directory),
        **_batches("batch_size", settings.batch_size, settings.micro_batch_size, spec.params.hardware),
        **(dict.fromkeys(("dataset_shuffle", "train_dataloader_shuffle"), False) if settings.group_by_length else {}),
        **_extra(settings),
    }


def grpo(spec: StageSpec, directory: Path) -> dict[str, Any]:
    """The arguments of A²GRPO: ms-swift's and those of the method.

    Raises:
        InputError: no such thinking score; batches, groups and devices do not fit together; fewer validation prompts
            than devices.
    """
    params, settings = spec.params, spec.settings
    if settings.thinking_score not in THINKING_SCORES:
        known = ", ".join(THINKING_SCORES)
        raise InputError(f"no form '{settings.thinking_score}' of S_t", "a2grpo.thinking_score", f"one of {known}")
    n_devices, completions = world(params.hardware), settings.prompts_per_step * settings.group_size
    batches = _batches("prompts_per_step × group_size", completions, settings.micro_batch_size, params.hardware)
    if completions // n_devices % settings.group_size:
        raise InputError(
            f"{settings.prompts_per_step} prompts per step do not divide among {n_devices} devices",
            "a2grpo.prompts_per_step",
            "make it a multiple of the number of devices",
        )
    arguments = {
        **_common(spec, directory, of_method=True),
        **batches,
        "log_completions": True,
        "log_entropy": settings.guards.entropy.limit is not None,
        **_vllm(params, settings, spec.base, batches["per_device_train_batch_size"]),
    }
    if settings.tuner == "lora":
        arguments["lora_dropout"] = 0.0  # the ratio needs one policy, not two
    if settings.order != "shuffled":
        arguments["dataset_shuffle"] = False
    if settings.order == "pools":
        arguments["pool_rates"] = rates_file(spec.corpus)
    if spec.probes:
        arguments["probe_rows"] = directory / PROBE_ROWS
    if spec.validates:
        val_rows = directory / VAL_ROWS
        n_val = val_rows.read_bytes().count(b"\n") if val_rows.is_file() else settings.val_prompts
        if n_val < n_devices:
            what = f"{n_val} validation prompts for {n_devices} devices"
            raise InputError(what, "a2grpo.val_prompts", "or keep: last")
        arguments |= {
            "val_dataset": val_rows,
            "eval_strategy": "steps",
            "num_generations_eval": 1,
            "metric_for_best_model": BEST_METRIC,
            "greater_is_better": True,
        }
    return arguments | _extra(settings)


def rollout_server(params: Params, base: Path) -> dict[str, Any]:
    """Arguments of the vLLM server that `a2grpo.vllm: server` samples with; it starts before the training does."""
    settings, lora = params.a2grpo, params.a2grpo.tuner == "lora"
    return {
        **_model(params.model, base),
        "max_pixels": params.model.max_pixels,
        **_min_pixels(params.model),
        "vllm_max_model_len": params.model.max_length,
        "vllm_tensor_parallel_size": settings.vllm_tensor_parallel,
        "vllm_engine_kwargs": _engine_kwargs(params.model, base),
        "vllm_enable_lora": lora,
        **({"vllm_max_lora_rank": settings.lora.rank} if lora else {}),
        "host": settings.server_address[0],
        "port": settings.server_address[1],
    }


def export(base: Path, adapter: Path, model: Model, out: Path) -> dict[str, Any]:
    """ms-swift's arguments that merge a LoRA adapter into its base."""
    return {
        **_model(model, base),
        "adapters": adapter,
        "merge_lora": True,
        "output_dir": out,
        "load_args": False,
    }


def flatten(arguments: Mapping[str, Any]) -> list[str]:
    """As words of a command line: true and false for booleans, lists as several words, mappings as JSON.

    None leaves an argument out. A secret is shown as `***`; `secret_arguments` passes it on.
    """
    return [word for name, value in redacted(arguments).items() for word in words_of(name, value)]


def words_of(name: str, value: Any) -> list[str]:
    """One argument's words, a secret as it is."""
    if value is None:
        return []
    values = value if isinstance(value, list | tuple) else [value]
    return [f"--{name}", *(_word(v) for v in values)]


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value) if isinstance(value, Mapping) else str(value)


def launch_command(kind: str, arguments: Mapping[str, Any], hardware: Hardware, node: Node | None = None) -> list[str]:
    """The trainer's command line: our launcher, under torchrun where several processes train.

    Args:
        node: this one; if left out, the first.
    """
    node = node or Node(0, hardware.nodes, "$MASTER_ADDR" if hardware.nodes > 1 else "", PORT)
    return [sys.executable, *torchrun(node, devices(hardware)), "-m", LAUNCHER, kind, *flatten(arguments)]


def torchrun(node: Node, processes: int) -> list[str]:
    """The words that start `processes` processes on this node; none where one process trains alone."""
    if node.n == processes == 1:
        return []
    place = ["--standalone"]
    if node.n > 1:
        place = ["--nnodes", str(node.n), "--node_rank", str(node.rank)]
        place += ["--master_addr", node.address, "--master_port", str(node.port)]
    return ["-m", "torch.distributed.run", *place, "--nproc_per_node", str(processes)]


def _batches(name: str, total: int, micro: int, hardware: Hardware) -> dict[str, int]:
    """Per-device batch and accumulation whose product over all devices is exactly `total`."""
    n = world(hardware)
    if total % n:
        raise InputError(f"{total} per step do not divide among {n} devices", name, "make it a multiple of that")
    per_device = total // n
    micro = min(micro, per_device)
    if per_device % micro:
        what = f"{per_device} per step and device do not divide into forward passes of {micro}"
        raise InputError(what, "micro_batch_size", f"make it a divisor of {per_device}")
    return {"per_device_train_batch_size": micro, "gradient_accumulation_steps": per_device // micro}


def _common(spec: StageSpec, directory: Path, of_method: bool = False) -> dict[str, Any]:
    params, settings, hardware = spec.params, spec.settings, spec.params.hardware
    family_for(params.model)  # refuses what does not fit together
    gpu = on_gpus(hardware)
    checkpointing, workers = hardware.gradient_checkpointing, hardware.loader_workers
    return {
        "model": spec.base,
        **params.model.arguments(of_method),
        **_min_pixels(params.model),
        **settings.arguments(of_method),
        **(settings.lora.arguments() if settings.tuner == "lora" else {}),
        **hardware.arguments(),
        "dataset": directory / ROWS,
        "split_dataset_ratio": 0,
        "output_dir": directory,
        "add_version": False,
        "check_model": False,
        "report_to": "none",
        "bf16": False,
        "fp16": False,
        **MIXED_DTYPES[params.model.dtype],
        "gradient_checkpointing": gpu if checkpointing is None else checkpointing,
        "seed": params.seed,
        "data_seed": params.seed,
        "save_strategy": "steps",
        "save_steps": max(1, settings.steps // NUM_SAVES),
        "save_total_limit": SAVE_TOTAL_LIMIT,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # transformers would log a mean of earlier losses in place of NaN
        "disable_tqdm": True,
        "callbacks": [CALLBACK, *settings.extra.get("callbacks", [])],
        "dataset_num_proc": 1,
        "dataloader_num_workers": (LOADER_WORKERS if gpu else 0) if workers is None else workers,
        "deepspeed": None if hardware.deepspeed is None else _deepspeed(hardware.deepspeed),
        **({} if gpu else {"use_cpu": True, "ddp_backend": "gloo" if world(hardware) > 1 else None}),
    }


def _extra(settings: OptimizationConfig) -> dict[str, Any]:
    """The section's `extra`, which has the last word; its callbacks are among ours already."""
    return {name: value for name, value in settings.extra.items() if name != "callbacks"}


def _min_pixels(model: Model) -> dict[str, Any]:
    return {} if model.min_pixels is None else {"model_kwargs": {MIN_PIXELS: model.min_pixels}}


def _engine_kwargs(model: Model, base: Path) -> dict[str, Any]:
    """Arguments of the vLLM that samples for the trainer, as for our own engine."""
    return shared_arguments(limits_at(base, model.max_pixels, model.min_pixels))


def _model(model: Model, base: Path) -> dict[str, Any]:
    return {"model": base, "model_type": model.model_type, "template": model.template, "torch_dtype": model.dtype}


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
        hint = f"{', '.join(DEEPSPEED)}, or a JSON file"
        raise InputError(f"'{name}' is no DeepSpeed configuration", "hardware.deepspeed", hint)
    return str(path.resolve())


def _vllm(params: Params, settings: A2grpo, base: Path, micro: int) -> dict[str, Any]:
    if settings.vllm == "off":
        return {"use_vllm": False}
    common: dict[str, Any] = {"use_vllm": True, "vllm_mode": settings.vllm}
    if settings.vllm == "server":
        host, port = settings.server_address
        return {**common, "vllm_server_host": host, "vllm_server_port": port}
    engine = _engine_kwargs(params.model, base)
    common |= {"vllm_max_model_len": params.model.max_length, "vllm_engine_kwargs": engine}
    if not on_gpus(params.hardware):
        if (base / "config.json").is_file():
            engine["kv_cache_memory_bytes"] = cache_bytes(base, params.model.max_length)
        return {**common, "vllm_enforce_eager": True, "sleep_level": 0}
    return {
        **common,
        "vllm_gpu_memory_utilization": settings.vllm_memory,
        "vllm_tensor_parallel_size": settings.vllm_tensor_parallel,
        **_colocated(params, settings, base, micro),
    }


def _colocated(params: Params, settings: A2grpo, base: Path, micro: int) -> dict[str, Any]:
    """What vLLM and the trainer give up for each other: as set, else by the estimate; all where the size is unknown."""
    hardware, shape = params.hardware, model_size.read(base)
    level: int | None = settings.sleep_level
    offload = settings.offload
    if shape is not None:
        states = memory.states(shape, params, settings, world(hardware))
        checkpointing = hardware.gradient_checkpointing is not False
        found = memory.colocation(
            states, states | memory.working(shape, params, settings, micro, checkpointing), settings, hardware
        )
        if found is not None:
            level, offload = found.sleep_level, found.offload
    level, offload = 1 if level is None else level, offload is not False
    return {"sleep_level": level, "offload_model": offload, "offload_optimizer": offload}
