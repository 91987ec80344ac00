"""What orchestration costs: `python -m benchmarks.orchestration [--stack]`.

A flow of eight tasks that do nothing, as many as a pipeline run has: all that it takes is overhead. Without a server
Prefect starts one of its own; with `--stack` it is `geozero stack`, whose start and end are timed, too, and after that
what runs through its deployments survive (`benchmarks.survival`). Before that the outbox: what one step of a training
waits for its metrics to be taken.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import survival
from geozero.stack import control
from geozero.stack.services import StackPlan
from geozero.tracking import Tracker
from geozero.tracking.outbox import Outbox

TASKS = 8
ROUNDS = 3
STEPS, METRICS = 2000, 20
FLOW = f"""
import time
began = time.monotonic()
import flows
from prefect import flow, task
imported = time.monotonic()

@task
def nothing(i):
    return i

@flow
def line():
    for i in range({TASKS}):
        nothing(i)

line()
first = time.monotonic()
line()
print(imported - began, first - imported, time.monotonic() - first)
"""


def main() -> None:
    """Print one line a figure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--stack", action="store_true", help="start local stacks and measure with them as well")
    parser.add_argument("--only", choices=("costs", "survival"), help="only a part")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.only != "survival":
            outbox(Path(folder))
            without_server(Path(folder))
            if given.stack:
                with_stack(Path(folder))
        if given.stack and given.only != "costs":
            survival.measure(Path(folder), show, free_port)


def outbox(folder: Path) -> None:
    """Microseconds that `log_metrics` takes while no server answers."""
    box = Outbox(Tracker("http://127.0.0.1:9", project=folder), folder / "tracking")
    values = {f"metric_{i}": 0.5 for i in range(METRICS)}
    taken = []
    for step in range(STEPS):
        start = time.perf_counter()
        box.log_metrics("run", values, step)
        taken.append(1e6 * (time.perf_counter() - start))
    box.close(0.0)
    show("outbox: one step of 20 metrics, median", statistics.median(taken), "µs")
    show("outbox: one step of 20 metrics, 99 %", statistics.quantiles(taken, n=100)[98], "µs")


def without_server(folder: Path) -> None:
    """A whole process: imports, Prefect's own server, eight tasks, a second time in the same process."""
    wall, parts = flow({"PREFECT_HOME": str(folder / "home")})
    show("without a server: overhead of a pipeline run (process start to end)", wall, "s")
    show("without a server: of it imports", parts[0], "s")
    show("without a server: of it the start of Prefect's own", parts[1] - parts[2], "s")
    show("without a server: per task", parts[2] / TASKS, "s")


def with_stack(folder: Path) -> None:
    """The same against a stack that is started for it."""
    plan = StackPlan(folder / "checkout", port=free_port(), mlflow_port=free_port())
    plan.root.mkdir()
    start = time.monotonic()
    try:
        control.up(plan, timeout=600, log=lambda line: None)
        show("with a server: stack up", time.monotonic() - start, "s")
        found = [flow({"PREFECT_API_URL": f"{plan.prefect_address}/api"}) for _ in range(ROUNDS)]
        show("with a server: overhead of a pipeline run", statistics.median(wall for wall, _ in found), "s")
        show("with a server: per task", statistics.median(parts[2] for _, parts in found) / TASKS, "s")
        start = time.monotonic()
    finally:
        control.down(plan.root, log=lambda line: None)
    show("with a server: stack down", time.monotonic() - start, "s")


def flow(extra: dict[str, str]) -> tuple[float, list[float]]:
    """Seconds of a whole process that runs the flow twice, less the second one; and of its parts."""
    root = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root), "PREFECT_LOGGING_LEVEL": "ERROR", **extra}
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", FLOW], capture_output=True, text=True, env=environment, check=True)
    wall = time.monotonic() - start
    parts = [float(number) for number in done.stdout.splitlines()[-1].split()]
    return wall - parts[2], parts


def show(name: str, value: float, unit: str) -> None:
    """One figure."""
    print(f"{name}\t{value:.2f} {unit}", flush=True)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
