"""Runs through the deployments of a stack, and what becomes of them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geozero.stack.prefect_api import call
from geozero.stack.services import StackPlan, checkout_name

FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


def of_flow(plan: StackPlan, flow: str) -> dict[str, Any]:
    """A deployment of the stack's checkout."""
    return dict(call(plan.prefect_address, f"deployments/name/geozero-{flow}/{flow}@{checkout_name(plan.root)}"))


def start(plan: StackPlan, flow: str, **parameters: Any) -> str:
    deployment = of_flow(plan, flow)
    body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
    run: dict[str, Any] = call(plan.prefect_address, f"deployments/{deployment['id']}/create_flow_run", body)
    return str(run["id"])


def state(plan: StackPlan, run: str) -> str:
    return str(call(plan.prefect_address, f"flow_runs/{run}")["state"]["type"])


def wait_for(condition: Callable[[], Any], seconds: float) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.25)
    return found
