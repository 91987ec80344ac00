"""Start, stop and show the local stack: its services run under supervisord, which restarts those that end.

While a stack runs, `.geozero/stack/state.json` holds its ports and the socket of its supervisor.
"""

from __future__ import annotations

import errno
import fcntl
import json
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import psutil

from geozero.common import process, process_tags
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.stack import prefect_api
from geozero.stack.services import MLFLOW, POOLS, PROCESS_TAG, SERVER, StackPlan, checkout_name
from geozero.tracking.mlflow_store import ARTIFACTS, follow_move

Log = Callable[[str], None]
State = Literal["up", "starting", "silent", "dead", "down"]

STATE, LOCK, DEPLOYMENTS = "state.json", "lock", "prefect.yaml"
POLL_SECONDS = 0.5
STOP_SECONDS = 60.0  # more than supervisord gives workers and servers one after the other
DEPLOY_SECONDS = 180.0
STARTING_SECONDS = 240.0  # without an answer for so long a service is silent; so is a worker without a server
SPAWN_ERROR = 50  # supervisord's fault of a process that it could not start, or that ended at once
RUNNING = ("STARTING", "RUNNING", "BACKOFF")  # supervisord's states of a service that runs or is about to be restarted


@dataclass(frozen=True)
class ServiceStatus:
    """State of a service: `up` answers, `starting` does not yet, `silent` should by now, `dead` was up and is gone."""

    name: str
    state: State
    pid: int | None
    address: str
    log: Path


def up(plan: StackPlan, timeout: float = 240.0, log: Log = print) -> list[ServiceStatus]:
    """Start what does not run yet, and return when all of it answers.

    The deployments of `prefect.yaml`, where one stands in the checkout, are registered as well.

    Raises:
        InputError: there is no such checkout, a port is in use, the stack runs with other ports, or a service did not
            come up; a stack that this call has started is ended then.
    """
    if not plan.root.is_dir():
        raise InputError("no such directory", str(plan.root), "give a checkout as --root, or run in one")
    if plan.port == plan.mlflow_port:
        raise InputError(f"two servers cannot share port {plan.port}", hint="give another --port or --mlflow-port")
    plan.directory.mkdir(parents=True, exist_ok=True)
    with _locked(plan):
        fresh = not _services(plan.root)
        end = time.monotonic() + timeout
        try:
            if fresh:
                follow_move(plan.root / "mlflow.db", plan.root / ARTIFACTS)
                _launch(plan, log)
            else:
                _require_same_place(plan)
                running = _plan_of(plan.root).pools  # their workers go on, whatever pools are asked for now
                plan = replace(plan, pools=tuple(pool for pool in POOLS if pool in (*running, *plan.pools)))
                _write_state(plan, _read(plan.root)["socket"])
            started = _start(plan, (SERVER, MLFLOW), log)
            _wait(plan, [SERVER], end)
            prefect_api.furnish(plan.prefect_address)
            started += _start(plan, plan.services, log)
            if started:
                _deploy(plan, log)
            _wait(plan, plan.services, end)
        except BaseException:
            if fresh:
                _shut_down(plan)
            raise
    return status(plan.root)


def down(root: Path, log: Log = print) -> bool:
    """End every process of the stack, and all that these have started; returns whether there was anything to end.

    The history of runs stays: Prefect's database in `.geozero/prefect`, MLflow's in `mlflow.db`.
    """
    plan = StackPlan(root)
    if not plan.directory.is_dir():
        return False
    with _locked(plan):
        found = _services(root)
        for name, service in found.items():
            if service["statename"] in RUNNING:
                log(f"{name}: ending")
        left = _shut_down(plan)
        if left:
            log(f"processes without a parent: {left} ended")
    return bool(found or left)


def status(root: Path) -> list[ServiceStatus]:
    """The present state of every service."""
    plan, found = _plan_of(root), _services(root)

    def state(name: str) -> State:
        if name not in found:
            return "dead" if (plan.directory / STATE).exists() else "down"
        if found[name]["statename"] not in RUNNING:
            return "dead"
        if _answers(plan, name, found[name]["start"]):
            return "up"
        return "starting" if time.time() - found[name]["start"] < STARTING_SECONDS else "silent"

    pids = {name: service["pid"] or None for name, service in found.items()}
    services = plan.services
    return [ServiceStatus(name, state(name), pids.get(name), plan.address(name), plan.log(name)) for name in services]


def pools_of(root: Path) -> tuple[str, ...]:
    """The pools that have a worker in a checkout's stack; all of them where none was started."""
    return _plan_of(root).pools


def supervisor(root: Path) -> Any:
    """The XML-RPC interface of a stack's supervisor; its calls raise OSError where there is none."""
    from supervisor.xmlrpc import SupervisorTransport

    transport = SupervisorTransport(serverurl=f"unix://{_read(root).get('socket', '/')}")
    return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor


def _services(root: Path) -> dict[str, dict[str, Any]]:
    """What supervisord says of each service; empty where none runs."""
    try:
        return {service["name"]: service for service in supervisor(root).getAllProcessInfo()}
    except (OSError, xmlrpc.client.Error):
        return {}


def _launch(plan: StackPlan, log: Log) -> None:
    """Start a supervisor, which starts nothing by itself. It outlives this process and its terminal."""
    left = process_tags.end_tagged(PROCESS_TAG, str(plan.directory))
    if left:
        log(f"processes of a stack whose supervisor is gone: {left} ended")
    for name, port in ((SERVER, plan.port), (MLFLOW, plan.mlflow_port)):
        _require_free(plan.host, port, name)
    _remove_state(plan)  # of the supervisor that is gone
    address = f"{tempfile.mkdtemp(prefix='geozero-stack-')}/socket"  # short: a socket's path is limited
    _write_state(plan, address)
    command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(plan.config)]
    environment = plan.environment() | {"GEOZERO_STACK_SOCKET": address}
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)


def _write_state(plan: StackPlan, address: str) -> None:
    where = {"host": plan.host, "port": plan.port, "mlflow_port": plan.mlflow_port, "pools": plan.pools}
    write_json(plan.directory / STATE, {"plan": where, "socket": address})


def _start(plan: StackPlan, names: Sequence[str], log: Log) -> list[str]:
    """Start those of the services that do not run; returns their names."""
    found = _services(plan.root)
    started = [name for name in names if name in found and found[name]["statename"] not in RUNNING]
    for name in started:
        log(f"{name}: starting")
        try:
            supervisor(plan.root).startProcess(f"{found[name]['group']}:{name}", False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != SPAWN_ERROR:
                raise
            # it has ended before supervisord looked: `_wait` says so with the last line of its log
    return started


def _answers(plan: StackPlan, name: str, started: float) -> bool:
    if name == SERVER:
        return prefect_api.healthy(plan.prefect_address)
    if name == MLFLOW:
        try:
            with urllib.request.urlopen(f"{plan.mlflow_address}/health", timeout=prefect_api.TIMEOUT) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
    pool = name.removeprefix("worker-")
    return prefect_api.online(plan.prefect_address, pool, f"geozero-{pool}", started)


def _wait(plan: StackPlan, names: Sequence[str], end: float) -> None:
    """Wait until services answer. Raises InputError where one ends, or does not answer in time."""
    waiting = list(names)
    while waiting:
        found = _services(plan.root)
        for name in waiting:
            if name not in found or found[name]["statename"] not in ("STARTING", "RUNNING"):
                raise InputError(f"{name} ended as it started: {_last_line(plan.log(name))}", str(plan.log(name)))
        waiting = [name for name in waiting if not _answers(plan, name, found[name]["start"])]
        if waiting and time.monotonic() > end:
            hint = "give more time with --timeout; the other logs are beside this one"
            raise InputError(f"{', '.join(waiting)} did not answer in time", str(plan.log(waiting[0])), hint)
        if waiting:
            time.sleep(POLL_SECONDS)


def _deploy(plan: StackPlan, log: Log) -> None:
    """Register the deployments of prefect.yaml."""
    if not (plan.root / DEPLOYMENTS).is_file():
        log(f"deployments: none, no {DEPLOYMENTS} in {plan.root}")
        return
    output = plan.log("deploy")
    output.unlink(missing_ok=True)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    environment = plan.environment() | {"PREFECT_LOGGING_LEVEL": "ERROR"}
    try:
        process.run(command, log=output, cwd=plan.root, env=environment, timeout=DEPLOY_SECONDS)
    except TimeoutError:
        raise InputError(f"the deployments took longer than {DEPLOY_SECONDS:.0f} s", str(output)) from None
    except process.ChildFailed:
        raise InputError(f"the deployments of {DEPLOYMENTS} were refused: {_last_line(output)}", str(output)) from None
    log(f"deployments: registered from {DEPLOYMENTS}, named FLOW@{checkout_name(plan.root)}")


def _shut_down(plan: StackPlan) -> int:
    """End the supervisor with its services, then any other process; returns how many of those there were."""
    with suppress(OSError, xmlrpc.client.Error, psutil.Error):
        running = psutil.Process(supervisor(plan.root).getPID())
        supervisor(plan.root).shutdown()
        end = time.monotonic() + STOP_SECONDS
        while process_tags.alive(running) and time.monotonic() < end:
            time.sleep(POLL_SECONDS / 5)
    left = process_tags.end_tagged(PROCESS_TAG, str(plan.directory))  # those that lost their parent to a kill
    _remove_state(plan)
    return left


def _remove_state(plan: StackPlan) -> None:
    address = Path(_read(plan.root).get("socket", "/"))
    if address.is_socket():  # of a supervisor that was killed
        address.unlink()
    with suppress(OSError):  # it is not empty, or not there
        address.parent.rmdir()
    (plan.directory / STATE).unlink(missing_ok=True)


def _require_free(host: str, port: int, name: str) -> None:
    option = "--port" if name == SERVER else "--mlflow-port"
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            taken = getattr(error, "errno", None) == errno.EADDRINUSE
            what = f"port {port} is in use" if taken else f"nothing can listen on {host}:{port}"
            raise InputError(f"{what}: no {name} server there", hint=f"end what uses it, or give {option}") from None


def _require_same_place(plan: StackPlan) -> None:
    """Raises InputError if the stack already runs with other addresses than this plan."""
    running = _plan_of(plan.root)
    if (running.host, running.port, running.mlflow_port) != (plan.host, plan.port, plan.mlflow_port):
        what = f"the stack already runs, at {running.prefect_address} and {running.mlflow_address}"
        same = f"--port {running.port} --mlflow-port {running.mlflow_port} --host {running.host}"
        raise InputError(what, str(plan.directory), f"give {same}, or end it with `geozero stack down`")


def _plan_of(root: Path) -> StackPlan:
    """The plan of the stack that runs in a checkout; the default one where none does."""
    try:
        values = _read(root)["plan"]
        pools = tuple(pool for pool in POOLS if pool in values.get("pools", POOLS))
        return StackPlan(root, str(values["host"]), int(values["port"]), int(values["mlflow_port"]), pools)
    except (ValueError, KeyError, TypeError):
        return StackPlan(root)


def _read(root: Path) -> dict[str, Any]:
    """The state of a checkout's stack; empty if there is no valid file: `down` finds processes by tag."""
    try:
        state = json.loads((StackPlan(root).directory / STATE).read_text())
        return {"plan": dict(state["plan"]), "socket": str(state["socket"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1][-200:] if lines else "its log is empty"


@contextmanager
def _locked(plan: StackPlan) -> Iterator[None]:
    """One `up` or `down` at a time; the kernel frees the lock of one that was killed."""
    with (plan.directory / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "wait for it"
            raise InputError("another `geozero stack` command is running", str(plan.directory), hint) from None
        yield
