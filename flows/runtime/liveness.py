"""A flow's run in Prefect as its reaper sees it: the reaper reports that the work goes on, and learns that it must end.

Prefect's own heartbeats and renewals of leases come from threads of the flow's process. While that process is held up
(by a debugger, a full disk, a swapping machine) its training goes on, and the server would take the run for dead and
give its slot to the next one. The reaper is a process of its own, so it speaks for the flow.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from geozero.stack.prefect_api import LEFT, call
from geozero.stack.services import HEARTBEAT_SECONDS

STATE_SECONDS = 10.0  # between two looks at the run's state
LEASE_SECONDS = 1800.0  # so long a server may be away without freeing the slots of runs that go on
SETTLE_TRIES = 30  # at a server that is away as the flow ends
ENDS = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class FlowRun:
    """A run on a Prefect server.

    Attributes:
        address: of the server, without `/api`.
    """

    address: str
    run_id: str

    def read(self) -> dict[str, Any]:
        """The run as the server has it. Raises OSError or ValueError where no server answers."""
        run: dict[str, Any] = call(self.address, f"flow_runs/{self.run_id}")
        return run | {"state": run.get("state") or {"type": ""}}

    def suspended(self) -> dict[str, Any] | None:
        """The state of a deployment's run that was suspended or paused; None for any other, or without an answer."""
        with suppress(OSError, ValueError):
            run = self.read()
            state: dict[str, Any] = run["state"]
            return state if state["type"] == "PAUSED" and run.get("deployment_id") else None
        return None

    def watch(self, end: Callable[[], object]) -> None:
        """Report while the run is Running that it lives; call `end` once it is paused, or has ended on the server."""
        reported = float("-inf")
        while True:
            with suppress(OSError, ValueError):  # the server is away: the next look asks again
                state = self.read()["state"]
                if state["type"] in ("PAUSED", *ENDS):
                    end()
                    return
                if state["type"] == "RUNNING" and time.monotonic() - reported >= HEARTBEAT_SECONDS - STATE_SECONDS / 2:
                    self._emit("prefect.flow-run.heartbeat")
                    reported = time.monotonic()
                    if lease := (state.get("state_details") or {}).get("deployment_concurrency_lease_id"):
                        path = f"v2/concurrency_limits/leases/{lease}/renew"
                        call(self.address, path, {"lease_duration": LEASE_SECONDS})
            time.sleep(STATE_SECONDS)

    def settle(self, supervised: Callable[[], bool]) -> None:
        """After the flow's process is gone: leave the run in a state that is true.

        A paused run becomes one that Prefect starts again on Resume. A run whose process was killed is marked as
        crashed or cancelled, unless its worker lives (`supervised`), which does it.
        """
        for _ in range(SETTLE_TRIES):
            with suppress(OSError, ValueError):
                run = self.read()
                state, by_worker = run["state"], supervised()
                if state["type"] == "PAUSED" and run.get("deployment_id"):
                    details = {**(state.get("state_details") or {}), "pause_reschedule": True}
                    self._set("PAUSED", "Suspended", "stopped with a checkpoint; resume it at any time", details)
                elif state["type"] == "RUNNING" and not by_worker:
                    self._set("CRASHED", "Crashed", "the flow's process is gone, and its worker too")
                elif state["type"] == "CANCELLING" and not by_worker:
                    self._set("CANCELLED", "Cancelled", "the flow's process is gone, and its worker too")
                if state["type"] not in ("RUNNING", "CANCELLING"):
                    self._emit(LEFT)  # heartbeats that came after the change of state count no more
                return
            time.sleep(STATE_SECONDS)

    def _emit(self, event: str) -> None:
        resource = {"prefect.resource.id": f"prefect.flow-run.{self.run_id}"}
        occurred = datetime.now(UTC).isoformat()
        body = {"id": str(uuid.uuid4()), "occurred": occurred, "event": event, "resource": resource}
        call(self.address, "events", [body])

    def _set(self, kind: str, name: str, message: str, details: dict[str, Any] | None = None) -> None:
        state = {"type": kind, "name": name, "message": message, "state_details": details or {}}
        call(self.address, f"flow_runs/{self.run_id}/set_state", {"state": state, "force": True})
