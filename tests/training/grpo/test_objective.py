"""The objective against references written independently (numpy and plain loops, float64), and its edge cases."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geozero.params import A2grpo
from geozero.training.grpo import objective
from geozero.training.grpo.objective import (
    THINKING_SCORES,
    answer_anchored_kl,
    answer_mask,
    combine,
    decoupled_advantages,
    gate,
    gate_value,
    group_advantages,
    thinking_score,
    thinking_scores,
)

UNIT = st.floats(0, 1)


def reference_gate(r: float, k: float = 10.0, tau: float = 0.5) -> float:
    def sigma(x: float) -> float:
        return 1 / (1 + np.exp(-x))

    return float((sigma(k * (r - tau)) - sigma(-k * tau)) / (sigma(k * (1 - tau)) - sigma(-k * tau)))


@given(r=UNIT, k=st.floats(0.1, 50), tau=UNIT)
def test_gate_is_the_rescaled_sigmoid(r: float, k: float, tau: float) -> None:
    expected = reference_gate(r, k, tau)
    assert gate(r, k, tau) == pytest.approx(expected, abs=1e-12)
    tensor = gate(torch.tensor([r], dtype=torch.float64), k, tau)
    assert tensor.dtype == torch.float64
    assert tensor.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@given(k=st.floats(0.01, 100), tau=UNIT)
def test_gate_ends_are_exact(dtype: torch.dtype, k: float, tau: float) -> None:
    ends = gate(torch.tensor([0.0, 1.0] * 9, dtype=dtype), k, tau)  # 18: both the vectorised and the tail path
    assert ends.dtype == dtype
    assert ends.tolist() == [0.0, 1.0] * 9
    assert (gate(0.0, k, tau), gate(1.0, k, tau)) == (0.0, 1.0)


def test_gate_grows_and_takes_lists() -> None:
    values = gate([i / 100 for i in range(101)])
    assert values.dtype == torch.float64
    assert bool((values.diff() > 0).all())
    assert gate(0.5) == pytest.approx(0.5)
    with pytest.raises(ValueError):
        gate(0.5, k=0)


def test_thinking_score_of_plain_cases() -> None:
    assert thinking_score("", []) == 0.0
    assert thinking_score("  \n", ["x"]) == 0.0
    forty = " ".join(f"w{i}" for i in range(40))
    assert thinking_score(forty, []) == 1.0
    assert thinking_score(" ".join(forty.split()[:10]), []) == pytest.approx(0.25)
    assert thinking_score(forty, [forty, forty]) == 0.0  # no diversity at all
    assert thinking_score(forty, ["something else entirely"]) == 1.0
    repeated = " ".join(["a", "b"] * 20)
    assert thinking_score(repeated, []) == pytest.approx(2 / 38)
    long = " ".join(f"w{i}" for i in range(300))
    assert thinking_score(long, []) == pytest.approx(math.exp(-1))  # 100 words past 200, half of which is the decay
    assert thinking_score(long, [], decay=50) == pytest.approx(math.exp(-2))
    assert thinking_score("two words", [], l0=2) == 1.0
    assert thinking_score("two words", ["two words", "other"], l0=2) == pytest.approx(0.5)


def test_the_step_is_the_gate_of_a_published_reward() -> None:
    assert [gate_value(r, "step") for r in (0.0, 0.49, 0.5, 1.0)] == [0.0, 0.0, 1.0, 1.0]


def test_rewards_normalised_by_themselves() -> None:
    """By hand: R_a (1, 0) and (1, 1), S_t (1, 0) and (0.2, 0.6). In a group of two a difference becomes ±1/√2."""
    rewards = torch.tensor([[1.0, 1.0], [0.0, 0.0], [1.0, 0.2], [1.0, 0.6]], dtype=torch.float64)
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    half = 0.5**0.5
    total = np.array([1.5 * half, -1.5 * half, -0.5 * half, 0.5 * half])
    expected = total / total.std(ddof=1)
    assert decoupled_advantages(rewards, weights, 2).tolist() == pytest.approx(expected, abs=1e-6)
    skipped = decoupled_advantages(rewards, weights, 2, "skip").tolist()
    assert skipped[:2] == pytest.approx(expected[:2], abs=1e-6) and skipped[2:] == [0.0, 0.0]


def test_decoupled_advantages_are_ms_swift_s() -> None:
    from swift.rl_core.advantage import compute_advantages

    rewards = torch.rand(24, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    weights = torch.tensor([1.0, 0.5], dtype=torch.float64)
    theirs, _ = compute_advantages(rewards, weights, 8, scale_rewards="gdpo")
    assert decoupled_advantages(rewards, weights, 8).tolist() == pytest.approx(theirs.tolist(), abs=1e-9)


def test_the_form_of_the_thinking_score_is_a_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    group = ["a rural river scene", "a rural river scene", "three ships at", ""]
    assert thinking_scores(group, l0=4) == pytest.approx([2 / 3, 2 / 3, 0.75, 0.0])
    assert thinking_scores(group, l0=4, form="length") == [1.0, 1.0, 0.75, 0.0]
    long = " ".join(f"w{i}" for i in range(30))
    assert thinking_scores([long, long], 4, 20, form="length") == pytest.approx([math.exp(-1)] * 2)
    monkeypatch.setitem(THINKING_SCORES, "mine", lambda thought, others, *bounds: float("river" in thought.text))
    assert thinking_scores(group, form="mine") == [1.0, 1.0, 0.0, 0.0]


@given(st.lists(st.text(alphabet="ab ", max_size=40), max_size=4))
def test_every_form_stays_in_the_unit_interval_and_gives_nothing_for_no_thought(thoughts: list[str]) -> None:
    for form in THINKING_SCORES:
        scores = thinking_scores([*thoughts, ""], 3, 6, form=form)
        assert all(0 <= score <= 1 for score in scores) and scores[-1] == 0.0


def test_the_defaults_are_those_of_the_parameters() -> None:
    settings = A2grpo(steps=1)
    assert (settings.gate_k, settings.gate_tau) == (objective.GATE_K, objective.GATE_TAU)
    assert settings.thinking_weight == objective.THINKING_WEIGHT
    assert (
        settings.thought_words,
        settings.thought_words_max,
    ) == (objective.THOUGHT_WORDS, objective.THOUGHT_WORDS_MAX)
    assert settings.thinking_score in THINKING_SCORES


def test_the_product_is_that_of_the_first_release_to_the_last_bit() -> None:
    group = ["a ship lies in the port", "A ship, lies in the harbour, a ship lies in it", "two words"]
    group.append(" ".join(["red roof"] * 7 + ["ship lies in the port"]))
    expected = [0.6428571428571428, 0.40865355003328896, 0.2857142857142857, 0.036565354240721396]
    assert thinking_scores(group, 7, 9) == expected


def test_thinking_score_against_a_loop() -> None:
    group = ["a ship lies in the port", "A ship, lies in the harbour!", "in the port a ship lies", "nothing"]

    def grams(text: str) -> list[str]:
        tokens = "".join(c for c in text.lower() if c.isalnum() or c == " ").split()
        return [" ".join(tokens[i : i + 3]) for i in range(max(1, len(tokens) - 2))]

    for i, thought in enumerate(group):
        mine, n_words = grams(thought), len(thought.split())
        similar = []
        for j, other in enumerate(group):
            if j != i:
                theirs = set(grams(other))
                similar.append(len(set(mine) & theirs) / len(set(mine) | theirs))
        expected = min(1, n_words / 40) * len(set(mine)) / len(mine) * (1 - np.mean(similar))
        assert thinking_score(thought, group[:i] + group[i + 1 :]) == pytest.approx(expected, abs=1e-12)


@given(st.text(), st.lists(st.text(), max_size=4))
def test_thinking_score_stays_in_the_unit_interval(thought: str, others: list[str]) -> None:
    assert 0 <= thinking_score(thought, others) <= 1


def test_combine_keeps_right_above_wrong() -> None:
    assert combine(0.0, 1.0) == 0.0  # no thought lifts a wrong answer
    assert combine(1.0, 0.0) == 1.0
    assert combine(1.0, 1.0) == 1.5
    assert combine(0.3, 0.8, weight=2.0) == pytest.approx(0.3 + 2 * reference_gate(0.3) * 0.8)
    tensor = combine(torch.tensor([0.0, 0.3]), torch.tensor([0.9, 0.8]))
    assert tensor.dtype == torch.float32
    assert tensor.tolist() == pytest.approx([0.0, 0.3 + 0.5 * reference_gate(0.3) * 0.8])


def reference_advantages(rewards: np.ndarray, answers: np.ndarray, size: int, skip: bool) -> np.ndarray:
    out = np.zeros_like(rewards)
    for start in range(0, len(rewards), size):
        group = rewards[start : start + size]
        if size == 1 or (skip and len(set(answers[start : start + size])) == 1) or len(set(group)) == 1:
            continue
        std = np.sqrt(((group - group.mean()) ** 2).sum() / (size - 1))
        out[start : start + size] = (group - group.mean()) / (std + 1e-4)
    return out


@given(
    st.integers(1, 5).flatmap(
        lambda size: st.tuples(
            st.just(size),
            st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), UNIT), min_size=3 * size, max_size=3 * size),
        )
    ),
    st.sampled_from(["skip", "keep"]),
)
def test_advantages_against_a_loop(case: tuple[int, list[tuple[float, float]]], mode: str) -> None:
    size, pairs = case
    answers = np.array([a for a, _ in pairs])
    rewards = np.array([combine(a, s) for a, s in pairs])
    got = group_advantages(torch.tensor(rewards), torch.tensor(answers), size, mode)  # type: ignore[arg-type]
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.numpy(), reference_advantages(rewards, answers, size, mode == "skip"), atol=1e-9)


def test_advantages_of_special_groups() -> None:
    wrong = group_advantages([0.0] * 4, [0.0] * 4, 4, "keep")
    assert wrong.tolist() == [0.0] * 4  # all wrong: the gate leaves nothing to normalise
    right = [1.1, 1.2, 1.3, 1.4]
    assert group_advantages(right, [1.0] * 4, 4).tolist() == [0.0] * 4
    kept = group_advantages(right, [1.0] * 4, 4, "keep")
    assert kept.sum().item() == pytest.approx(0, abs=1e-12)
    assert kept[3] > 1
    assert group_advantages([0.7, 0.1], [0.5, 0.0], 1).tolist() == [0.0, 0.0]
    # eight times 0.1 in float32 has a standard deviation of not quite 0
    tie = torch.full((8,), 0.1)
    assert group_advantages(tie, tie, 8, "keep").tolist() == [0.0] * 8
    both = group_advantages([1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0], 2)
    assert both[2:].tolist() == [0.0, 0.0]
    assert both[0].item() == pytest.approx(math.sqrt(0.5), rel=1e-3)


@pytest.mark.parametrize(
    ("rewards", "answers", "size", "mode"),
    [([1.0] * 3, [1.0] * 3, 2, "skip"), ([1.0] * 4, [1.0] * 2, 2, "skip"), ([1.0], [1.0], 0, "skip"),
     ([1.0], [1.0], 1, "drop")],
)  # fmt: skip
def test_advantages_refuse(rewards: list[float], answers: list[float], size: int, mode: str) -> None:
    with pytest.raises(ValueError):
        group_advantages(rewards, answers, size, mode)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([], []),
        (["no", " tag", " here"], [0, 0, 0]),
        (["I see", " <answer>", "ship", "</answer>", "<|im_end|>"], [0, 1, 1, 1, 1]),
        (["I see ", "<", "ans", "wer", ">ship", "</answer>"], [0, 1, 1, 1, 1, 1]),
        (["I see<ans", "wer>ship"], [1, 1]),  # the token shared with the thought belongs to the answer
        (["<answer>a</answer>", " then ", "<answer>", "b"], [1, 1, 1, 1]),
        (["x", "<answer><answer>", "y"], [0, 1, 1]),
        (["x", "</answer>", "<answer"], [0, 0, 0]),  # truncated before the tag was whole
        (["x", "", "<answer>", "", "y"], [0, 0, 1, 1, 1]),
        (["x ", "<Answer>", "y"], [0, 0, 0]),
        (["�", "�", " <answer>", "�"], [0, 0, 1, 1]),  # tokens that split a character
    ],
)
def test_answer_mask(tokens: list[str], expected: list[int]) -> None:
    assert answer_mask(tokens) == [bool(e) for e in expected]


@given(st.text(alphabet="ab<>/answer ", max_size=60), st.lists(st.integers(0, 60), max_size=12))
def test_answer_mask_for_any_split(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(c for c in cuts if c < len(text)), len(text)]
    tokens = [text[a:b] for a, b in itertools.pairwise(edges)]
    position = text.find("<answer>")
    for (a, b), masked in zip(itertools.pairwise(edges), answer_mask(tokens), strict=True):
        if b > a:
            assert masked == (position >= 0 and b > position)


def test_kl_values_and_gradient() -> None:
    rng = np.random.default_rng(0)
    logp = rng.normal(-2, 1, (3, 5))
    reference = rng.normal(-2, 1, (3, 5))
    mask = rng.random((3, 5)) < 0.5
    policy = torch.tensor(logp, requires_grad=True)
    other = torch.tensor(reference, requires_grad=True)
    kl = answer_anchored_kl(policy, other, torch.tensor(mask))
    assert kl.dtype == torch.float64
    expected, slope = np.zeros_like(logp), np.zeros_like(logp)
    for i in range(3):
        for j in range(5):
            if mask[i, j]:
                d = reference[i, j] - logp[i, j]
                expected[i, j], slope[i, j] = np.exp(d) - d - 1, 1 - np.exp(d)
    np.testing.assert_allclose(kl.detach().numpy(), expected, atol=1e-12)
    kl.sum().backward()
    assert policy.grad is not None
    np.testing.assert_allclose(policy.grad.numpy(), slope, atol=1e-12)
    assert other.grad is None
    assert kl.detach().numpy()[~mask].tolist() == [0.0] * int((~mask).sum())
    assert policy.grad.numpy()[~mask].tolist() == [0.0] * int((~mask).sum())


def test_kl_is_exactly_zero_off_the_mask_whatever_stands_there() -> None:
    policy = torch.tensor([-1e10, -1.0, float("-inf"), -2.0], requires_grad=True)
    reference = torch.tensor([-1.0, float("-inf"), -3.0, -2.5])
    kl = answer_anchored_kl(policy, reference, [False, False, False, True])
    kl.sum().backward()
    assert policy.grad is not None
    assert kl.tolist()[:3] == [0.0] * 3
    assert policy.grad.tolist()[:3] == [0.0] * 3
    assert kl[3].item() == pytest.approx(math.exp(-0.5) + 0.5 - 1)
    assert answer_anchored_kl([-1.0, -2.0], [-1.5, -2.0], [True, True])[1].item() == 0.0


def test_scores_of_a_group_are_those_of_its_members() -> None:
    thoughts = ["", "one two", "a b c d a b c", "a b c d e f", "e f g " * 30]
    expected = [thinking_score(t, thoughts[:i] + thoughts[i + 1 :], 5, 20) for i, t in enumerate(thoughts)]
    assert thinking_scores(thoughts, 5, 20) == expected
    assert thinking_scores(["one two three"], 3) == [1.0]
    assert thinking_scores([]) == []
