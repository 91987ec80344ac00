"""Scores of models: to MLflow, where a metric has the same name in every run, and as a table to Prefect."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from prefect.artifacts import create_table_artifact

from flows.runtime.progress import leave_artifact
from flows.runtime.tracking import outbox
from geozero.corpus.store import Corpus
from geozero.evaluation.score_rows import headline_rows, headline_scores, run_metrics
from geozero.tracking.model_promotion import TEST_DATA
from geozero.tracking.outbox import FOLDER
from geozero.workspace import Workspace

COLUMNS = ("model", "mode", "source", "split", "task", "metric", "n")


def log_scores(workspace: Workspace, parent: str, rows: Sequence[dict[str, Any]]) -> None:
    """Headline scores on the parent; a run for each model and prompt mode, all with the same names of metrics and
    parameters, so that they can be compared; and a table as an artifact of the Prefect run.

    Args:
        rows: as `geozero.evaluation.score_rows.rows_of` yields them.
    """
    box = outbox(workspace)
    box.log_metrics(parent, headline_scores(rows))
    runs = []
    for (model, mode), metrics in run_metrics(rows).items():
        name = f"scores-{model}-{mode}"
        # a directory per pipeline run, so that the scores of an earlier one stay with it
        with box.stage(parent, name, workspace.runs / FOLDER / parent / name) as run:
            box.log_params(run, {"model": model, "mode": mode})
            box.log_metrics(run, metrics)
            runs.append(run)
    box.compare(parent, runs)
    box.set_tag(parent, TEST_DATA, _test_digest(workspace))
    table = [{name: row[name] for name in COLUMNS} | {"value": round(row["value"], 4)} for row in headline_rows(rows)]
    leave_artifact(
        create_table_artifact, table=table, key="scores", description="Strict scores, headline metric of each task"
    )


def tested_sources(workspace: Workspace) -> list[str]:
    """The sources that have test questions."""
    counts = [row for path in workspace.corpora for row in Corpus(path).manifest["counts"]]
    return sorted({row["source"] for row in counts if row["split"] == "test"})


def _test_digest(workspace: Workspace) -> str:
    """Hash of all test questions; scores of two runs are comparable if it is the same."""
    corpora = [f"{path.name} {Corpus(path).digest}" for path in workspace.corpora_with("test")]
    return hashlib.sha256("\n".join([*corpora, str(workspace.settings.evaluation.limit)]).encode()).hexdigest()[:16]
