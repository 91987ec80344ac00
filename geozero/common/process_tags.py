"""End processes that are nobody's child any more: all that carry a tag, and those whose owner is gone.

A tag is an environment variable: all that a process ever starts inherits it. Neither a process group nor the tree of
parents holds on to everything: trainers and engines open sessions of their own, and an orphan hangs under init.
"""

from __future__ import annotations

import os
import signal
import threading
import time

import psutil

OWNER = "GEOZERO_CALLER"  # environment variable of what `process.start` starts: the id of the process that did
OWNER_SECONDS = 1.0  # between two looks whether that one is still there
TERMINATE_SECONDS = 10.0
KILL_SECONDS = 5.0  # what the kernel may take to clear a killed process away


def find_tagged(name: str, value: str) -> list[psutil.Process]:
    """Every living process of this user, except this one, that was started with `name=value` in its environment."""
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


def end_tagged(name: str, value: str, grace: float = TERMINATE_SECONDS) -> int:
    """End all that carry the tag: SIGTERM, and after `grace` seconds SIGKILL. Returns how many there were."""
    n, wait = 0, grace
    while found := find_tagged(name, value):
        n += len(found)
        for stop, seconds in ((psutil.Process.terminate, wait), (psutil.Process.kill, KILL_SECONDS)):
            for process in found:
                try:
                    stop(process)
                except psutil.Error:
                    continue
            _, found = psutil.wait_procs(found, timeout=seconds)
        wait = 0.0  # what was started meanwhile by something that ended has nothing to save
    return n


def end_with_owner(owner: int | None = None, *, alone: bool = False) -> None:
    """End this process once its owner is gone, even by `kill -9`: it would go on holding its GPU beside its successor.

    Args:
        owner: a process id further up; if left out, that of the process that started this one by `process.start`.
            Where none did, nothing happens.
        alone: only this process, for one that shares the group of its owner; otherwise the whole group.
    """
    if owner is None:
        named = os.environ.get(OWNER, "")
        owner = int(named) if named.isdecimal() else 0
        leads = os.getsid(0) == os.getpid()  # `process.start` sees to it; else the variable is from further up
        if not owner or not leads or (os.getppid() != owner and psutil.pid_exists(owner)):
            return
    is_parent = os.getppid() == owner  # then its id cannot be another process's by now

    def watch() -> None:
        while os.getppid() == owner if is_parent else psutil.pid_exists(owner):
            time.sleep(OWNER_SECONDS)
        if alone:
            os.kill(os.getpid(), signal.SIGKILL)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def alive(process: psutil.Process) -> bool:
    """Whether a process still runs: neither gone, nor a zombie, nor another one with its id."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
