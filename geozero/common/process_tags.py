"""Processes found by a mark in their environment, and ended: it is inherited by all that a process ever starts.

Neither a process group nor the tree of parents holds on to everything: trainers and engines open sessions of their own,
and whoever loses its parent hangs under init. The environment a process was started with stays.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import psutil

TERMINATE_SECONDS = 10.0
KILL_SECONDS = 5.0  # what the kernel may take to clear a killed process away


def find_tagged(name: str, value: str) -> list[psutil.Process]:
    """Every living process of this user, but this one, that was started with `name=value` in its environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.environ().get(name) == value:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # gone meanwhile, or another user's
    return found


def kill_processes(processes: Iterable[psutil.Process], grace: float = TERMINATE_SECONDS) -> None:
    """End processes: SIGTERM to each, and after `grace` seconds SIGKILL to those that are left."""
    left = list(processes)
    for stop, seconds in ((psutil.Process.terminate, grace), (psutil.Process.kill, KILL_SECONDS)):
        for process in left:
            try:
                stop(process)
            except psutil.Error:
                continue
        _, left = psutil.wait_procs(left, timeout=seconds)


def kill_tagged(name: str, value: str, grace: float = TERMINATE_SECONDS) -> int:
    """End all that carry the mark, whatever they start while they end; returns how many there were."""
    n, wait = 0, grace
    while found := find_tagged(name, value):
        n += len(found)
        kill_processes(found, wait)
        wait = 0.0  # whoever was started meanwhile by something that ended has nothing to save
    return n


def alive(pid: int, started: float) -> bool:
    """Whether the process with this id that began at this time (seconds since 1970) still runs."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - started) < 2.0 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def started(pid: int) -> float:
    """When a process began, seconds since 1970: with its id it names one process for good."""
    return float(psutil.Process(pid).create_time())
