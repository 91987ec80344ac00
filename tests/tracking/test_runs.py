"""Tracking: parent and child runs in a real MLflow SQLite store."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from geozero.common.errors import InputError
from geozero.stack import control
from geozero.stack.services import StackPlan
from geozero.tracking import RUN_ID_FILE, Tracker, mlflow_store

pytestmark = pytest.mark.slow  # MLflow's import takes 3 s and a new SQLite store 5 s


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker("sqlite:///mlflow.db", "tests", tmp_path_factory.mktemp("project"))


def run_of(tracker: Tracker, run_id: str) -> Any:
    return tracker.client.get_run(run_id)


def steps(tracker: Tracker, run_id: str, name: str) -> list[tuple[int, float]]:
    return sorted((m.step, m.value) for m in tracker.client.get_metric_history(run_id, name))


def test_importing_the_module_does_not_import_mlflow() -> None:
    code = "import sys, geozero.tracking; print('mlflow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_children_hang_under_the_parent_and_scores_stand_on_it(tracker: Tracker, tmp_path: Path) -> None:
    parent = tracker.open_pipeline("demo", {"sft": {"steps": 40}}, {"dvc.data/geozero-raw": "1f2e.dir"})
    child = tracker.child(parent, "sft", tmp_path / "sft-1a2b")
    tracker.log_metrics(child, {"loss": 0.5}, step=3)
    tracker.finish(child)
    tracker.log_metrics(parent, {"a2grpo.grounding.acc@0.5": 0.61, "unmeasured": float("nan")})
    tracker.finish(parent)
    top, below = run_of(tracker, parent), run_of(tracker, child)
    assert top.data.params == {"sft.steps": "40"}
    assert top.data.metrics == {"a2grpo.grounding.acc_at_0.5": 0.61}
    assert top.data.tags["dvc.data/geozero-raw"] == "1f2e.dir"
    assert top.info.status == below.info.status == "FINISHED"
    assert below.data.tags["mlflow.parentRunId"] == parent
    assert below.data.metrics == {"loss": 0.5}
    assert (tracker.project / "mlflow.db").exists()


def test_a_resumed_stage_reopens_its_run_and_replayed_steps_do_not_double(tracker: Tracker, tmp_path: Path) -> None:
    run_dir = tmp_path / "a2grpo-9f"
    killed = tracker.open_pipeline("first")
    child = tracker.child(killed, "a2grpo", run_dir)
    assert (run_dir / RUN_ID_FILE).read_text() == child
    tracker.log_params(child, {"beta": 0.04})
    assert tracker.log_curve(child, [{"step": s, "reward": s / 10, "note": "x"} for s in range(1, 6)]) == 5

    second = tracker.open_pipeline("second")
    assert tracker.child(second, "a2grpo", run_dir) == child
    assert run_of(tracker, child).info.status == "RUNNING"
    assert run_of(tracker, child).data.tags["mlflow.parentRunId"] == second
    assert run_of(tracker, killed).info.status == "KILLED"
    replay = [{"step": s, "reward": 9.0, "answer_kl": 0.1} for s in range(4, 8)]
    assert tracker.log_curve(child, [*replay, {"train_runtime": 3.0}, {"step": 8, "reward": None}]) == 2 + 4
    assert steps(tracker, child, "reward") == [(1, 0.1), (2, 0.2), (3, 0.3), (4, 0.4), (5, 0.5), (6, 9.0), (7, 9.0)]
    tracker.log_params(child, {"beta": 0.1, "group_size": 8})
    assert run_of(tracker, child).data.params == {"beta": "0.04", "group_size": "8"}
    assert run_of(tracker, child).data.tags["changed.beta"] == "0.1"
    tracker.finish(child)
    assert tracker.note_reused(second, "a2grpo", run_dir) == child
    assert run_of(tracker, second).data.tags["reused.a2grpo"] == child


def test_a_run_directory_of_a_lost_store_gets_a_new_run(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / RUN_ID_FILE).write_text("0" * 32)
    parent = tracker.open_pipeline("new store")
    child = tracker.child(parent, "sft", tmp_path)
    assert child != "0" * 32 and (tmp_path / RUN_ID_FILE).read_text() == child


def test_datasets_checkpoints_and_artifacts(tracker: Tracker, tmp_path: Path) -> None:
    parent = tracker.open_pipeline("lineage")
    md5 = "0123456789abcdef0123456789abcdef.dir"
    tracker.log_dataset(parent, tracker.project / "data/geozero-hard", md5)
    (entry,) = run_of(tracker, parent).inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("data/geozero-hard", md5)
    assert {t.key: t.value for t in entry.tags}["dvc.md5"] == md5

    checkpoint = tracker.project / "runs/sft-1a/checkpoint-40"
    model = tracker.register_checkpoint(parent, checkpoint, "sft/checkpoint-40", 40, {"steps": 40})
    assert tracker.register_checkpoint(parent, checkpoint, "sft/checkpoint-40", 40) == model
    logged = tracker.client.get_logged_model(model)
    assert (logged.status, logged.tags["path"]) == ("READY", "runs/sft-1a/checkpoint-40")
    assert [o.step for o in run_of(tracker, parent).outputs.model_outputs] == [40]

    (tmp_path / "log.txt").write_text("one line")
    tracker.log_artifact(parent, tmp_path / "log.txt")
    assert [a.path for a in tracker.client.list_artifacts(parent)] == ["log.txt"]
    assert list((tracker.project / "mlartifacts").rglob("log.txt"))


def test_threads_and_pickles_log_to_the_run_they_name(tracker: Tracker) -> None:
    runs = [tracker.open_pipeline(f"thread {i}") for i in range(4)]
    copy = pickle.loads(pickle.dumps(tracker))
    threads = [threading.Thread(target=copy.log_metrics, args=(run, {"i": i})) for i, run in enumerate(runs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [run_of(tracker, run).data.metrics["i"] for run in runs] == [0.0, 1.0, 2.0, 3.0]


def test_a_store_that_cannot_be_opened_is_a_readable_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match=r"tracking store can't be opened: Connection refused in http"):
        Tracker("http://127.0.0.1:9", project=tmp_path).open_pipeline("x")
    with pytest.raises(InputError, match="tracking store"):
        Tracker("nonsense://x", project=tmp_path).open_pipeline("x")


def test_the_pages_are_where_the_checkout_s_stack_serves_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(mlflow_store.PAGES, raising=False)
    tracker = Tracker(project=tmp_path)
    assert tracker._pages() == mlflow_store.LOCAL_UI
    (tmp_path / ".geozero/stack").mkdir(parents=True)
    state = {"plan": {"host": "0.0.0.0", "port": 4321, "mlflow_port": 5321}, "socket": "/tmp/socket"}
    (tmp_path / mlflow_store.STACK).write_text(json.dumps(state))
    assert control._plan_of(tmp_path) == StackPlan(tmp_path, "0.0.0.0", 4321, 5321)
    assert tracker._pages() == "http://127.0.0.1:5321"
    monkeypatch.setenv(mlflow_store.PAGES, "http://lab:80")
    assert tracker._pages() == "http://lab:80"
    assert Tracker("http://other:5000/", project=tmp_path)._pages() == "http://other:5000"


def test_runs_are_compared_under_one_address_and_tables_are_shown(tracker: Tracker) -> None:
    runs = [tracker.open_pipeline(name, {"model": name}) for name in ("base", "sft")]
    address = tracker.compare_address(runs)
    (experiment,) = {run_of(tracker, run).info.experiment_id for run in runs}
    page, _, query = address.partition("?")
    assert page == "http://127.0.0.1:5000/#/compare-runs"
    assert {k: json.loads(v) for k, (v,) in parse_qs(query).items()} == {"runs": runs, "experiments": [experiment]}
    tracker.log_table(runs[0], "scores", [{"n": 3, "first": {"mode": "tagged"}}, {"n": 4, "value": 0.5}])
    tracker.log_table(runs[0], "empty", [])
    shown = json.loads(tracker.client.get_run(runs[0]).data.tags["mlflow.loggedArtifacts"])
    assert [table["path"] for table in shown] == ["tables/scores.json"]
