"""Two runs compared, runs found by what a person types, and the rule that moves `best`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tracked_pipeline import pipeline
from tracked_pipeline import tracker as tracker

from geozero.common.errors import Ambiguous, InputError
from geozero.tracking import Tracker
from geozero.tracking.compare_runs import ComparedRow, compare
from geozero.tracking.model_promotion import MARGIN, SCORES, best_run, judge, promote
from geozero.tracking.runs import Facts, facts, resolve


def run(**given: Any) -> Facts:
    return Facts("id", "name", "FINISHED", **given)


def test_only_what_differs_is_shown_and_scores_with_their_change() -> None:
    a = run(
        parameters={"sft.steps": "40", "seed": "7"},
        data={"data/geozero-hard": "aa"},
        code={"commit": "c1"},
        scores={"acc": 0.5, "same": 1.0, "gone": 2.0},
    )
    b = run(
        parameters={"sft.steps": "80", "seed": "7", "beta": "0.1"},
        data={"data/geozero-hard": "bb"},
        code={"commit": "c1"},
        scores={"acc": 0.75, "same": 1.0},
    )
    assert compare(a, b) == [
        ComparedRow("parameters", "beta", "-", "0.1"),
        ComparedRow("parameters", "sft.steps", "40", "80"),
        ComparedRow("data", "data/geozero-hard", "aa", "bb"),
        ComparedRow("scores", "acc", "0.5", "0.75", 0.25),
        ComparedRow("scores", "gone", "2", "-"),
    ]
    assert len(compare(a, b, everything=True)) == 8
    assert compare(a, a) == []


def test_a_change_too_small_for_its_digits_is_a_change() -> None:
    assert compare(run(scores={"x": float("nan")}), run(scores={"x": float("nan")})) == []
    (row,) = compare(run(scores={"x": 1.0}), run(scores={"x": 1.0 + 1e-9}))
    assert row.change == pytest.approx(1e-9)


# -- best --------------------------------------------------------------------------------------------------------


def scores(*values: float) -> dict[str, float]:
    return {f"{SCORES}world{i}/test": value for i, value in enumerate(values)} | {"sft/direct/toy/test": 99.0}


@pytest.mark.parametrize(
    ("mine", "data", "best", "moves", "why"),
    [
        (scores(50.0), "d", None, True, "first"),
        ({"loss": 1.0}, "d", None, False, "no scores"),
        (scores(50.0, 60.0), "d", scores(50.0, 50.0), True, "better"),
        (scores(50.0 + MARGIN), "d", scores(50.0), False, "not better"),
        (scores(40.0), "d", scores(50.0), False, "not better"),
        (scores(90.0), "other", scores(50.0), False, "not comparable"),
        (scores(90.0, float("nan")), "d", None, False, "not a number"),
        (scores(90.0, 90.0), "d", scores(50.0), False, "not comparable"),
    ],
)
def test_the_rule(mine: dict[str, float], data: str, best: dict[str, float] | None, moves: bool, why: str) -> None:
    verdict = judge(mine, data, best, "d")
    assert verdict.moves is moves
    assert why in verdict.reason


# -- in a real store ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_are_found_compared_and_the_best_is_promoted(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pipeline(tracker, 50.0, 60)
    second = pipeline(tracker, 50.5, 80)
    assert resolve(tracker, first[:10]).info.run_id == first
    assert resolve(tracker, "latest").info.run_id == second
    with pytest.raises(Ambiguous, match="is 2 runs"):
        resolve(tracker, "cpu-toy")
    with pytest.raises(InputError, match="no run 'nothing'"):
        resolve(tracker, "nothing")
    with pytest.raises(InputError, match="does not exist"):
        resolve(Tracker(project=tmp_path), "latest")
    assert not (tmp_path / "mlflow.db").exists()

    rows = compare(*(facts(tracker, resolve(tracker, one)) for one in (first, second)))
    assert [(row.section, row.name, row.a, row.b) for row in rows] == [
        ("parameters", "a2grpo.steps", "60", "80"),
        ("data", "data/geozero-hard", "hard60", "hard80"),
        ("data", "data/geozero-raw", "raw60.dir", "raw80.dir"),
        ("scores", "a2grpo/tagged/toy/test", "50", "50.5"),
        ("scores", "a2grpo: reward", "0.5", "0.505"),
    ]

    command = [sys.executable, "-m", "geozero.cli", "runs", "compare", first, "latest", "--tracking", tracker.store]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    assert lines[0][0] == "run" and len(lines) == 1 + len(rows)
    assert ["scores", "a2grpo/tagged/toy/test", "50", "50.5", "+0.5"] in lines
    command[5] = "zzz"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)

    assert best_run(tracker) is None
    assert promote(tracker, resolve(tracker, first)).moves
    assert promote(tracker, resolve(tracker, second)).moves is False
    holder = best_run(tracker)
    assert holder is not None and holder.info.run_id == first
    assert promote(tracker, resolve(tracker, second), force=True).moves
    third = pipeline(tracker, 60.0, 90)
    assert promote(tracker, resolve(tracker, third)).moves
    assert "best already" in promote(tracker, resolve(tracker, third)).reason
    version = tracker.client.get_model_version_by_alias("geozero", "best")
    assert (version.run_id, int(version.version)) == (third, 3)
    import mlflow

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.store)  # MLflow sets it as well, and leaves it
    mlflow.set_tracking_uri(tracker.store)
    found = Path(mlflow.artifacts.download_artifacts("models:/geozero@best", dst_path=str(tmp_path / "best")))
    assert (found / "config.json").read_text() == "90"
    shutil.rmtree(tracker.project / "runs/a2grpo-60")
    with pytest.raises(InputError, match="checkpoint is gone"):
        promote(tracker, resolve(tracker, first), force=True)
    assert tracker.client.get_model_version_by_alias("geozero", "best").run_id == third


@pytest.mark.slow
def test_a_reused_stage_counts_as_the_run_s_own(tracker: Tracker) -> None:
    pipeline(tracker, 50.0, 61, "reused")
    parent = tracker.open_pipeline("reuses")
    tracker.note_reused(parent, "a2grpo", tracker.project / "runs/a2grpo-61")
    found = facts(tracker, resolve(tracker, parent))
    assert found.scores == {"a2grpo: reward": 0.5}
    assert found.data == {"data/geozero-hard": "hard61"}
