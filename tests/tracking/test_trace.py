"""`geozero trace`: from any name to the run and all that it comes from, and the data made again in a clean clone."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from paths import ROOT

from geozero.common.errors import InputError
from geozero.tracking import Tracker, lineage, origin, rebuild
from geozero.tracking.runs import resolve
from geozero.tracking.trace import BASE_HASH, CORPUS_TAG, FLOW_RUN_TAG, MODEL_HASH, find, trace

SECRET = "hunter2-planted"
STAGES = """
stages:
  raw:
    cmd: mkdir -p data/raw && tr a-z A-Z < inputs/words > data/raw/words && cat code >> data/raw/words
    deps: [inputs/words, code]
    params: [seed]
    outs: [data/raw]
  card:
    cmd: wc -c data/raw/words > card && echo $TRACE_TEST_NOISE >> card
    deps: [data/raw]
    outs: [card]
  store:
    cmd: mkdir -p store && date +%N > store/chunk-$(date +%N)
    deps: [data/raw]
    outs: [store: {persist: true}]
"""
FLOW_RUN = "ce1af90a-caeb-402c-b303-98c558222216"


def shell(place: Path, *words: str) -> str:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1", "DVC_SITE_CACHE_DIR": str(place.parent / "site")}
    done = subprocess.run(words, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def git(place: Path, *words: str) -> str:
    return shell(place, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", *words)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout with two data stages, one change since its commit, an input that git ignores, and their lock."""
    place = tmp_path_factory.mktemp("project")
    git(place, "init", "-q")
    (place / "dvc.yaml").write_text(STAGES)
    (place / "params.yaml").write_text(f"seed: 7\ntracking: {{uri: 'http://me:{SECRET}@host'}}  # a comment\n")
    (place / ".gitignore").write_text("/inputs\n/data\n/card\n/store\n/mlflow.db*\n/mlartifacts\n/runs\n/reports\n")
    (place / "code").write_text("one\n")
    shell(place, sys.executable, "-m", "dvc", "init", "-q")
    git(place, "add", ".")
    git(place, "commit", "-qm", "one")
    (place / "inputs").mkdir()
    (place / "inputs/words").write_text("words\n")
    (place / "code").write_text("two\n")
    (place / "new").write_text("a new file\n")
    (place / "mine.yaml").write_text(f"hub_token: {SECRET}\nmax_tokens: 12\n")
    shell(place, sys.executable, "-m", "dvc", "repro", "-q")
    return place


@pytest.fixture(scope="module")
def tracker(project: Path) -> Tracker:
    return Tracker("sqlite:///mlflow.db", "geozero", project)


@pytest.fixture(scope="module")
def run(project: Path, tracker: Tracker) -> str:
    """A pipeline run as the flows record one: origin, data, one trained stage, one set of scores."""
    parent = tracker.open_pipeline("demo", {"seed": 7}, {FLOW_RUN_TAG: FLOW_RUN, **lineage.code_tags(project)})
    settings = yaml.safe_load((project / "params.yaml").read_text())
    out = origin.write_origin(
        project, project / "params.yaml", settings | {"seed": 8}, settings, project / "runs/origin"
    )
    assert (out / "params.yaml").read_text().startswith("seed: 8\n")  # the run's own, not the file's
    out = origin.write_origin(project, project / "params.yaml", settings, settings, out)
    tracker.log_artifact(parent, out, origin.FOLDER)
    for name, value in lineage.data_tags(project).items():
        tracker.set_tag(parent, name, value)
    tracker.set_tag(parent, f"{CORPUS_TAG}data/raw", "d1g35t")
    sft = tracker.child(parent, "sft", project / "runs/sft-0a1b")
    tracker.log_dataset(sft, project / "data/raw", lineage.hashes(project)["data/raw"])
    tracker.register_checkpoint(sft, project / "runs/sft-0a1b/model", "sft-0a1b", 4)
    tracker.set_tag(sft, BASE_HASH, "ba5eba5eba5e")
    tracker.set_tag(sft, MODEL_HASH, "40de140de140")
    scores = tracker.child(parent, "scores-sft-direct", project / "runs/scores")
    tracker.log_metrics(scores, {"toy/vqa/accuracy": 0.5})
    reports = project / "reports/data"
    reports.mkdir(parents=True)
    (reports / "lineage.json").write_text(f'{{"mlflow_run": "{parent}"}}')
    (project / "reports/index.html").write_text("<html>")
    tracker.finish(parent)
    return parent


pytestmark = pytest.mark.slow  # MLflow's import takes 3 s and a new SQLite store 5 s


def test_from_every_name_to_the_run(project: Path, tracker: Tracker, run: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find(tracker, "latest")[0].info.run_id == run
    (project / "runs/sft-0a1b/model").mkdir(exist_ok=True)
    commit, data = git(project, "rev-parse", "HEAD").strip(), lineage.hashes(project)["data/raw"]
    names = {
        run[:8]: "demo",
        FLOW_RUN: "demo",
        str(project / "reports/index.html"): "demo",
        "reports/data/lineage.json": "demo",  # relative to the checkout, from wherever the command was given
        "runs/sft-0a1b/model": "sft",
        "runs/sft-0a1b": "sft",
        "40de140de140": "sft",
        "ba5eba5e": "sft",
        commit[:10]: "demo",
        "d1g35t": "demo",
    }
    assert {name: find(tracker, name)[0].info.run_name for name in names} == names
    for name in (data, data[:12], "data/raw"):
        assert {one.info.run_name for one in find(tracker, name)} == {"demo", "sft"}
    for unknown in ("nothing", "abc", str(project / "code")):
        with pytest.raises(InputError):
            find(tracker, unknown)


def test_a_score_leads_to_all_it_comes_from(project: Path, tracker: Tracker, run: str) -> None:
    scores = next(one for one in tracker.stages(resolve(tracker, run)) if one.info.run_name == "scores-sft-direct")
    facts = [(fact.kind, fact.name, fact.value) for fact in trace(tracker, scores)]
    data = lineage.hashes(project)
    assert ("data", "data/raw", f"{data['data/raw']}\tas here") in facts
    assert ("corpus", "data/raw", "d1g35t") in facts
    assert ("parameter", "seed", "7") in facts
    assert ("flow run", FLOW_RUN, "") in facts
    assert ("page", "reports/index.html", str(project / "reports/index.html")) in facts
    assert ("stage data", "sft", f"data/raw\t{data['data/raw']}") in facts
    assert ("stage base", "sft", "ba5eba5eba5e") in facts
    assert ("score", "sft-direct: toy/vqa/accuracy", "0.5") in facts
    checkpoints = [fact for fact in facts if fact[0] == "checkpoint"]
    assert [fact[1] for fact in checkpoints] == ["runs/sft-0a1b/model"] and "40de140de140" in checkpoints[0][2]
    code = next(fact for fact in facts if fact[0] == "code")
    assert code[1] == git(project, "rev-parse", "HEAD").strip() and "code" in code[2]


def test_the_commands_name_commit_changes_and_parameters(project: Path, tracker: Tracker, run: str) -> None:
    lines = list(rebuild.commands(tracker, resolve(tracker, run)))
    commit = git(project, "rev-parse", "HEAD").strip()
    wanted = [f"git clone {project}", f"git checkout --detach {commit}", "make env", "mlflow artifacts download"]
    wanted += ["git apply", "cp origin/params.yaml", "dvc.lock", "dvc pull", "geozero sft", "flows.pipeline"]
    assert len(lines) == len(wanted) and all(part in line for part, line in zip(wanted, lines, strict=True))
    kept = [file for file in (project / "mlartifacts").rglob("*") if file.is_file()]
    assert kept and all(SECRET.encode() not in file.read_bytes() for file in kept)


def test_the_data_comes_out_the_same_in_a_clean_clone(
    project: Path, tracker: Tracker, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    facts = rebuild.check(tracker, resolve(tracker, run), tmp_path / "one", lambda line: None)
    expected = {("same", "data/raw"), ("same", "card"), (rebuild.STORE, "store")}
    assert {(fact.kind, fact.name) for fact in facts} == expected
    assert (tmp_path / "one/code").read_text() == "two\n" and (tmp_path / "one/new").is_file()
    monkeypatch.setenv("TRACE_TEST_NOISE", "noise")
    facts = rebuild.check(tracker, resolve(tracker, run), tmp_path / "two", lambda line: None)
    assert {fact.name: fact.kind for fact in facts} == {"data/raw": "same", "card": "other", "store": rebuild.STORE}
    with pytest.raises(InputError, match="not empty"):
        rebuild.check(tracker, resolve(tracker, run), tmp_path / "two", lambda line: None)


def test_the_command(project: Path, run: str, tmp_path: Path) -> None:
    def geozero(*words: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
        command = [sys.executable, "-m", "geozero.cli", "trace", *words, "--tracking", f"sqlite:///{project}/mlflow.db"]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    shown = geozero("demo")
    assert shown.returncode == 0 and shown.stdout.startswith(f"run\t{run[:8]} demo ")
    unknown = geozero("nothing-like-it")
    assert (unknown.returncode, unknown.stderr.count("\n")) == (2, 1) and "no run 'nothing-like-it'" in unknown.stderr
