"""From a stage's arguments to its last checkpoint: as many starts of the trainer as that takes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geozero.common import process
from geozero.common.errors import InputError
from geozero.params import Hardware
from geozero.training import arguments, checkpoints
from geozero.training.checkpoints import Checkpoint
from geozero.training.launcher import multi_node, watchdog
from geozero.training.launcher.launch import PARENT, REFUSAL
from geozero.training.launcher.multi_node import LeaderLaunch, Node
from geozero.training.launcher.watchdog import Watchdog
from geozero.training.stage_spec import StageSpec

LAUNCHER = "geozero.training.launcher.launch"
CACHE, LOG = "cache", "train.log"

Tell = Callable[[str], None]


def train_with_retries(
    recipe: StageSpec,
    directory: Path,
    node: Node,
    planned: dict[str, Any],
    retry: Callable[[str], None],
    tell: Tell,
    pass_on: Callable[[], bool],
) -> Checkpoint:
    """Start the training as often as it takes: again where it hung or a node failed, once smaller out of memory.

    Args:
        planned: ms-swift's arguments.
        retry: takes a line about why it is started again, for the stage's record.
        pass_on: hands on what was logged since the last call and says whether there was anything.

    Raises:
        InputError: what the launcher refused; a GPU too small; a guard's stop; it hung, or one of several nodes
            failed, more often than `hardware.restarts` allows without a new checkpoint in between.
        watchdog.Preempted: SIGTERM came.
    """
    hardware, steps = recipe.params.hardware, planned["max_steps"]
    failed, shrunk = 0, False
    while True:
        last = checkpoints.newest(directory, tell)
        if last is not None and last.step >= steps:
            return last
        arguments_now = planned if last is None else planned | {"resume_from_checkpoint": last.path}
        if last is not None:
            tell(f"resumed from {last.path.name} of {steps} steps")
        command = launch_command(recipe.kind, arguments_now, hardware, node)
        tell(f"$ {shlex.join(command)}")
        watch = supervisor(hardware, directory / LOG, tell)
        try:
            with multi_node.leader_launch(directory, node, [recipe.kind, *arguments.flatten(arguments_now)]) as launch:
                _start(command, directory, tell, watch, pass_on, launch if node.n > 1 else None)
        except (process.ChildFailed, watchdog.HangDetected, watchdog.PeerFailed) as failure:
            before, after = last, checkpoints.newest(directory, tell)
            if after is not None and after.step >= steps:
                tell(f"{after.path.name} is the last one and whole, so the training counts: {failure}")
                return after
            if isinstance(failure, process.ChildFailed):
                raise
            failed = failed + 1 if after == before else 1
            retry(str(failure))
            if failed > hardware.restarts:
                what, hint = (
                    ("hung", "the stacks say where; raise hardware.stall_minutes if its steps only take long")
                    if isinstance(failure, watchdog.HangDetected)
                    else ("broke off", "the nodes' train*.log say why")
                )
                raise InputError(
                    f"the training {what} {failed} times at the same place: {failure}",
                    str(directory),
                    f"{hint}; no checkpoint is lost, and the same command goes on",
                ) from None
        except watchdog.OutOfMemory:
            smaller = None if shrunk else arguments.halve_micro_batch(planned)
            if smaller is None:
                raise InputError(
                    f"out of memory with {planned['per_device_train_batch_size']} a forward pass and device",
                    str(directory),
                    f"lower {recipe.section}.micro_batch_size or model.max_length; no checkpoint is lost",
                ) from None
            planned, shrunk = smaller, True
            line = (
                f"out of memory: half the micro-batch, {planned['per_device_train_batch_size']}, twice the accumulation"
            )
            retry(line)
            tell(line)
        else:
            last = checkpoints.newest(directory, tell)
            if watch.left:
                at = "before its first checkpoint" if last is None else f"at step {last.step} of {steps}"
                tell(f"left {at}; the same command goes on from there")
                raise watchdog.Preempted
            if last is None or last.step < steps:
                raise RuntimeError(f"the training ended without its last checkpoint, {steps}; see {directory / LOG}")
            return last


def supervisor(hardware: Hardware, log: Path, tell: Tell) -> Watchdog:
    """A supervisor by the profile's bounds."""
    return Watchdog(log, 60 * hardware.stall_minutes, hardware.leave_seconds, tell)


def environment(directory: Path) -> dict[str, str]:
    """What the launcher finds in its environment."""
    return {"MODELSCOPE_CACHE": str(directory / CACHE), PARENT: str(os.getpid())}


def _start(
    command: Sequence[str],
    directory: Path,
    tell: Tell,
    watch: Watchdog,
    pass_on: Callable[[], bool],
    shared: LeaderLaunch | None,
) -> None:
    """Run the child once; what its launcher refused becomes the InputError that it was.

    Args:
        shared: with other nodes, one of which may be what failed; None: this node trains alone.
    """

    def on_line(line: str) -> None:
        tell(line)
        if pass_on():
            watch.alive()

    if shared is not None:
        watch.over = shared.failure
    try:
        watch.run(command, environment(directory), on_line)
    except process.ChildFailed as failed:
        refusals = [line.removeprefix(REFUSAL) for line in failed.tail if line.startswith(REFUSAL)]
        if refusals:
            raise InputError(refusals[-1]) from None
        if shared is None:
            raise
        why = shared.failure_in_the_end()
        if why.endswith(watchdog.OutOfMemory.REASON):
            raise watchdog.OutOfMemory from None
        why = why or f"a process of node 0 ended with code {failed.code}"
        tell(f"broken off: {why}")
        raise watchdog.PeerFailed(why) from failed


def launch_command(kind: str, planned: Mapping[str, Any], hardware: Hardware, node: Node | None = None) -> list[str]:
    """The child's command line: our launcher, under torchrun where several processes train.

    Args:
        node: this one; None stands for the first.
    """
    node = node or Node(0, hardware.nodes, "$MASTER_ADDR" if hardware.nodes > 1 else "", multi_node.PORT)
    torchrun = multi_node.torchrun(node, arguments.devices(hardware))
    return [sys.executable, *torchrun, "-m", LAUNCHER, kind, *arguments.flatten(planned)]
