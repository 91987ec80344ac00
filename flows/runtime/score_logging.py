"""Scores of answered models: into MLflow, where every one has the same name everywhere, and as a table into Prefect."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.artifacts import create_table_artifact

from flows.runtime.tracking import outbox
from geozero.corpus.store import Corpus
from geozero.evaluation.score_rows import by_source, headline_mean
from geozero.tracking.model_promotion import TEST_DATA
from geozero.tracking.outbox import FOLDER
from geozero.workspace import Workspace


def log_scores(workspace: Workspace, parent: str, rows: Sequence[dict[str, Any]]) -> None:
    """Headline scores on the parent; a run for each model and way of asking, all with the same names of metrics and
    parameters, so that they can be compared; and a table as an artifact of the Prefect run.

    Args:
        rows: as `geozero.evaluation.score_rows.rows_of` makes them.
    """
    box = outbox(workspace)
    box.log_metrics(parent, headline_scores(rows))
    asked = list(dict.fromkeys((row["model"], row["mode"]) for row in rows))
    runs = []
    for model, mode in asked:
        own = [row for row in rows if (row["model"], row["mode"]) == (model, mode)]
        name = f"scores-{model}-{mode}"
        # a directory for each pipeline run: the scores of an earlier one stay with it
        with box.stage(parent, name, workspace.runs / FOLDER / parent / name) as run:
            box.log_params(run, {"model": model, "mode": mode})
            box.log_metrics(run, {_metric(r): r["value"] for r in by_source(own) if r["question_type"] is None})
            means = headline_scores(own)
            box.log_metrics(run, {f"mean/{key.split('/', 2)[2]}": value for key, value in means.items()})
            runs.append(run)
    box.compare(parent, runs)
    box.set_tag(parent, TEST_DATA, _test_digest(workspace))
    create_table_artifact(table=_table(rows), key="scores", description="Strict scores, headline metric of each task")


def tested_sources(workspace: Workspace) -> list[str]:
    """The sources that have test questions."""
    counts = [row for path in workspace.corpora for row in Corpus(path).manifest["counts"]]
    return sorted({row["source"] for row in counts if row["split"] == "test"})


def _test_digest(workspace: Workspace) -> str:
    """Hash of everything that was asked: scores of two runs can be compared where it is the same."""
    asked = [f"{path.name} {Corpus(path).digest}" for path in workspace.corpora_with("test")]
    return hashlib.sha256("\n".join([*asked, str(workspace.settings.evaluation.limit)]).encode()).hexdigest()[:16]


def headline_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean over tasks of each model, mode, world and split, in percent: what the runs table of MLflow shows."""
    places = {(r["model"], r["mode"], r["world"], r["split"]) for r in rows}
    return {
        f"{model}/{mode}/{world}/{split}": headline_mean(rows, model=model, mode=mode, world=world, split=split)
        for model, mode, world, split in sorted(places)
    }


def _metric(row: Mapping[str, Any]) -> str:
    return "/".join((row["source"], row["task"], row["metric"]))


def _table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = [r for r in by_source(rows) if r["headline"] and r["question_type"] is None]
    return [
        {k: r[k] for k in ("model", "mode", "source", "split", "task", "metric", "n")} | {"value": round(r["value"], 4)}
        for r in shown
    ]
