"""Training over several nodes: each starts the same command; node 0 decides, the others join in.

They share the directory of the stage (a file system that all nodes see). Node 0 writes what is started to
`launch.json` and keeps touching it; another node starts the same arguments once it has seen that file change, so that
what an earlier run left there starts nothing.
"""

from __future__ import annotations

import json
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.params import Hardware

LAUNCH, FAILED = "launch.json", "failed.json"
TOUCH_SECONDS = 2.0
GRACE_SECONDS = 30.0  # for a node's processes to end after node 0's have
TELL_SECONDS = 10.0  # for another node to say what it failed of
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
        raise InputError(
            f"{hardware.nodes} nodes train, and this one does not know which it is",
            "NODE_RANK, MASTER_ADDR",
            "set NODE_RANK to 0, 1, … and MASTER_ADDR to node 0 on every node, then start the same command on each",
        )
    if not rank.isdecimal() or int(rank) >= hardware.nodes or not port.isdecimal():
        raise InputError(f"NODE_RANK={rank}, MASTER_PORT={port} of {hardware.nodes} nodes", hint="ranks count from 0")
    return Node(int(rank), hardware.nodes, address, int(port))


def torchrun(node: Node, processes: int) -> list[str]:
    """The words that start `processes` processes on this node; none where one process trains alone."""
    if node.n == 1:
        return (
            ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
        )
    return [
        *("-m", "torch.distributed.run", "--nnodes", str(node.n), "--node_rank", str(node.rank)),
        *("--master_addr", node.address, "--master_port", str(node.port), "--nproc_per_node", str(processes)),
    ]


@dataclass
class Heartbeat:
    """A file that another node writes to while it lives."""

    path: Path
    _seen: float = 0.0

    def changed(self) -> bool:
        """Whether it was written to since the last call; the first sight of it tells nothing."""
        with suppress(OSError):
            before, self._seen = self._seen, self.path.stat().st_mtime
            return before not in (0.0, self._seen)
        return False


@dataclass
class LeaderLaunch:
    """One start of the training, as node 0 wrote it to `path`: its name, and the launcher's words."""

    path: Path
    name: str
    words: list[str]
    _gone_since: float | None = None

    def over(self) -> str:
        """Another node: why its processes are in vain, once node 0 has started anew or ended this start; else ''."""
        found = _read(self.path)
        if found is not None:
            return "" if found.name == self.name else "node 0 has started anew"
        self._gone_since = self._gone_since or time.monotonic()
        return "node 0 has ended" if time.monotonic() - self._gone_since > GRACE_SECONDS else ""

    def fail(self, why: str) -> None:
        """Another node: tell node 0, whose processes may not notice that others are gone."""
        write_json(self.path.with_name(FAILED), {"launch": self.name, "why": why})

    def failure(self) -> str:
        """Node 0: why another node failed in this start, or ''."""
        with suppress(OSError, ValueError, KeyError):
            told = json.loads(self.path.with_name(FAILED).read_text())
            return str(told["why"]) if told["launch"] == self.name else ""
        return ""

    def failure_in_the_end(self) -> str:
        """`failure`, waited for a moment: where nodes fail together, the others may not have told yet."""
        until = time.monotonic() + TELL_SECONDS
        while not (why := self.failure()) and time.monotonic() < until:
            time.sleep(TOUCH_SECONDS / 2)
        return why


def _read(path: Path) -> LeaderLaunch | None:
    with suppress(OSError, ValueError, KeyError):
        found = json.loads(path.read_text())
        return LeaderLaunch(path, str(found["launch"]), [str(word) for word in found["words"]])
    return None


@contextmanager
def leader_launch(directory: Path, node: Node, words: Sequence[str]) -> Iterator[LeaderLaunch]:
    """Node 0: let the other nodes start the launcher with `words` while the block runs."""
    launch, over = LeaderLaunch(directory / LAUNCH, uuid.uuid4().hex, list(words)), threading.Event()
    if node.n == 1:
        yield launch
        return

    def touch() -> None:
        while not over.wait(TOUCH_SECONDS):
            with suppress(FileNotFoundError):
                launch.path.touch()

    write_json(launch.path, {"launch": launch.name, "words": launch.words})
    thread = threading.Thread(target=touch, daemon=True)
    thread.start()
    try:
        yield launch
    finally:
        over.set()
        thread.join()
        launch.path.unlink(missing_ok=True)
        launch.path.with_name(FAILED).unlink(missing_ok=True)


def wait_for_leader(made: Path, sign: Path, patience: float) -> None:
    """Another node: wait for a file that node 0 makes.

    Args:
        sign: what node 0 writes to on the way.
        patience: seconds without a change of it, after which this node gives up.

    Raises:
        InputError: node 0 has ended, or never came.
    """
    life, since = Heartbeat(sign), time.monotonic()
    while not made.is_file():
        if life.changed():
            since = time.monotonic()
        if time.monotonic() - since > patience:
            raise InputError("no sign of node 0", str(made), "start the same command there with NODE_RANK=0")
        time.sleep(TOUCH_SECONDS / 2)


def follow_leader(directory: Path, done: Path, start: Callable[[LeaderLaunch], None], patience: float) -> None:
    """Another node: start what node 0 starts, as often as it does, until `done` is there.

    Args:
        start: returns when the processes of this node have ended, however they did.
        patience: seconds without a sign of life from node 0, after which this node gives up.

    Raises:
        InputError: node 0 has ended, or never came.
    """
    life, started, since = Heartbeat(directory / LAUNCH), "", time.monotonic()
    while not done.is_file():
        if life.changed():
            since = time.monotonic()
            launch = _read(life.path)
            if launch is not None and launch.name != started:
                started = launch.name
                start(launch)
                since = time.monotonic()
        if time.monotonic() - since > patience:
            raise InputError("no sign of node 0", str(directory), "start the same command there with NODE_RANK=0")
        time.sleep(TOUCH_SECONDS / 2)
