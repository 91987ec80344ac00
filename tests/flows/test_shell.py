"""Around the flows, without Prefect: how one starts, what of a child's output passes, and how time is counted."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from flows_checkout import ROOT
from stand_in_engine import make_model, one_source

from flows.data import explain
from flows.runtime import monitoring
from flows.runtime.monitoring import LINES_PER_MINUTE, StageTimer, rate_limited, training_log
from flows.runtime.shell import start, without_traceback
from geozero.common.errors import InputError
from geozero.workspace import Workspace


class StandInFlow:
    """Takes a flow's place; keeps what it was called with."""

    description = "a flow"

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[dict[str, Any]] = []

    def __call__(self, **given: Any) -> None:
        self.calls.append(given)
        if self.error is not None:
            raise self.error


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def words(monkeypatch: pytest.MonkeyPatch, *given: object) -> None:
    monkeypatch.setattr(sys, "argv", ["flow", *map(str, given)])


def test_a_flow_gets_its_arguments(params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flow, model = StandInFlow(), make_model(tmp_path / "model")
    words(monkeypatch, model, "--params", params)
    start(flow, model=True)
    monkeypatch.chdir(tmp_path)
    words(monkeypatch)
    start(flow)
    assert flow.calls == [{"model": model, "params": params}, {"params": Path("params.yaml")}]


@pytest.mark.parametrize("fault", ["params", "check", "model", "flow"])
def test_bad_input_is_one_line_and_exit_code_2(
    fault: str, params: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def check(workspace: Workspace) -> None:
        if fault == "check":
            raise InputError("not here")

    flow = StandInFlow(InputError("the gate is shut") if fault == "flow" else None)
    given = tmp_path / "missing.yaml" if fault == "params" else params
    words(monkeypatch, tmp_path if fault == "model" else make_model(tmp_path / "model"), "--params", given)
    with pytest.raises(SystemExit) as left:
        start(flow, model=True, check=check)
    assert left.value.code == 2
    out, error = capsys.readouterr()
    assert out == ""
    (line,) = error.splitlines()
    assert line.startswith("geozero: ")
    assert len(flow.calls) == (fault == "flow")


def test_other_errors_are_ours(params: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words(monkeypatch, "--params", params)
    with pytest.raises(ZeroDivisionError):
        start(StandInFlow(ZeroDivisionError()))


def test_a_server_that_does_not_answer_is_one_line(
    params: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    flow = StandInFlow()
    words(monkeypatch, "--params", params)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}), pytest.raises(SystemExit) as left:
        start(flow)
    assert (left.value.code, flow.calls) == (2, [])
    (line,) = capsys.readouterr().err.splitlines()
    assert "no Prefect server answers" in line and "http://127.0.0.1:9/api" in line and "geozero stack up" in line


def test_what_dvc_says_of_bad_input_is_one_line(params: Path) -> None:
    workspace = Workspace.open(params)
    busy = ["ERROR: failed to reproduce 'raw': '/x/data/toy' is busy, it is being blocked by:", "  (PID 7): dvc repro"]
    stage = ["> geozero raw", "geozero: no corpus in data/corpus", "ERROR: failed to reproduce 'raw': …"]
    assert "(PID 7): dvc repro" in str(explain(busy, workspace)) and "rwlock" in str(explain(busy, workspace))
    assert str(explain(stage, workspace)) == "no corpus in data/corpus"
    assert explain(["Traceback", "KeyError: 'a'"], workspace) is None


def test_bad_input_is_logged_without_its_traceback() -> None:
    for error, kept in ((InputError("x"), False), (ValueError("x"), True)):
        try:
            raise error
        except Exception:
            record = logging.LogRecord("prefect.flow_runs", logging.ERROR, "", 0, "failed", (), sys.exc_info())
        assert without_traceback(record)
        assert bool(record.exc_info) is kept


def test_corpora_are_asked_for_the_splits_they_hold(params: Path) -> None:
    data = params.parent / "data/corpus"
    trained = one_source(data / "toy_rsvqa_lr", "toy_rsvqa_lr", "vqa", split="train")
    tested = one_source(data / "toy_aid", "toy_aid", "scene_cls", split="test")
    one_source(data / "ucm", "ucm", "scene_cls", split="test")  # of a source that the parameters do not name any more
    (data / "neon").mkdir()  # unfinished: no manifest
    workspace = Workspace.open(params)
    assert workspace.corpora == [tested, trained]
    assert workspace.corpora_with("test") == [tested]
    assert workspace.corpora_with("val") == []


# -- what passes into a flow's log -------------------------------------------------------------------------------


def test_a_chatty_child_is_bounded_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now, passed = [100.0], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    take = rate_limited(passed.append)
    for i in range(200):
        take(f"{i}")
        take("  ")
    assert passed == [str(i) for i in range(LINES_PER_MINUTE)]
    now[0] += 61
    take("later")
    assert passed[-1] == "later"


def test_of_a_training_only_its_progress_passes() -> None:
    passed: list[str] = []
    take = training_log(passed.append)
    for i in range(500):
        take(f"adalora_beta{i}=0.85,")
    progress = [
        "$ python -m geozero",
        "{'loss': 0.5}",
        "replay: 3 well formed of 4 asked",
        "resuming from checkpoint-2",
    ]
    progress += ["guard: the KL rose", "no step for 10 minutes; stacks in x", "out of memory: half the micro-batch, 4"]
    for line in progress:
        take(line)
    assert passed == progress
    for i in range(500):
        take(f"{{'loss': {i}}}")
    take("guard: half of the answers are cut off")
    assert len(passed) == len(progress) + LINES_PER_MINUTE  # one loss stood among them
    assert passed[-1].startswith("guard:")


# -- times -------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that only this test moves; memory is not watched."""
    now = [0.0]
    monkeypatch.setattr(StageTimer, "_watch_memory", lambda self: None)
    monkeypatch.setattr(monitoring.time, "monotonic", lambda: now[0])
    return now


def spend(
    times: StageTimer, clock: list[float], stage: str, seconds: float, peak: int = 0, reused: bool = False
) -> None:
    with times.measure(stage) as spent:
        clock[0] += seconds
        times.peak_bytes = max(times.peak_bytes, peak)
        spent.reused = reused


def test_reused_work_keeps_its_time_and_memory(tmp_path: Path, clock: list[float]) -> None:
    path = tmp_path / "times.json"
    first = StageTimer(path)
    spend(first, clock, "data", 60.0, peak=3_000)
    with pytest.raises(InputError), first.measure("sft"):
        clock[0] += 5.0
        raise InputError("stopped")
    second = StageTimer(path)  # goes on where the first one ended
    spend(second, clock, "data", 2.0, reused=True)
    spend(second, clock, "sft", 30.0)
    assert second.seconds == {"data": 60.0, "sft": 30.0}
    assert second.peak_bytes == 3_000
    third = StageTimer(path)
    spend(third, clock, "data", 50.0, peak=7)  # done again: the old time says nothing
    assert (third.seconds, third.peak_bytes) == ({"data": 50.0}, 7)
    assert json.loads(path.read_text()) == {"seconds": {"data": 50.0, "sft": 30.0}, "peak_bytes": 7}


def test_reused_work_that_nobody_timed_counts_as_it_is(tmp_path: Path, clock: list[float]) -> None:
    times = StageTimer(tmp_path / "times.json")
    spend(times, clock, "gate", 1.5, reused=True)
    assert times.seconds == {"gate": 1.5}


def test_memory_is_watched_over_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "MEMORY_SECONDS", 0.01)
    times = StageTimer(tmp_path / "times.json")
    end = time.monotonic() + 10
    while times.peak_bytes < 10_000_000 and time.monotonic() < end:
        time.sleep(0.01)
    assert times.peak_bytes > 10_000_000  # an interpreter alone takes more
