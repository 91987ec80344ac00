"""Several clones and several machines on one Prefect server; workers with names of their own stand for machines."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flows_checkout import ROOT, checkout, settings
from ports import free_port, quiet

from geozero.stack import control
from geozero.stack.prefect_api import call
from geozero.stack.services import StackPlan, checkout_name

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(900)]

# A run that needs the GPU for some seconds, and leaves when and where.
FLOW = """
import json, os, time, uuid
from pathlib import Path
from prefect import flow
from flows.runtime import locks
from geozero.common import process

@flow
def busy():
    process.has_gpu = lambda: True
    process.gpu_identities = lambda: [os.environ["STANDS_FOR_GPU"]]  # two machines have not the same
    with locks.gpu():
        began = time.time()
        time.sleep(12)
        row = {"node": os.environ["STANDS_FOR_GPU"], "began": began, "ended": time.time()}
        Path(f"busy-{uuid.uuid4().hex}.json").write_text(json.dumps(row))
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPlan]:
    """Servers alone, as on a login node, in a clone whose deployments are registered."""
    root = checkout(tmp_path_factory.mktemp("first") / "geozero", settings())
    shutil.copy(ROOT / "prefect.yaml", root / "prefect.yaml")
    made = StackPlan(root, port=free_port(), mlflow_port=free_port(), pools=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        try:
            control.up(made, timeout=600, log=quiet)
            yield made
        finally:
            control.down(root, log=quiet)


def prefect(plan: StackPlan, root: Path, *words: str, **more: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **plan.environment(), "PYTHONPATH": str(root), **more}
    return subprocess.Popen([sys.executable, "-m", "prefect", *words], cwd=root, env=environment)


def run(plan: StackPlan, deployment: str) -> str:
    made = call(plan.prefect_address, f"deployments/{deployment}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    return str(made["id"])


def test_a_second_clone_on_the_server_leaves_the_first_one_its_deployments(plan: StackPlan, tmp_path: Path) -> None:
    second = checkout(tmp_path / "geozero", settings())
    shutil.copy(ROOT / "prefect.yaml", second / "prefect.yaml")
    assert prefect(plan, second, "--no-prompt", "deploy", "--all").wait(300) == 0
    for root in (plan.root, second):
        for flow in ("data", "sft"):
            name = f"geozero-{flow}/{flow}@{checkout_name(root)}"
            found = call(plan.prefect_address, f"deployments/name/{name}")
            assert found["pull_steps"] == [{"flows.checkout.enter": {"directory": str(root)}}]
            assert found["work_queue_name"] == (checkout_name(root) if flow == "sft" else "default")
        queue = call(plan.prefect_address, f"work_pools/gpu/queues/{checkout_name(root)}")
        assert queue["concurrency_limit"] == 1


def test_nodes_work_at_once_no_node_runs_two_and_a_checkout_trains_once(plan: StackPlan) -> None:
    (plan.root / "flows/busy.py").write_text(FLOW)
    known = call(plan.prefect_address, f"deployments/name/geozero-sft/sft@{checkout_name(plan.root)}")
    flow = call(plan.prefect_address, "flows/", {"name": "busy"})["id"]
    body: dict[str, Any] = {"flow_id": flow, "entrypoint": "flows/busy.py:busy", "pull_steps": known["pull_steps"]}
    free, queued = (
        call(plan.prefect_address, "deployments/", body | {"name": name, "work_pool_name": "gpu"} | queue)["id"]
        for name, queue in (("free", {}), ("queued", {"work_queue_name": known["work_queue_name"]}))
    )
    own = f"test-{os.getpid()}"
    nodes = (f"{own}-a", f"{own}-b", f"{own}-b")  # two workers share the second machine
    workers = [
        prefect(
            plan, plan.root, "worker", "start", "--pool", "gpu", "--limit", "1", "--name", f"w{i}", STANDS_FOR_GPU=node
        )
        for i, node in enumerate(nodes)
    ]
    try:
        for deployment, n in ((free, 4), (queued, 2)):
            runs = [run(plan, deployment) for _ in range(n)]
            end = time.monotonic() + 300
            while len(list(plan.root.glob("busy-*.json"))) < n and time.monotonic() < end:
                time.sleep(0.5)
            files = list(plan.root.glob("busy-*.json"))
            rows = [json.loads(file.read_text()) for file in files]
            for file in files:
                file.unlink()
            assert len(rows) == n, [call(plan.prefect_address, f"flow_runs/{one}")["state"] for one in runs]
            together = {
                (x["node"], y["node"])
                for i, x in enumerate(rows)
                for y in rows[:i]
                if x["began"] < y["ended"] and y["began"] < x["ended"]
            }
            assert all(x != y for x, y in together), rows  # no node runs two
            assert bool(together) == (deployment == free), (
                rows
            )  # two nodes at once, but not for one checkout's trainings
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait(60)
