"""Find the run in MLflow that a user names, and collect what it records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from geozero.common.errors import Ambiguous, InputError
from geozero.tracking import PARENT_TAG, Tracker
from geozero.tracking.lineage import CHANGED_TAG, COMMIT_TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

LATEST = "latest"
SHOWN = 5  # candidates in an error message
SYSTEM = "system/"  # prefix of metrics about the machine


@dataclass(frozen=True)
class Facts:
    """Inputs and results of a run; for a pipeline run with those of its stages.

    Attributes:
        scores: the last value of each metric; a stage's under `STAGE: NAME`.
    """

    run_id: str
    name: str
    status: str
    parameters: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)


def require_store(tracker: Tracker) -> None:
    """Raises InputError if a SQLite store does not exist: MLflow would create an empty one."""
    path = Path(tracker.store.removeprefix("sqlite:///"))
    if tracker.store.startswith("sqlite:///") and not path.is_file():
        raise InputError(
            "no runs yet: the tracking store does not exist", str(path), "run a pipeline, or give --tracking"
        )


def pipelines(tracker: Tracker) -> Iterator[Run]:
    """Every pipeline run, the newest first."""
    for run in all_runs(tracker):
        if PARENT_TAG not in run.data.tags:
            yield run


def resolve(tracker: Tracker, text: str) -> Run:
    """The run with this id, beginning of an id, or name; `latest` is the newest pipeline run.

    Raises:
        InputError: there is none.
        Ambiguous: there are several.
    """
    require_store(tracker)
    runs = list(all_runs(tracker))
    if text == LATEST:
        found = [run for run in runs if PARENT_TAG not in run.data.tags][:1]
    else:
        found = [run for run in runs if run.info.run_id == text]
        found = found or [run for run in runs if _is_named(run, text)]
    if not text or not found:
        near = "; ".join(label(run) for run in runs if PARENT_TAG not in run.data.tags)[:300]
        raise InputError(f"no run '{text}'", tracker.uri, f"runs: {near}" if near else "it holds no runs")
    if len(found) > 1:
        names = "; ".join(label(run) for run in found[:SHOWN]) + ("; …" if len(found) > SHOWN else "")
        raise Ambiguous(f"'{text}' is {len(found)} runs: {names}", tracker.uri, "give more of the id")
    return found[0]


def _is_named(run: Run, text: str) -> bool:
    """By its name, with or without the changed parameters that follow it, or by the beginning of its id."""
    name = str(run.info.run_name)
    return text in (name, name.partition(" ")[0]) or str(run.info.run_id).startswith(text)


def label(run: Run) -> str:
    """A short label: the beginning of the run's id, its name, its start."""
    when = datetime.fromtimestamp(run.info.start_time / 1000).strftime("%Y-%m-%d %H:%M")
    return f"{run.info.run_id[:8]} {run.info.run_name} {when}"


def facts(tracker: Tracker, run: Run) -> Facts:
    """What a run records, with its stages' datasets and scores; a reused stage counts as the run's own."""
    tags = run.data.tags
    data = {name.removeprefix("dvc."): value for name, value in tags.items() if name.startswith("dvc.")}
    changed = tags.get(CHANGED_TAG, tags.get("git.dirty", "unknown"))
    code = {"commit": tags.get(COMMIT_TAG, "unknown"), "changed since": changed}
    scores: dict[str, float] = {}
    for one in (run, *tracker.stages(run)):
        for entry in one.inputs.dataset_inputs if one.inputs else []:
            data.setdefault(entry.dataset.name, next(t.value for t in entry.tags if t.key == "dvc.md5"))
        prefix = "" if one is run else f"{one.info.run_name}: "
        scores |= {prefix + name: value for name, value in one.data.metrics.items() if not name.startswith(SYSTEM)}
    return Facts(run.info.run_id, run.info.run_name, run.info.status, dict(run.data.params), data, code, scores)


def all_runs(tracker: Tracker) -> Iterator[Run]:
    """Every run of the experiment, the newest first, page by page."""
    token = None
    while True:
        page = tracker.search(token)
        yield from page
        token = page.token
        if not token:
            return
