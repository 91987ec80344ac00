"""Start, stop and look at the local stack; what runs stands in `.geozero/stack/state.json`, by id and start time."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

from geozero.common import process_tags
from geozero.common.atomic import write_text
from geozero.common.errors import InputError
from geozero.stack import prefect_api
from geozero.stack.services import MLFLOW, PROCESS_TAG, SERVER, SERVICES, StackPlan

Tell = Callable[[str], None]
State = Literal["up", "starting", "silent", "dead", "down"]

STATE, LOCK, DEPLOYMENTS = "state.json", "lock", "prefect.yaml"
POLL_SECONDS = 0.5
STOP_SECONDS = 25.0  # for workers to end their runs, and the runs to say so
LOG_BYTES = 5_000_000  # a log that is longer when its part starts is kept once, as NAME.log.1
DEPLOY_SECONDS = 180.0
STARTING_SECONDS = 240.0  # after which a part that does not answer is called silent: a worker is, too, without a server


@dataclass(frozen=True)
class ServiceStatus:
    """A part as it is: `up` answers, `starting` does not yet, `silent` should by now, `dead` was up and is gone."""

    name: str
    state: State
    pid: int | None
    address: str
    log: Path


def up(plan: StackPlan, timeout: float = 240.0, tell: Tell = print) -> list[ServiceStatus]:
    """Start what does not run yet, and return when all of it answers.

    The deployments of `prefect.yaml`, where one stands in the checkout, are registered as well.

    Raises:
        InputError: there is no such checkout, a port is in use, the stack runs with other ports, or a part did not come
            up; then what this call has started is ended again.
    """
    if not plan.root.is_dir():
        raise InputError("no such directory", str(plan.root), "give a checkout as --root, or run in one")
    if plan.port == plan.mlflow_port:
        raise InputError(f"two servers cannot share port {plan.port}", hint="give another --port or --mlflow-port")
    plan.directory.mkdir(parents=True, exist_ok=True)
    with _locked(plan):
        known = _read(plan)
        running = {name: one for name, one in known.items() if _alive(one)}
        _same_place(plan, running)
        for name, port in ((SERVER, plan.port), (MLFLOW, plan.mlflow_port)):
            if name not in running:
                _require_free(plan.host, port, name)
        begun: list[str] = []
        end = time.monotonic() + timeout
        try:
            for names in ((SERVER, MLFLOW), [name for name in SERVICES if name not in (SERVER, MLFLOW)]):
                for name in names:
                    if name not in running:
                        running[name] = _start(plan, name)
                        begun.append(name)
                        _write(plan, running)
                        tell(f"{name}: starting")
                if SERVER in names:
                    _wait(plan, [SERVER], running, end)
                    prefect_api.furnish(plan.prefect_address)
            if begun and (plan.root / DEPLOYMENTS).is_file():
                _deploy(plan, tell)
            elif begun:
                tell(f"deployments: none, for there is no {DEPLOYMENTS} in {plan.root}")
            _wait(plan, list(SERVICES), running, end)
        except BaseException:
            _stop(plan, {name: running.pop(name) for name in begun})
            _write(plan, running)
            raise
    return status(plan.root)


def down(root: Path, tell: Tell = print) -> bool:
    """End every process of the stack, and all that these have started; returns whether there was anything to end.

    The history of runs stays: Prefect's database in `.geozero/prefect`, MLflow's in `mlflow.db`.
    """
    plan = StackPlan(root)
    if not plan.directory.is_dir():
        return False
    with _locked(plan):
        known = _read(plan)
        living = {name: one for name, one in known.items() if _alive(one)}
        for name in living:
            tell(f"{name}: ending")
        _stop(plan, living)
        left = process_tags.end_tagged(PROCESS_TAG, str(plan.directory))  # what lost its parent to a kill
        if left:
            tell(f"processes without a parent: {left} ended")
        (plan.directory / STATE).unlink(missing_ok=True)
    return bool(known or left)


def status(root: Path) -> list[ServiceStatus]:
    """Every part, asked now."""
    plan = _plan_of(root)
    known = _read(plan)
    return [_part(plan, name, known.get(name)) for name in SERVICES]


def _part(plan: StackPlan, name: str, one: dict[str, Any] | None) -> ServiceStatus:
    state: State = "down"
    if one is not None:
        if not _alive(one):
            state = "dead"
        elif _answers(plan, name, one["started"]):
            state = "up"
        else:
            state = "starting" if time.time() - one["started"] < STARTING_SECONDS else "silent"
    return ServiceStatus(name, state, one["pid"] if one else None, plan.address(name), plan.log(name))


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
    return prefect_api.online(plan.prefect_address, pool, plan.worker(pool), started)


def _start(plan: StackPlan, name: str) -> dict[str, Any]:
    """Start a part in a session of its own, so that it lives on without this process and its terminal."""
    log = plan.log(name)
    if log.is_file() and log.stat().st_size > LOG_BYTES:
        os.replace(log, log.with_suffix(".log.1"))
    with log.open("ab") as out:
        child = subprocess.Popen(
            plan.command(name),
            cwd=plan.root,
            env=plan.environment(name),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return {"pid": child.pid, "started": psutil.Process(child.pid).create_time()}


def _wait(plan: StackPlan, names: list[str], running: dict[str, Any], end: float) -> None:
    waiting = list(names)
    while waiting:
        for name in waiting:
            if not _alive(running[name]):
                raise InputError(f"{name} ended as it started: {_last_line(plan.log(name))}", str(plan.log(name)))
        waiting = [name for name in waiting if not _answers(plan, name, running[name]["started"])]
        if waiting and time.monotonic() > end:
            hint = "give more time with --timeout; the logs lie beside"
            raise InputError(f"{', '.join(waiting)} did not answer in time", str(plan.log(waiting[0])), hint)
        if waiting:
            time.sleep(POLL_SECONDS)


def _deploy(plan: StackPlan, tell: Tell) -> None:
    """Register the deployments of prefect.yaml."""
    log = plan.log("deploy")
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    with log.open("wb") as out:
        try:
            done = subprocess.run(
                command,
                cwd=plan.root,
                env=plan.environment() | {"PREFECT_LOGGING_LEVEL": "ERROR"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=DEPLOY_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise InputError(f"the deployments took longer than {DEPLOY_SECONDS:.0f} s", str(log)) from None
    if done.returncode != 0:
        raise InputError(f"the deployments of {DEPLOYMENTS} were refused: {_last_line(log)}", str(log))
    tell(f"deployments: registered from {DEPLOYMENTS}")


def _stop(plan: StackPlan, parts: dict[str, Any]) -> None:
    """Workers first, while there is a server that their runs can report to; servers after them."""
    workers = [name for name in parts if name.startswith("worker-")]
    for names, grace in (
        (workers, STOP_SECONDS),
        ([n for n in parts if n not in workers], process_tags.TERMINATE_SECONDS),
    ):
        for name in names:
            with suppress(ProcessLookupError):
                os.killpg(parts[name]["pid"], signal.SIGTERM)
        end = time.monotonic() + grace
        while time.monotonic() < end and any(_alive(parts[n]) for n in names):
            _reap(parts, names)
            time.sleep(POLL_SECONDS / 5)
        for name in names:
            with suppress(ProcessLookupError):
                os.killpg(parts[name]["pid"], signal.SIGKILL)
        _reap(parts, names)


def _alive(part: dict[str, Any]) -> bool:
    """Whether the process that was started as this part still runs, and not another one with its id."""
    try:
        process = psutil.Process(part["pid"])
        return abs(process.create_time() - part["started"]) < 2.0 and process_tags.alive(process)
    except psutil.Error:
        return False


def _reap(parts: dict[str, Any], names: list[str]) -> None:
    """Clear away those that are this very process's children."""
    for name in names:
        with suppress(ChildProcessError):
            os.waitpid(parts[name]["pid"], os.WNOHANG)


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


def _same_place(plan: StackPlan, running: dict[str, Any]) -> None:
    """Raises InputError where parts run already, but elsewhere than this plan says."""
    there = _plan_of(plan.root)
    if running and (there.host, there.port, there.mlflow_port) != (plan.host, plan.port, plan.mlflow_port):
        what = f"the stack runs already, at {there.prefect_address} and {there.mlflow_address}"
        same = f"--port {there.port} --mlflow-port {there.mlflow_port} --host {there.host}"
        raise InputError(what, str(plan.directory), f"{same} fixes it, `geozero stack down` ends it")


def _plan_of(root: Path) -> StackPlan:
    """The plan of the stack that runs, or was last started, in a checkout."""
    try:
        values = json.loads((StackPlan(root).directory / STATE).read_text())["plan"]
        return StackPlan(root, str(values["host"]), int(values["port"]), int(values["mlflow_port"]))
    except (OSError, ValueError, KeyError, TypeError):
        return StackPlan(root)


def _read(plan: StackPlan) -> dict[str, Any]:
    """What was started; nothing where the file is not there or no such file: `down` finds processes by their mark."""
    try:
        parts = json.loads((plan.directory / STATE).read_text())["parts"]
        return {name: {"pid": int(one["pid"]), "started": float(one["started"])} for name, one in parts.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(plan: StackPlan, parts: dict[str, Any]) -> None:
    if not parts:
        (plan.directory / STATE).unlink(missing_ok=True)
        return
    values = {"plan": {k: v for k, v in asdict(plan).items() if k != "root"}, "parts": parts}
    write_text(plan.directory / STATE, json.dumps(values, indent=1))


def _last_line(log: Path) -> str:
    try:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "it wrote nothing"
    return lines[-1][-200:] if lines else "it wrote nothing"


@contextmanager
def _locked(plan: StackPlan) -> Iterator[None]:
    """One `up` or `down` at a time; the kernel frees the lock of one that was killed."""
    with (plan.directory / LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "wait for it"
            raise InputError("another `geozero stack` command is at work", str(plan.directory), hint) from None
        yield
