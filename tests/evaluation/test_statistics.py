"""Intervals, paired comparison, pass@k, calibration, baselines, confusion and thoughts on cases worked by hand."""

from __future__ import annotations

import time
from itertools import combinations

import numpy as np
import pytest

from geozero.common.errors import InputError
from geozero.evaluation.reasoning import distinct, reasoning
from geozero.evaluation.statistics import (
    calibration,
    cluster_ids,
    intervals,
    paired_bootstrap,
    pass_at_k,
    resampled_sums,
)
from geozero.metrics.baselines import OTHER, baselines, confusion
from geozero.tasks.closed import majority_vote


def mean(sums: np.ndarray) -> dict[str, np.ndarray]:
    return {"mean": sums[..., 1] / sums[..., 0]}


def columns(scores: np.ndarray) -> np.ndarray:
    return np.column_stack([np.ones(len(scores)), scores])


@pytest.mark.parametrize("continuous", [False, True])
def test_interval_has_the_width_of_the_normal_approximation(continuous: bool) -> None:
    rng = np.random.default_rng(1)
    scores = rng.random(4000) if continuous else (rng.random(4000) < 0.3).astype(float)
    low, high = intervals(columns(scores), mean)["mean"]
    half = 1.96 * scores.std() / np.sqrt(len(scores))
    assert low == pytest.approx(scores.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(scores.mean() + half, abs=0.2 * half)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        low, high = intervals(columns((rng.random(200) < 0.4).astype(float)), mean, resamples=400, seed=trial)["mean"]
        covered += low <= 0.4 <= high
    assert 180 <= covered <= 199


def test_clusters_widen_the_interval() -> None:
    hits = np.repeat((np.random.default_rng(3).random(200) < 0.5).astype(float), 10)
    names = [f"{i // 10}.png" for i in range(2000)]
    alone = intervals(columns(hits), mean)["mean"]
    clustered = intervals(columns(hits), mean, cluster_ids(names))["mean"]
    assert clustered[1] - clustered[0] > 2.5 * (alone[1] - alone[0])


def test_cluster_ids() -> None:
    assert cluster_ids(["a", "b", "c"]) is None
    assert cluster_ids(["same", "same", "same"]) is None
    assert cluster_ids(["a", "b", "a"]).tolist() == [0, 1, 0]
    assert cluster_ids(["", "", "a", "a"]).tolist() == [0, 1, 2, 2]


def test_resampling_is_the_same_for_the_same_seed() -> None:
    data = np.random.default_rng(4).random((700, 3))
    assert (resampled_sums(data, resamples=5, seed=1) == resampled_sums(data, resamples=5, seed=1)).all()
    assert (resampled_sums(data, resamples=5, seed=1) != resampled_sums(data, resamples=5, seed=2)).any()


def test_undefined_and_single_records_have_no_interval() -> None:
    assert intervals(columns(np.array([1.0])), mean) == {}
    with np.errstate(all="ignore"):
        assert intervals(np.zeros((5, 2)), mean)["mean"] is None


def test_a_thousand_resamples_of_a_hundred_thousand_records_take_seconds() -> None:
    rng = np.random.default_rng(5)
    start = time.process_time()
    intervals(columns(rng.random(100_000)), mean)
    assert time.process_time() - start < 6  # the target is 3 s on a free core


def test_paired_bootstrap_sees_a_small_steady_difference() -> None:
    rng = np.random.default_rng(6)
    hard = rng.random(1000)
    first = (hard < 0.5).astype(float)
    second = np.where(rng.random(1000) < 0.06, 1.0, first)
    compared = paired_bootstrap(columns(first), columns(second), mean)["mean"]
    assert compared.difference == pytest.approx(second.mean() - first.mean())
    assert compared.low > 0 and compared.p_value < 0.01
    assert paired_bootstrap(columns(first), columns(first), mean)["mean"].p_value == 1.0


def test_p_values_without_an_effect_are_even() -> None:
    rng = np.random.default_rng(7)
    pairs = [(columns(rng.random(100)), columns(rng.random(100))) for _ in range(150)]
    values = [paired_bootstrap(*pair, mean, resamples=100, seed=k)["mean"].p_value for k, pair in enumerate(pairs)]
    assert 0.01 <= np.mean(np.array(values) < 0.05) <= 0.11


def test_unpaired_lists_are_refused() -> None:
    with pytest.raises(InputError):
        paired_bootstrap(columns(np.ones(2)), columns(np.ones(1)), mean)
    with pytest.raises(InputError):
        paired_bootstrap(columns(np.ones(0)), columns(np.ones(0)), mean)


@pytest.mark.parametrize(("n", "right", "k"), [(8, 0, 4), (8, 1, 1), (8, 3, 2), (8, 5, 4), (8, 8, 8), (5, 2, 4)])
def test_pass_at_k_counts_every_choice_of_k(n: int, right: int, k: int) -> None:
    choices = list(combinations([True] * right + [False] * (n - right), k))
    assert float(pass_at_k(n, right, k)) == pytest.approx(sum(map(any, choices)) / len(choices))


def test_pass_at_k_of_too_few_answers_is_undefined() -> None:
    assert np.isnan(pass_at_k([2, 8], [1, 1], 4)).tolist() == [True, False]
    with pytest.raises(InputError):
        pass_at_k(4, 5, 1)
    with pytest.raises(InputError):
        pass_at_k(4, 1, 0)


def test_majority_vote() -> None:
    assert majority_vote(["yes", "no", "yes", ""]) == ("yes", 0.5)
    assert majority_vote(["", ""]) == ("", 0.0)
    assert majority_vote([]) == ("", 0.0)


def test_calibration() -> None:
    result = calibration([1.0, 1.0, 0.5, 0.5], [1, 0, 1, 0], bins=2)
    assert [row["n"] for row in result["bins"]] == [2, 2]
    assert result["expected_calibration_error"] == pytest.approx(0.25)
    assert calibration([], [])["expected_calibration_error"] is None
    with pytest.raises(InputError):
        calibration([1.5], [1])


def test_baselines() -> None:
    result = baselines(["yes", "no", "yes", "3", "4", ""], ["p", "p", "p", "count", "count", "count"])
    assert result["majority"] == pytest.approx(2 / 6) and result["majority_answer"] == "yes"
    assert result["majority_by_type"] == pytest.approx((2 + 1) / 6)
    assert result["by_question_type"]["p"] == {"n": 3, "majority": 2 / 3, "majority_answer": "yes", "chance": 0.5}
    assert result["chance"] == pytest.approx((3 * 0.5 + 3 * (2 / 3) / 2) / 6)
    assert baselines(["a", "b"], [None, None], [0.25, 0.5])["chance"] == 0.375
    assert baselines(["a", "b"], [None, "p"], [0.25, 0.5])["by_question_type"]["p"]["chance"] == 0.5
    assert baselines([], [])["majority"] is None


def test_confusion() -> None:
    result = confusion(["a", "b", "x", "a"], ["a", "a", "b", ""])
    assert result == {"classes": ["a", "b"], "columns": ["a", "b", OTHER], "matrix": [[1, 1, 0], [0, 0, 1]]}
    many = [str(i) for i in range(300)]
    assert confusion(many, many) == {"n_classes": 300}


def test_reasoning() -> None:
    texts = [
        "I see water, a port. <answer>port</answer>",
        "<answer>park</answer>",
        "port",
        "Trees. <answer>sea</answer>",
    ]
    result = reasoning(True, texts, ["port", "park", "port", "sea"])
    assert result["n_with_thought"] == 2 and result["share_with_thought"] == 0.5
    assert result["words"]["mean"] == 3.0
    assert result["agreement"] == 0.5
    assert reasoning(True, ["port"], ["port"])["agreement"] is None
    assert reasoning(True, ["airport <answer>port</answer>"], ["port"])["agreement"] == 0.0
    assert reasoning(True, [])["share_with_thought"] is None


def test_distinct() -> None:
    assert distinct([["a", "b"], ["a", "b"]], 1) == 0.5
    assert distinct([["a"]], 2) is None
