"""What a flow leaves in MLflow: its parent run; a stage's parameters, curves, the bytes it read, its checkpoint.

All of it goes through the outbox but the opening of the parent run: a server that is not there as a flow starts is an
error to be read at once; one that goes away later is waited for, and no work waits with it.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from prefect import get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import MissingContextError, TerminationSignal
from prefect.runtime import flow_run

from flows.runtime import locks
from flows.runtime.monitoring import system_metrics
from flows.runtime.progress import artifact_progress
from flows.runtime.reaper import STARTED_BY_WORKER, Reaper
from geozero.common.errors import InputError
from geozero.corpus.store import Corpus
from geozero.tasks.text import extract_answer, thought
from geozero.tracking import RUN_ID_FILE, Tracker, lineage
from geozero.tracking.outbox import FOLDER, Outbox
from geozero.training.grpo import probe_log
from geozero.training.stage import StageResult
from geozero.workspace import Workspace

FLOW_RUN_TAG, FLOW_PAGE_TAG = "prefect.flow_run", "prefect.page"
LEAVE_SECONDS = 5.0  # for the last entries of a flow that is being ended


class Run(Protocol):
    """One of the stage functions, with everything given but these."""

    def __call__(self, **options: Any) -> StageResult: ...


@lru_cache(maxsize=8)
def _outbox(tracker: Tracker, folder: Path) -> Outbox:
    return Outbox(tracker, folder, _log_line())


def outbox(workspace: Workspace) -> Outbox:
    """This process's queue for the workspace's tracking store."""
    return _outbox(workspace.tracker, workspace.runs / FOLDER)


@contextmanager
def pipeline_run(workspace: Workspace, name: str, alone: bool = True) -> Iterator[str]:
    """The id of a new parent run, which ends as the block ends: FAILED after an error, KILLED after an interrupt.

    The checkout is held as long, but for a flow that need not be `alone`; whatever the block started is ended with it,
    however it ends. A retry of the same Prefect run goes on in the same MLflow run.

    Raises:
        InputError: another flow runs in this checkout, or the tracking store cannot be reached.
    """
    reaper = Reaper(workspace.tracker, workspace.runs / FOLDER)
    try:
        with locks.checkout_lock(workspace, name) if alone else nullcontext():
            parent = _open(workspace, name)
            reaper.watch_run(parent)
            box = outbox(workspace)
            leave_links(workspace, parent)
            with system_metrics(lambda values, step: box.log_metrics(parent, values, step)):
                try:
                    yield parent
                except BaseException as error:
                    reaper.end_children()  # tasks in other threads wait for theirs
                    if isinstance(error, Exception):
                        box.finish(parent, "FAILED")
                    else:
                        box.kill(parent)
                    box.flush(LEAVE_SECONDS)
                    if isinstance(error, SystemExit) and STARTED_BY_WORKER in os.environ:
                        raise TerminationSignal(signal.SIGTERM) from error  # how Prefect knows a cancel
                    raise
            box.finish(parent)
            left = box.flush()
            if left:
                print(
                    f"{left} entries for MLflow wait in {box.folder}; the next run sends them, or `geozero runs send`"
                )
    finally:
        reaper.close()
        if _outbox.cache_info().currsize:
            outbox(workspace).close(0.1)
            _outbox.cache_clear()


def _open(workspace: Workspace, name: str) -> str:
    tracker, own = workspace.tracker, str(flow_run.id or "")
    if own and (flow_run.run_count or 0) > 1:
        known = tracker.find(FLOW_RUN_TAG, own)
        if known is not None:
            tracker.reopen(known)
            return known
    tags = {FLOW_RUN_TAG: own, FLOW_PAGE_TAG: flow_run.ui_url or ""} if own else {}
    return tracker.open_pipeline(name, workspace.settings.model_dump(), tags | lineage.code_tags(workspace.root))


def leave_links(workspace: Workspace, parent: str) -> None:
    """An artifact in Prefect that leads to the MLflow run, the page and the logs; called again it is a new version."""
    box, lines = outbox(workspace), [f"- files of the runs: `{workspace.runs}`, logs: `{workspace.runs / 'logs'}`"]
    try:
        lines.insert(0, f"- [run in MLflow]({workspace.tracker.address(parent)})")
        if box.flush(LEAVE_SECONDS) == 0:
            compare = workspace.tracker.client.get_run(parent).data.tags.get("compare")
            if compare:
                lines.insert(1, f"- [its models side by side]({compare})")
                print(f"compare the models in MLflow: {compare}")
    except Exception as error:  # the server is down: the entries wait, the links are a convenience
        lines.append(f"- MLflow does not answer: {str(error).splitlines()[0][:200]}")
    page = workspace.reports / "index.html"
    if page.is_file():
        lines.append(f"- the page: `{page}`, and among the run's artifacts in MLflow")
    create_markdown_artifact(markdown="\n".join(lines), key="links", description="Where everything of this run is")


def log_data(workspace: Workspace, parent: str, *corpora: Path) -> None:
    """DVC's hashes as tags of a flow's run, and the corpora that it works on as its data sets."""
    box = outbox(workspace)
    for key, value in lineage.data_tags(workspace.root).items():
        box.set_tag(parent, key, value)
    for corpus in corpora:
        box.log_dataset(parent, corpus, _digest(workspace, corpus), context="data")


def _digest(workspace: Workspace, corpus: Path) -> str:
    """DVC's hash of a corpus; of one that DVC does not know, that of its manifest."""
    place = corpus.relative_to(workspace.root).as_posix() if corpus.is_relative_to(workspace.root) else ""
    return lineage.hashes(workspace.root).get(place) or Corpus(corpus).digest


def trained(
    workspace: Workspace, parent: str, stage: str, corpus: Path, tell: Callable[[str], None], run: Run
) -> StageResult:
    """Train a stage as a child of the pipeline run, its curve in MLflow while it runs.

    A stage that was interrupted goes on in the MLflow run that it began; a finished one is only noted.
    """
    planned, box = run(dry_run=True), outbox(workspace)
    if planned.reused and _known(workspace, planned.directory):
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
                result = run(on_line=tell, on_metrics=on_metrics)
        box.log_rows(child, result.directory / "metrics.jsonl")
        box.log_traces(child, _traces(result.directory))
        box.register_checkpoint(child, result.model, f"{stage}-{result.fingerprint}", settings["steps"])
        box.log_artifact(child, result.directory / "args.json")
    return result


def _traces(directory: Path) -> list[dict[str, Any]]:
    """What a stage was asked on the way, and what it answered."""
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
    """The metrics of a stage, one row a logged step."""
    path = directory / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def _known(workspace: Workspace, directory: Path) -> bool:
    """Whether the store has the run of a finished stage; one that does not answer is taken to have it."""
    if not (directory / RUN_ID_FILE).is_file():
        return False
    try:
        return workspace.tracker.remembered(directory) is not None
    except InputError:
        raise
    except Exception:
        return True


def _log_line() -> Callable[[str], None]:
    """The flow's own log, for a thread that Prefect does not know."""
    try:
        logger = get_run_logger()
    except MissingContextError:
        return print
    return lambda line: logger.warning(line)
