"""Training over several nodes: each starts the same command, or all but node 0 `geozero follow`. Node 0 decides.

They share the directory of the stage (a file system that all nodes see). Node 0 writes what it starts to `launch.json`
and keeps touching it; a follower starts the same arguments once it has seen that file change, so that what an earlier
run left there starts nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.params import Hardware
from geozero.training.launcher.watchdog import Heartbeat

LAUNCH, FAILED = "launch.json", "failed.json"
TOUCH_SECONDS = 2.0
GRACE_SECONDS = 30.0  # for a follower's processes to end after node 0's have
REPORT_SECONDS = 10.0  # for a follower to report why it failed
PORT = 29500  # torch's own default


@dataclass(frozen=True)
class Node:
    """This machine among those that train: number (from 0) of how many, and where node 0 listens."""

    rank: int
    n: int
    address: str
    port: int

    @property
    def leads(self) -> bool:
        return self.rank == 0


def this_node(hardware: Hardware) -> Node:
    """This node, by `NODE_RANK`, `MASTER_ADDR` and `MASTER_PORT` where there are several.

    Raises:
        InputError: a variable is missing or wrong.
    """
    if hardware.nodes == 1:
        return Node(0, 1, "127.0.0.1", PORT)
    rank, address = os.environ.get("NODE_RANK"), os.environ.get("MASTER_ADDR")
    port = os.environ.get("MASTER_PORT", str(PORT))
    if rank is None or address is None:
        what = f"this node does not know which of {hardware.nodes} it is"
        hint = (
            "set NODE_RANK to 0, 1, … and MASTER_ADDR to node 0 on every node, then start the same command on each, "
            "or `geozero follow` on all but node 0"
        )
        raise InputError(what, "NODE_RANK, MASTER_ADDR", hint)
    if not rank.isdecimal() or int(rank) >= hardware.nodes or not port.isdecimal():
        raise InputError(f"NODE_RANK={rank}, MASTER_PORT={port} of {hardware.nodes} nodes", hint="ranks count from 0")
    return Node(int(rank), hardware.nodes, address, int(port))


@dataclass
class LeaderLaunch:
    """One start of the training, as node 0 wrote it to `path`: its name, and the launcher's words."""

    path: Path
    name: str
    words: list[str]
    _gone_since: float | None = None

    @classmethod
    def read(cls, path: Path) -> LeaderLaunch | None:
        """What node 0 runs now; None where it runs nothing."""
        with suppress(OSError, ValueError, KeyError):
            found = json.loads(path.read_text())
            return cls(path, str(found["launch"]), [str(word) for word in found["words"]])
        return None

    def abort_reason(self) -> str:
        """On a follower: why to end its processes, because node 0 has restarted or stopped; "" if they should go on."""
        found = self.read(self.path)
        if found is not None:
            return "" if found.name == self.name else "node 0 has restarted"
        self._gone_since = self._gone_since or time.monotonic()
        return "node 0 has stopped" if time.monotonic() - self._gone_since > GRACE_SECONDS else ""

    def fail(self, reason: str) -> None:
        """On a follower: report to node 0, whose processes may not notice that others are gone."""
        write_json(self.path.with_name(FAILED), {"launch": self.name, "why": reason})

    def failure(self) -> str:
        """On node 0: why a follower failed in this start, or ""."""
        with suppress(OSError, ValueError, KeyError):
            found = json.loads(self.path.with_name(FAILED).read_text())
            return str(found["why"]) if found["launch"] == self.name else ""
        return ""

    def wait_for_failure(self) -> str:
        """`failure`, after a moment if need be: where nodes fail together, the others may not have reported yet."""
        until = time.monotonic() + REPORT_SECONDS
        while not (reason := self.failure()) and time.monotonic() < until:
            time.sleep(TOUCH_SECONDS / 2)
        return reason


@contextmanager
def leader_launch(directory: Path, node: Node, words: Sequence[str]) -> Iterator[LeaderLaunch]:
    """On node 0: let the followers start the launcher with `words` while the block runs."""
    launch, ended = LeaderLaunch(directory / LAUNCH, uuid.uuid4().hex, list(words)), threading.Event()
    if node.n == 1:
        yield launch
        return

    def touch() -> None:
        while not ended.wait(TOUCH_SECONDS):
            with suppress(FileNotFoundError):
                launch.path.touch()

    write_json(launch.path, {"launch": launch.name, "words": launch.words})
    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield launch
    finally:
        ended.set()
        thread.join()
        launch.path.unlink(missing_ok=True)
        launch.path.with_name(FAILED).unlink(missing_ok=True)


def launches(directory: Path, done: Path, patience: float) -> Iterator[LeaderLaunch]:
    """On a follower: each start of node 0, until `done` is there.

    Args:
        patience: seconds without a sign of life from node 0, after which this node gives up.

    Raises:
        InputError: node 0 has stopped, or never came.
    """
    started = ""
    for _ in _heartbeats(directory / LAUNCH, done, patience):
        launch = LeaderLaunch.read(directory / LAUNCH)
        if launch is not None and launch.name != started:
            started = launch.name
            yield launch


def all_launches(runs: Path) -> Iterator[LeaderLaunch]:
    """On a follower: each start of node 0 in any stage's directory below `runs`, without end."""
    seen, started = dict[Path, Heartbeat](), set[str]()
    while True:
        for path in sorted(runs.glob(f"*/{LAUNCH}")):
            is_alive = seen.setdefault(path, Heartbeat(path)).changed()
            launch = LeaderLaunch.read(path) if is_alive else None
            if launch is not None and launch.name not in started:
                started.add(launch.name)
                yield launch
        time.sleep(TOUCH_SECONDS / 2)


def wait_for_leader(made: Path, sign: Path, patience: float) -> None:
    """On a follower: wait for a file that node 0 makes.

    Args:
        sign: what node 0 writes to on the way.
        patience: as for `launches`, whose errors it has.
    """
    for _ in _heartbeats(sign, made, patience):
        pass


def _heartbeats(sign: Path, done: Path, patience: float) -> Iterator[None]:
    """Yield each time that `sign` has changed, until `done` is there."""
    heartbeat, since = Heartbeat(sign), time.monotonic()
    while not done.is_file():
        if heartbeat.changed():
            yield
            since = time.monotonic()
        if time.monotonic() - since > patience:
            raise InputError("no sign of node 0", str(done), "start the same command there with NODE_RANK=0")
        time.sleep(TOUCH_SECONDS / 2)
