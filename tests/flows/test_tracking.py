"""What a flow leaves in MLflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from flows_checkout import ROOT

from flows.runtime import tracking
from geozero.corpus.sample import SCHEMA_VERSION
from geozero.corpus.store import MANIFEST, Corpus
from geozero.tracking import Tracker
from geozero.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return Workspace.open(tmp_path / "params.yaml")


def test_every_run_of_a_flow_tells_its_commit(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a corpus has one hash wherever it is noted: DVC's, or that of its manifest where DVC does not know it."""
    opened: dict[str, str] = {}
    state = {"commit": "c0ffee", "dirty": "true", "changed": "a"}
    monkeypatch.setattr(Tracker, "open_pipeline", lambda self, name, params, tags: opened.update(tags))
    monkeypatch.setattr(tracking.lineage, "git_state", lambda root: state)
    tracking._open(workspace, "sft")
    assert opened == {"mlflow.source.git.commit": "c0ffee", "git.dirty": "true", "git.changed": "a"}
    (workspace.root / "dvc.lock").write_text("stages: {raw: {outs: [{path: data/geozero-raw, md5: 1f2e.dir}]}}")
    assert tracking._digest(workspace, workspace.raw) == "1f2e.dir"
    workspace.hard.mkdir(parents=True)
    (workspace.hard / MANIFEST).write_text(json.dumps({"schema_version": SCHEMA_VERSION, "shards": {}}))
    assert tracking._digest(workspace, workspace.hard) == Corpus(workspace.hard).digest
