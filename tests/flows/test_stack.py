"""The local stack: started, looked at and ended without leftovers, here with stand-ins; at the end the real one."""

from __future__ import annotations

import configparser
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from flows_checkout import ROOT
from paths import SUPPORT
from ports import free_port, quiet

from geozero.common import process_tags
from geozero.common.errors import InputError
from geozero.stack import control, prefect_api
from geozero.stack.services import (
    CONFIG,
    KEPT_DAYS,
    MLFLOW,
    POOLS,
    PROCESS_TAG,
    SERVER,
    SERVICES,
    StackPlan,
    checkout_name,
)

FAKE = SUPPORT / "fake_supervisord.conf"


@pytest.fixture
def plan(tmp_path: Path) -> Iterator[StackPlan]:
    made = StackPlan(tmp_path, port=free_port(), mlflow_port=free_port(), config=FAKE)
    yield made
    control.down(tmp_path, log=quiet)
    assert process_tags.find_tagged(PROCESS_TAG, str(made.directory)) == []


def states(services: list[control.ServiceStatus]) -> dict[str, str]:
    return {service.name: service.state for service in services}


def pids(root: Path) -> dict[str, int | None]:
    return {service.name: service.pid for service in control.status(root)}


def wait_for(condition: Callable[[], object], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition()


def kill(pid: int | None) -> None:
    assert pid
    os.kill(pid, signal.SIGKILL)


def test_up_twice_starts_everything_once(plan: StackPlan) -> None:
    assert states(control.up(plan, log=quiet)) == dict.fromkeys(SERVICES, "up")
    first = pids(plan.root)
    said: list[str] = []
    control.up(plan, log=said.append)
    assert (pids(plan.root), said) == (first, [])


def test_what_is_killed_is_started_again_and_down_leaves_nothing(plan: StackPlan) -> None:
    control.up(plan, log=quiet)
    before = pids(plan.root)
    kill(before["worker-cpu"])
    wait_for(lambda: pids(plan.root)["worker-cpu"] not in (None, before["worker-cpu"]))
    wait_for(lambda: states(control.status(plan.root)) == dict.fromkeys(SERVICES, "up"))
    after = pids(plan.root)
    assert {name for name in SERVICES if before[name] != after[name]} == {"worker-cpu"}
    folder = Path(control._read(plan.root)["socket"]).parent
    assert folder.is_dir()
    assert control.down(plan.root, log=quiet)
    # not even the killed worker's child in a session of its own
    assert process_tags.find_tagged(PROCESS_TAG, str(plan.directory)) == []
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "down")
    assert not (plan.directory / control.STATE).exists() and not folder.exists()
    assert not control.down(plan.root, log=quiet)


def test_a_service_that_was_given_up_is_dead_until_up(plan: StackPlan) -> None:
    control.up(plan, log=quiet)
    control.supervisor(plan.root).stopProcess("workers:worker-gpu")
    assert states(control.status(plan.root)) == {**dict.fromkeys(SERVICES, "up"), "worker-gpu": "dead"}
    before, said = pids(plan.root), list[str]()
    assert states(control.up(plan, log=said.append)) == dict.fromkeys(SERVICES, "up")
    assert said[0] == "worker-gpu: starting"
    after = pids(plan.root)
    assert {name for name in SERVICES if before[name] != after[name]} == {"worker-gpu"}


def test_a_killed_supervisor_is_noticed_and_up_begins_anew(plan: StackPlan) -> None:
    control.up(plan, log=quiet)
    kill(control.supervisor(plan.root).getPID())
    wait_for(lambda: states(control.status(plan.root)) == dict.fromkeys(SERVICES, "dead"))
    folder, said = Path(control._read(plan.root)["socket"]).parent, list[str]()
    assert states(control.up(plan, log=said.append)) == dict.fromkeys(SERVICES, "up")
    assert said[0].startswith("processes of a stack whose supervisor is gone: ") and not folder.exists()
    kill(control.supervisor(plan.root).getPID())
    assert control.down(plan.root, log=quiet)  # found by their tag


def test_only_the_chosen_pools_get_a_worker_and_more_may_join(plan: StackPlan) -> None:
    servers = replace(plan, pools=())
    assert states(control.up(servers, log=quiet)) == {SERVER: "up", MLFLOW: "up"}
    assert control.pools_of(plan.root) == ()
    first = pids(plan.root)
    with_cpu = states(control.up(replace(plan, pools=("cpu",)), log=quiet))
    assert with_cpu == {SERVER: "up", MLFLOW: "up", "worker-cpu": "up"}
    assert states(control.up(servers, log=quiet)) == with_cpu  # what runs goes on
    assert pids(plan.root).items() > {name: first[name] for name in (SERVER, MLFLOW)}.items()
    control.down(plan.root, log=quiet)
    assert control.pools_of(plan.root) == tuple(POOLS)


def test_clones_are_told_apart_and_a_name_is_one_word() -> None:
    names = [checkout_name(path) for path in ("/srv/a/geozero", "/srv/b/geozero", "/srv/a/geo & zero")]
    assert names[0] == checkout_name(Path("/srv/a/geozero")) != names[1]
    assert [name.rpartition("-")[0] for name in names] == ["geozero", "geozero", "geo-zero"]


def test_what_does_not_answer_is_starting_at_first_and_silent_later(
    plan: StackPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.up(plan, log=quiet)
    monkeypatch.setattr(control, "_answers", lambda plan, name, started: name == MLFLOW)
    assert states(control.status(plan.root)) == {**dict.fromkeys(SERVICES, "starting"), MLFLOW: "up"}
    monkeypatch.setattr(control, "STARTING_SECONDS", 0.0)
    assert states(control.status(plan.root)) == {**dict.fromkeys(SERVICES, "silent"), MLFLOW: "up"}


@pytest.mark.slow
def test_the_server_s_log_tells_failures_but_not_each_try(tmp_path: Path) -> None:
    """Prefect's SQLite turns writers away for a moment; each retry would be a traceback of 8 kB, for ever."""
    names = ("docket.dependencies", "docket.worker", "prefect.server.api", "other")
    said = "; ".join(f"logging.getLogger('{name}').error('{name} failed')" for name in names)
    plan, logging = StackPlan(tmp_path), CONFIG.with_name("server-logging.yaml")
    done = subprocess.run(
        [sys.executable, "-c", f"import logging, prefect.logging.configuration as c; c.setup_logging(); {said}"],
        env=plan.environment() | {"PREFECT_LOGGING_SETTINGS_PATH": str(logging)},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert [f"{name} failed" in done.stderr for name in names] == [False, True, True, True], done.stderr
    assert "PREFECT_LOGGING_SETTINGS_PATH" not in plan.environment()  # a flow's log is Prefect's own
    (line,) = [line for line in CONFIG.read_text().splitlines() if "PREFECT_LOGGING_SETTINGS_PATH" in line]
    assert line.endswith(f'="%(here)s/{logging.name}"')


def test_a_port_in_use_is_one_clear_line_and_starts_nothing(plan: StackPlan) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", plan.mlflow_port))
        other.listen()
        with pytest.raises(InputError, match=rf"port {plan.mlflow_port} is in use.*--mlflow-port"):
            control.up(plan, log=quiet)
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "down")


def test_no_checkout_and_one_port_for_two_servers_are_refused_before_anything_starts(plan: StackPlan) -> None:
    gone = replace(plan, root=plan.root / "gone")
    with pytest.raises(InputError, match="no such directory"):
        control.up(gone, log=quiet)
    assert not gone.root.exists()
    with pytest.raises(InputError, match=f"cannot share port {plan.port}"):
        control.up(replace(plan, mlflow_port=plan.port), log=quiet)
    assert not plan.directory.exists()


def test_a_directory_without_deployments_is_logged(plan: StackPlan) -> None:
    said: list[str] = []
    control.up(plan, log=said.append)
    assert said[-1] == f"deployments: none, no prefect.yaml in {plan.root}"


def test_other_ports_than_those_it_runs_on_are_refused(plan: StackPlan) -> None:
    control.up(plan, log=quiet)
    here = f"give --port {plan.port} --mlflow-port {plan.mlflow_port} --host 127.0.0.1"
    with pytest.raises(InputError, match=f"already runs.*{here}"):
        control.up(replace(plan, port=free_port()), log=quiet)


def test_a_service_that_ends_at_once_ends_the_others_too(plan: StackPlan, tmp_path: Path) -> None:
    words = "command = /bin/sh -c 'setsid sleep 600 & exec sleep 600'"
    before, _, after = FAKE.read_text().replace("%(here)s", str(SUPPORT)).rpartition(words)
    (tmp_path / "broken.conf").write_text(f"{before}command = /bin/sh -c 'echo no such pool; exit 1'{after}")
    with pytest.raises(InputError, match=r"worker-gpu.*no such pool"):
        control.up(replace(plan, config=tmp_path / "broken.conf"), log=quiet)
    assert states(control.status(plan.root)) == dict.fromkeys(SERVICES, "down")


def test_a_second_command_does_not_get_in_between(plan: StackPlan) -> None:
    plan.directory.mkdir(parents=True)
    with (plan.directory / control.LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match="another"):
            control.up(plan, log=quiet)


@pytest.mark.parametrize(
    "state",
    ["", "no json", "[]", '{"plan": {"host": 3}, "socket": 7}', '{"plan": null, "socket": null}', '{"socket": "here"}'],
)
def test_a_state_that_is_none_of_ours_costs_nothing_but_itself(
    plan: StackPlan, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control.up(plan, log=quiet)
    folder = Path(control._read(plan.root)["socket"]).parent
    (plan.directory / control.STATE).write_text(state)
    (tmp_path / "here").write_text("a file of the user's")
    monkeypatch.chdir(tmp_path)
    assert set(states(control.status(plan.root)).values()) == {"dead"}
    assert control.down(plan.root, log=quiet)  # found by their tag
    assert process_tags.find_tagged(PROCESS_TAG, str(plan.directory)) == []
    assert (tmp_path / "here").read_text() == "a file of the user's"
    shutil.rmtree(folder, ignore_errors=True)


def test_a_stack_for_other_machines_can_be_called_by_this_one_s_name() -> None:
    name = socket.gethostname()
    environment = StackPlan(ROOT, host="0.0.0.0", mlflow_port=5401).environment()
    assert f"{name}:5401" in environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert f"http://{name}:5401" in environment["MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"].split(",")
    assert "MLFLOW_SERVER_ALLOWED_HOSTS" not in StackPlan(ROOT).environment()


def test_the_services_of_the_configuration_are_those_of_the_plan() -> None:
    written = configparser.RawConfigParser()
    written.read(CONFIG)
    programs = [name.removeprefix("program:") for name in written.sections() if name.startswith("program:")]
    grouped = [name for group in ("servers", "workers") for name in written[f"group:{group}"]["programs"].split(",")]
    assert tuple(programs) == tuple(grouped) == SERVICES
    for name in programs:
        pool = name.removeprefix("worker-")
        assert pool == name or f" --limit {POOLS[pool]} " in written[f"program:{name}"]["command"]
        assert written[f"program:{name}"]["autorestart"] == "true"
        assert written[f"program:{name}"]["stdout_logfile"].endswith(f"/{name}.log")


def test_the_zombie_watch_outlasts_a_flow_that_is_held_up_and_frees_the_slot_in_six_minutes() -> None:
    """It looks every five seconds, and the last heartbeat came up to 30 s before the kill."""
    trigger = prefect_api.zombies()["trigger"]
    beat = int(StackPlan(ROOT).environment()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 165 + 3 * beat < trigger["within"] < 360 - beat
    for state in ("AwaitingRetry", "Scheduled", "Suspended", "Paused", "Resuming", "Completed"):
        assert f"prefect.flow-run.{state}" in trigger["expect"]
    assert "prefect.flow-run.Running" not in trigger["expect"]  # a kill right behind it would never be noticed


@pytest.mark.parametrize("where", ["stack", "composition"])
def test_a_server_vacuums_its_database(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Prefect itself reads what the stack and the composition set: ended runs too, which it keeps by default."""
    from prefect.settings.models.server.services import ServerServicesDBVacuumSettings

    composition = yaml.safe_load((ROOT / "deploy/docker/docker-compose.yaml").read_text())
    for name, value in {
        "stack": StackPlan(ROOT).environment(),
        "composition": composition["services"]["prefect"]["environment"],
    }[where].items():
        monkeypatch.setenv(name, value)
    found = ServerServicesDBVacuumSettings()
    assert found.enabled_vacuum_types == {"events", "flow_runs"}
    assert found.retention_period.days == KEPT_DAYS
    assert found.event_retention_overrides["prefect.flow-run.heartbeat"].days == 1


def test_notifications_need_a_block_that_exists(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def call(address: str, path: str, body: object = None, method: str | None = None) -> object:
        if path.startswith("block_types/"):
            raise urllib.error.HTTPError(path, 404, "", Message(), None)
        return []

    monkeypatch.setattr(prefect_api, "call", call)
    assert prefect_api.main(["http://x/api", "--notify", "slack-webhook/lab"]) == 2
    assert capsys.readouterr().err.startswith("geozero: no notification block 'slack-webhook/lab' in http://x")


@pytest.mark.parametrize(("within", "changed", "enabled"), [(120, True, False), (300, False, True), (600, False, True)])
def test_the_automation_of_an_earlier_version_is_replaced(
    within: int, changed: bool, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It marked living runs as crashed. Whether it is on stays the user's choice, and so does a longer window."""
    wanted, sent = prefect_api.zombies(), list[object]()
    found = wanted | {"id": "x", "enabled": enabled, "trigger": wanted["trigger"] | {"within": within}}

    def call(address: str, path: str, body: object = None, method: str | None = None) -> object:
        if method == "PUT":
            sent.append((path, body))
        return [found] if path == "automations/filter" else []

    monkeypatch.setattr(prefect_api, "call", call)
    prefect_api.furnish("http://x")
    assert sent == ([("automations/x", wanted | {"enabled": enabled})] if changed else [])


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
    unknown = geozero("up", "--pools", "cpu,tpu")
    assert unknown.returncode == 2 and "'tpu' is none of cpu, gpu, none" in unknown.stderr
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
        assert states(control.up(plan, timeout=400, log=quiet)) == dict.fromkeys(SERVICES, "up")
        pools = prefect_api.call(plan.prefect_address, "work_pools/filter", {})
        assert {pool["name"]: pool["concurrency_limit"] for pool in pools} == {"cpu": None, "gpu": None}
        prefect_api.furnish(plan.prefect_address)  # a second time: nothing doubles
        (watch,) = prefect_api.call(plan.prefect_address, "automations/filter", {})
        assert watch["enabled"]
        assert watch["trigger"]["within"] == prefect_api.zombies()["trigger"]["within"]
    finally:
        control.down(tmp_path, log=quiet)
    assert process_tags.find_tagged(PROCESS_TAG, str(plan.directory)) == []
    assert json.dumps(states(control.status(tmp_path))).count("down") == len(SERVICES)
