"""Thoughts as MLflow traces: found from their run, and there once however often they are sent."""

from __future__ import annotations

from pathlib import Path

from geozero.outbox import Outbox
from geozero.tracking import Tracker


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
    for run in runs:
        experiment = tracker.client.get_run(run).info.experiment_id
        found = tracker.client.search_traces(
            locations=[experiment], filter_string=f"metadata.`mlflow.sourceRun` = '{run}' and tags.probe = 'q2'"
        )
        assert sorted(trace.info.tags["step"] for trace in found) == ["0", "30"]
        (last,) = [trace for trace in found if trace.info.tags["step"] == "30"]
        assert last.data.spans[0].outputs == {"thought": "q2 after 30", "answer": "<b>2</b>"}
        assert last.info.request_metadata["mlflow.sourceRun"] == run
