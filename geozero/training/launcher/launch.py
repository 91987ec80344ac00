"""The process that trains: `python -m geozero.training.launcher.launch sft|grpo|export|rollout ARGS…`.

It prepares the process before anything imports transformers, registers what is ours (template, lazy images, rewards,
trainer) and calls ms-swift's `main`. `retry.py` starts it, under torchrun where there are several devices.
"""

from __future__ import annotations

import faulthandler
import itertools
import os
import signal
import sys
from pathlib import Path

from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.engines.vllm_server import free_port
from geozero.training.launcher import secret_arguments

LAUNCHER = "geozero.training.launcher.launch"  # this module, by which its processes are known
KINDS = ("sft", "grpo", "export", "rollout")
PARENT = "GEOZERO_STAGE_PROCESS"  # environment variable: id of the process that watches this one
REFUSAL = "refused: "  # begins the line that says why this launcher would not train


def main(argv: list[str]) -> int:
    """Run one ms-swift pipeline; the exit code is 2 for arguments that A²GRPO refuses."""
    if not argv or argv[0] not in KINDS:
        print(f"usage: python -m {LAUNCHER} {'|'.join(KINDS)} ARGS…", file=sys.stderr)
        return 2
    kind, arguments = argv[0], argv[1:]
    process.prepare()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the watchdog asks a hung trainer for its stacks
    if stage := os.environ.get(PARENT):  # without it, it would hold its GPU and write beside the next one
        process_tags.end_with_owner(int(stage))
    _choose_port()
    _hide_unused(arguments)
    _init_deepspeed_on_cpu(arguments)
    try:
        _run(kind, secret_arguments.restore(arguments))
    except InputError as error:
        print(f"{REFUSAL}{error}", file=sys.stderr)
        return 2
    _destroy_process_group()
    return 0


def _choose_port() -> None:
    """Give a single process a free port: ms-swift would take 29500, which one training per machine can have.

    torchrun chooses for several processes of one node, and several nodes state theirs.
    """
    if not {"RANK", "LOCAL_RANK"} <= os.environ.keys():
        os.environ.setdefault("MASTER_PORT", str(free_port()))


def _hide_unused(arguments: list[str]) -> None:
    """Keep out what ms-swift imports without using it: vLLM and MLflow take a third of the start-up on a CPU."""
    words = dict(itertools.pairwise(arguments))
    uses_vllm = words.get("--use_vllm") == "true" or "--vllm_max_model_len" in words
    for name, used in (("vllm", uses_vllm), ("mlflow", "mlflow" in arguments)):
        if not used and name not in sys.modules:
            sys.modules[name] = None  # type: ignore[assignment]  # makes Python refuse the import


def _init_deepspeed_on_cpu(arguments: list[str]) -> None:
    """Connect DeepSpeed's processes on a CPU, where accelerate connects torch's only; ZeRO-3 needs it."""
    if "--deepspeed" in arguments and not process.has_gpu() and "WORLD_SIZE" in os.environ:
        os.environ["DS_ACCELERATOR"] = "cpu"
        import deepspeed

        deepspeed.init_distributed(dist_backend="gloo")


def _destroy_process_group() -> None:
    """Threads of gloo that live on abort a finished process now and then.

    A colocated vLLM's groups go first: it would end with a traceback if it found them gone at exit.
    """
    import torch

    if vllm := sys.modules.get("vllm.distributed.parallel_state"):
        vllm.destroy_model_parallel()
        vllm.destroy_distributed_environment()
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _run(kind: str, arguments: list[str]) -> None:
    from geozero.engines.checkpoint import check_tokenizer, resolve
    from geozero.engines.families import FAMILIES, check_template, family_of
    from geozero.engines.trust import forbid_code_in_swift
    from geozero.engines.vllm_inprocess import prepare_for_trainer
    from geozero.training import dataset
    from geozero.training.launcher import argument_validation

    for family in FAMILIES.values():  # before the arguments are parsed, which may name any of their templates
        family.register_template()
    forbid_code_in_swift()
    dataset.install()
    given = argument_validation.validate_arguments(kind, arguments)
    if given.template:
        check_template(family_of(given.model_type), given.template)
    for model in filter(None, (given.model, getattr(given, "ref_model", None))):
        argument_validation.validate_architecture(path := resolve(model), given.model_type)
        check_tokenizer(path)
    if kind in ("sft", "grpo"):
        from geozero.training.grpo import callbacks

        callbacks.register()
    if kind == "grpo":
        from geozero.training.grpo import trainer

        if given.use_vllm and given.vllm_mode == "colocate":
            prepare_for_trainer(Path(given.model))
            forbid_code_in_swift(with_vllm=True)
        trainer.main(arguments)
    else:
        from swift import pipelines

        if kind == "rollout":
            forbid_code_in_swift(with_vllm=True)
        getattr(pipelines, f"{kind}_main")(arguments)  # sft_main, export_main, rollout_main


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
