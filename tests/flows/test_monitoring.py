"""What a flow tells while it runs: a progress bar that cannot hold it up, and the machine's memory as metrics."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import pytest

from flows.runtime import monitoring, progress
from flows.runtime.monitoring import ResourceMonitor, gpu_figures, read_gpu_figures
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


def test_what_nvidia_smi_prints_becomes_metrics() -> None:
    text = "0, 40536, 97\n1, 3, [N/A]\n"
    assert read_gpu_figures(text) == {
        "system/gpu_0_memory_gb": pytest.approx(42.505, abs=0.01),
        "system/gpu_0_utilization": 97.0,
        "system/gpu_1_memory_gb": pytest.approx(0.003, abs=0.001),
    }
    assert read_gpu_figures("No devices were found\n") == {}


def test_without_a_gpu_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "has_gpu", lambda: False)
    assert gpu_figures() == {}


def test_a_driver_without_its_program_costs_only_the_figures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpu_figures() == {}


def test_the_host_s_memory_is_watched_while_the_run_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "RESOURCE_SECONDS", 0.02)
    found: list[tuple[dict[str, float], int]] = []
    with ResourceMonitor(lambda values, step: found.append((values, step))):
        time.sleep(0.2)
    n = len(found)
    assert n >= 2 and all(values["system/host_memory_gb"] > 0.01 for values, _ in found)
    time.sleep(0.1)
    assert len(found) == n
