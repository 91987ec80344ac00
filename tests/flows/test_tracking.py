"""What a flow leaves in MLflow."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from flows_checkout import ROOT
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.runtime import run_names, tracking
from geozero.corpus.store import Corpus, CorpusWriter
from geozero.params import Tracking
from geozero.tracking import Tracker
from geozero.workspace import Workspace

RUN = "00000000-0000-0000-0000-000000000001"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return Workspace.open(tmp_path / "params.yaml")


def test_every_run_of_a_flow_tells_its_commit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a corpus has one hash wherever it is noted: DVC's, or that of its manifest where DVC does not know it."""
    opened: dict[str, str] = {}
    state = {"commit": "c0ffee", "dirty": "true", "changed": "a"}
    monkeypatch.setattr(Tracker, "open_pipeline", lambda self, name, params, tags: opened.update(tags, name=name))
    monkeypatch.setattr(tracking.lineage, "git_state", lambda root: state)
    tracking._open(workspace, "sft")
    assert opened.pop("name") == "sft"
    assert opened == {"mlflow.source.git.commit": "c0ffee", "git.dirty": "true", "git.changed": "a"}
    (workspace.root / "dvc.lock").write_text("stages: {raw: {outs: [{path: data/geozero-raw, md5: 1f2e.dir}]}}")
    assert tracking._digest(workspace, workspace.raw) == "1f2e.dir"
    with CorpusWriter(workspace.hard, {}):
        pass
    assert tracking._digest(workspace, workspace.hard) == Corpus(workspace.hard).digest


def test_a_run_s_name_says_what_was_changed(workspace: Workspace) -> None:
    """Against the committed file, against profiles/ where that is of another profile, else in a form only."""
    root, seed = workspace.root, workspace.settings.model_copy(update={"seed": 8})
    form = replace(workspace, settings=seed)
    assert run_names.run_name("sft", workspace) == "sft"
    assert run_names.run_name("sft", form) == "sft seed=8"

    text = workspace.file.read_text()
    git = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "params.yaml"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *words], check=True)
    workspace.file.write_text(text.replace("steps: 40", "steps: 44"))
    name = run_names.run_name("cpu-toy", Workspace.open(workspace.file))
    assert name.startswith("cpu-toy ") and "filter.steps=44" in name

    (root / "profiles").mkdir()
    other = text.replace("profile: cpu-toy", "profile: mine")
    (root / "profiles/mine.yaml").write_text(other)
    workspace.file.write_text(other.replace("seed: 7", "seed: 9"))
    assert run_names.run_name("mine", Workspace.open(workspace.file)) == "mine seed=9"
    many = workspace.settings.model_copy(update={"tracking": Tracking(uri="http://me:secret@x", experiment="e" * 99)})
    named = run_names.run_name("mine", replace(workspace, settings=many))
    assert "secret" not in named and len(named) < 200


def test_a_page_is_linked_only_where_a_server_stays(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flow without a server has one of its own, which ends with it: its address would lead nowhere."""
    opened = list[dict[str, str]]()
    monkeypatch.setattr(Tracker, "open_pipeline", lambda self, name, params, tags: opened.append(dict(tags)))
    monkeypatch.setattr(tracking, "flow_run", SimpleNamespace(id=RUN, run_count=1, flow_name="f"))
    with temporary_settings({PREFECT_API_URL: None}):
        tracking._open(workspace, "sft")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:4711/api"}):
        tracking._open(workspace, "sft")
    assert [one.get("prefect.page") for one in opened] == [None, f"http://127.0.0.1:4711/runs/flow-run/{RUN}"]


def test_gpu_hours_add_up_over_the_tries_of_a_run(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    logged, held = list[tuple[str, dict[str, float], int]](), [5.0]
    earlier = SimpleNamespace(data=SimpleNamespace(metrics={"system/gpu_hours": 2.0}))
    box = SimpleNamespace(log_metrics=lambda run, values, step: logged.append((run, values, step)))
    monkeypatch.setattr(tracking, "outbox", lambda _: box)
    monkeypatch.setattr(Tracker, "run", lambda self, run: earlier)
    monkeypatch.setattr(tracking.locks, "gpu_hours", lambda: held[0])
    monkeypatch.setattr(tracking.process, "has_gpu", lambda: False)
    tracking._gpu_hours(workspace, "p")()
    monkeypatch.setattr(tracking.process, "has_gpu", lambda: True)
    log = tracking._gpu_hours(workspace, "p")
    held[0] = 6.5
    log()
    assert logged == [("p", {"system/gpu_hours": 3.5}, 12_600)]
