"""SIGTERM to process 1 of a container: the trainer saves before anything else ends."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flows_checkout import ROOT

from geozero.training.launcher.launch import LAUNCHER

TRAINER = """
import pathlib, signal, sys, time
def leave(*_):
    time.sleep(1.5)  # writes its checkpoint
    pathlib.Path("saved").write_text("whole")
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
pathlib.Path("ready").touch()
time.sleep(60)
"""
FLOW = f"""
import signal, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", {TRAINER!r}, {LAUNCHER!r}], start_new_session=True)
time.sleep(60)  # ends at once on SIGTERM, as Prefect's command does
"""
NAMESPACE = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]


def has_namespaces() -> bool:
    return (
        shutil.which("unshare") is not None
        and subprocess.run([*NAMESPACE, "true"], capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("inside", [False, True], ids=["a process", "process 1"])
def test_the_trainer_saves_before_the_command_ends(inside: bool, tmp_path: Path) -> None:
    if inside and not has_namespaces():
        pytest.skip("no PID namespaces here")
    words = [sys.executable, "-m", "flows.runtime.container_entry", sys.executable, "-c", FLOW]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    entry = subprocess.Popen([*(NAMESPACE if inside else []), *words], cwd=tmp_path, env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    target = entry.pid
    if inside:  # what `unshare` forked is process 1
        target = int(Path(f"/proc/{entry.pid}/task/{entry.pid}/children").read_text().split()[0])
    subprocess.run(["kill", "-TERM", str(target)], check=True)
    assert entry.wait(60) == 128 + signal.SIGTERM
    assert (tmp_path / "saved").read_text() == "whole"


def test_the_exit_code_is_the_commands(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "flows.runtime.container_entry", "sh", "-c", "exit 7"]
    assert subprocess.run(words, cwd=ROOT).returncode == 7
