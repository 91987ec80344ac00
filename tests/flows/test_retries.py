"""What a flow survives: kills, a lost worker, a second pipeline; and what is not tried again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flows_checkout import ROOT

from flows.runtime import reaper, retries, tracking
from flows.runtime.retries import LOCK, checkout_lock, is_transient, retry_condition, with_worker_grace_period
from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.common.process import ChildFailed
from geozero.corpus.sample import SCHEMA_VERSION
from geozero.corpus.store import MANIFEST, Corpus
from geozero.tracking import Tracker
from geozero.workspace import Workspace

# A flow without Prefect: it guards itself, starts a child in a session of its own, and says when all that is done.
FLOW = """
import os, subprocess, sys, time
from pathlib import Path
from flows.runtime.reaper import Reaper
from geozero.tracking import Tracker
folder = Path(sys.argv[1])
guard = Reaper(Tracker(project=folder), folder)
child = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
subprocess.Popen(child, start_new_session=True)
(folder / "mark").write_text(guard.mark)
{then}
"""
WORKER = """
import subprocess, sys, time
flow = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
time.sleep(600)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return Workspace.open(tmp_path / "params.yaml")


def environment(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in (reaper.PROCESS_TAG, reaper.STARTED_BY_WORKER)}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def wait_for(condition: Callable[[], object], seconds: float = 40.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def left(folder: Path) -> list[Any]:
    return process_tags.find_tagged(reaper.PROCESS_TAG, (folder / "mark").read_text())


def test_after_a_flow_is_killed_nothing_of_it_goes_on(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FLOW.format(then="time.sleep(600)"), str(tmp_path)]
    flow = subprocess.Popen(words, env=environment())
    assert wait_for((tmp_path / "mark").exists)
    assert len(left(tmp_path)) == 1
    flow.kill()
    flow.wait()
    assert wait_for(lambda: not left(tmp_path))  # the child takes no notice of SIGTERM


def test_a_flow_that_ends_in_order_takes_its_guard_with_it(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FLOW.format(then="guard.end_children(); guard.close(); guard._child.wait(30)")]
    done = subprocess.run([*words, str(tmp_path)], env=environment(), timeout=120)
    assert done.returncode == 0
    assert left(tmp_path) == []


def test_a_flow_whose_worker_is_killed_ends_too(tmp_path: Path) -> None:
    flow = FLOW.format(then="(folder / 'pid').write_text(str(os.getpid())); time.sleep(600)")
    words = [sys.executable, "-c", WORKER, str(tmp_path), flow]
    worker = subprocess.Popen(words, env=environment(**{reaper.STARTED_BY_WORKER: "x"}))
    assert wait_for((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    began = process_tags.started(pid)
    worker.kill()
    worker.wait()
    assert wait_for(lambda: not process_tags.alive(pid, began))
    assert wait_for(lambda: not left(tmp_path))


def test_the_guard_closes_the_run_of_a_killed_flow(tmp_path: Path) -> None:
    """Through the outbox: here the store cannot be opened, so the entry is found in it."""
    told = {
        "mark": "nobody",
        "flow": 1,
        "worker": None,
        "store": ["http://127.0.0.1:9", "tests", str(tmp_path)],
        "folder": str(tmp_path / "tracking"),
    }
    code = "import flows.runtime.reaper as g, json, sys; g.FLUSH_SECONDS = 0.1; g.main(json.loads(sys.argv[1]))"
    words = [sys.executable, "-c", code, json.dumps(told)]
    for said, entries in (("run abc\n", 1), ("run abc\ndone\n", 1)):  # the second time nothing is added
        subprocess.run(words, input=said.encode(), env=environment(), timeout=120, check=True)
        lines = [line for f in (tmp_path / "tracking").glob("*.jsonl") for line in f.read_text().splitlines()]
        assert [(json.loads(line)["do"], json.loads(line)["run"]) for line in lines] == [("kill", "abc")] * entries


def test_two_flows_on_one_checkout_are_refused_with_who_runs(workspace: Workspace) -> None:
    refusal = rf"pipeline \(process {os.getpid()} .*since"
    with (
        checkout_lock(workspace, "pipeline"),
        pytest.raises(InputError, match=refusal),
        checkout_lock(workspace, "sft"),
    ):
        pass
    with checkout_lock(workspace, "sft"):  # free again
        pass


def test_a_stale_lock_is_taken_over_and_what_its_flow_left_is_ended(workspace: Workspace) -> None:
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"], env=environment(GEOZERO_FLOW="1-2")
    )
    host = os.uname().nodename
    (workspace.root / ".geozero").mkdir()
    (workspace.root / LOCK).write_text(json.dumps({"flow": "x", "pid": 1, "started": 0.0, "host": host, "mark": "1-2"}))
    with checkout_lock(workspace, "pipeline"):
        assert json.loads((workspace.root / LOCK).read_text())["pid"] == os.getpid()
        orphan.wait(20)
    assert (workspace.root / LOCK).read_text() == ""
    (workspace.root / LOCK).write_text("not json")
    with checkout_lock(workspace, "pipeline"):
        pass


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (InputError("no such model"), False),
        (ValueError("a fault of ours"), False),
        (ChildFailed(["x"], 1, ["Traceback", "KeyError: 'a'"]), False),
        (ChildFailed(["x"], 2, []), False),
        (ChildFailed(["x"], -9, []), True),  # the kernel's, out of memory
        (ChildFailed(["x"], 137, []), True),
        (ChildFailed(["x"], 1, ["RuntimeError: CUDA error: an illegal access", "more"]), True),
        (ConnectionError("reset"), True),
        (FileNotFoundError("x"), False),
        (TimeoutError("too long"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    state = SimpleNamespace(result=lambda raise_on_failure: error)
    assert retry_condition(None, None, state) is is_transient(error) is again


def test_prefect_tries_again_what_may_pass_and_nothing_else() -> None:
    """The tasks carry the condition, and not only at one place."""
    from flows.a2grpo import check_gate, train_a2grpo
    from flows.data import build_data
    from flows.evaluate import answer
    from flows.sft import train_sft

    for task in (check_gate, train_a2grpo, build_data, answer, train_sft):
        assert (task.retries, task.retry_condition_fn) == (2, retry_condition)


def test_under_a_worker_a_training_leaves_before_prefect_kills_its_flow(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(reaper.STARTED_BY_WORKER, raising=False)
    assert with_worker_grace_period(workspace) is workspace
    monkeypatch.setenv(reaper.STARTED_BY_WORKER, "x")
    assert with_worker_grace_period(workspace).settings.hardware.leave_seconds + reaper.GRACE < 30
    quick = workspace.settings.model_copy(
        update={"hardware": workspace.settings.hardware.model_copy(update={"leave_seconds": 2.0})}
    )
    assert with_worker_grace_period(replace(workspace, settings=quick)).settings.hardware.leave_seconds == 2.0


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
    workspace.hard.mkdir(parents=True)
    (workspace.hard / MANIFEST).write_text(json.dumps({"schema_version": SCHEMA_VERSION, "shards": {}}))
    assert tracking._digest(workspace, workspace.hard) == Corpus(workspace.hard).digest


def test_one_gpu_job_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(reaper.STARTED_BY_WORKER, raising=False)
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    with retries.gpu():
        assert retries._gpu.locked()
    assert not retries._gpu.locked()
    monkeypatch.setattr(process, "has_gpu", lambda: False)
    with retries.gpu():
        assert not retries._gpu.locked()


def test_a_guard_carries_plain_words_only(tmp_path: Path) -> None:
    own = reaper.Reaper(Tracker(project=tmp_path), tmp_path / "tracking")
    try:
        assert os.environ[reaper.PROCESS_TAG] == own.mark
    finally:
        own.close()
    assert reaper.PROCESS_TAG not in os.environ
    assert own._child.wait(30) == 0
    assert (tmp_path / "tracking/guard.log").read_text() == ""
