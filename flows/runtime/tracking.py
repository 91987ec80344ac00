"""What a flow records in MLflow: its parent run; a stage's parameters, curves, data and checkpoint.

Everything but the opening of the parent run goes through the outbox: a server that is down when a flow starts is an
error at once; one that goes down later is waited for in the background.
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, MissingContextError, Pause, TerminationSignal
from prefect.runtime import flow_run
from prefect.settings import PREFECT_API_URL
from prefect.utilities.urls import url_for

from flows.runtime import locks
from flows.runtime.liveness import FlowRun
from flows.runtime.monitoring import system_metrics
from flows.runtime.progress import artifact_progress, leave_artifact
from flows.runtime.reaper import STARTED_BY_WORKER, Reaper
from flows.runtime.retries import leaving
from flows.runtime.run_names import run_name
from geozero.common import process
from geozero.common.atomic import write_text
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.engines import checkpoint
from geozero.params import load
from geozero.tasks.text import extract_answer, thought
from geozero.tracking import RUN_ID_FILE, Tracker, lineage, origin
from geozero.tracking.outbox import FOLDER, Outbox
from geozero.tracking.trace import (
    BASE_HASH,
    BASE_PATH,
    CORPUS_TAG,
    FLOW_PAGE_TAG,
    FLOW_RUN_TAG,
    FLOW_TAG,
    MODEL_HASH,
    MODEL_PATH,
)
from geozero.training.grpo import probe_log
from geozero.training.stage import StageResult
from geozero.training.stage_spec import STAGE
from geozero.workspace import Workspace

GPU_HOURS = "system/gpu_hours"  # among the machine's curves, which comparisons leave out
LEAVE_SECONDS = 5.0  # for the last entries of a flow that is being ended


@lru_cache(maxsize=8)
def _outbox(tracker: Tracker, folder: Path) -> Outbox:
    try:  # the flow's own log, for a thread that Prefect does not know
        return Outbox(tracker, folder, get_run_logger().warning)
    except MissingContextError:
        return Outbox(tracker, folder, print)


def outbox(workspace: Workspace) -> Outbox:
    """This process's queue for the workspace's tracking store."""
    return _outbox(workspace.tracker, workspace.runs / FOLDER)


@contextmanager
def pipeline_run(
    workspace: Workspace, name: str, checkout: Literal["alone", "shared", "free"] = "alone"
) -> Iterator[str]:
    """The id of a new parent run, which ends with the block: FAILED after an error, KILLED after an interrupt.

    Everything that the block has started ends with it. A retry of the same Prefect run continues the same MLflow run. A
    run that was suspended in Prefect leaves as such: Resume starts it again.

    Args:
        checkout: `alone`: no other flow may run in it, `shared`: only those that share it, too; `free`: any may.

    Raises:
        InputError: another flow runs in this checkout (under a worker this one waits for it), or the tracking store
            cannot be reached.
    """
    leaving.clear()
    reaper = Reaper(workspace.tracker, workspace.runs / FOLDER, _server_run())
    try:
        with ExitStack() as held:
            if checkout != "free":
                held.enter_context(locks.checkout_lock(workspace, name, checkout == "shared"))
            parent = _open(workspace, name)
            reaper.watch_run(parent)
            box = outbox(workspace)
            _log_origin(workspace, parent)
            leave_links(workspace, parent)
            log_gpu_hours = _gpu_hours(workspace, parent)

            def log_machine(values: dict[str, float], step: int) -> None:
                box.log_metrics(parent, values, step)
                log_gpu_hours()

            with system_metrics(log_machine):
                try:
                    yield parent
                except BaseException as error:
                    if threading.current_thread() is threading.main_thread():
                        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not disturb what follows
                    leaving.set()
                    reaper.end_children()  # tasks in other threads wait for their child processes
                    log_gpu_hours()
                    if isinstance(error, Exception):
                        box.finish(parent, "FAILED")
                    else:
                        box.kill(parent)
                    box.flush(LEAVE_SECONDS)
                    left = None if isinstance(error, Exception) or reaper.run is None else reaper.run.leaving()
                    if left is not None and left["type"] == "PAUSED":
                        raise Pause(state=State.model_validate(left)) from error
                    if left is not None:  # the reaper marks it as cancelled, where the worker does not
                        raise Abort from error
                    if isinstance(error, SystemExit) and STARTED_BY_WORKER in os.environ:
                        raise TerminationSignal(signal.SIGTERM) from error  # how Prefect recognises a cancel
                    raise
            log_gpu_hours()
            box.finish(parent)
            if waiting := box.flush():
                where = f"in {box.folder}; the next run sends them, or `geozero runs send`"
                print(f"{waiting} entries for MLflow are waiting {where}")
    finally:
        reaper.close()
        if _outbox.cache_info().currsize:
            outbox(workspace).close(0.1)
            _outbox.cache_clear()


def _gpu_hours(workspace: Workspace, parent: str) -> Callable[[], None]:
    """A function that logs the GPU hours of a run, those of its earlier tries included; on a CPU it logs nothing."""
    if not process.has_gpu():
        return lambda: None
    box, run = outbox(workspace), workspace.tracker.run(parent)
    before = run.data.metrics.get(GPU_HOURS, 0.0) if run is not None else 0.0
    began = locks.gpu_hours()

    def log() -> None:
        hours = before + locks.gpu_hours() - began
        box.log_metrics(parent, {GPU_HOURS: hours}, int(3600 * hours))  # its step never falls: the last is the sum

    return log


def _server_run() -> FlowRun | None:
    """This flow's run on a Prefect server; None where the flow runs without one."""
    address = PREFECT_API_URL.value()
    return FlowRun(address.rstrip("/").removesuffix("/api"), str(flow_run.id)) if address and flow_run.id else None


def _open(workspace: Workspace, name: str) -> str:
    tracker, own = workspace.tracker, str(flow_run.id or "")
    known = tracker.find(FLOW_RUN_TAG, own) if own else None  # of a try before; a resumed run counts as the first
    if known is not None:
        tracker.reopen(known)
        return known
    tags = {FLOW_RUN_TAG: own, FLOW_TAG: flow_run.flow_name or ""} if own else {}
    if own and PREFECT_API_URL.value() and (page := url_for("flow-run", own)):  # a temporary server ends with it
        tags[FLOW_PAGE_TAG] = page
    return tracker.open_pipeline(
        run_name(name, workspace), workspace.settings.model_dump(), tags | lineage.code_tags(workspace.root)
    )


def _log_origin(workspace: Workspace, parent: str) -> None:
    """What it takes to make this run again, as artifacts: `geozero trace --rebuild` reads them."""
    given, used = (one.model_dump(mode="json") for one in (load(workspace.file), workspace.settings))
    out = workspace.runs / FOLDER / parent / origin.FOLDER
    origin.write_origin(workspace.root, workspace.file, used, given, out)
    outbox(workspace).log_artifact(parent, out, origin.FOLDER)


def leave_links(workspace: Workspace, parent: str) -> None:
    """A Prefect artifact with links to the MLflow run, the page and the logs; each call makes a new version."""
    box, lines = outbox(workspace), [f"- files of the runs: `{workspace.runs}`, logs: `{workspace.runs / 'logs'}`"]
    try:
        lines.insert(0, f"- [run in MLflow]({workspace.tracker.address(parent)})")
        if box.flush(LEAVE_SECONDS) == 0:
            compare = workspace.tracker.client.get_run(parent).data.tags.get("compare")
            if compare:
                lines.insert(1, f"- [its models side by side]({compare})")
                print(f"compare the models in MLflow: {compare}")
    except Exception as error:  # the server is down: the entries wait, and the links are a convenience
        lines.append(f"- MLflow does not answer: {str(error).splitlines()[0][:200]}")
    page = workspace.reports / "index.html"
    if page.is_file():
        lines.append(f"- the page: `{page}`, and among the run's artifacts in MLflow")
    leave_artifact(
        create_markdown_artifact, markdown="\n".join(lines), key="links", description="Where everything of this run is"
    )


def log_data(workspace: Workspace, parent: str, *corpora: Path) -> None:
    """DVC's hashes as tags of a flow's run, and the corpora that it works on as its data sets."""
    box = outbox(workspace)
    for key, value in lineage.data_tags(workspace.root).items():
        box.set_tag(parent, key, value)
    if (lock := workspace.root / lineage.LOCK).is_file():
        copy = workspace.runs / FOLDER / parent / origin.FOLDER / lineage.LOCK
        write_text(copy, lock.read_text())
        box.log_artifact(parent, copy, origin.FOLDER)
    for corpus in corpora:
        box.log_dataset(parent, corpus, _digest(workspace, corpus), "data")
        box.set_tag(parent, CORPUS_TAG + _place(workspace, corpus), Corpus(corpus).digest)


def log_model(workspace: Workspace, parent: str, model: Path) -> None:
    """The checkpoint that a flow evaluates, as tags of its run."""
    path = checkpoint.resolve(model)
    outbox(workspace).set_tag(parent, MODEL_PATH, _place(workspace, path.absolute()))
    outbox(workspace).set_tag(parent, MODEL_HASH, checkpoint.content_hash(path))


def _digest(workspace: Workspace, corpus: Path) -> str:
    """DVC's hash of a corpus; for one that DVC does not know, its own digest."""
    return lineage.hashes(workspace.root).get(_place(workspace, corpus)) or Corpus(corpus).digest


def _place(workspace: Workspace, path: Path) -> str:
    """A path as DVC and runs call it: relative to the checkout that it lies in."""
    return path.relative_to(workspace.root).as_posix() if path.is_relative_to(workspace.root) else str(path)


def trained(
    workspace: Workspace,
    parent: str,
    stage: str,
    corpus: Path,
    log: Callable[[str], None],
    run: Callable[..., StageResult],
) -> StageResult:
    """Train a stage as a child of the pipeline run, with its curve in MLflow while it runs.

    An interrupted stage continues the MLflow run that it began; for a finished one only its run is recorded.

    Args:
        run: `run_sft` or `run_a2grpo` with all arguments but `dry_run`, `on_line` and `on_metrics`.
    """
    planned, box = run(dry_run=True), outbox(workspace)
    if planned.reused and _is_tracked(workspace, planned.directory):
        box.note_reused(parent, stage, planned.directory)
        return planned
    settings = workspace.settings.model_dump()[stage]
    with box.stage(parent, stage, planned.directory) as child:
        box.log_params(child, settings | {"fingerprint": planned.fingerprint})
        box.log_dataset(child, corpus, _digest(workspace, corpus))
        with artifact_progress(stage, settings["steps"]) as progress:

            def on_metrics(step: int, values: Any) -> None:
                box.log_metrics(child, values, step)
                progress.at(step)

            with locks.gpu():
                result = run(on_line=log, on_metrics=on_metrics)
        box.log_rows(child, result.directory / "metrics.jsonl")
        box.log_traces(child, _probe_rows(result.directory))
        box.register_checkpoint(child, result.model, f"{stage}-{result.fingerprint}", settings["steps"])
        box.log_artifact(child, result.directory / "args.json")
        record = json.loads((result.directory / STAGE).read_text())
        box.set_tag(child, BASE_PATH, _place(workspace, Path(record["base"])))
        box.set_tag(child, BASE_HASH, record["base_hash"])
        box.set_tag(child, MODEL_HASH, checkpoint.content_hash(result.model))
        box.set_tag(child, CORPUS_TAG + _place(workspace, corpus), record["corpus_digest"])
    return result


def _probe_rows(directory: Path) -> list[dict[str, Any]]:
    """The probes of a stage: the questions during the training, and the answers."""
    return [
        {
            "probe": probe.sample.id,
            "step": step,
            "inputs": {"task": probe.sample.task, "question": probe.sample.question, "truth": probe.sample.answer},
            "outputs": {"thought": thought(text), "answer": extract_answer(text)},
        }
        for probe in probe_log.read(directory)
        for step, text in sorted(probe.texts.items())
    ]


def curve(directory: Path) -> list[dict[str, Any]]:
    """The metrics of a stage, one row per logged step."""
    path = directory / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _is_tracked(workspace: Workspace, directory: Path) -> bool:
    """Whether the store has the run of a finished stage; a store that does not answer is assumed to have it."""
    if not (directory / RUN_ID_FILE).is_file():
        return False
    try:
        return workspace.tracker.remembered(directory) is not None
    except InputError:
        raise
    except Exception:
        return True
