"""Set up a Prefect server: work pools, and the automation that marks dead runs as crashed.

`python -m geozero.stack.prefect_api http://HOST:4200` sets up any server; `--notify TYPE/NAME` has it tell of runs that
fail, by a notification block. Plain HTTP: each `prefect` command takes
five seconds to import Prefect, and `geozero` does not import it.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from geozero.common.errors import EXIT_BAD_INPUT, InputError
from geozero.common.retry import retry
from geozero.stack.services import HEARTBEAT_SECONDS, POOLS

TIMEOUT = 30.0  # a busy machine is slow
BUSY = 503  # its SQLite database is locked by another request, for a moment
BUSY_TRIES = 6
BUSY_SECONDS = 0.5  # before the second try; doubled with each
ZOMBIES = "Crash zombie flows"
MISSED_HEARTBEATS = 10  # after so many a run is dead: five minutes, of six that its slot may stay occupied
# Names of states in which no heartbeats are due: ended, held, or waiting to be started again
QUIET = (
    *("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended"),
    *("AwaitingRetry", "Scheduled", "Late", "Resuming", "Pending", "AwaitingConcurrencySlot"),
)
NOTIFY = "Notify about ended runs"
NOTIFIED = ("Failed", "Crashed")
LEFT = "geozero.flow-run.left"  # event: the flow's process has ended, and its run is in one of these states


def call(address: str, path: str, body: Any = None, method: str | None = None) -> Any:
    """One request to `ADDRESS/api/PATH`, JSON both ways; None for an empty answer. A busy server is retried.

    Raises:
        urllib.error.HTTPError: the server refused it, or is still busy after 15 seconds.
        OSError: no server answers.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **_credentials()}
    request = urllib.request.Request(f"{address}/api/{path}", data, headers, method=method)

    def send() -> bytes:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return bytes(answer.read())

    text = retry(send, lambda error: getattr(error, "code", None) == BUSY, BUSY_TRIES, BUSY_SECONDS)
    return json.loads(text) if text else None


def _credentials() -> dict[str, str]:
    """The header for a server that wants one, from the variables that Prefect reads it from."""
    if user := os.environ.get("PREFECT_API_AUTH_STRING"):
        return {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"}
    key = os.environ.get("PREFECT_API_KEY")
    return {"Authorization": f"Bearer {key}"} if key else {}


def healthy(address: str) -> bool:
    """Whether the server answers."""
    try:
        return call(address, "health") is True
    except (OSError, ValueError):
        return False


def online(address: str, pool: str, worker: str, since: float) -> bool:
    """Whether a worker of this name has reported to the pool since a time (seconds since 1970).

    The server shows a killed worker as online for a while; only reports since the start of its successor count.
    """
    try:
        found = call(address, f"work_pools/{pool}/workers/filter", {})
    except (OSError, ValueError):
        return False
    return any(
        one["name"] == worker
        and one["status"] == "ONLINE"
        and datetime.fromisoformat(one["last_heartbeat_time"]).timestamp() >= since
        for one in found
    )


def furnish(address: str) -> None:
    """Create what does not exist yet; what exists keeps its values, which a user may have changed."""
    for pool in POOLS:  # without limits: each worker has its own, and each machine's GPUs have their locks
        _create(address, "work_pools/", {"name": pool, "type": "process"})
    automation = zombies()
    found = call(address, "automations/filter", {"automations": {"name": {"any_": [ZOMBIES]}}})
    if not found:
        call(address, "automations/", automation)
    for one in found:  # that of an earlier version marked living runs as crashed
        old, new = one["trigger"], automation["trigger"]
        if old["within"] < new["within"] or not set(new["expect"]) <= set(old["expect"]):
            call(address, f"automations/{one['id']}", automation | {"enabled": one["enabled"]}, "PUT")


def zombies() -> dict[str, Any]:
    """The automation that marks a run as crashed when its heartbeats stop before it has ended.

    A flow that is killed with -9 together with its worker and its reaper reports nothing; without this it stays Running
    for ever and keeps its slot (Prefect's documentation, "Detect zombie flows").
    """
    return {
        "name": ZOMBIES,
        "description": "A run whose heartbeats stopped without an end is marked as crashed, which frees its slot.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "for_each": ["prefect.resource.id"],
            "after": ["prefect.flow-run.heartbeat"],
            "expect": ["prefect.flow-run.heartbeat", LEFT, *(f"prefect.flow-run.{name}" for name in QUIET)],
            "threshold": 1,
            "within": MISSED_HEARTBEATS * HEARTBEAT_SECONDS,
        },
        "actions": [
            {"type": "change-flow-run-state", "state": "CRASHED", "message": "no heartbeat: the flow's process is gone"}
        ],
    }


def notify(address: str, block: str, states: Sequence[str] = NOTIFIED) -> None:
    """Create or replace the automation that sends a notification when one of our runs enters a state.

    Args:
        block: a notification block as TYPE/NAME: `custom-webhook/lab`, `slack-webhook/lab`, `sendgrid-email/me`.
        states: names of states.

    Raises:
        InputError: the server has no such block.
    """
    kind, _, name = block.partition("/")
    try:
        document = call(address, f"block_types/slug/{kind}/block_documents/name/{name}")
    except urllib.error.HTTPError as refused:
        if refused.code != 404:
            raise
        hint = "create it in Prefect's pages under Blocks"
        raise InputError(f"no notification block '{block}'", address, hint) from None
    automation = {
        "name": NOTIFY,
        "description": "Tells by a notification block that a run of GeoZero has entered one of the states.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Reactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": {"prefect.resource.id": "prefect.tag.geozero", "prefect.resource.role": "tag"},
            "for_each": ["prefect.resource.id"],
            "expect": [f"prefect.flow-run.{state}" for state in states],
            "threshold": 1,
            "within": 0,
        },
        "actions": [
            {
                "type": "send-notification",
                "block_document_id": document["id"],
                "subject": "{{ flow.name }}: {{ flow_run.state.name }}",
                "body": "{{ flow_run.name }}: {{ flow_run.state.message }}\n{{ flow_run|ui_url }}",
            }
        ],
    }
    found = call(address, "automations/filter", {"automations": {"name": {"any_": [NOTIFY]}}})
    if found:
        call(address, f"automations/{found[0]['id']}", automation, "PUT")
    else:
        call(address, "automations/", automation)


def _create(address: str, path: str, body: Any) -> None:
    try:
        call(address, path, body)
    except urllib.error.HTTPError as refused:
        if refused.code != 409:  # it exists
            raise


def main(words: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description="Set up a Prefect server for GeoZero.")
    parser.add_argument("address", help="http://HOST:4200")
    parser.add_argument("--notify", metavar="TYPE/NAME", help="a notification block that tells of ended runs")
    parser.add_argument("--on", nargs="+", default=NOTIFIED, metavar="STATE", help="default: Failed Crashed")
    given = parser.parse_args(words)
    address = given.address.rstrip("/").removesuffix("/api")
    try:
        furnish(address)
        if given.notify is not None:
            notify(address, given.notify, given.on)
    except (InputError, urllib.error.URLError) as error:
        print(f"geozero: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
