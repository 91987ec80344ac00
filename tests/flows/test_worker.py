"""Runs through a deployment and a worker, as a lab starts them: to the end, cancelled, and with everything killed."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from flows_checkout import ROOT, checkout
from ports import free_port, quiet
from smallest_pipeline import mlflow_runs, smallest
from stack_runs import FINAL, of_flow, start, state, wait_for

from flows.runtime import reaper
from geozero.common import process_tags
from geozero.stack import control
from geozero.stack.prefect_api import call, healthy
from geozero.stack.services import PROCESS_TAG, SERVER, StackPlan

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CANCEL_SECONDS, CRASH_SECONDS = 30.0, 360.0  # the figures promised


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPlan]:
    root = checkout(tmp_path_factory.mktemp("stack") / "checkout", smallest())
    shutil.copy(ROOT / "prefect.yaml", root / "prefect.yaml")
    made = StackPlan(root, port=free_port(), mlflow_port=free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        patch.setenv("DVC_SITE_CACHE_DIR", str(root / ".dvc/site"))
        try:
            control.up(made, timeout=600, log=quiet)
            yield made
        finally:
            control.down(root, log=quiet)


def of_flows(plan: StackPlan) -> list[psutil.Process]:
    """Everything that flows of this stack have started, and that lives."""
    found = []
    for process in process_tags.find_tagged(PROCESS_TAG, str(plan.directory)):
        try:
            if reaper.PROCESS_TAG in process.environ():
                found.append(process)
        except (psutil.Error, OSError):
            continue
    return found


def until_it_works(plan: StackPlan, run: str) -> list[psutil.Process]:
    """Wait until a run has children at work."""
    assert wait_for(lambda: state(plan, run) == "RUNNING", 240)
    found: list[psutil.Process] = wait_for(lambda: of_flows(plan), 240)
    assert found, call(plan.prefect_address, f"flow_runs/{run}")["state"]
    return found


def test_a_run_through_a_deployment_finishes_and_is_in_mlflow(plan: StackPlan) -> None:
    run = start(plan, "data", last="raw")
    assert wait_for(lambda: state(plan, run) in FINAL, 900)
    assert state(plan, run) == "COMPLETED"
    assert (plan.root / "data/geozero-raw/manifest.json").is_file()
    parent, _ = mlflow_runs(plan.root)[-1]
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["prefect.flow_run"] == run
    assert run in parent.data.tags["prefect.page"]
    artifacts = call(plan.prefect_address, "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
    assert any(parent.info.run_id in str(one["data"]) for one in artifacts if one["key"] == "links")
    assert wait_for(lambda: not of_flows(plan), 30)


def test_a_cancelled_run_ends_with_all_its_processes(plan: StackPlan) -> None:
    shutil.rmtree(plan.root / "data/geozero-raw", ignore_errors=True)
    shutil.rmtree(plan.root / "data/toy", ignore_errors=True)
    run = start(plan, "data", last="raw")
    until_it_works(plan, run)
    call(plan.prefect_address, f"flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
    began = time.monotonic()
    assert wait_for(lambda: not of_flows(plan), 4 * CANCEL_SECONDS)
    took = time.monotonic() - began
    assert wait_for(lambda: state(plan, run) in FINAL, 60)
    assert state(plan, run) == "CANCELLED"
    assert wait_for(lambda: mlflow_runs(plan.root)[-1][0].info.status == "KILLED", 60)
    assert took < CANCEL_SECONDS


@pytest.mark.long
def test_a_killed_worker_leaves_no_process_and_no_run_that_runs_for_ever(plan: StackPlan) -> None:
    run = start(plan, "data", last="raw")
    until_it_works(plan, run)
    (worker,) = [part.pid for part in control.status(plan.root) if part.name == "worker-cpu"]
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    began = time.monotonic()
    assert wait_for(lambda: not of_flows(plan), CRASH_SECONDS)
    assert wait_for(lambda: state(plan, run) == "CRASHED", CRASH_SECONDS - (time.monotonic() - began))
    assert wait_for(lambda: mlflow_runs(plan.root)[-1][0].info.status in ("KILLED", "FAILED"), 120)
    deployment = of_flow(plan, "data")
    assert deployment["global_concurrency_limit"]["active_slots"] == 0
    control.up(plan, timeout=600, log=quiet)  # returns when the worker, which its supervisor has started again, answers
    run = start(plan, "data", last="raw")
    assert wait_for(lambda: state(plan, run) in FINAL, 900)
    assert state(plan, run) == "COMPLETED"


@pytest.mark.long
def test_a_run_outlives_a_restart_of_the_server(plan: StackPlan) -> None:
    """Its lease of the deployment's slot does. With leases in memory the next renewal fails, which ends the run."""
    for made in ("data/geozero-raw", "data/toy"):
        shutil.rmtree(plan.root / made, ignore_errors=True)
    run = start(plan, "data", last="raw")
    until_it_works(plan, run)
    lease = call(plan.prefect_address, f"flow_runs/{run}")["state"]["state_details"]["deployment_concurrency_lease_id"]
    (server,) = [service.pid for service in control.status(plan.root) if service.name == SERVER]
    assert server is not None
    os.killpg(server, signal.SIGKILL)
    assert wait_for(lambda: not healthy(plan.prefect_address), 30)
    assert wait_for(lambda: healthy(plan.prefect_address), 120)  # nobody but the supervisor has started it again
    call(plan.prefect_address, f"v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 300})
    assert wait_for(lambda: state(plan, run) in FINAL, 900)
    assert state(plan, run) == "COMPLETED"


def test_a_run_without_its_code_or_with_an_unknown_field_says_so(plan: StackPlan) -> None:
    known = of_flow(plan, "data")
    assert known["pull_steps"] == [{"flows.checkout.enter": {"directory": str(plan.root)}}]
    elsewhere = [{"flows.checkout.enter": {"directory": str(plan.root / "gone")}}]
    schema = known["parameter_openapi_schema"]
    for name, change, given, said in (
        ("no-file", {"entrypoint": "flows/gone.py:data"}, {}, "no flows/gone.py"),
        ("no-checkout", {"pull_steps": elsewhere}, {}, "not on this machine"),
        ("no-field", {}, {"stepz": 3}, "no field stepz"),
    ):
        kept = {key: known[key] for key in ("flow_id", "entrypoint", "pull_steps")}
        body = {**kept, "name": name, "work_pool_name": "cpu", "parameter_openapi_schema": schema, **change}
        made = call(plan.prefect_address, "deployments/", body)
        wanted = {"parameters": given, "state": {"type": "SCHEDULED"}}
        run = call(plan.prefect_address, f"deployments/{made['id']}/create_flow_run", wanted)["id"]
        assert wait_for(lambda run=run: state(plan, run) in FINAL, 400)
        found = call(plan.prefect_address, f"flow_runs/{run}")["state"]
        assert found["type"] == "FAILED" and said in found["message"], found


def test_bad_input_of_a_form_ends_the_run_at_once(plan: StackPlan) -> None:
    import urllib.error

    with pytest.raises(urllib.error.HTTPError) as refused:
        start(plan, "sft", steps=0)
    assert b"minimum" in refused.value.read()
    with pytest.raises(urllib.error.HTTPError):
        start(plan, "difficulty", shards=2, gpus=["first"])
    run = start(plan, "difficulty", shards=2, only=[2])
    assert wait_for(lambda: state(plan, run) in FINAL, 400)
    assert "no such shards: [2] of 2" in call(plan.prefect_address, f"flow_runs/{run}")["state"]["message"]
    run = start(plan, "evaluate", model="models/not-there")
    assert wait_for(lambda: state(plan, run) in FINAL, 400)
    found = call(plan.prefect_address, f"flow_runs/{run}")
    assert found["state"]["type"] == "FAILED"
    assert "no such model" in found["state"]["message"]
