"""What a stack costs and survives, run through its deployments: `python -m benchmarks.orchestration --stack` calls it.

In a checkout of its own, with a small world and the demo's model: `stack up` to the first run, a training that is
cancelled, one whose worker is killed, the run after it, and a tracking server that is away for the middle third.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from flows.runtime import reaper
from geozero.common import process_tags
from geozero.stack import control
from geozero.stack.prefect_api import call
from geozero.stack.services import MLFLOW, PROCESS_TAG, StackPlan, checkout_name
from geozero.tracking import RUN_ID_FILE, Tracker
from geozero.tracking.outbox import Outbox

ROOT = Path(__file__).resolve().parents[1]
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
SCENES = {"aid": 16, "rsvqa_lr": 12, "rsicd": 12, "dior_rsvg": 12}
STEPS, WORK_STEPS = 4000, 20  # of the training; those it has done when it is ended
POINTS, POINT_SECONDS = 300, 0.05
SECONDS = 900.0  # after which something that should happen is taken never to

Show = Callable[[str, float, str], None]


def measure(folder: Path, show: Show, free_port: Callable[[], int]) -> None:
    """One line a figure; what it has started is ended."""
    root = checkout(folder / "lab")
    stack = Lab(StackPlan(root, port=free_port(), mlflow_port=free_port()))
    os.environ.update(PYTHONPATH=str(root), DVC_SITE_CACHE_DIR=str(root / ".dvc/site"))
    try:
        began = time.time()
        stack.up()
        show("stack up, deployments registered", time.time() - began, "s")
        first = stack.start("data", last="raw")
        stack.until(lambda: stack.state(first) == "RUNNING")
        show("stack up to first run started", time.time() - began, "s")
        stack.until(lambda: stack.state(first) in FINAL)
        shutil.copytree(root / "data/geozero-raw", root / "data/geozero-instruct")  # nothing is said of what is learned
        cancelled(stack, show)
        killed(stack, show)
        tracking_away(stack, folder / "tracking", show)
    finally:
        control.down(root, log=lambda line: None)


def checkout(path: Path) -> Path:
    """The working tree as a checkout of its own, with a small world and no other workers beside."""
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    for name in names:
        if (ROOT / name).is_file():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, path / name)
    params = yaml.safe_load((path / "params.yaml").read_text())
    params["toy"].update(train=SCENES, val=SCENES, test=SCENES)
    params["data"]["samples"] = []
    params["sft"].update(replay_share=0.0, batch_size=8, micro_batch_size=8)
    (path / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return path


@dataclass
class Lab:
    """A stack, and runs through its deployments."""

    plan: StackPlan

    def up(self) -> None:
        control.up(self.plan, timeout=600, log=lambda line: None)

    def deployment(self, flow: str) -> dict[str, Any]:
        """A deployment of this checkout."""
        name = f"geozero-{flow}/{flow}@{checkout_name(self.plan.root)}"
        return dict(call(self.plan.prefect_address, f"deployments/name/{name}"))

    def start(self, flow: str, **parameters: Any) -> str:
        """The id of a new run of a deployment."""
        made = self.deployment(flow)
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        run: dict[str, Any] = call(self.plan.prefect_address, f"deployments/{made['id']}/create_flow_run", body)
        return str(run["id"])

    def state(self, run: str) -> str:
        return str(call(self.plan.prefect_address, f"flow_runs/{run}")["state"]["type"])

    def slots(self, flow: str) -> int:
        """How many runs hold the deployment's limit."""
        made = self.deployment(flow)
        return int(made["global_concurrency_limit"]["active_slots"])

    def processes(self) -> list[psutil.Process]:
        """Everything that flows of this stack have started, and that lives."""
        found = []
        for one in process_tags.find_tagged(PROCESS_TAG, str(self.plan.directory)):
            try:
                if reaper.PROCESS_TAG in one.environ():
                    found.append(one)
            except (psutil.Error, OSError):
                continue
        return found

    def steps(self) -> int:
        """Steps that the training has logged."""
        logs = list(self.plan.root.glob("runs/sft-*/metrics.jsonl"))
        return sum(len(log.read_text().splitlines()) for log in logs)

    def train(self) -> str:
        """Start the training, and wait until it is at work."""
        before, run = self.steps(), self.start("sft", steps=STEPS)
        self.until(lambda: self.steps() >= before + WORK_STEPS or self.state(run) in FINAL)
        if self.state(run) in FINAL:
            raise SystemExit(f"the training ended: {call(self.plan.prefect_address, f'flow_runs/{run}')['state']}")
        return run

    def until(self, condition: Callable[[], bool]) -> float:
        """Seconds until it holds."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > SECONDS:
                raise SystemExit(f"waited {SECONDS:.0f} s in vain; logs in {self.plan.directory}")
            time.sleep(0.2)
        return time.monotonic() - began


def cancelled(lab: Lab, show: Show) -> None:
    """A training that is cancelled as the page does it; its checkpoint is what the next one goes on from."""
    run = lab.train()
    asked = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    began = time.monotonic()
    call(lab.plan.prefect_address, f"flow_runs/{run}/set_state", asked)
    lab.until(lambda: not lab.processes())
    show("cancel to last process gone", time.monotonic() - began, "s")
    lab.until(lambda: lab.state(run) in FINAL)
    show(f"cancel to the end in Prefect ({lab.state(run)})", time.monotonic() - began, "s")


def killed(lab: Lab, show: Show) -> None:
    """The next run goes on; then its worker dies, and what is left ends by itself."""
    (directory,) = lab.plan.root.glob("runs/sft-*")
    before, child = lab.steps(), (directory / RUN_ID_FILE).read_text()
    run = lab.train()
    show("the next run goes on from step", before, "")
    show("in the same MLflow run", (directory / RUN_ID_FILE).read_text() == child, "(1: yes)")
    (worker,) = [service.pid for service in control.status(lab.plan.root) if service.name == "worker-gpu"]
    assert worker is not None
    began = time.monotonic()
    os.kill(worker, signal.SIGKILL)
    lab.until(lambda: not lab.processes())
    show("worker killed to last process gone", time.monotonic() - began, "s")
    lab.until(lambda: all(service.state == "up" for service in control.status(lab.plan.root)))
    show("worker killed to another one at work", time.monotonic() - began, "s")
    lab.until(lambda: lab.state(run) in FINAL and lab.slots("sft") == 0)
    show(f"worker killed to slot free ({lab.state(run)})", time.monotonic() - began, "s")
    show("processes left then", len(lab.processes()), "")


def tracking_away(lab: Lab, folder: Path, show: Show) -> None:
    """Points that a real server lacks after it was killed for the middle third of them."""
    tracker = Tracker(lab.plan.mlflow_address, "survival", folder)
    run = tracker.open_pipeline("away")
    box = Outbox(tracker, folder / "tracking", lambda line: None)
    for point in range(POINTS):
        if point == POINTS // 3:
            control.supervisor(lab.plan.root).stopProcess(f"servers:{MLFLOW}")
        if point == 2 * POINTS // 3:
            lab.up()
        box.log_metrics(run, {"point": float(point)}, point)
        time.sleep(POINT_SECONDS)
    left = box.close(SECONDS)
    known = {metric.step for metric in tracker.client.get_metric_history(run, "point")}
    show(f"points lost of {POINTS}, tracking server away for the middle third", POINTS - len(known), "")
    show("entries that still wait", left, "")
