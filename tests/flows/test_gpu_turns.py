"""Shards over the GPUs of a machine: which worker gets which, and that two never hold one at a time."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import difficulty
from flows.runtime import locks, sharding
from geozero.common import process


def workspace(engine: str = "auto", urls: Any = ()) -> Any:
    return SimpleNamespace(settings=SimpleNamespace(sampling=SimpleNamespace(engine=engine, urls=urls)))


def test_workers_get_the_visible_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-aaaa,6")
    assert sharding.number_of_shards("auto") == 3 and sharding.number_of_shards("5") == 5
    assert sharding.devices_of(workspace(), 3, None) == ["4", "GPU-aaaa", "6"]
    assert sharding.devices_of(workspace(), 4, None) == ["4", "GPU-aaaa", "6", "4"]
    assert sharding.devices_of(workspace(), 3, [1, 2]) == [1, 2, 1]
    assert sharding.devices_of(workspace(), 1, None) == [None]
    assert sharding.devices_of(workspace("server", ["http://a"]), 2, None) == [None, None]
    assert process.gpu_name(2, "gpus") == "6"


def test_workers_of_one_gpu_run_one_after_the_other() -> None:
    running, most = dict[str, int](), dict[str, int]()

    def work(device: str) -> None:
        with locks.turn_of(device):
            running[device] = running.get(device, 0) + 1
            most[device] = max(most.get(device, 0), running[device])
            time.sleep(0.02)
            running[device] -= 1

    threads = [threading.Thread(target=work, args=(device,)) for device in ("0", "1", "0", "1", "0")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == {"0": 1, "1": 1}
    with locks.turn_of(None), locks.turn_of(None):
        pass


def test_each_shard_is_pinned_to_its_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A number counts among the visible GPUs: what the worker gets is the mask's entry."""
    seen: list[dict[str, str]] = []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-aaaa,6")
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(difficulty, "run_module", lambda *_, env, **__: seen.append(env))
    monkeypatch.setattr(difficulty, "get_run_logger", lambda: SimpleNamespace(info=print))
    monkeypatch.setattr(difficulty, "outbox", lambda _: SimpleNamespace(log_metrics=lambda *_: None))
    monkeypatch.setattr(difficulty, "artifact_progress", lambda *_, **__: locks.turn_of(None))
    made = SimpleNamespace(
        settings=SimpleNamespace(sampling=SimpleNamespace(engine="auto", k=2)),
        file=tmp_path,
        raw=tmp_path,
        root=tmp_path,
        log=lambda name: tmp_path / name,
    )
    for gpu in (1, "6", None):
        difficulty.sample_shard.fn(0, gpu, made, 1, "")
    assert seen == [{"CUDA_VISIBLE_DEVICES": "GPU-aaaa"}, {"CUDA_VISIBLE_DEVICES": "6"}, {}]
