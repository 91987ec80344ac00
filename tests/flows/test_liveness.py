"""What a reaper does for its flow's run in Prefect, with a stand-in for the server."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest
from flows_checkout import ROOT
from ports import free_port

from flows.runtime import liveness, reaper
from flows.runtime.liveness import FlowRun
from geozero.common import process_tags
from geozero.stack import prefect_api

LEASE = {"deployment_concurrency_lease_id": "abc"}


class Server:
    """Holds one run's state, which a test changes, and keeps the requests that change something."""

    def __init__(self) -> None:
        self.run: dict[str, Any] = {"deployment_id": "d", "state": {"type": "RUNNING", "state_details": LEASE}}
        self.events: list[str] = []
        self.renewed: list[str] = []
        self.states: list[dict[str, Any]] = []
        self.authorization: set[str | None] = set()
        known = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer(known.run)

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                known.authorization.add(self.headers["Authorization"])
                if self.path == "/api/events":
                    known.events += [one["event"] for one in body]
                    assert body[0]["resource"] == {"prefect.resource.id": "prefect.flow-run.r"}
                elif self.path.endswith("/renew"):
                    known.renewed.append(self.path.split("/")[-2])
                else:
                    known.states.append(body)
                self.answer({})

            def answer(self, value: object) -> None:
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(value).encode())

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(liveness, "STATE_SECONDS", 0.02)
    monkeypatch.setattr(liveness, "REPORT_SECONDS", 0.02)
    monkeypatch.setattr(liveness, "HEARTBEAT_SECONDS", 0.05)
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    assert condition()


def test_only_a_running_run_has_heartbeats_and_its_lease_is_kept(server: Server) -> None:
    ended = threading.Event()
    threading.Thread(
        target=FlowRun(server.address, "r").watch, args=(ended.set, threading.Event()), daemon=True
    ).start()
    wait_for(lambda: len(server.events) > 2 and len(server.renewed) > 2)
    assert set(server.events) == {"prefect.flow-run.heartbeat"} and set(server.renewed) == {"abc"}
    server.run["state"] = {"type": "SCHEDULED", "name": "AwaitingRetry"}
    time.sleep(0.2)
    before = len(server.events)
    time.sleep(0.3)
    assert len(server.events) == before and not ended.is_set()
    server.run["state"] = {"type": "PAUSED", "name": "Suspended"}
    assert ended.wait(10)
    assert len(server.events) == before


def test_an_end_that_somebody_else_has_set_ends_the_work(server: Server) -> None:
    for kind in liveness.ENDS:
        server.run["state"] = {"type": kind}
        ended = threading.Event()
        FlowRun(server.address, "r").watch(ended.set, threading.Event())
        assert ended.is_set() and server.events == []


def test_a_flow_that_ends_by_itself_is_left_to_it(server: Server) -> None:
    ended, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=FlowRun(server.address, "r").watch, args=(ended.set, done), daemon=True)
    thread.start()
    wait_for(lambda: server.events)
    done.set()
    thread.join(10)
    server.run["state"] = {"type": "COMPLETED"}
    assert not thread.is_alive() and not ended.is_set()


@pytest.mark.parametrize("away", [True, False])
def test_a_cancelled_run_is_ended_where_its_worker_does_not(
    server: Server, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    """Soon after the server was away, which blinds the worker; otherwise the worker has its time."""
    monkeypatch.setattr(liveness, "WORKER_SECONDS", 60.0)
    answers = iter([OSError("away") if away else server.run])

    def read(run: FlowRun) -> dict[str, Any]:
        found = next(answers, server.run)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(FlowRun, "read", read)
    server.run["state"] = {"type": "CANCELLING", "name": "Cancelling"}
    ended, done = threading.Event(), threading.Event()
    threading.Thread(target=FlowRun(server.address, "r").watch, args=(ended.set, done), daemon=True).start()
    assert ended.wait(10 if away else 0.5) is away
    done.set()


def test_a_server_that_is_away_ends_nothing(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    away = FlowRun(f"http://127.0.0.1:{free_port()}", "r")
    ended = threading.Event()
    threading.Thread(target=away.watch, args=(ended.set, threading.Event()), daemon=True).start()
    time.sleep(0.2)
    assert not ended.is_set() and away.leaving() is None
    monkeypatch.setattr(liveness, "SETTLE_TRIES", 2)
    away.settle(lambda: False)


@pytest.mark.parametrize(
    ("state", "supervised", "becomes", "left"),
    [
        ("RUNNING", False, "CRASHED", False),
        ("RUNNING", True, None, False),  # its worker reports it, with the exit code
        ("CANCELLING", False, "CANCELLED", False),
        ("CANCELLING", True, "CANCELLED", False),  # a worker that was without its server does not report it
        ("PAUSED", True, "PAUSED", True),
        ("SCHEDULED", True, None, True),  # drained: the next pod takes it
        ("COMPLETED", True, None, True),
    ],
)
def test_a_run_is_left_in_a_true_state(
    server: Server, state: str, supervised: bool, becomes: str | None, left: bool
) -> None:
    """A heartbeat that came after the change of state would else let the automation take the run for dead."""
    server.run["state"] = {"type": state, "state_details": {"pause_key": "k"}}
    FlowRun(server.address, "r").settle(lambda: supervised)
    assert [one["state"]["type"] for one in server.states] == ([becomes] if becomes else [])
    assert all(one["force"] for one in server.states)
    assert server.events == [prefect_api.LEFT] * left
    if state == "PAUSED":
        assert server.states[0]["state"]["state_details"] == {"pause_key": "k", "pause_reschedule": True}


def test_a_flow_knows_that_it_was_suspended(server: Server) -> None:
    run = FlowRun(server.address, "r")
    assert run.leaving() is None
    server.run["state"] = {"type": "PAUSED", "name": "Suspended"}
    assert run.leaving() == server.run["state"]
    server.run["deployment_id"] = None  # Prefect could not start it again
    assert run.leaving() is None


@pytest.mark.parametrize(
    ("name", "value", "header"),
    [("PREFECT_API_AUTH_STRING", "a:b", "Basic YTpi"), ("PREFECT_API_KEY", "k", "Bearer k")],
)
def test_a_server_with_a_password_is_given_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, name: str, value: str, header: str
) -> None:
    monkeypatch.setenv(name, value)
    prefect_api.call(server.address, "flow_runs/r/set_state", {})
    assert server.authorization == {header}


FLOW = """
import os, signal, sys, time
from pathlib import Path
from flows.runtime.liveness import FlowRun
from flows.runtime.reaper import Reaper
from geozero.tracking import Tracker
folder = Path(sys.argv[1])
reaper = Reaper(Tracker(project=folder), folder, FlowRun(sys.argv[2], "r"))
def left(*_):
    (folder / "left").touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, left)
(folder / "ready").touch()
time.sleep(600)
"""


def test_a_flow_that_is_held_up_is_spoken_for_and_a_suspended_one_leaves(server: Server, tmp_path: Path) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in (reaper.PROCESS_TAG, reaper.STARTED_BY_WORKER)}
    words = [sys.executable, "-c", FLOW, str(tmp_path), server.address]
    flow = psutil.Popen(words, env={**kept, "PYTHONPATH": str(ROOT)})
    try:
        wait_for((tmp_path / "ready").exists)
        flow.suspend()
        wait_for(lambda: server.events)
        assert server.states == []
        flow.resume()
        server.run["state"] = {"type": "PAUSED", "name": "Suspended"}
        wait_for((tmp_path / "left").exists)
        wait_for(lambda: server.events[-1:] == [prefect_api.LEFT])
        assert [one["state"]["name"] for one in server.states] == ["Suspended"]
    finally:
        flow.kill()
        flow.wait()
    assert not process_tags.alive(flow)
