"""A real MLflow server on a real PostgreSQL, where both can be had: the same calls, the same answers."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ports import free_port
from tracked_pipeline import pipeline
from unreachable_store import stop

from geozero.tracking import Tracker
from geozero.tracking.compare_runs import compare
from geozero.tracking.model_promotion import best_run, promote
from geozero.tracking.outbox import Outbox
from geozero.tracking.runs import facts, resolve

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("pg_ctl") is None or shutil.which("initdb") is None, reason="no PostgreSQL here"),
    pytest.mark.skipif(importlib.util.find_spec("psycopg2") is None, reason="no psycopg2"),
]


@pytest.fixture
def database() -> Iterator[str]:
    """A cluster of its own in a directory of its own; PostgreSQL will not run as root."""
    user = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
    folder, port = Path(tempfile.mkdtemp(prefix="geozero-pg-")), free_port()
    if os.geteuid() == 0:
        shutil.chown(folder, user)

    def as_user(*words: str) -> None:
        given = {"user": user, "extra_groups": []} if os.geteuid() == 0 else {}
        with (folder.parent / f"{folder.name}.log").open("ab") as log:  # a pipe would stay open with the server
            subprocess.run(words, check=True, cwd="/", stdout=log, stderr=log, timeout=300, **given)  # type: ignore[call-overload]

    as_user("initdb", "-D", str(folder / "data"), "-A", "trust", "-U", "postgres", "--no-sync")
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    as_user("pg_ctl", "-D", str(folder / "data"), "-w", "-t", "120", "-o", options, "start")
    try:
        yield f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres"
    finally:
        as_user("pg_ctl", "-D", str(folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def tracker(database: str, tmp_path: Path) -> Iterator[Tracker]:
    port = free_port()
    words = ["mlflow", "server", "--workers", "1", "--port", str(port), "--backend-store-uri", database]
    command = [sys.executable, "-m", *words, "--artifacts-destination", (tmp_path / "artifacts").as_uri()]
    with (tmp_path / "server.log").open("ab") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=tmp_path, start_new_session=True)
    made, end = Tracker(f"http://127.0.0.1:{port}", "geozero", tmp_path), time.monotonic() + 300
    try:
        while not made.answers():
            assert server.poll() is None and time.monotonic() < end, (tmp_path / "server.log").read_text()[-2000:]
            time.sleep(1.0)
        yield made
    finally:
        stop(server)


def test_runs_artifacts_comparison_queue_and_best(tracker: Tracker, tmp_path: Path) -> None:
    first, second = pipeline(tracker, 50.0, 60), pipeline(tracker, 60.0, 80)
    rows = compare(*(facts(tracker, resolve(tracker, one)) for one in (first, "latest")))
    assert ("scores", "a2grpo/tagged/toy/test", 10.0) in [(row.section, row.name, row.change) for row in rows]
    assert promote(tracker, resolve(tracker, first)).moves
    assert promote(tracker, resolve(tracker, second)).moves
    holder = best_run(tracker)
    assert holder is not None and holder.info.run_id == second

    (tmp_path / "page.html").write_text("<html>")
    box = Outbox(tracker, tmp_path / "runs/tracking")
    parent = tracker.open_pipeline("queued")
    run = box.child(parent, "sft", tmp_path / "runs/sft-1")
    for step in range(100):
        box.log_metrics(run, {"loss": 1.0 / (step + 1)}, step)
    box.log_metrics(run, {"loss": 0.5}, 200)
    box.log_artifact(parent, tmp_path / "page.html")
    box.finish(run)
    box.finish(parent)
    assert box.close(60.0) == 0
    assert not list((tmp_path / "runs/tracking").iterdir())
    child = (tmp_path / "runs/sft-1/mlflow_run_id").read_text()
    assert len(tracker.client.get_metric_history(child, "loss")) == 101
    assert [one.path for one in tracker.client.list_artifacts(parent)] == ["page.html"]
    assert tracker.client.get_run(parent).info.status == "FINISHED"
