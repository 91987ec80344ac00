"""What a model in training answered, as MLflow traces: one a question and step, linked to the stage's run."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from geozero.tracking import Tracker

PROBE, STEP, RUN = "probe", "step", "mlflow.sourceRun"
PAGE = 500  # traces a request: a tracking server refuses more


def log_traces(tracker: Tracker, run_id: str, rows: Sequence[Mapping[str, Any]]) -> int:
    """Log rows `{probe, step, inputs, outputs}`; those that the run has already are left out. Returns how many are new.

    Raises:
        ConnectionError: the store did not keep them all: MLflow itself only warns.
    """
    if not rows:
        return 0
    import mlflow

    os.environ["MLFLOW_ENABLE_ASYNC_TRACE_LOGGING"] = "false"  # what returns has been sent
    mlflow.set_tracking_uri(tracker.store)
    experiment = str(tracker.client.get_run(run_id).info.experiment_id)
    known = _known(tracker, experiment, run_id)
    fresh = [row for row in rows if (row["probe"], str(row["step"])) not in known]
    for row in fresh:
        span = mlflow.start_span_no_context(
            f"{row['inputs'].get('task', 'question')}, step {row['step']}",
            inputs=dict(row["inputs"]),
            experiment_id=experiment,
            tags={PROBE: row["probe"], STEP: str(row["step"])},
            metadata={RUN: run_id},
        )
        span.set_outputs(dict(row["outputs"]))
        span.end()
    kept = len(_known(tracker, experiment, run_id)) - len(known)
    if kept < len(fresh):
        raise ConnectionError(f"{len(fresh) - kept} of {len(fresh)} traces were not kept")
    return kept


def _known(tracker: Tracker, experiment: str, run_id: str) -> set[tuple[str, str]]:
    found, page, token = set[tuple[str, str]](), None, None
    while page is None or token:
        page = tracker.client.search_traces(
            locations=[experiment],
            filter_string=f"metadata.`{RUN}` = '{run_id}'",
            max_results=PAGE,
            page_token=token,
            include_spans=False,
        )
        found |= {(trace.info.tags.get(PROBE, ""), trace.info.tags.get(STEP, "")) for trace in page}
        token = page.token
    return found
