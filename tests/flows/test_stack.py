"""The local stack: started, looked at and ended without leftovers, here with stand-ins; at the end the real one."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import psutil
import pytest
from flows_checkout import ROOT
from paths import SUPPORT
from ports import free_port, quiet

from geozero.common import process_tags
from geozero.common.errors import InputError
from geozero.stack import control, prefect_api
from geozero.stack.services import MLFLOW, PROCESS_TAG, SERVER, SERVICES, StackPlan

SLEEPER = "import subprocess, sys, time; {0}; time.sleep(600)"
ORPHAN = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)"


class FakePlan(StackPlan):
    """The servers are `fake_stack.py`; a worker sleeps, beside a child that has left its group."""

    def command(self, part: str) -> list[str]:
        if part in (SERVER, MLFLOW):
            port = self.port if part == SERVER else self.mlflow_port
            return [sys.executable, str(SUPPORT / "fake_stack.py"), str(port)]
        return [sys.executable, "-c", SLEEPER.format(ORPHAN)]


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[StackPlan]:
    made = FakePlan(tmp_path, port=free_port(), mlflow_port=free_port())
    yield made
    control.down(tmp_path, tell=quiet)
    assert process_tags.find_tagged(PROCESS_TAG, str(made.directory)) == []


def states(parts: list[control.ServiceStatus]) -> dict[str, str]:
    return {part.name: part.state for part in parts}


def pids(root: Path) -> dict[str, int | None]:
    return {part.name: part.pid for part in control.status(root)}


def wait_until_orphans(plan: StackPlan, n: int) -> None:
    end = time.monotonic() + 20
    while len(process_tags.find_tagged(PROCESS_TAG, str(plan.directory))) < n and time.monotonic() < end:
        time.sleep(0.05)


def test_up_twice_starts_everything_once(plan: StackPlan) -> None:
    assert states(control.up(plan, tell=quiet)) == dict.fromkeys(SERVICES, "up")
    first = pids(plan.root)
    said: list[str] = []
    control.up(plan, tell=said.append)
    assert (pids(plan.root), said) == (first, [])


def test_after_a_kill_status_says_so_up_fixes_it_and_down_leaves_nothing(plan: StackPlan) -> None:
    control.up(plan, tell=quiet)
    wait_until_orphans(plan, len(SERVICES) + 2)
    before = pids(plan.root)
    killed = before["worker-cpu"]
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    os.waitpid(killed, 0)
    assert states(control.status(plan.root)) == {**dict.fromkeys(SERVICES, "up"), "worker-cpu": "dead"}
    control.up(plan, tell=quiet)
    after = pids(plan.root)
    assert {name for name in SERVICES if before[name] != after[name]} == {"worker-cpu"}
    assert control.down(plan.root, tell=quiet)
    assert (
        process_tags.find_tagged(PROCESS_TAG, str(plan.directory)) == []
    )  # not even the killed worker's child in a session of its own
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "down")
    assert not (plan.directory / control.STATE).exists()
    assert not control.down(plan.root, tell=quiet)


def test_what_does_not_answer_is_starting_at_first_and_silent_later(
    plan: StackPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.up(plan, tell=quiet)
    server = pids(plan.root)[SERVER]
    assert server is not None
    os.kill(server, signal.SIGKILL)
    os.waitpid(server, 0)
    without = {SERVER: "dead", MLFLOW: "up"}
    assert states(control.status(plan.root)) == {**dict.fromkeys(SERVICES, "starting"), **without}
    monkeypatch.setattr(control, "STARTING_SECONDS", 0.0)
    assert states(control.status(plan.root)) == {**dict.fromkeys(SERVICES, "silent"), **without}


@pytest.mark.slow
def test_the_server_s_log_tells_failures_but_not_each_try(tmp_path: Path) -> None:
    """Prefect's SQLite turns writers away for a moment; each retry would be a traceback of 8 kB, for ever."""
    names = ("docket.dependencies", "docket.worker", "prefect.server.api", "other")
    said = "; ".join(f"logging.getLogger('{name}').error('{name} failed')" for name in names)
    plan = StackPlan(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", f"import logging, prefect.logging.configuration as c; c.setup_logging(); {said}"],
        env=plan.environment(SERVER),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [f"{name} failed" in done.stderr for name in names] == [False, True, True, True], done.stderr
    assert "PREFECT_LOGGING_SETTINGS_PATH" not in plan.environment("worker-gpu")  # a flow's log is Prefect's own


def test_a_port_in_use_is_one_clear_line_and_starts_nothing(plan: StackPlan) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", plan.mlflow_port))
        other.listen()
        with pytest.raises(InputError, match=rf"port {plan.mlflow_port} is in use.*--mlflow-port"):
            control.up(plan, tell=quiet)
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "down")


def test_no_checkout_and_one_port_for_two_servers_are_refused_before_anything_starts(plan: StackPlan) -> None:
    gone = FakePlan(plan.root / "gone", port=plan.port, mlflow_port=plan.mlflow_port)
    with pytest.raises(InputError, match="no such directory"):
        control.up(gone, tell=quiet)
    assert not gone.root.exists()
    with pytest.raises(InputError, match=f"cannot share port {plan.port}"):
        control.up(FakePlan(plan.root, port=plan.port, mlflow_port=plan.port), tell=quiet)
    assert not plan.directory.exists()


def test_a_directory_without_deployments_is_told(plan: StackPlan) -> None:
    said: list[str] = []
    control.up(plan, tell=said.append)
    assert said[-1] == f"deployments: none, for there is no prefect.yaml in {plan.root}"


def test_other_ports_than_those_it_runs_on_are_refused(plan: StackPlan) -> None:
    control.up(plan, tell=quiet)
    here = f"--port {plan.port} --mlflow-port {plan.mlflow_port} --host 127.0.0.1 fixes it"
    with pytest.raises(InputError, match=f"runs already.*{here}"):
        control.up(FakePlan(plan.root, port=free_port(), mlflow_port=plan.mlflow_port), tell=quiet)


def test_a_part_that_ends_at_once_ends_the_others_too(plan: StackPlan) -> None:
    class Broken(FakePlan):
        def command(self, part: str) -> list[str]:
            failing = ["/bin/sh", "-c", "echo no such pool; exit 1"]
            return failing if part == "worker-gpu" else super().command(part)

    with pytest.raises(InputError, match=r"worker-gpu.*no such pool"):
        broken = Broken(plan.root, port=plan.port, mlflow_port=plan.mlflow_port)
        control.up(broken, tell=quiet)
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "down")


def test_a_second_command_does_not_get_in_between(plan: StackPlan) -> None:
    plan.directory.mkdir(parents=True)
    with (plan.directory / control.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another"):
            control.up(plan, tell=quiet)


def test_a_process_id_that_another_process_has_by_now_is_not_taken_for_ours(plan: StackPlan) -> None:
    plan.directory.mkdir(parents=True)
    stale = {name: {"pid": os.getpid(), "started": psutil.Process().create_time() - 1000.0} for name in SERVICES}
    control._write(plan, stale)
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "dead")
    assert control.down(plan.root, tell=quiet)  # and this test goes on living


@pytest.mark.parametrize(
    "state",
    ["", "no json", "[]", '{"plan": {"host": 3}, "parts": {"prefect": {}}}', '{"plan": null, "parts": {"prefect": 7}}'],
)
def test_a_state_that_is_none_of_ours_counts_as_none(plan: StackPlan, state: str) -> None:
    control.up(plan, tell=quiet)
    (plan.directory / control.STATE).write_text(state)
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "down")
    assert control.down(plan.root, tell=quiet)  # found by their mark
    assert process_tags.find_tagged(PROCESS_TAG, str(plan.directory)) == []


def test_a_stack_for_other_machines_can_be_called_by_this_one_s_name() -> None:
    name = socket.gethostname()
    words = StackPlan(ROOT, host="0.0.0.0", mlflow_port=5401).command(MLFLOW)
    assert f"{name}:5401" in words[words.index("--allowed-hosts") + 1].split(",")
    assert f"http://{name}:5401" in words[words.index("--cors-allowed-origins") + 1].split(",")
    assert "--allowed-hosts" not in StackPlan(ROOT).command(MLFLOW)


def test_the_zombie_watch_waits_longer_than_a_heartbeat() -> None:
    trigger = prefect_api.zombies()["trigger"]
    assert int(StackPlan(ROOT).environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]) * 3 < trigger["within"] < 360


@pytest.mark.parametrize(("busy", "says"), [(2, {"id": "x"}), (99, None)])
def test_a_busy_server_is_asked_again_for_a_while(busy: int, says: object, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(503 if len(asked) <= busy else 201)
            self.end_headers()
            self.wfile.write(b'{"id": "x"}')

        def log_message(self, format: str, *args: object) -> None:
            pass

    monkeypatch.setattr(prefect_api, "BUSY_SECONDS", 0.001)
    with HTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        if says is None:
            with pytest.raises(urllib.error.HTTPError, match="503"):
                prefect_api.call(address, "flow_runs", {"a": 1})
        else:
            assert prefect_api.call(address, "flow_runs", {"a": 1}) == says
        server.shutdown()
    assert asked == [b'{"a": 1}'] * min(busy + 1, prefect_api.BUSY_TRIES)


def test_the_commands_end_with_their_codes(tmp_path: Path) -> None:
    def geozero(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "geozero.cli", "stack", *words, "--root", str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    asked = geozero("status")
    assert asked.returncode == 1
    assert [line.split("\t")[:2] for line in asked.stdout.splitlines()] == [[name, "down"] for name in SERVICES]
    assert geozero("down").returncode == 0
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        refused = geozero("up", "--port", str(other.getsockname()[1]))
    assert (refused.returncode, refused.stdout) == (2, "")
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_real_stack_comes_up_holds_what_runs_need_and_goes(tmp_path: Path) -> None:
    plan = StackPlan(tmp_path, port=free_port(), mlflow_port=free_port())
    try:
        assert states(control.up(plan, timeout=400, tell=quiet)) == dict.fromkeys(SERVICES, "up")
        pools = prefect_api.call(plan.prefect_address, "work_pools/filter", {})
        assert {pool["name"]: pool["concurrency_limit"] for pool in pools} == {"cpu": 2, "gpu": 1}
        prefect_api.furnish(plan.prefect_address)  # a second time: nothing doubles
        (watch,) = prefect_api.call(plan.prefect_address, "automations/filter", {})
        assert watch["enabled"]
        limits = prefect_api.call(plan.prefect_address, "v2/concurrency_limits/filter", {})
        assert [(limit["name"], limit["limit"]) for limit in limits] == [("gpu", 1)]
    finally:
        control.down(tmp_path, tell=quiet)
    assert process_tags.find_tagged(PROCESS_TAG, str(plan.directory)) == []
    assert json.dumps(states(control.status(tmp_path))).count("down") == len(SERVICES)
