"""The whole line as a user runs it, on a random model and a world of a few scenes; and bad input of the flows."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from flows_checkout import ROOT, checkout, python, settings, write_params
from smallest_pipeline import mlflow_runs, smallest

MODELS, WAYS = ("base", "sft", "a2grpo"), ("direct", "tagged", "forced")
STAGES = ("filter-0", "sft", "a2grpo")
TIME = 1500.0  # seconds; two quiet cores take a tenth of it


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """The one line that bad input ends in."""
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("geozero: ")
    return line


@pytest.mark.slow
def test_bad_input_of_a_flow_is_one_line(tmp_path: Path) -> None:
    line = refused(python(ROOT, "flows.pipeline", "--params", str(tmp_path / "missing.yaml")))
    assert "no such parameter file" in line
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    line = refused(python(tmp_path, "flows.pipeline", code=ROOT))  # no checkout
    assert "dvc.yaml" in line
    assert not (tmp_path / "mlflow.db").exists()


@pytest.mark.slow
def test_bad_input_within_a_flow_is_told_without_tracebacks(tmp_path: Path) -> None:
    write_params(tmp_path, settings(sft={"replay_share": 0.0}))
    done = python(tmp_path, "flows.sft", code=ROOT)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("geozero: ")]
    assert "no such model" in line  # the demo's is in the checkout
    ((parent, _),) = mlflow_runs(tmp_path)
    assert parent.info.status == "FAILED"


@pytest.mark.slow
@pytest.mark.timeout(2 * TIME)
def test_the_whole_line_runs_and_is_reused(tiny_random: Path, tmp_path: Path) -> None:
    path = checkout(tmp_path / "checkout", smallest())
    shutil.copytree(tiny_random, path / "models/tiny-random")
    done = python(path, "flows.pipeline", timeout=TIME)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert "<html" in (path / "reports/index.html").read_text()
    for stage in STAGES:
        (directory,) = path.glob(f"runs/{stage}-*")
        assert (directory / "DONE").is_file()
        assert (directory / "model/model.safetensors").is_file()
    data = {file.stem: json.loads(file.read_text()) for file in (path / "reports/data").glob("*.json")}
    assert {(row["model"], row["mode"]) for row in data["scores"]} == {
        (model, mode) for model in MODELS for mode in WAYS
    }
    assert {row["n"] for row in data["scores"] if row["mode"] == "forced" and row["source"] == "toy_aid"} == {2}
    assert {(row["first"]["mode"], row["second"]["mode"]) for row in data["comparisons"]} >= {("tagged", "forced")}
    assert data["details"] and isinstance(data["reasoning"], list)
    assert "compare the models in MLflow: http://127.0.0.1:5000/#/compare-runs?runs=" in done.stdout
    assert {row["n"] for row in data["scores"] if row["source"] == "toy_rsvqa_lr" and row["headline"]} >= {6}
    assert len(data["gallery"]) == 6
    assert [len(curve) for curve in data["curves"].values()] == [2, 2]
    assert {row["stage"] for row in data["timings"]} >= {"data", "sft", "gate", "a2grpo", "evaluation"}
    assert "data/geozero-hard" in data["lineage"]["data"]
    assert "required" in done.stdout
    ((parent, children),) = mlflow_runs(path)
    assert parent.info.status == "FINISHED"
    assert {run.info.run_name: run.info.status for run in children} == dict.fromkeys(
        ("sft", "a2grpo", *(f"scores-{model}-{way}" for model in MODELS for way in WAYS)), "FINISHED"
    )
    assert "compare" in parent.data.tags
    # what `geozero trace` follows and rebuilds from
    assert {f"corpus.data/geozero-{name}" for name in ("raw", "instruct", "hard")} <= parent.data.tags.keys()
    trained = {run.info.run_name: run.data.tags for run in children if run.info.run_name in STAGES}
    assert trained["a2grpo"]["base.hash"] == trained["sft"]["model.hash"] != trained["a2grpo"]["model.hash"]
    (kept,) = path.glob(f"mlartifacts/**/{parent.info.run_id}/artifacts/origin")
    assert (kept / "params.yaml").read_bytes() == (path / "params.yaml").read_bytes()
    assert (kept / "dvc.lock").read_bytes() == (path / "dvc.lock").read_bytes()
    assert any(name.startswith("a2grpo/tagged/toy") for name in parent.data.metrics)

    kept = {file: file.stat().st_mtime_ns for file in path.glob("runs/*/*") if file.name in ("DONE", "train.log")}
    records = {file: file.stat().st_mtime_ns for file in path.glob("runs/**/answers*/*/*.json")}
    assert len(records) > 3 * 2 * 8
    again = python(path, "flows.pipeline", timeout=TIME)
    assert again.returncode == 0, again.stdout[-4000:] + again.stderr[-4000:]
    assert "Running stage" not in (again.stdout + again.stderr)
    assert kept == {file: file.stat().st_mtime_ns for file in kept}
    assert records == {file: file.stat().st_mtime_ns for file in records}
    assert len(list(path.glob("runs/*/DONE"))) == len(STAGES)
    runs = mlflow_runs(path)
    assert [parent.info.status for parent, _ in runs] == ["FINISHED", "FINISHED"]
    assert {"reused.sft", "reused.a2grpo"} <= set(runs[1][0].data.tags)

    (model,) = path.glob("runs/a2grpo-*/model")
    alone = python(path, "flows.evaluate", str(model), timeout=TIME)
    assert alone.returncode == 0, alone.stdout[-4000:] + alone.stderr[-4000:]
    parent, children = mlflow_runs(path)[-1]
    assert (parent.info.run_name, parent.info.status) == ("evaluate-model", "FINISHED")
    assert {run.info.run_name for run in children} == {f"scores-model-{way}" for way in WAYS}
    known = runs[0][0].data  # the very same answers, under another name
    mine = {name.replace("model/", "a2grpo/", 1): value for name, value in parent.data.metrics.items()}
    assert {name: known.metrics[name] for name in mine if "toy" in name} == {
        k: v for k, v in mine.items() if "toy" in k
    }
    assert parent.data.tags["test.digest"] == known.tags["test.digest"]
    assert parent.data.tags["dvc.data/geozero-hard"] == known.tags["dvc.data/geozero-hard"]
