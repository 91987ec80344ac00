"""How far work is: lines, a bar, or a publisher that cannot hold the work up."""

from __future__ import annotations

import sys
import time

import pytest

from geozero.common import progress
from geozero.common.progress import Progress


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    return clock


def test_the_text_gives_rate_and_time_left(now: list[float]) -> None:
    bar = Progress("sft", 40, write=lambda line: None)
    assert bar.text() == "sft: starting"
    bar.at(10)
    assert bar.text() == "sft: step 10 of 40"
    now[0] += 20.0
    bar.at(20)
    assert bar.text() == "sft: step 20 of 40, 2.0 s per step, 40 s left"
    now[0] += 1.0
    bar.at(40)
    assert bar.text() == "sft: step 40 of 40, 1.43 steps/s"
    bar.total, bar.unit = 80, "answer"  # what adaptive sampling spares, or a retry finds
    assert bar.text() == "sft: answer 40 of 80, 1.43 answers/s, 28 s left"
    bar.at(41, "a note instead")
    assert bar.text() == "sft: a note instead"
    assert progress._duration(3 * 3600 + 60 * 5 + 2) == "3 h 5 min"
    assert progress._duration(62) == "1 min 2 s"


def test_lines_are_written_at_the_start_now_and_then_and_at_the_end(now: list[float]) -> None:
    written: list[str] = []
    with Progress(total=4, write=written.append) as lines:
        for done in range(5):
            lines.at(done, f"{done} of 4")
            now[0] += 0.6 * progress.LINE_SECONDS
    assert written == ["0 of 4", "2 of 4", "4 of 4"]


def test_without_a_total_and_a_terminal_short_work_is_silent(
    capsys: pytest.CaptureFixture[str], now: list[float]
) -> None:
    with Progress("ingest aid") as lines:
        lines.step("1 sample")
        assert capsys.readouterr().err == ""
        now[0] += progress.LINE_SECONDS
        lines.step("2 samples")
    assert capsys.readouterr().err == "ingest aid: 2 samples\n"


def test_a_terminal_gets_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Progress("sampled", 100) as bar:
        for done in (0, 1, 100):
            bar.at(done, f"{done} of 100 answers")
    assert "100 of 100 answers" in capsys.readouterr().err


def test_what_is_published_ends_where_the_work_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PUBLISH_SECONDS", 0.01)
    published: list[tuple[float, str]] = []
    with Progress("sft", 4, publish=lambda *given: published.append(given)) as bar:
        for step in range(1, 5):
            bar.at(step)
    assert published[-1][0] == 100.0
    assert all(0.0 <= percent <= 100.0 for percent, _ in published)


def test_a_publisher_that_hangs_or_fails_does_not_hold_up_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PUBLISH_SECONDS", 0.01)

    def hang(percent: float, text: str) -> None:
        time.sleep(0.2)
        raise ConnectionError

    start = time.monotonic()
    with Progress("sft", 1000, publish=hang) as bar:
        for step in range(1, 1001):
            bar.at(step)
    assert time.monotonic() - start < 2.0
