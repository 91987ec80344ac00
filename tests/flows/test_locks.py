"""One flow in a checkout, one job on the GPU, and no longer than Prefect allows."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from flows_checkout import ROOT

from flows.runtime import locks, reaper
from flows.runtime.locks import LOCK, checkout_lock, shard_lock, with_worker_grace_period
from geozero.common import process
from geozero.common.errors import InputError
from geozero.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    return Workspace.open(tmp_path / "params.yaml")


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
        [sys.executable, "-c", "import time; time.sleep(600)"], env={**os.environ, reaper.PROCESS_TAG: "1-2"}
    )
    host = os.uname().nodename
    (workspace.root / ".geozero").mkdir()
    (workspace.root / LOCK).write_text(json.dumps({"flow": "x", "pid": 1, "started": 0.0, "host": host, "tag": "1-2"}))
    with checkout_lock(workspace, "pipeline"):
        assert json.loads((workspace.root / LOCK).read_text())["pid"] == os.getpid()
        orphan.wait(20)
    assert (workspace.root / LOCK).read_text() == ""
    (workspace.root / LOCK).write_text("not json")
    with checkout_lock(workspace, "pipeline"):
        pass


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


@pytest.mark.parametrize("second", ["data", "difficulty", "shard"])
@pytest.mark.timeout(60)
def test_a_workers_run_waits_for_the_checkout_and_a_shard_for_its_worker(
    second: str, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    said, waits, order = list[str](), threading.Event(), list[str]()
    monkeypatch.setattr(locks, "CHECKOUT_SECONDS", 0.01)
    monkeypatch.setattr(locks, "_log", lambda line: (said.append(line), waits.set()))
    monkeypatch.setenv(reaper.STARTED_BY_WORKER, "x")

    def take() -> AbstractContextManager[None]:
        if second == "shard":
            return shard_lock(workspace, "sample-0-of-2")
        return checkout_lock(workspace, second, second == "difficulty")

    def run() -> None:
        with take():
            order.append("second")

    thread = threading.Thread(target=run, daemon=True)
    with take() if second == "shard" else checkout_lock(workspace, "sft"):
        thread.start()
        assert waits.wait(20)
        time.sleep(0.1)
        order.append("first")
    thread.join(20)
    holder = "sample-0-of-2" if second == "shard" else "sft"
    assert order == ["first", "second"] and len(said) == 1 and said[0].startswith(f"waiting: {holder} (process")


def test_flows_that_share_a_checkout_run_together_and_keep_the_others_out(workspace: Workspace) -> None:
    (workspace.root / ".geozero").mkdir()
    (workspace.root / LOCK).write_text(json.dumps({"flow": "long gone", "pid": 1, "started": 0.0, "host": "x"}))
    for held, refused, words in (
        ([True, True], False, "a flow that others may join is running"),
        ([False], True, r"first \(process"),
    ):
        with ExitStack() as stack:
            for shared in held:
                stack.enter_context(checkout_lock(workspace, "first", shared))
            with pytest.raises(InputError, match=words), checkout_lock(workspace, "second", refused):
                pass


def test_a_file_system_without_locks_is_one_line(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with pytest.raises(InputError, match="cannot lock files: No locks available"), checkout_lock(workspace, "sft"):
        pass


HOLDER = """
import sys, time
from flows.runtime import locks
from geozero.common import process
process.has_gpu, process.gpu_identities = (lambda: True), (lambda: sys.argv[1].split(","))
with locks.gpu():
    child = process.start([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""


def test_a_gpu_is_locked_while_any_process_of_its_run_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever server, pool, checkout or user started it: a training that outlives its flow keeps its GPU."""
    mine, other = f"test-{os.getpid()}-a", f"test-{os.getpid()}-b"
    words = [sys.executable, "-c", HOLDER, f"{mine},{other}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    said = list[str]()
    monkeypatch.setattr(locks, "GPU_SECONDS", 0.05)
    monkeypatch.setattr(locks, "_log", said.append)
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(process, "gpu_identities", lambda: [other])
    got = threading.Event()

    def next_run() -> None:
        with locks.gpu():
            got.set()

    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        child = psutil.Process(int(holder.stdout.readline()))
        try:
            threading.Thread(target=next_run, daemon=True).start()
            assert not got.wait(0.5)
            holder.kill()
            holder.wait()
            assert not got.wait(0.5)
        finally:
            child.kill()
    assert got.wait(10)
    assert said == [f"waiting for gpu-{other}: another run on this machine uses it"]
    assert process.held == set()


def test_runs_with_gpus_of_their_own_work_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = list[str]()
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(process, "gpu_identities", lambda: ["c", "a", "b"])
    monkeypatch.setattr(locks, "_machine_lock", lambda name: nullcontext(taken.append(name)))
    for numbers in ([2, 0, 0, 9], None):
        with locks.gpu(numbers):
            pass
    assert taken == ["gpu-b", "gpu-c", "gpu-a", "gpu-b", "gpu-c"]


def test_hours_count_while_a_gpu_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(process, "gpu_identities", lambda: [f"test-{os.getpid()}-{i}" for i in range(2)])
    now = [1000.0]
    monkeypatch.setattr(locks, "time", SimpleNamespace(monotonic=lambda: now[0], sleep=lambda _: None))
    before = locks.gpu_hours()
    with locks.gpu():
        now[0] += 1800
        assert locks.gpu_hours() - before == pytest.approx(1.0)  # half an hour of two
        now[0] += 1800
    now[0] += 9999
    with pytest.raises(KeyError), locks.gpu():
        now[0] += 360
        raise KeyError
    assert locks.gpu_hours() - before == pytest.approx(2.2)


def test_one_gpu_job_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(process, "gpu_identities", lambda: [f"test-{os.getpid()}"])
    with locks.gpu():
        assert locks._gpu.locked()
    assert not locks._gpu.locked()
    monkeypatch.setattr(process, "has_gpu", lambda: False)
    with locks.gpu():
        assert not locks._gpu.locked()
