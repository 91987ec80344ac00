"""Intervals, paired comparison, pass@k, calibration, baselines, confusion and thoughts on cases worked by hand."""

from __future__ import annotations

import math
import time
from functools import partial
from itertools import combinations, product

import numpy as np
import pytest

from benchmarks.coverage import SIMULATED, exact_shares, simulated
from geozero.common.errors import InputError
from geozero.evaluation.reasoning import distinct, reasoning
from geozero.evaluation.statistics import (
    calibration,
    cluster_ids,
    holm,
    intervals,
    paired_differences,
    pass_at_k,
    resampled_sums,
    sign_test,
)
from geozero.metrics.baselines import OTHER, baselines, confusion
from geozero.metrics.scores import Floats
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


@pytest.mark.parametrize(
    ("right", "n", "bounds"),
    [
        (0, 20, (0.0, 0.1684)),  # Clopper and Pearson
        (19, 20, (0.7513, 0.9987)),
        (10, 20, (0.2993, 0.7007)),  # Wilson
        (45, 50, (0.7864, 0.9565)),
        (1980, 2000, (0.9846, 0.9935)),
    ],
)
def test_shares_have_the_intervals_of_the_textbooks(right: int, n: int, bounds: tuple[float, float]) -> None:
    hits = (np.arange(n) < right).astype(float)
    assert intervals(columns(hits), mean)["mean"] == pytest.approx(bounds, abs=1e-4)
    percent = intervals(columns(100 * hits), lambda sums: {"accuracy_percent": sums[..., 1] / sums[..., 0]})
    assert percent["accuracy_percent"] == pytest.approx([100 * bound for bound in bounds], abs=0.01)


@pytest.mark.parametrize("n", [20, 50, 200])
@pytest.mark.parametrize("p", [0.05, 0.5, 0.95, 0.99])
def test_shares_are_covered_as_often_as_whole_counts_allow(n: int, p: float) -> None:
    """From 93 to 97 %, or more where one count less would be below 93 %: no interval can do better."""
    row = exact_shares(n, p)
    assert row.coverage >= 0.93 and (row.coverage <= 0.97 or row.next < 0.93)


@pytest.mark.parametrize(
    ("kind", "n", "p"), [("clustered share", 50, 0.95), ("IoU", 20, 0.95), ("IoU", 200, 0.5), ("CIDEr-like", 50, 0.5)]
)
def test_clusters_and_skewed_scores_are_covered(kind: str, n: int, p: float) -> None:
    """400 draws have a standard error of one point; `python -m benchmarks.coverage` counts more of them."""
    draw = next(draw for name, draw, _ in SIMULATED if name == kind)
    assert simulated(kind, draw, n, p, trials=400, seed=3).coverage >= 0.91


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


def test_paired_differences_sees_a_small_steady_difference() -> None:
    rng = np.random.default_rng(6)
    hard = rng.random(1000)
    first = (hard < 0.5).astype(float)
    second = np.where(rng.random(1000) < 0.06, 1.0, first)
    compared = paired_differences(columns(first), columns(second), mean)["mean"]
    assert compared.difference == pytest.approx(second.mean() - first.mean())
    assert compared.low > 0 and compared.p_value < 0.01
    assert paired_differences(columns(first), columns(first), mean)["mean"].p_value == 1.0


@pytest.mark.parametrize(("better", "worse", "same"), [(3, 0, 0), (8, 0, 12), (6, 1, 100), (40, 25, 500)])
def test_right_and_wrong_answers_are_compared_by_mcnemars_exact_test(better: int, worse: int, same: int) -> None:
    first = np.repeat([0.0, 1.0, 1.0], [better, worse, same])
    second = np.repeat([1.0, 0.0, 1.0], [better, worse, same])
    found = paired_differences(columns(first), columns(second), mean)["mean"]
    moved = better + worse
    tail = sum(math.comb(moved, k) for k in range(min(better, worse) + 1)) / 2**moved
    assert found.p_value == pytest.approx(min(1.0, 2 * tail)) and found.units == len(first)
    assert -1 <= found.low < found.difference and found.high <= 1


def test_three_of_three_against_none_is_not_sure() -> None:
    found = paired_differences(columns(np.zeros(3)), columns(np.ones(3)), mean)["mean"]
    assert (found.difference, found.p_value) == (1.0, 0.25) and found.low < 0


def test_questions_about_one_image_count_as_one() -> None:
    """Ten images with twenty questions each: the second model gets all of five images right, the first one none."""
    clusters = np.repeat(np.arange(10), 20)
    first, second = np.zeros(200), (clusters < 5).astype(float)
    alone, together = (paired_differences(columns(first), columns(second), mean, c)["mean"] for c in (None, clusters))
    assert alone.p_value < 1e-20 and together.p_value == pytest.approx(2 / 2**5)
    assert together.units == 10 and together.high - together.low > 2 * (alone.high - alone.low)


def test_the_sign_test_is_exact_for_few_and_a_t_test_for_many() -> None:
    assert sign_test(np.array([1.0, 2.0, 3.0, 0.0])) == pytest.approx(2 / 8)
    many = np.random.default_rng(1).normal(0.3, 1, 400)
    assert sign_test(many) == pytest.approx(sign_test(-many)) and sign_test(many) < 0.001
    assert sign_test(np.zeros(9)) == 1.0


def test_whole_changes_are_tested_by_all_flips_however_sure_they_are() -> None:
    """Questions gained on each of 100 images: 150 corrections of a p-value must not make it insignificant."""
    gained = np.repeat([1.0, 2.0, -1.0], [60, 30, 10])
    assert sign_test(gained) < 1e-12
    few = np.array([2.0, 1.0, 1.0, -1.0, 3.0])
    sums = np.abs([sum(s * x for s, x in zip(signs, few, strict=True)) for signs in product((-1, 1), repeat=5)])
    assert sign_test(few) == pytest.approx(float((sums >= 6).mean()))


def test_random_flips_set_no_floor_to_p_values() -> None:
    many = 0.5 + np.random.default_rng(3).normal(0.3, 0.1, 80)
    assert sign_test(many) < 1e-9
    assert sign_test(many[:16]) >= 2.0**-15  # what all flips of 16 signs can reach


def test_a_share_named_after_a_percentage_is_no_percentage() -> None:
    """`count_within_10_percent` is a share of 0 to 1; `accuracy_percent` goes to 100."""
    for metric, scale in (("count_within_10_percent", 1.0), ("accuracy_percent", 100.0), ("level_S_percent", 100.0)):
        finish = partial(_named, metric, scale)
        for values in (np.zeros(100), np.repeat([0.0, 1.0], 50)):
            low, high = intervals(columns(values), finish)[metric] or (-1.0, -1.0)
            plain = intervals(columns(values), mean)["mean"] or (-1.0, -1.0)
            assert (low / scale, high / scale) == pytest.approx(tuple(plain))


def _named(metric: str, scale: float, sums: Floats) -> dict[str, Floats]:
    return {metric: mean(sums)["mean"] * scale}


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == [] and holm([0.9, 0.8]) == [1.0, 1.0]


def test_p_values_without_an_effect_are_even() -> None:
    rng = np.random.default_rng(7)
    pairs = [(columns(rng.random(100)), columns(rng.random(100))) for _ in range(150)]
    values = [paired_differences(*pair, mean, resamples=100, seed=k)["mean"].p_value for k, pair in enumerate(pairs)]
    assert 0.01 <= np.mean(np.array(values) < 0.05) <= 0.11


def test_unpaired_lists_are_refused() -> None:
    with pytest.raises(InputError):
        paired_differences(columns(np.ones(2)), columns(np.ones(1)), mean)
    with pytest.raises(InputError):
        paired_differences(columns(np.ones(0)), columns(np.ones(0)), mean)


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
