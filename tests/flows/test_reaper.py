"""Nothing that a flow has started outlives it: after kills of the flow, of its worker, and after an end in order."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from flows_checkout import ROOT

from flows.runtime import reaper
from geozero.common import process_tags
from geozero.tracking import Tracker

# A flow without Prefect: it has a reaper, starts a child in a session of its own, and says when all that is done.
FLOW = """
import os, subprocess, sys, time
from pathlib import Path
from flows.runtime.reaper import Reaper
from geozero.tracking import Tracker
folder = Path(sys.argv[1])
reaper = Reaper(Tracker(project=folder), folder)
child = [sys.executable, "-c", "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"]
subprocess.Popen(child, start_new_session=True)
(folder / "tag").write_text(reaper.tag)
{then}
"""
WORKER = """
import subprocess, sys, time
flow = subprocess.Popen([sys.executable, "-c", sys.argv[2], sys.argv[1]])
time.sleep(600)
"""


def environment(**extra: str) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if k not in (reaper.PROCESS_TAG, reaper.STARTED_BY_WORKER)}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def wait_for(condition: Callable[[], object], seconds: float = 40.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def left(folder: Path) -> list[Any]:
    return process_tags.find_tagged(reaper.PROCESS_TAG, (folder / "tag").read_text())


def test_after_a_flow_is_killed_nothing_of_it_goes_on(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FLOW.format(then="time.sleep(600)"), str(tmp_path)]
    flow = subprocess.Popen(words, env=environment())
    assert wait_for((tmp_path / "tag").exists)
    assert len(left(tmp_path)) == 1
    flow.kill()
    flow.wait()
    assert wait_for(lambda: not left(tmp_path))  # the child takes no notice of SIGTERM


def test_a_killed_reaper_has_a_successor(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FLOW.format(then="reaper.watch_run('abc'); time.sleep(600)"), str(tmp_path)]
    flow = subprocess.Popen(words, env=environment())
    assert wait_for((tmp_path / "tag").exists)

    def reapers() -> list[psutil.Process]:
        return [one for one in psutil.Process(flow.pid).children() if "flows.runtime.reaper" in one.cmdline()]

    (first,) = reapers()
    first.kill()
    assert wait_for(lambda: [one for one in reapers() if one.pid != first.pid])
    time.sleep(2.0)  # until it has read its lines, which its successor gets again
    flow.kill()
    flow.wait()
    assert wait_for(lambda: not left(tmp_path))
    assert wait_for(lambda: list(tmp_path.glob("*.jsonl")))  # the entry that closes the MLflow run


def test_a_flow_that_ends_in_order_takes_its_reaper_with_it(tmp_path: Path) -> None:
    words = [sys.executable, "-c", FLOW.format(then="reaper.end_children(); reaper.close(); reaper._child.wait(30)")]
    done = subprocess.run([*words, str(tmp_path)], env=environment(), timeout=120)
    assert done.returncode == 0
    assert left(tmp_path) == []


def test_a_flow_whose_worker_is_killed_ends_too(tmp_path: Path) -> None:
    flow = FLOW.format(then="(folder / 'pid').write_text(str(os.getpid())); time.sleep(600)")
    words = [sys.executable, "-c", WORKER, str(tmp_path), flow]
    worker = subprocess.Popen(words, env=environment(**{reaper.STARTED_BY_WORKER: "x"}))
    assert wait_for((tmp_path / "pid").exists)
    pid = int((tmp_path / "pid").read_text())
    flow_process = psutil.Process(pid)
    worker.kill()
    worker.wait()
    assert wait_for(lambda: not process_tags.alive(flow_process))
    assert wait_for(lambda: not left(tmp_path))


def test_the_reaper_closes_the_run_of_a_killed_flow(tmp_path: Path) -> None:
    """Through the outbox: here the store cannot be opened, so the entry is found in it."""
    given = {
        "tag": "nobody",
        "flow": 1,
        "worker": None,
        "store": ["http://127.0.0.1:9", "tests", str(tmp_path)],
        "folder": str(tmp_path / "tracking"),
    }
    code = "import flows.runtime.reaper as g, json, sys; g.FLUSH_SECONDS = 0.1; g.main(json.loads(sys.argv[1]))"
    words = [sys.executable, "-c", code, json.dumps(given)]
    for said, entries in (("run abc\n", 1), ("run abc\ndone\n", 1)):  # the second time nothing is added
        subprocess.run(words, input=said.encode(), env=environment(), timeout=120, check=True)
        lines = [line for f in (tmp_path / "tracking").glob("*.jsonl") for line in f.read_text().splitlines()]
        assert [(json.loads(line)["do"], json.loads(line)["run"]) for line in lines] == [("kill", "abc")] * entries


def test_a_reaper_carries_plain_words_only(tmp_path: Path) -> None:
    own = reaper.Reaper(Tracker(project=tmp_path), tmp_path / "tracking")
    try:
        assert os.environ[reaper.PROCESS_TAG] == own.tag
    finally:
        own.close()
    assert reaper.PROCESS_TAG not in os.environ
    assert own._child.wait(30) == 0
    assert (tmp_path / "tracking/reaper.log").read_text() == ""
