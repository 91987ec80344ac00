"""All sharded work in one way: a task is mapped over its shards by the flow's task runner.

The runner is a pool of threads, which wait for child processes of this machine, or with `--ray` the machines of a Ray
cluster, which need the checkout at the same path. A shard is the same wherever it runs.
"""

from __future__ import annotations

import argparse
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from prefect import unmapped
from prefect.context import FlowRunContext
from prefect.task_runners import ThreadPoolTaskRunner

from geozero.common import process
from geozero.common.errors import InputError
from geozero.workspace import Workspace

AUTO = "auto"  # the cluster of this machine, or all of its GPUs
CONNECT_SECONDS = 10.0
RAY_RETRIES = 5  # of a shard whose machine is lost; what it has stored is kept
MOST_WORKERS = 64  # threads of one machine; they only wait for child processes


def mapped(work: Any, shards: Sequence[Any], *others: Sequence[Any], **same: Any) -> list[Any]:
    """The results of a task for each shard, in order; if one fails, the others finish first, and what they store stays.

    Args:
        work: the task; it takes a shard, one value of each of `others`, and the same keyword arguments for all.
    """
    results = work.map(shards, *others, **{name: unmapped(value) for name, value in same.items()})
    results.wait()
    return list(results.result())


def devices_of(workspace: Workspace, workers: int, gpus: Sequence[int] | None = None) -> list[int | str | None]:
    """The GPU of each worker of this machine: those that are named, else the visible ones, in turn; None where none is
    needed, where a single worker sees them all, and on Ray, which gives each its own.
    """
    sampling = workspace.settings.sampling
    if gpus:
        return [gpus[i % len(gpus)] for i in range(workers)]
    run = FlowRunContext.get()
    elsewhere = run is not None and not isinstance(run.task_runner, ThreadPoolTaskRunner)
    needs_none = elsewhere or workers == 1 or (sampling.engine == "server" and sampling.urls)
    names = [] if needs_none else process.visible_gpus()
    return [names[i % len(names)] if names else None for i in range(workers)]


def number_of_shards(text: str) -> int:
    """A number of workers; `auto`: one for each visible GPU of this machine."""
    return max(1, len(process.visible_gpus())) if text == AUTO else int(text)


def ray_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where shards run."""
    parser.add_argument("--ray", help="map the shards over this Ray cluster: auto, or HOST:PORT")
    parser.add_argument("--ray-gpus", type=float, default=0, help="GPUs that Ray gives each shard")


def on_ray(flow: Any) -> Callable[[dict[str, Any]], Callable[..., object]]:
    """`choose` of `shell.start`: the flow, its shards mapped over a Ray cluster where `--ray` names one."""
    return partial(_on_ray, flow)


def _on_ray(flow: Any, given: dict[str, Any]) -> Callable[..., object]:
    """Raises InputError if prefect-ray is not installed, or no cluster answers there."""
    address, gpus = given.pop("ray"), given.pop("ray_gpus")
    if address is None:
        return flow  # type: ignore[no-any-return]
    try:
        from prefect_ray import RayTaskRunner
        from prefect_ray.context import remote_options
    except ModuleNotFoundError:
        raise InputError("Ray is not installed", "--ray", "pip install 'geozero[ray]'") from None
    host, _, port = address.rpartition(":")
    if address != AUTO:
        try:  # Ray itself retries for minutes
            socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise InputError(f"no Ray cluster answers: {error}", f"--ray {address}", "auto, or HOST:PORT") from None

    def run(**arguments: Any) -> object:
        with remote_options(num_gpus=gpus, max_retries=RAY_RETRIES):
            return flow.with_options(task_runner=RayTaskRunner(address=address))(**arguments)

    return run
