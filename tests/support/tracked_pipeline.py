"""A tracked pipeline run, written without training."""

from __future__ import annotations

import pytest

from geozero.tracking import Tracker
from geozero.tracking.lineage import COMMIT_TAG
from geozero.tracking.model_promotion import SCORES, TEST_DATA


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Tracker:
    return Tracker("sqlite:///mlflow.db", "geozero", tmp_path_factory.mktemp("project"))


def pipeline(tracker: Tracker, score: float, steps: int, name: str = "cpu-toy") -> str:
    """A finished pipeline run with a trained A²GRPO stage."""
    tags = {COMMIT_TAG: "c0ffee", "git.dirty": "false", "dvc.data/geozero-raw": f"raw{steps}.dir", TEST_DATA: "d"}
    parent = tracker.open_pipeline(name, {"seed": 7, "a2grpo": {"steps": steps}}, tags)
    directory = tracker.project / f"runs/a2grpo-{steps}"
    child = tracker.child(parent, "a2grpo", directory)
    tracker.log_metrics(child, {"reward": score / 100}, step=1)
    tracker.log_dataset(child, tracker.project / "data/geozero-hard", f"hard{steps}")
    (directory / "model").mkdir(exist_ok=True)
    (directory / "model/config.json").write_text(str(steps))
    tracker.register_checkpoint(child, directory / "model", f"a2grpo-{steps}", steps)
    tracker.finish(child)
    tracker.log_metrics(parent, {f"{SCORES}toy/test": score, "system/host_memory_gb": 1.0})
    tracker.finish(parent)
    return parent
