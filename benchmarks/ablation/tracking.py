"""The arms in MLflow: an experiment beside the project's own, a run for each arm and seed, one more for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.ablation.arms import arm_of, settings_of
from benchmarks.ablation.statistics import COSTS, SHAPES, mean_over_tasks, name_of, split_of, table_of
from geozero.tracking import Tracker
from geozero.training.metrics import read
from geozero.workspace import Workspace

KEY = "ablation"  # the tag that tells whether a result is there already


def experiment(workspace: Workspace) -> Tracker:
    """The project's store, `<experiment>-ablation` in it."""
    tracker = workspace.tracker
    return replace(tracker, experiment=f"{tracker.experiment}-ablation")


def log(workspace: Workspace, results: Sequence[Mapping[str, Any]], runs: Path, start: str) -> int:
    """Log what the experiment does not have yet; returns how many runs are new.

    Raises:
        InputError: the store cannot be reached.
    """
    tracker, new = experiment(workspace), 0
    for result in results:
        name = f"{result['arm']}-{result['seed']}"
        key = f"{start}/{result['run']}"
        if tracker.find(KEY, key):
            continue
        settings = settings_of(workspace.settings, arm_of(result["arm"]), result["seed"])
        run = tracker.open_pipeline(
            name, settings.model_dump(), {"arm": result["arm"], "seed": str(result["seed"]), "start": start}
        )
        tracker.log_metrics(run, metrics_of(result))
        tracker.log_curve(run, read(runs / result["run"] / "metrics.jsonl"))
        tracker.set_tag(run, KEY, key)  # last: a run that was cut off is logged again
        tracker.finish(run)
        new += 1
    return new


def log_page(workspace: Workspace, files: Sequence[Path], start: str) -> None:
    """The tables and the page, in a run of their own; a later report goes into the same run."""
    tracker, key = experiment(workspace), f"{start}/report"
    run = tracker.find(KEY, key)
    if run is None:
        run = tracker.open_pipeline(f"report-{start}", {}, {"start": start, KEY: key})
    for file in files:
        tracker.log_artifact(run, file)
    tracker.finish(run)


def metrics_of(result: Mapping[str, Any]) -> dict[str, float]:
    """`<split>/<task>` and `<split>/mean` of each mode, how the thoughts look, and what the training cost."""
    found = {key: float(result[key]) for key in COSTS if result.get(key) is not None}
    for mode, about in result["modes"].items():
        row = name_of(result["arm"], mode)
        _, _, other = row.partition(", ")
        before = f"{other}/" if other else ""
        for split in sorted({split_of(source) for source in about["outcomes"]}):
            table = table_of([about], split)
            found |= {f"{before}{split}/{task}": float(values.mean()) for task, values in table.items()}
            found[f"{before}{split}/mean"] = mean_over_tasks(table)
        found |= {f"{before}{key}": float(about[key]) for key in SHAPES if key in about}
    return found
