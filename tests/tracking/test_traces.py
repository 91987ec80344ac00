"""Thoughts as MLflow traces: found from their run, and there once however often they are sent."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.store.entities import PagedList

from geozero.tracking import Tracker
from geozero.tracking.outbox import Outbox


def test_traces_are_linked_to_their_run_and_sent_once(tmp_path: Path) -> None:
    tracker = Tracker("sqlite:///m.db", project=tmp_path)
    runs = [tracker.open_pipeline(name, {}) for name in ("a", "b")]
    rows = [
        {
            "probe": probe,
            "step": step,
            "inputs": {"task": "vqa", "question": "How many ships?", "truth": "2"},
            "outputs": {"thought": f"{probe} after {step}", "answer": "<b>2</b>"},
        }
        for probe in ("q1", "q2")
        for step in (0, 30)
    ]
    for sent in (rows[:3], rows, rows):
        box = Outbox(tracker, tmp_path / "tracking")
        for run in runs:
            box.log_traces(run, sent)
        assert box.close(60) == 0
    assert "MLFLOW_TRACKING_URI" not in os.environ  # later stores of this process would follow it
    for run in runs:
        experiment = tracker.client.get_run(run).info.experiment_id
        found = tracker.client.search_traces(
            locations=[experiment], filter_string=f"metadata.`mlflow.sourceRun` = '{run}' and tags.probe = 'q2'"
        )
        assert sorted(trace.info.tags["step"] for trace in found) == ["0", "30"]
        (last,) = [trace for trace in found if trace.info.tags["step"] == "30"]
        assert last.data.spans[0].outputs == {"thought": "q2 after 30", "answer": "<b>2</b>"}
        assert last.info.request_metadata["mlflow.sourceRun"] == run


def test_all_traces_of_a_run_are_found_by_pages_that_a_server_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    there = [SimpleNamespace(info=SimpleNamespace(tags={"probe": f"q{i}", "step": "0"})) for i in range(1200)]

    def search_traces(max_results: int, page_token: str | None, **_: Any) -> PagedList[Any]:
        assert max_results <= 500  # MLflow's server refuses more, its SQLite store does not
        start = int(page_token or 0)
        end = start + max_results
        return PagedList(there[start:end], str(end) if end < len(there) else None)

    tracker: Any = SimpleNamespace(client=SimpleNamespace(search_traces=search_traces))
    assert len(Tracker._traces(tracker, "1", "run")) == 1200
