"""Ingest over many workers: shards of each data set's images are decoded first: `python -m flows.ingest --shards N`.

What has changed is DVC's to say. Its stages `ingest@…` then find the images decoded, and write the same corpora as they
would without, bit for bit.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.task_runners import ThreadPoolTaskRunner

from flows.data import check_stages, do_without_git, dvc
from flows.runtime import locks
from flows.runtime.flow_parameters import Shards, form
from flows.runtime.monitoring import rate_limited
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.sharding import MOST_WORKERS, mapped, on_ray, ray_options
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, pipeline_run
from geozero.common.child import run_module
from geozero.workspace import Workspace

CODE, FILES, MERGE = "adapters", "locate", "raw"  # DVC stages: what an ingest depends on; what needs them all


@task(name="decode", task_run_name="decode-{source}-{shard}-of-{of}", **TASK_OPTIONS)
def decode_shard(source: str, shard: int, workspace: Workspace, of: int) -> None:
    """Decode one shard of a data set's images, in a process of its own."""
    log = rate_limited(get_run_logger().info)
    name = f"decode-{source}-{shard}of{of}"
    words = ["ingest", source, "--params", str(workspace.file), "--shard", f"{shard}/{of}"]
    with locks.shard_lock(workspace, name):
        run_module("geozero.cli", *words, log=workspace.log(name), cwd=workspace.root, on_line=log)


@task(name="ingest", **TASK_OPTIONS)
def write_corpora(workspace: Workspace) -> None:
    """`dvc repro raw`: each data set's corpus, and GeoZero-Raw."""
    dvc(workspace, "repro", MERGE, on_line=rate_limited(get_run_logger().info))


def changed_sources(workspace: Workspace) -> list[str]:
    """The data sets whose ingest DVC would repeat."""
    inputs = [CODE, FILES] if workspace.settings.data.searched else [CODE]
    dvc(workspace, "repro", *inputs, on_line=rate_limited(get_run_logger().info))
    lines: list[str] = []
    dvc(workspace, "status", "--json", on_line=lines.append)
    found: dict[str, object] = json.loads(next((line for line in lines if line.startswith("{")), "{}"))
    stages = [name.partition("@") for name in found]
    return sorted({source for stage, _, source in stages if stage.startswith("ingest") and source})


@form
@flow(name="geozero-ingest", task_runner=ThreadPoolTaskRunner(max_workers=MOST_WORKERS))  # type: ignore[arg-type]  # Prefect's type is invariant
def ingest(shards: Shards = 1, params: Path = Path("params.yaml")) -> list[str]:
    """The corpora of the data sets and GeoZero-Raw, images decoded by many workers. Returns the data sets that changed.

    Args:
        shards: Workers of each data set, 1 to 4,096; they are mapped over this machine, or with --ray over a cluster.
        params: The params.yaml of the checkout, beside dvc.yaml.
    """
    workspace = Workspace.open(params)
    check_stages(workspace)
    with pipeline_run(workspace, "ingest") as parent:
        do_without_git(workspace)
        sources = changed_sources(workspace)
        pairs = [(source, shard) for source in sources for shard in range(shards)]
        mapped(decode_shard, [s for s, _ in pairs], [n for _, n in pairs], workspace=workspace, of=shards)
        write_corpora(workspace)
        log_data(workspace, parent, workspace.raw)
    return sources


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shards", type=int, default=1, help="workers of each data set")
    ray_options(parser)


def _check(workspace: Workspace, **_: object) -> None:
    check_stages(workspace)


if __name__ == "__main__":
    start(ingest, check=_check, options=_options, choose=on_ray(ingest))
