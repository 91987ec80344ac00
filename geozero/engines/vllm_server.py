"""A vLLM server as a child process, started with the settings of the in-process engine.

Run as a module this is that child.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.engines.base import EngineDied, EngineOptions, ending
from geozero.engines.prompts import Prompter
from geozero.engines.serving.credentials import own_key
from geozero.engines.trust import forbid_code
from geozero.engines.vllm_inprocess import CPU_ENVIRONMENT, built_for_cpu, distribution, engine_arguments, inspect_here

HOST = "127.0.0.1"
READY_SECONDS = 900.0
POLL_SECONDS = 0.25


class VllmServer:
    """A running server; `url` is its address, `key` what it wants of every client.

    Args:
        path: the checkpoint's directory.
        port: None: a free one.
        options: see `EngineOptions`.

    Raises:
        InputError: vLLM is not installed, or the port is in use.
        EngineDied: it ended, or was not ready in time.
    """

    def __init__(self, path: Path, *, port: int | None = None, **options: Any) -> None:
        if distribution() is None:
            raise InputError("vLLM is not installed", "--engine server", "give --url, or use --engine transformers")
        port = free_port(port)
        self.url, self.key = f"http://{HOST}:{port}", own_key()
        words = command_line(path, port, EngineOptions(**options))
        environment = {**_environment(), "VLLM_API_KEY": self.key}
        self._child = process.Child([sys.executable, "-m", __name__, *words], env=environment)
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._child.popen.pid

    def close(self) -> None:
        """End it and all of its processes."""
        self._child.end()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while time.monotonic() < deadline:
                if self._child.popen.poll() is not None:
                    raise EngineDied(f"the server {ending(self._child)}")
                try:
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(POLL_SECONDS)
        raise EngineDied(f"the server was not ready within {READY_SECONDS:g} s")


def free_port(port: int | None = None) -> int:
    """The port, or any that is free.

    Raises:
        InputError: it is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port or 0))
        except OSError:
            raise InputError(f"port {port} is in use", HOST, "choose another one, or end what listens there") from None
        return int(probe.getsockname()[1])


def command_line(path: Path, port: int, options: EngineOptions) -> list[str]:
    """Words that vLLM's server is started with: the arguments that `VllmEngine` passes to `vllm.LLM`."""
    words = ["--model", str(path), "--served-model-name", path.name, "--host", HOST, "--port", str(port)]
    words += ["--uvicorn-log-level", "warning", "--disable-uvicorn-access-log"]
    for name, value in engine_arguments(path, Prompter(path, options), options).items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, list):
            words += [f"--{flag}", *value]
        else:
            words += [f"--{flag}", json.dumps(value) if isinstance(value, dict) else str(value)]
    return words


def _environment() -> dict[str, str]:
    quiet = {"VLLM_LOGGING_LEVEL": "WARNING"}
    if not built_for_cpu():
        return quiet
    return {**quiet, **CPU_ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}  # the server knows no other way


def main(words: list[str]) -> None:
    """Run vLLM's server in this process."""
    process_tags.end_with_owner()
    process.prepare()
    forbid_code()
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    if built_for_cpu():
        inspect_here(Path(words[words.index("--model") + 1]))
    sys.argv = ["vllm", *words]
    serve()


if __name__ == "__main__":
    main(sys.argv[1:])
elif __name__ == "__mp_main__":  # a process that vLLM's server spawns imports this first
    process.prepare()
