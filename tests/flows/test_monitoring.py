"""What a flow reports while it runs: a progress bar in Prefect, and the machine's load as metrics."""

from __future__ import annotations

import logging
import time
from typing import Any

import pytest
from mlflow.system_metrics.metrics import cpu_monitor, gpu_monitor

from flows.runtime import monitoring, progress
from flows.runtime.monitoring import system_metrics
from flows.runtime.progress import artifact_progress
from geozero.common import process


def test_the_bar_is_an_artifact_of_prefect_and_costs_nothing_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[tuple[float, str]] = []

    def refuse(*given: Any, **named: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr(progress, "create_progress_artifact", lambda *given, **named: "id")
    monkeypatch.setattr(
        progress,
        "update_progress_artifact",
        lambda artifact, percent, description: found.append((percent, description)),
    )
    with artifact_progress("sft", 4) as bar:
        bar.at(4)
    assert found == [(100.0, "sft: step 4 of 4")]
    monkeypatch.setattr(progress, "create_progress_artifact", refuse)
    monkeypatch.setattr(progress, "get_run_logger", lambda: logging.getLogger())
    with artifact_progress("sft", 4) as bar:
        bar.at(4)
    assert len(found) == 1


def test_the_machine_is_watched_while_the_run_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "SYSTEM_SECONDS", 0.02)
    found: list[tuple[dict[str, float], int]] = []
    with system_metrics(lambda values, step: found.append((values, step))):
        time.sleep(0.3)
    n = len(found)
    names = {"cpu_utilization_percentage", "system_memory_usage_megabytes", "disk_usage_megabytes"}
    assert n >= 2
    for values, _ in found:
        assert values.keys() >= {f"system/{name}" for name in (*names, "network_receive_megabytes")}
        assert values["system/system_memory_usage_megabytes"] > 10
    time.sleep(0.1)
    assert len(found) == n


def test_gpus_are_measured_where_there_are_some(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Gpu(cpu_monitor.CPUMonitor):
        def collect_metrics(self) -> None:
            self._metrics["gpu_0_power_usage_watts"].append(301.5)

    def refused() -> None:
        raise ImportError("nvidia-ml-py is not installed")

    found: list[dict[str, float]] = []
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    for monitor in (Gpu, refused):
        monkeypatch.setattr(gpu_monitor, "GPUMonitor", monitor)
        with system_metrics(lambda values, step: found.append(values)):
            time.sleep(0.1)
    assert [values.get("system/gpu_0_power_usage_watts") for values in found] == [301.5, None]
    assert caplog.messages == ["no GPU metrics: nvidia-ml-py is not installed"]
