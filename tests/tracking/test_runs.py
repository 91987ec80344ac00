"""Tracking: parent and child runs in a real MLflow SQLite store."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from paths import ROOT

from geozero.cli.runs import open_tracker
from geozero.common.errors import InputError
from geozero.params import Tracking
from geozero.stack import control
from geozero.stack.services import StackPlan
from geozero.tracking import RUN_ID_FILE, Tracker, mlflow_store
from geozero.workspace import Workspace

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
    tracker.log_metrics(parent, {"a2grpo.grounding.acc@0.5": 0.61, "nothing": None})  # type: ignore[dict-item]
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


def test_a_number_that_is_none_is_recorded_as_such(tracker: Tracker) -> None:
    """A loss that became NaN is what one looks for; MLflow shows an infinity as the largest number."""
    parent = tracker.open_pipeline("diverged")
    tracker.log_metrics(parent, {"loss": math.nan, "grad_norm": math.inf, "lr": 0.1}, 3)
    assert tracker.log_curve(parent, [{"step": 4, "loss": math.nan}, {"step": 5, "loss": 0.5}]) == 2
    assert [math.isnan(m.value) for m in tracker.client.get_metric_history(parent, "loss")] == [True, True, False]
    assert steps(tracker, parent, "grad_norm")[0][1] > 1e300


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ("acc@0.5", "acc_at_0.5"),
        ("/absolute", "absolute"),
        ("a//b/", "a/b"),
        ("../up", "_/up"),
        (".", "_"),
        ("", "_"),
        ("loss (train)", "loss _train_"),
        ("n" * 300, "n" * 250),
        ("Größe/ü", "Größe/ü"),
    ],
)
def test_any_name_of_a_metric_is_taken(tracker: Tracker, name: str, taken: str) -> None:
    run = tracker.open_pipeline("names")
    tracker.log_metrics(run, {name: 1.0, "loss": 2.0})
    assert run_of(tracker, run).data.metrics == {taken: 1.0, "loss": 2.0}


def test_a_moved_or_copied_checkout_keeps_its_artifacts(tmp_path: Path) -> None:
    """MLflow records absolute paths: the old artifacts would be gone, and new ones would go to the former place."""
    old, new, copy = (tmp_path / name for name in ("old 100%", "new", "copy"))
    old.mkdir()
    before = Tracker(project=old)
    run = before.open_pipeline("first")
    (old / "runs/sft-1/model").mkdir(parents=True)
    (old / "runs/sft-1/model/config.json").write_text("{}")
    (old / "log.txt").write_text("one line")
    before.log_artifact(run, old / "log.txt")
    model = before.register_checkpoint(run, old / "runs/sft-1/model", "m")
    shutil.copytree(old, copy)
    old.rename(new)
    for place in (new, copy):
        after = Tracker(project=place)
        assert [one.info.run_id for one in after.search()] == [run]
        fetched = after.client.download_artifacts(run, "log.txt", str(tmp_path))
        assert Path(fetched).read_text() == "one line"
        assert after.upload_checkpoint(model).startswith(place.as_uri())
        second = after.open_pipeline("second")
        after.log_artifact(second, place / "log.txt")
        assert len(list((place / "mlartifacts").rglob("log.txt"))) == 2
        assert mlflow_store.follow_move(place / "mlflow.db", place / "mlartifacts") == 0
    assert not old.exists()


def test_artifacts_elsewhere_stay_there(tmp_path: Path) -> None:
    """Those of a database that was moved without them, and of one that another checkout uses."""
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        place.mkdir()
    run = Tracker(project=first).open_pipeline("x")
    (first / "log.txt").write_text("x")
    Tracker(project=first).log_artifact(run, first / "log.txt")
    shutil.move(first / "mlflow.db", second / "mlflow.db")
    assert mlflow_store.follow_move(second / "mlflow.db", second / "mlartifacts") == 0
    assert mlflow_store.follow_move(second / "mlflow.db", tmp_path / "third/mlartifacts") == 0


def test_the_variable_of_mlflow_is_honoured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """But for an address that the parameter file states, or the command line."""
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    default = Workspace.open(tmp_path / "params.yaml")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert default.tracker.uri == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab:5000")
    assert default.tracker.uri == "http://lab:5000"
    assert open_tracker(tmp_path / "params.yaml", None).uri == "http://lab:5000"
    assert open_tracker(tmp_path / "params.yaml", "sqlite:///x.db").uri == "sqlite:///x.db"
    stated = default.settings.model_copy(update={"tracking": Tracking(uri="http://ours:5000")})
    assert replace(default, settings=stated).tracker.uri == "http://ours:5000"


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
