"""What DVC runs again after a change of a data set, an adapter or the list of data sets; paths are never shell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from fixtures import make_sources
from flows_checkout import ROOT, checkout, python, settings, write_params

from flows.data import explain
from flows.runtime.retries import is_transient
from geozero.corpus import Corpus
from geozero.workspace import Workspace

ROOTS = "in put'; touch PWNED ;`touch PWNED` $(touch PWNED)"
OWN = '"own" ; touch PWNED'


def dvc(path: Path, *words: str) -> str:
    done = python(path, "dvc", *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def ran(path: Path, *words: str) -> set[str]:
    return {line.split("'")[1] for line in dvc(path, *words).splitlines() if line.startswith("Running stage")}


def given(**data: Any) -> dict[str, Any]:
    lists = {"sources": ["aid", "rsvqa_lr"], "optional": ["vhm"], "eval_only": ["rsicd"], "samples": []}
    places = {"dior_rsvg": {"path": OWN}, "ships": {"path": f"{OWN}/AID_dataset", "source": "class_folders"}}
    params = settings(data={"root": ROOTS, "eval_root": ROOTS, **lists, "paths": places, **data})
    return params | {"model": {**params["model"], "path": "a model; touch PWNED"}}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_only_what_a_change_concerns_runs_again(tmp_path: Path) -> None:
    path = checkout(tmp_path / "a checkout; touch PWNED", given())
    make_sources.write_all(path / ROOTS)
    make_sources.write_all(path / OWN)
    everything = {"adapters", "locate", "ingest@aid", "ingest@rsvqa_lr", "ingest_optional@vhm", "ingest_eval@rsicd"}
    everything |= {"ingest_path@dior_rsvg", "ingest_path@ships", "raw"}
    assert ran(path, "repro", "raw") == everything
    assert json.loads(dvc(path, "status", "--with-deps", "raw", "--json")) == {}
    assert list(tmp_path.rglob("PWNED")) == []
    sources = {row["source"] for row in Corpus(path / "data/geozero-raw").manifest["counts"]}
    assert sources == {"aid", "rsvqa_lr", "dior_rsvg", "ships"}  # and rsicd is for evaluation alone

    adapter = path / "geozero/sources/questions/rsvqa_lr.py"
    adapter.write_text(adapter.read_text() + "\n# changed\n")
    assert ran(path, "repro", "raw") == {"adapters", "locate", "ingest@rsvqa_lr"}  # and reads the same as before

    airport = path / ROOTS / "AID_dataset/AID/Airport"
    make_sources.write(airport / "airport_9.jpg", make_sources.encoded(make_sources.make_image(999, (60, 60))))
    assert ran(path, "repro", "raw") == {"locate", "ingest@aid", "raw"}

    write_params(path, given(sources=["aid"]))
    assert json.loads(dvc(path, "status", "--with-deps", "raw", "--json")).keys() == {"adapters", "locate", "raw"}
    assert ran(path, "repro", "raw") == {"adapters", "locate", "raw"}
    sources = {row["source"] for row in Corpus(path / "data/geozero-raw").manifest["counts"]}
    assert sources == {"aid", "dior_rsvg", "ships"}
    assert json.loads(dvc(path, "status", "--with-deps", "raw", "--json")) == {}


@pytest.mark.slow
def test_an_older_parameter_file_and_one_archive_as_root(tmp_path: Path) -> None:
    """Without `paths`, as files of earlier versions are; the root is a zip."""
    make_sources.write_all(tmp_path / "unpacked")
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "unpacked")
    params = given(root=str(tmp_path / "all.zip"), eval_root=str(tmp_path / "all.zip"))
    del params["data"]["paths"]
    path = checkout(tmp_path / "checkout", params)
    assert "raw" in ran(path, "repro", "raw")
    files = {name: json.loads((path / f"data/stages/files/{name}.json").read_text()) for name in ("aid", "rsicd")}
    assert files["aid"] == files["rsicd"] and files["aid"]["files"] == 1
    shutil.make_archive(str(tmp_path / "all"), "zip", tmp_path / "unpacked/AID_dataset")
    done = python(path, "dvc", "repro", "raw")
    assert done.returncode != 0 and "no RSVQA-LR found" in done.stderr


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A `python3` without any package."""
    python3 = tmp_path / "bin/python3"
    python3.parent.mkdir()
    python3.write_text(f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -S "$@"\n')
    python3.chmod(0o755)
    return python3


@pytest.mark.slow
def test_a_python_without_packages_hands_over_to_that_of_the_dvc_which_runs_the_stage(
    tmp_path: Path, bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `.venv/bin/dvc repro` has it where `.venv` is not activated; and the code is that beside dvc.yaml."""
    path = checkout(tmp_path / "checkout", given())
    changed = path / "geozero/cli/data.py"
    changed.write_text(changed.read_text() + '\nprint("changed code")\n')
    stages = {"raw": {"cmd": "python3 -m geozero.cli raw --out x --in nowhere", "outs": ["x"]}}
    (path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    monkeypatch.setenv("SHELL", "/bin/bash")
    done = python(path, "dvc", "repro", code=tmp_path, first_in_path=bare.parent)
    assert "changed code" in done.stdout and "nowhere" in done.stderr, done.stderr


def test_a_python_without_packages_says_in_one_line_what_to_do(tmp_path: Path, bare: Path) -> None:
    shutil.copytree(ROOT / "geozero", tmp_path / "geozero", ignore=shutil.ignore_patterns("__pycache__"))
    command = [str(bare), "-m", "geozero.cli", "sources"]
    environment = {name: value for name, value in os.environ.items() if name not in ("DVC_STAGE", "PYTHONPATH")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("geozero: no package '") and "make env" in line

    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to(sys.executable)
    (tmp_path / ".venv/pyvenv.cfg").write_text((Path(sys.prefix) / "pyvenv.cfg").read_text())
    (tmp_path / ".venv/lib").symlink_to(Path(sys.prefix) / "lib")
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "resisc45" in done.stdout, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_downloaded_archive_without_git_works(tmp_path: Path) -> None:
    """DVC wants a git repository unless it is told otherwise; it was tried again for a minute and a half."""
    path = checkout(tmp_path / "checkout", given(sources=["aid"], optional=[], eval_only=[], paths={}))
    make_sources.write_all(path / ROOTS)
    shutil.rmtree(path / ".git")
    (path / "try_it.py").write_text(
        "import logging\nfrom flows import data\nfrom geozero.workspace import Workspace\n"
        "data.get_run_logger = logging.getLogger\nworkspace = Workspace.open('params.yaml')\n"
        "print('ran', data.build_data.fn(workspace, 'raw'))\nprint('ran', data.build_data.fn(workspace, 'raw'))\n"
    )
    done = python(path, "try_it")
    assert [line for line in done.stdout.splitlines() if line.startswith("ran ")] == ["ran True", "ran False"], (
        done.stderr
    )


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("ERROR: /x is not a git repository", "git init"),
        ("ERROR: you are not inside of a DVC repository (checked up to mount point '/')", ".dvc included"),
        ("ERROR: unexpected error - [Errno 30] Read-only file system: '/x/.dvc/tmp'", "copy"),
        ("ERROR: unexpected error - [Errno 13] Permission denied: '/x/dvc.lock'", "copy"),
    ],
)
def test_a_checkout_that_dvc_cannot_work_in_is_one_line_and_no_retry(line: str, hint: str, tmp_path: Path) -> None:
    write_params(tmp_path, given())
    explained = explain(["INFO", line], Workspace.open(tmp_path / "params.yaml"))
    assert explained is not None and hint in str(explained) and not is_transient(explained)
