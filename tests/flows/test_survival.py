"""Runs through a stack outlive what may happen to it: held up, server killed, suspended, everything killed.

The training is a counter in a child process (`trial_flow.py`); server, workers, limits and automation are real.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
import yaml
from flows_checkout import ROOT, checkout
from paths import SUPPORT
from ports import free_port, quiet
from smallest_pipeline import mlflow_runs, smallest
from stack_runs import FINAL, of_flow, start, state, wait_for

from flows.runtime import reaper
from geozero.common import process_tags
from geozero.stack import control, prefect_api
from geozero.stack.prefect_api import call, healthy
from geozero.stack.services import PROCESS_TAG, SERVER, StackPlan

pytestmark = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(1800)]

HELD_SECONDS = 200.0  # longer than a heartbeat and a lease may be late by chance
CRASH_SECONDS = 360.0  # the figure promised


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StackPlan]:
    root = checkout(tmp_path_factory.mktemp("stack") / "checkout", smallest())
    shutil.copy(SUPPORT / "trial_flow.py", root / "flows/trial.py")
    deployed = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    (sft,) = [one for one in deployed["deployments"] if one["name"].startswith("sft@")]
    deployed["deployments"] = [sft | {"name": "trial@{{ checkout.name }}", "entrypoint": "flows/trial.py:trial"}]
    (root / "prefect.yaml").write_text(yaml.safe_dump(deployed))
    made = StackPlan(root, port=free_port(), mlflow_port=free_port())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        try:
            control.up(made, timeout=600, log=quiet)
            yield made
        finally:
            control.down(root, log=quiet)
        assert process_tags.find_tagged(PROCESS_TAG, str(made.directory)) == []


def begin(plan: StackPlan, steps: int, **given: bool) -> str:
    """A run whose training counts."""
    shutil.rmtree(plan.root / "runs/trial", ignore_errors=True)
    run = start(plan, "trial", steps=steps, **given)
    assert wait_for(lambda: step(plan) > 5, 240), call(plan.prefect_address, f"flow_runs/{run}")["state"]
    return run


def step(plan: StackPlan) -> int:
    path = plan.root / "runs/trial/step"
    return int(path.read_text() or 0) if path.is_file() else 0


def starts(plan: StackPlan) -> list[int]:
    """The step from which each start of the training went on."""
    return [int(line.split()[1]) for line in (plan.root / "runs/trial/starts").read_text().splitlines()]


def slots(plan: StackPlan) -> int:
    found = of_flow(plan, "trial")["global_concurrency_limit"]
    return int(found["active_slots"])


def found(plan: StackPlan, matches: Callable[[psutil.Process], bool]) -> list[psutil.Process]:
    """Those of the stack's processes; one that ends while it is looked at is none."""
    living = []
    for one in process_tags.find_tagged(PROCESS_TAG, str(plan.directory)):
        with suppress(psutil.Error, OSError):
            if matches(one):
                living.append(one)
    return living


def processes(plan: StackPlan, words: str) -> list[psutil.Process]:
    return found(plan, lambda one: words in " ".join(one.cmdline()))


def trainers(plan: StackPlan) -> list[psutil.Process]:
    return found(plan, lambda one: reaper.PROCESS_TAG in one.environ())


def test_a_failed_run_is_told_by_one_notification(plan: StackPlan) -> None:
    """By a webhook, one of Prefect's notification blocks."""
    told = list[dict[str, str]]()

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        kind = call(plan.prefect_address, "block_types/slug/custom-webhook")
        (schema, *_) = call(
            plan.prefect_address,
            "block_schemas/filter",
            {"block_schemas": {"block_type_id": {"any_": [kind["id"]]}}},
        )
        data = {
            "name": "lab",
            "url": f"http://127.0.0.1:{server.server_port}",
            "json_data": {"text": "{{subject}} {{body}}"},
            "allow_private_urls": True,
        }
        block = {"name": "lab", "data": data, "block_schema_id": schema["id"], "block_type_id": kind["id"]}
        call(plan.prefect_address, "block_documents/", block)
        for _ in range(2):  # a second time replaces it
            assert prefect_api.main([plan.prefect_address, "--notify", "custom-webhook/lab"]) == 0
        run = start(plan, "trial", steps=-1)
        assert wait_for(lambda: state(plan, run) in FINAL, 240)
        assert state(plan, run) == "FAILED"
        assert wait_for(lambda: told, 60)
        time.sleep(5)
        server.shutdown()
    (text,) = {one["text"] for one in told}  # Prefect may send it again where an answer came late
    assert text.startswith("geozero-trial: Failed") and "steps must not be negative" in text
    assert f"{plan.prefect_address}/runs/flow-run/{run}" in text


def test_a_run_that_is_held_up_while_the_server_restarts_goes_on_and_none_starts_beside_it(plan: StackPlan) -> None:
    run = begin(plan, 1400)
    (flow,) = processes(plan, "prefect.engine")
    flow.suspend()
    try:
        second = start(plan, "trial", steps=1)
        (server,) = [service.pid for service in control.status(plan.root) if service.name == SERVER]
        assert server is not None
        os.killpg(server, signal.SIGKILL)
        assert wait_for(lambda: not healthy(plan.prefect_address), 30)
        assert wait_for(lambda: healthy(plan.prefect_address), 120)
        end = time.monotonic() + HELD_SECONDS
        while time.monotonic() < end:
            assert (state(plan, run), state(plan, second), slots(plan)) == ("RUNNING", "SCHEDULED", 1)
            time.sleep(5)
        assert step(plan) < 1400
    finally:
        flow.resume()
    for one in (run, second):
        assert wait_for(lambda one=one: state(plan, one) in FINAL, 400)
        assert state(plan, one) == "COMPLETED"
    assert starts(plan)[0] == 0 and len(starts(plan)) == 2
    assert slots(plan) == 0


@pytest.mark.parametrize(("details", "beside"), [({"pause_reschedule": True}, True), ({}, False)])
def test_a_suspended_training_stops_with_a_checkpoint_and_resume_goes_on_from_it(
    plan: StackPlan, details: dict[str, bool], beside: bool
) -> None:
    """Prefect's Suspend and Pause alike: by itself, Prefect would free the slot and let the training go on."""
    run = begin(plan, 150, beside=beside)
    name = "Suspended" if details else "Paused"
    paused = {"state": {"type": "PAUSED", "name": name, "state_details": details}}
    call(plan.prefect_address, f"flow_runs/{run}/set_state", paused)
    assert wait_for(lambda: not trainers(plan), 60)
    saved = int((plan.root / "runs/trial/checkpoint").read_text())
    assert wait_for(lambda: not processes(plan, "prefect.engine"), 60)
    kind = call(plan.prefect_address, f"flow_runs/{run}")["state"]["type"]
    assert (kind, slots(plan)) == ("PAUSED", 0)
    assert wait_for(lambda: mlflow_runs(plan.root)[-1][0].info.status == "KILLED", 60)
    assert wait_for(lambda: not processes(plan, reaper.__name__), 60)
    call(plan.prefect_address, f"flow_runs/{run}/resume", {})
    assert wait_for(lambda: state(plan, run) in FINAL, 240)
    assert (state(plan, run), starts(plan)) == ("COMPLETED", [0, saved])
    ((parent, _),) = [one for one in mlflow_runs(plan.root) if one[0].data.tags["prefect.flow_run"] == run]
    assert parent.info.status == "FINISHED"


def test_a_cancel_ends_a_run_although_the_server_was_away(plan: StackPlan) -> None:
    """Prefect's worker stops looking for cancelled runs for good when it cannot reach the server for some seconds."""
    run = begin(plan, 5000)
    control.supervisor(plan.root).stopProcess(f"servers:{SERVER}")
    time.sleep(30)
    control.supervisor(plan.root).startProcess(f"servers:{SERVER}")
    assert wait_for(lambda: healthy(plan.prefect_address), 120)
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    call(plan.prefect_address, f"flow_runs/{run}/set_state", cancelling)
    assert wait_for(lambda: state(plan, run) == "CANCELLED", 90)
    assert (trainers(plan), slots(plan)) == ([], 0)


def test_when_flow_reaper_and_worker_are_killed_the_training_ends_and_the_slot_is_free(plan: StackPlan) -> None:
    run = begin(plan, 5000)
    training = trainers(plan)
    for words in ("--pool gpu", "prefect.engine", reaper.__name__):
        for one in processes(plan, words):
            one.kill()
    began = time.monotonic()
    assert wait_for(lambda: not any(map(process_tags.alive, training)), 30)
    assert wait_for(lambda: state(plan, run) == "CRASHED", CRASH_SECONDS)
    assert time.monotonic() - began < CRASH_SECONDS and slots(plan) == 0
    control.up(plan, timeout=600, log=quiet)
    run = begin(plan, 10)
    assert wait_for(lambda: state(plan, run) in FINAL, 120)
    assert state(plan, run) == "COMPLETED"


def test_when_flow_and_worker_are_killed_the_reaper_reports_it(plan: StackPlan) -> None:
    run = begin(plan, 5000)
    for words in ("--pool gpu", "prefect.engine"):
        for one in processes(plan, words):
            one.kill()
    assert wait_for(lambda: state(plan, run) == "CRASHED", 60)
    assert (trainers(plan), slots(plan)) == ([], 0)
