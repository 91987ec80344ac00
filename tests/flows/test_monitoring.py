"""What a flow tells while it runs: a progress bar that cannot hold it up, and the machine's memory as metrics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from flows.runtime import monitoring, progress
from flows.runtime.monitoring import ResourceMonitor, gpu_figures, read_gpu_figures
from flows.runtime.progress import ArtifactProgress
from geozero.common import process


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What the bar was told, as (percent, text); Prefect's part is a stand-in."""
    found: list[tuple[float, str]] = []
    monkeypatch.setattr(progress, "UPDATE_SECONDS", 0.01)
    monkeypatch.setattr(progress, "create_progress_artifact", lambda *given, **named: "id")
    monkeypatch.setattr(
        progress, "update_progress_artifact", lambda artifact, share, description: found.append((share, description))
    )
    return found


def test_the_bar_shows_rate_and_time_left(told: list[tuple[float, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = ArtifactProgress("sft", 40)
    assert bar.text() == "sft: starting"
    bar.at(10)
    assert bar.text() == "sft: step 10 of 40"
    now[0] += 20.0
    bar.at(20)
    assert bar.text() == "sft: step 20 of 40, 2.0 s a step, 40 s left"
    now[0] += 1.0
    bar.at(40)
    assert bar.text() == "sft: step 40 of 40, 1.43 steps/s"
    bar.steps, bar.unit = 80, "answer"  # what adaptive sampling spares, or a retry finds
    assert bar.text() == "sft: answer 40 of 80, 1.43 answers/s, 28 s left"
    assert progress._spell(3 * 3600 + 60 * 5 + 2) == "3 h 5 min"
    assert progress._spell(62) == "1 min 2 s"


def test_the_bar_ends_where_the_stage_does(told: list[tuple[float, str]]) -> None:
    with ArtifactProgress("sft", 4) as bar:
        for step in range(1, 5):
            bar.at(step)
    assert told[-1][0] == 100.0
    assert all(0.0 <= share <= 100.0 for share, _ in told)


def test_a_server_that_hangs_or_fails_does_not_hold_up_the_stage(
    told: list[tuple[float, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def hang(*given: Any, **named: Any) -> None:
        time.sleep(0.2)
        raise ConnectionError

    monkeypatch.setattr(progress, "update_progress_artifact", hang)
    start = time.monotonic()
    with ArtifactProgress("sft", 1000) as bar:
        for step in range(1, 1001):
            bar.at(step)
    assert time.monotonic() - start < 2.0


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
