"""Workflows, .ci/run and pre-commit run what `make` runs here; the citation and the issue forms are right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from paths import ROOT

import geozero
from geozero.doctor import read_lock

MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
MAKE = re.compile(r"\bmake((?: [a-z][\w-]*)+)")


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.MULTILINE))


def called(text: str) -> list[str]:
    """The targets of every `make` command in a script."""
    code = re.sub(r"#.*", "", text)
    return [target for found in MAKE.findall(code) for target in found.split()]


def steps(workflow: Path) -> list[dict[str, Any]]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step for job in jobs.values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_runs_the_make_target_of_its_name(workflow: Path) -> None:
    assert workflow.suffix == ".yaml"
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands != [] and all(command.startswith("make ") for command in commands)
    assert workflow.stem in called("\n".join(commands))
    assert set(called("\n".join(commands))) - targets() == set()


def test_ci_runs_lint_and_test_and_so_do_the_workflows() -> None:
    ci = called((ROOT / ".ci" / "run").read_text())
    assert ci == ["lint", "test"]
    assert set(ci) <= {path.stem for path in WORKFLOWS}


def test_pre_commit_has_the_locks_ruff_and_runs_mypy_as_make_lint_does() -> None:
    lock = read_lock((ROOT / "requirements" / "cpu.lock").read_text())
    remote, local = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert remote["rev"] == f"v{lock['ruff']}"
    assert [hook["id"] for hook in remote["hooks"]] == ["ruff-check", "ruff-format"]
    (mypy,) = local["hooks"]
    assert mypy["entry"].replace(".venv/bin/python", "$(PY)") in MAKEFILE.replace("\t", "").splitlines()


def test_the_citation_names_this_version_and_licence() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == geozero.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["references"][0]["identifiers"][0]["value"] == "arXiv:2511.22645"


@pytest.mark.parametrize("form", [path for path in FORMS if path.stem != "config"], ids=lambda path: path.name)
def test_an_issue_form_is_one_that_github_accepts(form: Path) -> None:
    content = yaml.safe_load(form.read_text())
    assert {"name", "description", "body"} <= content.keys()
    names = [field["id"] for field in content["body"]]
    assert len(set(names)) == len(names)
    assert all(field["type"] in {"textarea", "input"} and field["attributes"]["label"] for field in content["body"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("make lint\nexec make test", ["lint", "test"]),
        ("make lint test-unit ARGS=x", ["lint", "test-unit"]),
        ("# make nothing\nmake docs", ["docs"]),
        ("cmake x; remake y", []),
    ],
)
def test_the_reader_of_scripts_sees_make_commands(text: str, expected: list[str]) -> None:
    assert called(text) == expected
