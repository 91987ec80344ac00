"""The data stages: dvc.yaml read as DVC reads it, and the real thing on a small world that must not run twice."""

from __future__ import annotations

import itertools
import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from flows_checkout import ROOT, checkout, python, settings, write_params

from geozero.cli import app
from geozero.params import load

Stage = Any  # dvc.stage.Stage: DVC's own types are not checked
PROFILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]
FIXED = {"toy_world", "adapters", "locate", "raw", "card", "filter", "difficulty", "select"}
PROGRAM = ["python3", "-m", "geozero.cli"]
WRITING_OPTIONS = ("--code", "--files", "--out", "--out-instruct", "--out-hard", "--metrics", "--plot", "--html")


@pytest.fixture(scope="module", params=PROFILES, ids=lambda path: path.stem)
def profile(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def stages(profile: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Stage]]:
    """Every stage of dvc.yaml under a profile, its templates filled in by DVC itself."""
    from dvc.repo import Repo

    path = tmp_path_factory.mktemp("stages")
    shutil.copy(ROOT / "dvc.yaml", path)
    shutil.copy(profile, path / "params.yaml")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(path / "site"))
        patch.chdir(path)
        with Repo.init(str(path), no_scm=True) as repo:
            yield {stage.addressing: stage for stage in repo.index.stages}


def commands(stage: Stage) -> list[list[str]]:
    return [shlex.split(words) for words in ([stage.cmd] if isinstance(stage.cmd, str) else stage.cmd)]


def test_every_source_of_the_parameters_has_its_stage(stages: dict[str, Stage], profile: Path) -> None:
    data = load(profile).data
    wanted = {
        *(f"ingest@{name}" for name in data.sources),
        *(f"ingest_optional@{name}" for name in data.optional),
        *(f"ingest_eval@{name}" for name in data.eval_only),
        *(f"ingest_samples@{name}" for name in data.samples),
        *(f"ingest_path@{name}" for name in data.paths),
    }
    assert set(stages) == FIXED | wanted
    for name in wanted:
        source = name.partition("@")[2]
        assert [out.def_path for out in stages[name].outs] == [f"data/corpus/{source}"]
        assert commands(stages[name]) == [[*PROGRAM, "ingest", "--params", "params.yaml"]]


def test_an_optional_source_has_a_stage_that_may_pass_over_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.repo import Repo

    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["data"]["optional"] = ["vhm"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "site"))
    monkeypatch.chdir(tmp_path)
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        found = {stage.addressing: stage for stage in repo.index.stages}
    assert [out.def_path for out in found["ingest_optional@vhm"].outs] == ["data/corpus/vhm"]
    assert load(tmp_path / "params.yaml").data.optional == ["vhm"]


def test_what_a_stage_depends_on_is_in_the_checkout_or_made_by_a_stage(stages: dict[str, Stage], profile: Path) -> None:
    given = load(profile)
    made = {out.def_path for stage in stages.values() for out in stage.outs}
    elsewhere = {given.data.root, given.data.eval_root, given.model.path}  # put there by whoever runs the profile
    for stage in stages.values():
        for dependency in stage.deps:
            path = dependency.def_path
            inside = any(Path(out) in (p := Path(path), *p.parents) or p in Path(out).parents for out in made)
            assert inside or (ROOT / path).exists() or path in elsewhere, f"{stage.addressing}: {path}"


def test_the_command_line_takes_every_command(stages: dict[str, Stage]) -> None:
    group: Any = typer.main.get_command(app.app)
    for stage in stages.values():
        for words in commands(stage):
            assert words[:3] == PROGRAM
            command, words = group, words[3:]
            while hasattr(command, "commands"):
                command, words = command.commands[words[0]], words[1:]
            command.make_context("geozero", words)


def test_what_a_command_writes_is_declared(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        outs = {out.def_path for out in stage.outs}
        for words in commands(stage):
            written = {value for word, value in itertools.pairwise(words) if word in WRITING_OPTIONS}
            assert written <= outs, stage.addressing


def test_stages_depend_on_parameters_that_are_there(stages: dict[str, Stage], profile: Path) -> None:
    given = yaml.safe_load(profile.read_text())
    for stage in stages.values():
        for dependency in stage.deps:
            for name in getattr(dependency, "params", ()):
                if name != "toy" or "toy" in given:  # only the rendered world's own stage asks for it
                    assert name in given, f"{stage.addressing}: {name}"


# -- the real thing ----------------------------------------------------------------------------------------------

SCENES = {"aid": 16, "rsvqa_lr": 12, "rsicd": 12, "dior_rsvg": 12}
UP_TO_RAW = {
    "toy_world",
    *(f"ingest@toy_{name}" for name in SCENES),
    *(f"ingest_eval@toy_{name}_hard" for name in SCENES),
    "ingest_samples@neon",
    "adapters",
    "locate",
    "raw",
}


def ran(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def dvc(path: Path, *words: str) -> str:
    done = python(path, "dvc", *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_stages_run_once_and_only_what_has_changed_runs_again(tmp_path: Path) -> None:
    world = {"train": SCENES, "val": SCENES, "test": SCENES}
    params = settings(toy=world, model={"path": "models/stand-in"})
    path = checkout(tmp_path / "checkout", params)
    first = ran(dvc(path, "repro", "raw"))
    assert set(first) == UP_TO_RAW
    assert len(first) == len(UP_TO_RAW)
    assert first[-1] == "raw"
    counts = json.loads((path / "reports/raw.json").read_text())
    assert counts["n_samples"] > 50
    assert ran(dvc(path, "repro", "card")) == ["card"]
    assert "toy_rsicd" in (path / "data/README.md").read_text() and "<img" in (path / "reports/data.html").read_text()
    assert len(list((path / "data/card").glob("*.jpg"))) == 24
    (path / "geozero/sources/__pycache__").mkdir(exist_ok=True)
    (path / "geozero/sources/__pycache__/other.pyc").write_bytes(b"bytecode is not code")
    assert ran(dvc(path, "repro", "raw", "card")) == []

    # stand-ins for what takes a trained model to make
    for name in ("models/stand-in", "models/filter/fold-0", "data/difficulty", "data/geozero-instruct"):
        (path / name).mkdir(parents=True)
        (path / name / "file").write_text(name)
    (path / "data/geozero-hard").mkdir()
    for name in ("geozero-hard/file", "pass_rates.parquet", "suspect.parquet", "suspect.csv"):
        (path / "data" / name).write_text(name)
    (path / "reports/selection.json").write_text("{}")
    (path / "reports/difficulty.png").write_bytes(b"drawn")
    dvc(path, "commit", "-f", "filter", "difficulty", "select")
    assert json.loads(dvc(path, "status", "--json")) == {}

    for section, change, stage in (
        ("select", {"easy": 0.6}, {"select"}),
        ("sampling", {"top_p": 0.9}, {"difficulty"}),
        ("filter", {"steps": 61}, {"filter"}),
        ("sft", {"steps": 41}, set()),
        ("a2grpo", {"beta": 0.1}, set()),
        ("evaluation", {"limit": 9}, set()),
    ):
        changed = {**params, section: {**params[section], **change}}
        write_params(path, changed)
        assert set(json.loads(dvc(path, "status", "--json"))) == stage, section
        if section == "select":
            assert ran(dvc(path, "repro", "--dry", "select")) == ["select"]
