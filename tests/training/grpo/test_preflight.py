"""The preflight before RL: which model passes, and what is said of one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from geozero.common.errors import InputError
from geozero.training.grpo.preflight import PreflightResult, measure, require

FINE, BROKEN = "trees <answer>yes</answer>", "yes"


def rollout(sample: str, reward: float, text: str = FINE) -> dict[str, Any]:
    return {"sample": sample, "reward": reward, "raw_output": text}


def test_a_group_is_mixed_where_its_rewards_differ() -> None:
    rollouts = [
        *(rollout("a", r) for r in (0.0, 1.0)),
        *(rollout("b", r) for r in (1.0, 1.0)),
        *(rollout("c", r) for r in (0.0, 0.0)),
        *(rollout("d", r) for r in (0.4, 0.5)),
    ]
    assert measure(reversed(rollouts)) == PreflightResult(
        well_formed=1.0, mixed_groups=0.5, mean_reward=pytest.approx(3.9 / 8), n_groups=4
    )


def test_form_is_counted_over_rollouts() -> None:
    texts = (FINE, BROKEN, "<answer></answer>", "<answer>a</answer><answer>b</answer>", "<answer>a</answer>")
    result = measure(rollout(str(i), 0.0, text) for i, text in enumerate(texts))
    assert (result.well_formed, result.mixed_groups, result.mean_reward) == (0.4, 0.0, 0.0)


def test_nothing_to_measure_is_an_error() -> None:
    with pytest.raises(InputError, match="no validation completions"):
        measure([])


def test_a_model_passes_at_the_bounds_and_says_which_one_fails() -> None:
    result = PreflightResult(well_formed=0.8, mixed_groups=0.3, mean_reward=0.5, n_groups=10)
    require(result, 0.8, 0.3)
    require(PreflightResult(0.0, 0.0, 0.0, 1), 0.0, 0.0)
    with pytest.raises(InputError, match=r"80% of tagged answers are well formed, RL needs 81%.*replay_share"):
        require(result, 0.81, 0.3)
    with pytest.raises(InputError, match=r"30% of the groups are mixed, RL needs 31%.*temperature"):
        require(result, 0.8, 0.31)
