"""The charts: right numbers in the right places, and no broken SVG for any finite input."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from geozero.evaluation.report import charts, plots
from geozero.evaluation.report.build import duration
from geozero.evaluation.report.schema import Difficulty, ReportInputs

VALUES = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e9, max_value=1e9)


@given(st.lists(st.tuples(st.integers(0, 10_000), VALUES), min_size=1, max_size=60))
def test_any_curve_is_well_formed_svg(points: list[tuple[int, float]]) -> None:
    chart = charts.line_chart("<b>", [charts.Series("a&b", sorted(points))])
    root = ET.fromstring(chart.svg)
    assert "nan" not in chart.svg and "inf" not in chart.svg
    assert root.attrib["aria-label"].startswith("<b> over steps")
    assert len(json.loads(chart.data)["series"][0]) == len(points)


@given(VALUES, st.floats(1e-6, 1e6))
def test_ticks_are_few_round_and_inside(low: float, relative: float) -> None:
    span = relative * max(1.0, abs(low))  # finer ones are below what a float can tell apart
    high = low + span
    values = charts.ticks(low, high, 4)
    assert 1 <= len(values) <= 9
    assert all(low - span * 1e-6 <= v <= high + span * 1e-6 for v in values)


def test_ticks_of_a_share() -> None:
    assert charts.ticks(0, 1, 4) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_long_curve_is_thinned_and_keeps_its_end() -> None:
    points = [(float(i), math.sin(i / 500)) for i in range(20_000)]
    thin = charts.thin(points)
    assert len(thin) <= charts.MAX_POINTS and thin[-1] == points[-1]
    assert sum(y for _, y in thin) / len(thin) == pytest.approx(sum(y for _, y in points) / len(points), abs=0.01)


def test_the_running_mean_keeps_constants_and_flattens_noise() -> None:
    assert charts.running_mean([(i, 2.0) for i in range(9)], 4) == [(i, 2.0) for i in range(9)]
    noisy = charts.running_mean([(i, float(i % 2)) for i in range(40)], 9)
    assert all(0.4 <= y <= 0.6 for _, y in noisy[4:-4])


def test_the_forest_shows_every_estimate_with_its_number() -> None:
    rows = [charts.Estimate("SFT <tagged>", 0.611, 0.58, 0.64, "before"), charts.Estimate("Base", 0.5, None, None)]
    root = ET.fromstring(charts.forest(rows, {"chance": 0.25}))
    texts = [t.text for t in root.iter("text")]
    assert "61.1" in texts and "50.0" in texts and "SFT <tagged>" in texts
    dots = [float(c.attrib["cx"]) for c in root.iter("circle")]
    (interval,) = (e for e in root.iter("line") if "interval" in e.attrib["class"])
    assert float(interval.attrib["x1"]) < dots[0] < float(interval.attrib["x2"])
    assert dots[1] < dots[0]


def test_histogram_bars_are_as_tall_as_their_counts() -> None:
    root = ET.fromstring(charts.histogram([0, 0.25, 0.5, 1], [10, 0, 5], "pass rate"))
    tall = [float(e.attrib["height"]) for e in root.iter("rect")]
    assert tall[0] == pytest.approx(2 * tall[2], rel=0.01) and tall[1] == 0
    wide = [float(e.attrib["width"]) for e in root.iter("rect")]
    assert wide[2] > 1.9 * wide[0]


def test_stages_show_known_curves_by_source_and_what_else_was_logged() -> None:
    rows = [
        {"step": s, "reward": 0.5, "answer_reward": 0.4, "answer_reward/toy_aid": s / 2, "loss": 1.0} for s in (1, 2)
    ]
    rows = [{**row, "entropy": 1.0, "clip_ratio/low_mean": 0.1, "answer_kl": 0.0, "new_zero": 0.0} for row in rows]
    found = list(plots.curve_figures(ReportInputs(curves={"a2grpo": rows, "sft": [{"step": 1, "loss": 2.0}]})))
    assert [(f.aside, f.title) for f in found] == [
        ("SFT", "Cross-entropy loss (nats per token)"),
        ("A²GRPO", "Reward per completion"),
        ("A²GRPO", "Answer reward by source"),
        ("A²GRPO", "entropy"),
    ]  # nothing that is 0 throughout, and no loss of a policy gradient
    assert [label for _, label, _ in found[1].legend] == ["total", "answer reward"]
    assert [label for _, label, _ in found[2].legend] == ["toy_aid"]


def test_a_difference_strip_holds_0_and_the_interval() -> None:
    root = ET.fromstring(charts.difference_strip(0.1, -0.2, 0.4, 0.3))
    zero, interval = (line.attrib for line in root.iter("line"))
    assert float(zero["x1"]) == charts.STRIP_WIDTH / 2
    assert 0 <= float(interval["x1"]) < float(zero["x1"]) < float(interval["x2"]) <= charts.STRIP_WIDTH


def test_difficulty_keeps_the_order_of_bands_and_tasks() -> None:
    parts = {
        "grounding": Difficulty(edges=[0, 1], counts=[4], bands={"unused": 1, "easy": 3}),
        "scene_cls": Difficulty(bands={"easy": 2}),
    }
    scene, grounding = plots.difficulty_figures(ReportInputs(difficulty=parts))
    assert (scene.title, scene.aside) == ("Scene classification", "2 samples")
    assert ("histogram" in scene.svg, "histogram" in grounding.svg) == (False, True)
    assert [tone for tone, _, _ in grounding.bands] == ["band-easy", "band-unused"]


def test_durations_read_as_a_person_says_them() -> None:
    assert [duration(seconds) for seconds in (4.24, 200, 7500)] == ["4.2 s", "3 min 20 s", "2 h 5 min"]
