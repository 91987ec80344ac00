"""From a stage's arguments to its last checkpoint: as many starts of the trainer as that takes."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from geozero.common import process
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.params import Hardware, Params
from geozero.training import arguments, checkpoints
from geozero.training.checkpoints import Checkpoint
from geozero.training.launcher import multi_node, secret_arguments
from geozero.training.launcher.launch import LAUNCHER, PARENT, REFUSAL
from geozero.training.launcher.multi_node import LeaderLaunch, Node
from geozero.training.launcher.watchdog import HangDetected, OutOfMemory, PeerFailed, Preempted, Watchdog
from geozero.training.metrics import SOURCE, MetricsForwarder
from geozero.training.stage_spec import STAGE, Log, StageSpec

CACHE, LOG = "cache", "train.log"


@dataclass(frozen=True)
class TrainingRun:
    """One training on node 0, however often its trainer is started.

    Attributes:
        record: what `stage.json` says.
    """

    spec: StageSpec
    directory: Path
    node: Node
    record: dict[str, Any]
    metrics: MetricsForwarder
    log: Log

    def update_record(self, **values: Any) -> None:
        """Write `stage.json` with these values added."""
        self.record.update(values)
        write_json(self.directory / STAGE, self.record)

    def add_retry(self, reason: str) -> None:
        """The trainer is started again."""
        self.update_record(retries=[*self.record["retries"], reason])

    def on_line(self, line: str) -> None:
        """A line of the trainer's output."""
        self.log(line)
        self.metrics.forward()

    def newest_checkpoint(self) -> Checkpoint | None:
        """The checkpoint that the next start resumes from.

        Raises:
            NonFiniteStop: a step on the way to it was NaN or infinite.
        """
        last = checkpoints.newest(self.directory, self.log)
        if last is not None:
            self.metrics.check_history(last.path, checkpoints.history(last.path))
        return last


def train_with_retries(run: TrainingRun, planned: dict[str, Any]) -> Checkpoint:
    """Train to the last step: start again where the trainer hung or a node failed, once smaller out of memory.

    Args:
        planned: ms-swift's arguments.

    Raises:
        InputError: what the launcher refused; a GPU too small; a guard's stop; it hung, or one of several nodes
            failed, more often than `hardware.restarts` allows without a new checkpoint in between.
        NonFiniteStop: a metric of a training step is NaN or infinite.
        Preempted: SIGTERM came.
    """
    steps, failures, is_halved = planned["max_steps"], 0, False
    last = run.newest_checkpoint()
    while last is None or last.step < steps:
        before = last
        try:
            _start(run, planned, last)
        except (process.ChildFailed, HangDetected, PeerFailed) as failure:
            last = run.newest_checkpoint()
            if last is not None and last.step >= steps:
                run.log(f"{last.path.name} is complete, so the training counts, although: {failure}")
                return last
            if isinstance(failure, process.ChildFailed):
                raise
            failures = failures + 1 if last == before else 1
            run.add_retry(str(failure))
            if failures > run.spec.params.hardware.restarts:
                what, hint = "failed", "see the nodes' train*.log"
                if isinstance(failure, HangDetected):
                    what, hint = "hung", "if its steps only take long, raise hardware.stall_minutes"
                raise InputError(
                    f"the training {what} {failures} times at the same step: {failure}",
                    str(run.directory),
                    f"{hint}; no checkpoint is lost, and the same command resumes",
                ) from None
        except OutOfMemory:
            micro, smaller = planned["per_device_train_batch_size"], halve_micro_batch(planned)
            if is_halved or smaller is None:
                raise InputError(
                    f"out of memory with {micro} samples per forward pass and device",
                    str(run.directory),
                    f"lower {run.spec.section}.micro_batch_size or model.max_length; no checkpoint is lost",
                ) from None
            planned, is_halved = smaller, True
            reason = f"out of memory: retrying with half the micro-batch, {micro // 2}, and twice the accumulation"
            run.add_retry(reason)
            run.log(reason)
            last = run.newest_checkpoint()
        except Preempted:
            last = checkpoints.newest(run.directory, run.log)
            at = "before the first checkpoint" if last is None else f"at step {last.step}/{steps}"
            run.log(f"interrupted {at}; rerun the same command to resume")
            raise
        else:
            run.metrics.forward()  # says so where the trainer ended because of NaN
            last = run.newest_checkpoint()
            if last is None or last.step < steps:
                raise RuntimeError(f"the training ended without checkpoint-{steps}; see {run.directory / LOG}")
    return last


def _start(run: TrainingRun, planned: dict[str, Any], last: Checkpoint | None) -> None:
    """Start the trainer once, here and by way of `launch.json` on the other nodes."""
    if last is not None:
        planned = planned | {"resume_from_checkpoint": last.path}
        run.log(f"resuming from {last.path.name} (step {last.step}/{planned['max_steps']})")
    hardware, directory = run.spec.params.hardware, run.directory
    log_file, env = directory / LOG, environment(directory) | secret_arguments.environment(planned)
    command = arguments.launch_command(run.spec.kind, planned, hardware, run.node)
    run.log(f"$ {shlex.join(command)}")
    with multi_node.leader_launch(directory, run.node, [run.spec.kind, *arguments.flatten(planned)]) as launch:
        try:
            with Watchdog(hardware, directory / SOURCE, log_file, run.log, launch.failure) as watchdog:
                process.run(command, log_file, env=env, on_start=watchdog.watch, on_line=run.on_line)
        except process.ChildFailed as failed:
            refusals = [line.removeprefix(REFUSAL) for line in failed.tail if line.startswith(REFUSAL)]
            if refusals:
                raise InputError(refusals[-1]) from None
            if run.node.n == 1:
                raise
            reason = launch.wait_for_failure() or f"a process of node 0 ended with code {failed.code}"
            if reason.endswith(OutOfMemory.REASON):
                raise OutOfMemory from None
            run.log(f"aborted: {reason}")
            raise PeerFailed(reason) from failed


def follow_leader(spec: StageSpec, directory: Path, node: Node, done: Path, log: Log) -> None:
    """On a node that is not the first: start what node 0 starts, until `done` is there."""
    for launch in multi_node.launches(directory, done, 60 * spec.params.hardware.stall_minutes):
        _join(launch, spec.params.hardware, spec.settings.extra, node, log)


def follow_all(params: Params, runs: Path, log: Log) -> NoReturn:
    """On a node that is not the first: join every training that node 0 starts below `runs`, whichever command of node 0
    starts it, until this process is ended.

    Raises:
        InputError: `hardware.nodes` is 1, or this is node 0.
        Preempted: SIGTERM came during a training.
    """
    node = multi_node.this_node(params.hardware)
    if node.leads:
        what = "there is only one node" if node.n == 1 else "node 0 leads"
        raise InputError(what, "hardware.nodes" if node.n == 1 else "NODE_RANK", "follow on the other nodes of several")
    log(f"node {node.rank} of {node.n}: waiting for the trainings of node 0 in {runs}")
    sections: dict[str, Any] = {"filter": params.filter, "sft": params.sft, "a2grpo": params.a2grpo}
    for launch in multi_node.all_launches(runs):
        name = launch.path.parent.name
        log(f"node {node.rank}: joining {name}")
        section = sections.get(name.partition("-")[0])
        _join(launch, params.hardware, section.extra if section else {}, node, log)
    raise AssertionError("launches end only with the process")


def _join(launch: LeaderLaunch, hardware: Hardware, extra: Mapping[str, Any], node: Node, log: Log) -> None:
    """Run this node's part of one start; node 0 learns how it failed."""
    directory = launch.path.parent
    env = environment(directory) | secret_arguments.environment(extra)
    command = [sys.executable, *arguments.torchrun(node, arguments.devices(hardware)), "-m", LAUNCHER]
    try:
        log_file = directory / f"train-{node.rank}.log"
        with Watchdog(hardware, directory / SOURCE, log_file, log, launch.abort_reason) as watchdog:
            process.run([*command, *launch.words], log_file, env=env, on_start=watchdog.watch, on_line=log)
    except Preempted:
        log(f"node {node.rank}: interrupted; node 0 writes the checkpoint")
        raise
    except (process.ChildFailed, HangDetected, OutOfMemory) as error:
        reason = f"a process ended with code {error.code}" if isinstance(error, process.ChildFailed) else str(error)
        if not launch.abort_reason():  # otherwise node 0 knows, or has ended it
            launch.fail(f"node {node.rank}: {reason}")
        log(f"node {node.rank}: {reason}; node 0 decides what follows")


def halve_micro_batch(arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """The same batch from half the micro-batch and twice the accumulation; None where the micro-batch is odd."""
    micro = int(arguments["per_device_train_batch_size"])
    if micro % 2:
        return None
    halves = {
        "per_device_train_batch_size": micro // 2,
        "gradient_accumulation_steps": 2 * int(arguments["gradient_accumulation_steps"]),
    }
    return {**arguments, **halves}


def environment(directory: Path) -> dict[str, str]:
    """What the launcher finds in its environment."""
    return {"MODELSCOPE_CACHE": str(directory / CACHE), PARENT: str(os.getpid())}
