"""A flow's run in Prefect as its reaper sees it: the reaper reports that the work goes on, and learns that it must end.

Prefect's own heartbeats and renewals of leases come from threads of the flow's process. While that process is held up
(by a debugger, a full disk, a swapping machine) its training goes on, and the server would take the run for dead and
give its slot to the next one. The reaper is a process of its own, so it speaks for the flow.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from geozero.stack.prefect_api import LEFT, call
from geozero.stack.services import HEARTBEAT_SECONDS

STATE_SECONDS = 5.0  # between two looks at the run's state
REPORT_SECONDS = 2.0  # for a worker to report the end of a cancelled run
WORKER_SECONDS = 20.0  # for a worker to end a cancelled run
LEASE_SECONDS = 1800.0  # so long a server may be away without freeing the slots of runs that go on
SETTLE_TRIES = 60  # at a server that is away as the flow ends
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

    def leaving(self) -> dict[str, Any] | None:
        """The state of a deployment's run that was paused or is being cancelled; None for any other, or no answer."""
        with suppress(OSError, ValueError):
            run = self.read()
            state: dict[str, Any] = run["state"]
            return state if state["type"] in ("PAUSED", "CANCELLING") and run.get("deployment_id") else None
        return None

    def watch(self, end: Callable[[], object], done: threading.Event) -> None:
        """Report while the run is Running that it lives; call `end` once it is paused, or has ended on the server.

        So is a cancelled run whose worker does not end it: Prefect's worker stops looking for cancelled runs for good
        when its server is away for some seconds.

        Args:
            done: set once the flow ends by itself.
        """
        reported, cancelled, patience = float("-inf"), float("inf"), WORKER_SECONDS
        while not done.wait(STATE_SECONDS):
            try:
                state, now = self.read()["state"], time.monotonic()
                cancelled = min(cancelled, now) if state["type"] == "CANCELLING" else float("inf")
                if state["type"] in ("PAUSED", *ENDS) or now - cancelled >= patience:
                    if not done.is_set():
                        end()
                    return
                if state["type"] == "RUNNING" and time.monotonic() - reported >= HEARTBEAT_SECONDS - STATE_SECONDS / 2:
                    self._emit("prefect.flow-run.heartbeat")
                    reported = time.monotonic()
                    if lease := (state.get("state_details") or {}).get("deployment_concurrency_lease_id"):
                        path = f"v2/concurrency_limits/leases/{lease}/renew"
                        call(self.address, path, {"lease_duration": LEASE_SECONDS})
            except (OSError, ValueError):  # the server is away: the next look asks again
                patience = STATE_SECONDS

    def settle(self, supervised: Callable[[], bool]) -> None:
        """After the flow's process is gone: leave the run in a state that is true.

        A paused run becomes one that Prefect starts again on Resume, a cancelled one is marked as such. A run whose
        process was killed is marked as crashed, unless its worker lives (`supervised`), which does it.
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
                elif state["type"] == "CANCELLING":
                    if by_worker:
                        time.sleep(REPORT_SECONDS)  # which reports it, unless it has lost sight of cancelled runs
                    if self.read()["state"]["type"] == "CANCELLING":
                        self._set("CANCELLED", "Cancelled", "every process of the run has ended")
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
