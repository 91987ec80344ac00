"""What a flow leaves in MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from flows_checkout import ROOT

from flows.runtime import tracking
from geozero.corpus.store import Corpus, CorpusWriter
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
    with CorpusWriter(workspace.hard, {}):
        pass
    assert tracking._digest(workspace, workspace.hard) == Corpus(workspace.hard).digest
