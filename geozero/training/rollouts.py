"""Where A²GRPO's completions come from has to be there before the training starts: a GPU, or a vLLM server."""

from __future__ import annotations

import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException

from geozero import process
from geozero.errors import InputError
from geozero.params import A2grpo
from geozero.training.arguments import address

WAIT_SECONDS = 600.0  # for a server that is started at the same time and loads its model
ASK_SECONDS = 2.0  # between two questions whether it is there


def require(settings: A2grpo, tell: Callable[[str], None]) -> None:
    """Wait until completions can be asked for.

    Raises:
        InputError: colocated vLLM without a GPU; no server answers within `WAIT_SECONDS`.
    """
    if settings.vllm == "colocate" and not process.has_gpu():
        mend = "set it to off, so that the trainer samples itself, or to server"
        raise InputError("vLLM shares a GPU with the training, and there is none", "a2grpo.vllm", mend)
    if settings.vllm != "server" or _answers(settings.vllm_server):
        return
    tell(f"waits for the vLLM server at {settings.vllm_server}; `geozero a2grpo --dry-run` has its command")
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        time.sleep(ASK_SECONDS)
        if _answers(settings.vllm_server):
            return
    mend = "start it with the command that `geozero a2grpo --dry-run` prints as `first`"
    raise InputError(f"no vLLM server answers at {settings.vllm_server}", "a2grpo.vllm_server", mend)


def _answers(server: str) -> bool:
    host, port = address(server)
    connection = HTTPConnection(host, port, timeout=ASK_SECONDS)
    try:
        connection.request("GET", "/health/")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()
