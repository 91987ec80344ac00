"""A vLLM server as a child of ours: started with the settings of the in-process engine, waited for, ended for certain.

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
from geozero.engines.base import EngineDied
from geozero.engines.prompts import Prompter
from geozero.engines.vllm_inprocess import (
    CPU_ENVIRONMENT,
    SAMPLER,
    built_for_cpu,
    cache_bytes,
    distribution,
    inspect_here,
)

HOST = "127.0.0.1"
READY_SECONDS = 900.0
POLL_SECONDS = 0.25


class VllmServer:
    """A running server; `url` is its address.

    Args:
        path: the checkpoint's directory.
        dtype, max_pixels, max_length, memory, devices: as for `VllmEngine`.
        port: None: a free one.

    Raises:
        InputError: vLLM is not installed, or the port is in use.
        EngineDied: it ended, or was not ready in time.
    """

    def __init__(
        self,
        path: Path,
        *,
        dtype: str,
        max_pixels: int,
        max_length: int,
        memory: float = 0.9,
        devices: int = 1,
        port: int | None = None,
    ) -> None:
        if distribution() is None:
            raise InputError("vLLM is not installed", "--engine server", "give --url, or use --engine transformers")
        port = free_port(port)
        self.url = f"http://{HOST}:{port}"
        command = [
            sys.executable,
            "-m",
            __name__,
            *arguments(path, port, dtype, max_pixels, max_length, memory, devices),
        ]
        self._child = process.Child(command, env=_environment())
        try:
            self._wait()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._child.popen.pid

    def close(self) -> None:
        """End it and all of its processes."""
        self._child.end()

    def _wait(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        with httpx.Client(trust_env=False, timeout=5.0) as client:
            while time.monotonic() < deadline:
                if (code := self._child.popen.poll()) is not None:
                    self._child.drain()
                    raise EngineDied(f"the server ended with code {code}{self._last_words()}")
                try:
                    if client.get(f"{self.url}/health").status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(POLL_SECONDS)
        raise EngineDied(f"the server was not ready within {READY_SECONDS:g} s")

    def _last_words(self) -> str:
        """The last line that names an error, or the last line."""
        said = [line for line in self._child.tail if line.strip()]
        errors = [line for line in said if "Error" in line]
        return f": {(errors or said)[-1][:300]}" if said else ""


def free_port(wanted: int | None = None) -> int:
    """A port that nobody listens on.

    Raises:
        InputError: the wanted one is in use.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted or 0))
        except OSError:
            raise InputError(
                f"port {wanted} is in use", HOST, "choose another one, or end what listens there"
            ) from None
        return int(probe.getsockname()[1])


def arguments(
    path: Path, port: int, dtype: str, max_pixels: int, max_length: int, memory: float, devices: int
) -> list[str]:
    """What vLLM's server is started with; the same as `VllmEngine` gives to `vllm.LLM`."""
    prompter = Prompter(path, max_pixels, max_length)
    size = {"shortest_edge": prompter.min_pixels, "longest_edge": prompter.max_pixels}
    options: dict[str, Any] = {
        "model": path,
        "served-model-name": path.name,
        "host": HOST,
        "port": port,
        "dtype": dtype,
        "max-model-len": prompter.max_length,
        "generation-config": "vllm",
        "limit-mm-per-prompt": json.dumps({"image": 1, "video": 0}),
        "mm-processor-kwargs": json.dumps({"size": size}),
        "logits-processors": SAMPLER,
        "uvicorn-log-level": "warning",
    }
    options |= (
        {
            "distributed-executor-backend": "uni",
            "kv-cache-memory-bytes": cache_bytes(path, prompter.max_length),
        }
        if built_for_cpu()
        else {"gpu-memory-utilization": memory, "tensor-parallel-size": devices}
    )
    switches = ["--no-async-scheduling", "--disable-uvicorn-access-log"]
    switches += ["--enforce-eager"] if built_for_cpu() else []
    return [*(word for name, value in options.items() for word in (f"--{name}", str(value))), *switches]


def _environment() -> dict[str, str]:
    quiet = {"VLLM_LOGGING_LEVEL": "WARNING"}
    if not built_for_cpu():
        return quiet
    return {**quiet, **CPU_ENVIRONMENT, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}  # the server knows no other way


def main(words: list[str]) -> None:
    """Run vLLM's server in this process."""
    process_tags.end_with_owner()
    process.prepare()
    from vllm.entrypoints.launchers.api_server.entry import main as serve

    if built_for_cpu():
        inspect_here(Path(words[words.index("--model") + 1]))
    sys.argv = ["vllm", *words]
    serve()


if __name__ == "__main__":
    main(sys.argv[1:])
elif __name__ == "__mp_main__":  # a process that vLLM's server spawns imports this first
    process.prepare()
