"""Keys of servers: each request carries that of its own server, and no command line does."""

from __future__ import annotations

import base64
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from geozero.engines.openai_client import address
from geozero.engines.serving.credentials import API_KEY, ServerAuth, own_key


def header(auth: ServerAuth, url: str) -> str | None:
    request = next(auth.auth_flow(httpx.Request("GET", url)))
    found: str | None = request.headers.get("Authorization")
    return found


def test_each_server_gets_its_own_header(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEY, "key-of-ours")
    urls = ["http://me:p%40ss@first:8000", "http://second:8000/v1"]
    auth = ServerAuth(urls)
    assert header(auth, f"{address(urls[0])}/models") == f"Basic {base64.b64encode(b'me:p@ss').decode()}"
    assert header(auth, f"{address(urls[1])}/models") == "Bearer key-of-ours"
    assert header(auth, "http://elsewhere:8000/v1/models") is None
    monkeypatch.delenv(API_KEY)
    assert header(ServerAuth(urls), "http://second:8000/v1/models") is None


def test_our_own_server_has_a_key_that_its_command_line_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    from geozero.engines import vllm_server

    started: list[Any] = []

    def child(words: list[str], env: dict[str, str]) -> Any:
        started.append((words, env))
        return SimpleNamespace(popen=SimpleNamespace(pid=1), end=lambda: None)

    monkeypatch.delenv(API_KEY, raising=False)
    monkeypatch.setattr(vllm_server, "distribution", lambda: "vllm")
    monkeypatch.setattr(vllm_server, "command_line", lambda *_: ["--model", "m"])
    monkeypatch.setattr(vllm_server.process, "Child", child)
    monkeypatch.setattr(vllm_server.VllmServer, "_wait_until_ready", lambda self: None)
    server = vllm_server.VllmServer(Path("m"), dtype="float32", max_pixels=1, max_length=1)
    ((words, environment),) = started
    assert len(server.key) > 20 and environment["VLLM_API_KEY"] == server.key and server.key not in " ".join(words)
    monkeypatch.setenv(API_KEY, "the-users")
    assert own_key() == "the-users"
