"""The queue before MLflow: nothing lost and nobody waiting while the server is down, slow, or wrong."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from unreachable_store import FakeTracker, Unreachable, stop

from geozero.tracking import RUN_ID_FILE, Tracker, outbox
from geozero.tracking.outbox import REFUSED, Outbox

WRITER = """
import os, sys
from pathlib import Path
from unreachable_store import Unreachable
from geozero.tracking.outbox import Outbox
box = Outbox(Unreachable(), Path(sys.argv[1]))
run = box.child("parent", "sft", Path(sys.argv[2]))
for step in range(50):
    box.log_metrics(run, {"loss": 1.0}, step)
os.kill(os.getpid(), 9)
"""


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "PAUSES", (0.02,))


@pytest.fixture
def tracker() -> FakeTracker:
    return FakeTracker()


@pytest.fixture
def box(tracker: FakeTracker, tmp_path: Path) -> Iterator[Outbox]:
    made = Outbox(tracker, tmp_path / "tracking")  # type: ignore[arg-type]
    yield made
    tracker.state = "up"
    made.close(1.0)


def steps(tracker: FakeTracker, run: str, name: str = "loss") -> list[int]:
    return sorted(step for of, key, step, _ in tracker.points if (of, key) == (run, name))


def test_everything_arrives_in_order_under_the_run_of_its_stage(
    box: Outbox, tracker: FakeTracker, tmp_path: Path
) -> None:
    with box.stage("parent", "sft", tmp_path / "sft-1a") as run:
        for step in range(200):
            box.log_metrics(run, {"loss": 1.0 / (step + 1)}, step)
        box.set_tag(run, "note", "x")
    assert box.close(10.0) == 0
    assert steps(tracker, "id-sft-1a") == list(range(200))
    assert tracker.calls == [("child", "sft"), ("set_tag", "id-sft-1a/note"), ("finish", "id-sft-1a/FINISHED")]
    assert not list((tmp_path / "tracking").iterdir())


def test_an_error_and_an_interrupt_close_the_stage_as_what_they_were(
    box: Outbox, tracker: FakeTracker, tmp_path: Path
) -> None:
    for error in (ValueError, KeyboardInterrupt):
        with pytest.raises(error), box.stage("parent", "sft", tmp_path / error.__name__):
            raise error
    assert box.flush(10.0) == 0
    assert tracker.calls[1::2] == [("finish", "id-ValueError/FAILED"), ("finish", "id-KeyboardInterrupt/KILLED")]


def test_what_is_sent_a_second_time_counts_once(tmp_path: Path) -> None:
    """As after a kill between the server's answer and its note here."""
    tracker = Tracker("sqlite:///m.db", project=tmp_path)
    parent, model = tracker.open_pipeline("p"), tmp_path / "runs/sft-1/model"
    (tmp_path / "curve.jsonl").write_text('{"step": 1, "reward": 0.5}\n')
    box = Outbox(Unreachable(), tmp_path / "tracking")  # type: ignore[arg-type]
    with box.stage(parent, "sft", tmp_path / "runs/sft-1") as run:
        box.log_params(run, {"sft": {"steps": 4}})
        box.log_metrics(run, {"loss": 1.0}, 1)
        box.log_rows(run, tmp_path / "curve.jsonl")
        box.log_dataset(run, tmp_path / "data", "1f2e.dir")
        box.log_artifact(run, tmp_path / "curve.jsonl")
        box.log_table(run, "scores", [{"n": 3, "value": float("nan")}, {"n": 4, "bounds": [0, 1]}])
        box.register_checkpoint(run, model, "sft-1", step=4)
        box.compare(parent, [run])
    assert box.close(0.1) == 10
    (file,) = (tmp_path / "tracking").glob("*.jsonl")
    waiting = file.read_text()
    states = []
    for _ in range(2):
        file.write_text(waiting)
        assert Outbox(tracker, tmp_path / "tracking").close(60.0) == 0
        assert not (tmp_path / "tracking" / REFUSED).exists()
        found = tracker.client.get_run((tmp_path / "runs/sft-1" / RUN_ID_FILE).read_text())
        table = tracker.client.download_artifacts(found.info.run_id, "tables/scores.json")
        states.append((found.to_dictionary(), Path(table).read_text(), tracker.run(parent).to_dictionary()))  # type: ignore[union-attr]
        history = [len(tracker.client.get_metric_history(found.info.run_id, key)) for key in ("loss", "reward")]
        assert history == [1, 1]
    assert states[0] == states[1]
    data = [[3, None, None], [4, None, "[0, 1]"]]
    assert json.loads(states[0][1]) == {"columns": ["n", "value", "bounds"], "data": data}


def test_nothing_is_lost_when_the_server_is_down_for_the_middle_third(box: Outbox, tracker: FakeTracker) -> None:
    for step in range(300):
        tracker.state = "down" if 100 <= step < 200 else "up"
        box.log_metrics("run", {"loss": 1.0, "reward": 0.5}, step)
        time.sleep(0.001)
    assert box.flush(10.0) == 0
    for name in ("loss", "reward"):
        assert steps(tracker, "run", name) == list(range(300))


@pytest.mark.parametrize("state", ["down", "slow"])
def test_whoever_logs_does_not_wait(box: Outbox, tracker: FakeTracker, state: str) -> None:
    tracker.state = state
    start = time.monotonic()
    for step in range(500):
        box.log_metrics("run", {f"m{i}": 0.0 for i in range(20)}, step)
    assert (time.monotonic() - start) / 500 < 0.05  # the slow server takes 0.3 s a request
    assert box.waiting() >= (500 if state == "down" else 1)
    assert box.flush(0.1 if state == "down" else 20.0) == (500 if state == "down" else 0)


def test_what_a_killed_process_left_the_next_one_sends(tmp_path: Path, tracker: FakeTracker) -> None:
    folder, stage = tmp_path / "tracking", tmp_path / "sft-9"
    done = subprocess.run([sys.executable, "-c", WRITER, str(folder), str(stage)], timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (stage / RUN_ID_FILE).exists()
    tracker.state = "down"  # else the sender may be done before they are counted
    box = Outbox(tracker, folder)  # type: ignore[arg-type]
    assert box.waiting() == 51
    tracker.state = "up"
    box.log_metrics("other", {"loss": 0.0}, 1)
    assert box.close(10.0) == 0
    assert steps(tracker, "id-sft-9") == list(range(50))
    assert steps(tracker, "other") == [1]
    assert not list(folder.iterdir())


def test_a_line_that_a_kill_cut_off_costs_only_itself(tmp_path: Path, tracker: FakeTracker) -> None:
    folder = tmp_path / "tracking"
    folder.mkdir()
    whole = '{"do": "log_metrics", "run": "r", "time": 5, "with": {"metrics": {"loss": 1.0}, "step": 1}}\n'
    (folder / "1-2-3.jsonl").write_text(whole + "not json\n" + whole.replace('"step": 1', '"step": 2')[:40])
    assert Outbox(tracker, folder).close(10.0) == 0  # type: ignore[arg-type]
    assert steps(tracker, "r") == [1]


def test_two_processes_at_once_send_each_its_own(tmp_path: Path) -> None:
    first, second = Unreachable(), FakeTracker()
    one, two = (Outbox(t, tmp_path) for t in (first, second))  # type: ignore[arg-type]
    one.log_metrics("a", {"loss": 1.0}, 1)
    two.log_metrics("b", {"loss": 1.0}, 1)
    end = time.monotonic() + 10
    while not steps(second, "b") and time.monotonic() < end:
        time.sleep(0.01)
    assert (steps(second, "b"), steps(second, "a")) == ([1], [])
    first.state = "up"
    assert one.close(10.0) == two.close(10.0) == 0
    assert steps(first, "a") == [1]


@pytest.mark.parametrize("key", ["bad", "broken"])
def test_what_the_server_never_takes_is_set_aside_with_its_reason(box: Outbox, tracker: FakeTracker, key: str) -> None:
    box.set_tag("run", key, "x")
    box.log_metrics("run", {"loss": 1.0}, 7)
    assert box.flush(10.0) == 0
    assert steps(tracker, "run") == [7]
    (line,) = (box.folder / REFUSED).read_text().splitlines()
    assert line.startswith(("no such tag more\t", "500\t"))


def test_the_state_of_the_server_is_told_once(tmp_path: Path, tracker: FakeTracker) -> None:
    said: list[str] = []
    box = Outbox(tracker, tmp_path, said.append)  # type: ignore[arg-type]
    tracker.state = "down"
    for step in range(20):
        box.log_metrics("run", {"loss": 1.0}, step)
        time.sleep(0.02)
    tracker.state = "up"
    assert box.close(10.0) == 0
    assert len(said) == 2 and "does not answer" in said[0] and "nothing was lost" in said[1]


def test_many_threads_write_whole_lines(box: Outbox, tracker: FakeTracker) -> None:
    def write(run: str) -> None:
        for step in range(100):
            box.log_metrics(run, {"loss": 0.0}, step)

    threads = [threading.Thread(target=write, args=(f"run-{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert box.flush(10.0) == 0
    assert all(steps(tracker, f"run-{i}") == list(range(100)) for i in range(4))


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[], subprocess.Popen[bytes]]]:
    """Start the MLflow server of one store and port; what still runs at the end is ended."""
    port, started = free_port(), []

    def start() -> subprocess.Popen[bytes]:
        words = ["mlflow", "server", "--workers", "1", "--port", str(port), "--backend-store-uri"]
        command = [sys.executable, "-m", *words, f"sqlite:///{tmp_path}/m.db"]
        with (tmp_path / "server.log").open("ab") as log:
            child = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
        started.append(child)
        child.port = port  # type: ignore[attr-defined]
        return child

    yield start
    for child in started:
        stop(child)


def test_a_server_that_comes_back_just_after_a_failed_try_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many tries fail while it is away; then it is asked whether it answers at the moment when it is there again."""
    monkeypatch.setattr(outbox, "PAUSES", (0.01,))
    tracker = FakeTracker()
    asked = 0

    def back_at_the_end() -> bool:
        nonlocal asked
        asked += 1
        if asked == 3 * outbox.TRIES:
            tracker.state = "up"
        return tracker.state == "up"

    tracker.answers = back_at_the_end  # type: ignore[method-assign]
    box: Any = Outbox(tracker, tmp_path)  # type: ignore[arg-type]
    run = box.child("parent", "sft", tmp_path / "sft-1")
    assert box.flush(10.0) == 0
    tracker.state = "down"
    box.log_metrics(run, {"loss": 1.0}, 1)
    assert box.flush(10.0) == 0
    assert asked == 3 * outbox.TRIES and len(tracker.points) == 1
    assert not (tmp_path / REFUSED).exists()
    box.close()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_real_server_stopped_for_the_middle_third_gets_every_point(
    serve: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    server = serve()
    tracker = Tracker(f"http://127.0.0.1:{server.port}", "queue", tmp_path)
    end = time.monotonic() + 180
    while not tracker.answers() and time.monotonic() < end:
        time.sleep(0.5)
    parent = tracker.open_pipeline("queue")
    box = Outbox(tracker, tmp_path / "runs/tracking")
    run = box.child(parent, "sft", tmp_path / "runs/sft-1")
    n = 300
    for step in range(n):
        if step == n // 3:
            stop(server)
        if step == 2 * n // 3:
            server = serve()
        box.log_metrics(run, {"loss": 1.0 / (step + 1)}, step)
        time.sleep(0.01)
    again = box.child(parent, "a2grpo", tmp_path / "runs/a2grpo-1")  # asked for while the server is still coming up
    box.log_metrics(again, {"reward": 1.0}, 1)
    box.finish(run)
    assert box.flush(120.0) == 0
    run_id = (tmp_path / "runs/sft-1" / RUN_ID_FILE).read_text()
    history = tracker.client.get_metric_history(run_id, "loss")
    assert sorted(point.step for point in history) == list(range(n))
    info = tracker.client.get_run(run_id).info
    assert info.status == "FINISHED"
    assert info.end_time - info.start_time >= 10 * n  # as long as it took, not as long as the sending did
    box.kill(parent)
    assert box.close(60.0) == 0
    other = (tmp_path / "runs/a2grpo-1" / RUN_ID_FILE).read_text()
    assert [tracker.client.get_run(one).info.status for one in (parent, other)] == ["KILLED", "KILLED"]


def test_a_metric_that_is_refused_does_not_cost_its_batch(tracker: FakeTracker, tmp_path: Path) -> None:
    tracker.state = "down"
    box = Outbox(tracker, tmp_path)  # type: ignore[arg-type]
    for step in range(20):
        box.log_metrics("run", {"bad" if step == 7 else "loss": 1.0}, step)
    tracker.state = "up"
    assert box.close(10.0) == 0
    assert steps(tracker, "run") == [step for step in range(20) if step != 7]
    (line,) = (tmp_path / REFUSED).read_text().splitlines()
    assert '"step": 7' in line
