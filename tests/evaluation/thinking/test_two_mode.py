"""The model with one decision against values that another program of it gave (30 seeds, deviations below 2 points)."""

from __future__ import annotations

import pytest

from geozero.evaluation.thinking.two_mode import ARMS, TwoModes, predict


@pytest.mark.parametrize(
    ("p0", "a", "g", "expected"),
    [
        (0.30, 0.60, 0.60, (60.0, 60.0, 60.0, 60.0)),
        (0.90, 0.65, 0.58, (64.5, 64.8, 64.7, 64.9)),
        (0.05, 0.95, 0.50, (80.7, 89.6, 92.6, 94.4)),
        (0.15, 0.95, 0.50, (89.4, 90.3, 94.6, 94.7)),
        (0.05, 0.90, 0.17, (81.6, 82.1, 89.4, 89.5)),
        (0.10, 0.70, 0.50, (57.9, 64.9, 66.9, 69.6)),
    ],
)
def test_accuracy_after_training(p0: float, a: float, g: float, expected: tuple[float, ...]) -> None:
    outcomes = predict(TwoModes(p0, a, g))
    assert [100 * outcomes[arm].accuracy for arm in ARMS] == pytest.approx(expected, abs=1.5)


def test_thoughts_that_are_useless_still_grow_but_change_nothing() -> None:
    found = predict(TwoModes(0.3, 0.6, 0.6))["a2grpo"]
    assert found.thinking > 0.9 and found.accuracy == pytest.approx(0.6) and found.deviation == pytest.approx(0)


def test_without_a_right_answer_nothing_moves() -> None:
    for outcome in predict(TwoModes(0.3, 0.0, 0.0)).values():
        assert outcome.accuracy == 0.0 and outcome.thinking == pytest.approx(0.3)


def test_a_stronger_penalty_binds_stock_grpo_alone() -> None:
    weak, strong = (predict(TwoModes(0.05, 0.95, 0.5, beta=beta)) for beta in (0.05, 0.5))
    assert strong["grpo"].accuracy < weak["grpo"].accuracy - 0.05
    assert strong["a2grpo"].accuracy == pytest.approx(weak["a2grpo"].accuracy, abs=0.005)
