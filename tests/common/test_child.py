"""A job in a child process: its lines arrive while it works, its bad input is one error."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from paths import ROOT

from geozero.common.child import run_job
from geozero.common.errors import InputError
from geozero.common.process import ChildFailed

JOB = """
import sys, time
from geozero.common.errors import InputError
from geozero.common.child import job_main
def run(job):
    print(f"got {job['n']}")
    if job["n"] == 1:
        raise InputError("no such model", "m", "give another")
    if job["n"] == 2:
        sys.exit("boom")
    time.sleep(60)
job_main(run, sys.argv[1])
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "a_job.py").write_text(JOB)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{ROOT}")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    return "a_job"


def test_lines_arrive_while_the_child_works(module: str, tmp_path: Path) -> None:
    class Seen(Exception):
        pass

    def on_line(line: str) -> None:
        assert line == "got 0"
        raise Seen

    started = time.monotonic()
    with pytest.raises(Seen):
        run_job(module, {"n": 0}, tmp_path / "deep" / "job.json", tmp_path / "log", on_line)
    assert time.monotonic() - started < 50


def test_bad_input_is_one_error_and_anything_else_a_failed_child(module: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^no such model in m \(give another\)$"):
        run_job(module, {"n": 1}, tmp_path / "job.json", tmp_path / "log")
    assert (tmp_path / "log").read_text().splitlines() == ["got 1", "no such model in m (give another)"]
    with pytest.raises(ChildFailed, match="code 1:\ngot 2\nboom"):
        run_job(module, {"n": 2}, tmp_path / "job.json", tmp_path / "log")
