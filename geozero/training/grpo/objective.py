"""The A²GRPO objective as pure functions: gate, thinking score, group advantages, answer-anchored KL.

Nothing here needs ms-swift; torch is imported by the functions that take tensors. What the paper gives and what is
our choice stands in each docstring (paper: arXiv 2511.22645).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, overload

from geozero.tasks.text import OPEN_TAG
from geozero.training.grpo.thinking_scores import THINKING_SCORES, Thought, product

if TYPE_CHECKING:
    from torch import Tensor

    Values: TypeAlias = "Tensor | Sequence[float]"

UniformGroups = Literal["skip", "keep"]
GateForm = Literal["curve", "sigmoid", "open", "step"]

GATE_K = 10.0
GATE_TAU = 0.5
THINKING_WEIGHT = 0.5
THOUGHT_WORDS = 40
THOUGHT_WORDS_MAX = 200
ADVANTAGE_EPS = 1e-4  # as ms-swift
GDPO_EPS = 1e-8  # as ms-swift


@overload
def gate(answer_reward: float, k: float = ..., tau: float = ...) -> float: ...
@overload
def gate(answer_reward: Values, k: float = ..., tau: float = ...) -> Tensor: ...
def gate(answer_reward: float | Values, k: float = GATE_K, tau: float = GATE_TAU) -> float | Tensor:
    """How much of the thinking score counts: an S-curve over the answer reward, exactly 0 at 0 and exactly 1 at 1.

    `g(r) = (σ(k(r−τ)) − σ(−kτ)) / (σ(k(1−τ)) − σ(−kτ))`. Paper: an S-curve driven by the answer reward; its
    constants and the rescaling to exact end points are our choice. The exact zero matters: without it an all-wrong
    group keeps a tiny spread from its thoughts, which group normalisation blows up to full-size advantages.

    Args:
        answer_reward: R_a in [0, 1]; a float, a list, or a tensor of any shape (values outside are clipped).

    Returns:
        A float for a float, else a tensor in the input's shape and dtype (float64 for lists and integers).

    Raises:
        ValueError: k is not positive.
    """
    if k <= 0:
        raise ValueError(f"the gate needs k > 0, got {k}")
    if isinstance(answer_reward, int | float):
        return _gate_of_float(min(1.0, max(0.0, float(answer_reward))), k, tau)
    import torch

    reward = _floating(answer_reward).clamp(0, 1)
    low = torch.sigmoid(k * (torch.zeros_like(reward) - tau))
    high = torch.sigmoid(k * (torch.ones_like(reward) - tau))
    value = ((torch.sigmoid(k * (reward - tau)) - low) / (high - low)).clamp(0, 1)
    return torch.where((reward == 0) | (reward == 1), reward, value)  # exact, whatever the rounding of σ


def gate_value(answer_reward: float, form: GateForm = "curve", k: float = GATE_K, tau: float = GATE_TAU) -> float:
    """The gate (`curve`), or what an ablation puts in its place: a plain sigmoid σ(k(r−τ)), 1 from τ on (`step`), or
    none, which is 1."""
    if form == "open":
        return 1.0
    if form == "step":
        return float(answer_reward >= tau)
    return _sigmoid(k * (answer_reward - tau)) if form == "sigmoid" else gate(float(answer_reward), k, tau)


def _gate_of_float(reward: float, k: float, tau: float) -> float:
    if reward in (0.0, 1.0):
        return reward
    low, high = _sigmoid(-k * tau), _sigmoid(k * (1 - tau))
    return min(1.0, max(0.0, (_sigmoid(k * (reward - tau)) - low) / (high - low)))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def thinking_score(
    thought: str,
    others: Sequence[str],
    l0: int = THOUGHT_WORDS,
    l_max: int = THOUGHT_WORDS_MAX,
    decay: float | None = None,
) -> float:
    """S_t in [0, 1] of one thought in the default form, `product`. Paper: scores the thought; the form is ours.

    Words are lower case without punctuation; a text of one or two words counts as one trigram.

    Args:
        thought: what stands before `<answer>`; an empty one scores 0.
        others: the other thoughts of the group; none makes diversity 1.
        decay: words past `l_max` over which adequacy falls by e; None takes half of `l_max`.
    """
    return product(Thought.read(thought), [Thought.read(other) for other in others], l0, l_max, decay)


def thinking_scores(
    thoughts: Sequence[str],
    l0: int = THOUGHT_WORDS,
    l_max: int = THOUGHT_WORDS_MAX,
    decay: float | None = None,
    form: str = "product",
    question: str = "",
) -> list[float]:
    """S_t of every thought of a group in one of the `THINKING_SCORES`; each is read once.

    Args:
        question: what was asked, without the classes that it offers.
    """
    return group_scores([Thought.read(thought, question) for thought in thoughts], l0, l_max, decay, form)


def group_scores(
    group: Sequence[Thought], l0: int, l_max: int, decay: float | None = None, form: str = "product"
) -> list[float]:
    """S_t of every thought of a group that was read before."""
    score = THINKING_SCORES[form]
    return [score(one, [*group[:i], *group[i + 1 :]], l0, l_max, decay) for i, one in enumerate(group)]


@overload
def combine(
    answer_reward: float, thinking_score: float, weight: float = ..., k: float = ..., tau: float = ...
) -> float: ...
@overload
def combine(
    answer_reward: Values, thinking_score: Values, weight: float = ..., k: float = ..., tau: float = ...
) -> Tensor: ...
def combine(
    answer_reward: float | Values,
    thinking_score: float | Values,
    weight: float = THINKING_WEIGHT,
    k: float = GATE_K,
    tau: float = GATE_TAU,
) -> float | Tensor:
    """Total reward `R = R_a + λ · g(R_a) · S_t`. Paper: R_t = g(R_a) · S_t; λ = 0.5 is our choice.

    Args:
        answer_reward: R_a, floats or tensors of one shape.
        thinking_score: S_t, same shape.
        weight: λ.
    """
    if isinstance(answer_reward, int | float) and isinstance(thinking_score, int | float):
        return answer_reward + weight * gate(float(answer_reward), k, tau) * thinking_score
    reward, score = _floating(answer_reward), _floating(thinking_score)
    return reward + weight * gate(reward, k, tau) * score


def group_advantages(
    rewards: Values,
    answer_rewards: Values,
    group_size: int,
    uniform_groups: UniformGroups = "skip",
    eps: float = ADVANTAGE_EPS,
) -> Tensor:
    """Group-relative advantages `A_i = (R_i − mean) / (std + eps)`, sample standard deviation (paper; eps as ms-swift).

    A group whose total rewards are all equal (a group of one too) gets exactly 0. A zero-std group, whose *answer*
    rewards are all equal, carries no answer signal: `skip` (our default) gives it 0, `keep` treats it as any other.

    Args:
        rewards: R, shape (groups · group_size,), the completions of a group side by side.
        answer_rewards: R_a, same shape.

    Returns:
        Advantages, same shape and dtype.

    Raises:
        ValueError: shapes differ, are no multiple of `group_size`, or `uniform_groups` is another word.
    """
    import torch

    total, answer = _floating(rewards), _floating(answer_rewards)
    if total.ndim != 1 or total.shape != answer.shape:
        raise ValueError(f"rewards and answer rewards need one flat shape, got {total.shape} and {answer.shape}")
    if group_size < 1 or total.numel() % group_size:
        raise ValueError(f"{total.numel()} rewards do not make groups of {group_size}")
    if uniform_groups not in ("skip", "keep"):
        raise ValueError(f"uniform_groups is 'skip' or 'keep', not '{uniform_groups}'")
    grouped = total.view(-1, group_size)
    dropped = is_zero_std(total, group_size)
    if uniform_groups == "skip":
        dropped = dropped | is_zero_std(answer, group_size)
    std = grouped.std(dim=1, keepdim=True) if group_size > 1 else torch.zeros_like(grouped)
    advantages = (grouped - grouped.mean(dim=1, keepdim=True)) / (std + eps)
    return advantages.masked_fill(dropped.unsqueeze(1), 0.0).reshape(-1)


def decoupled_advantages(
    rewards: Tensor,
    weights: Tensor,
    group_size: int,
    uniform_groups: UniformGroups = "keep",
) -> Tensor:
    """Advantages as in GDPO (arXiv 2601.05242): each reward normalised by itself within its group, and the weighted sum
    over the batch.

    Args:
        rewards: shape (groups · group_size, rewards), R_a first.
        weights: shape (rewards,).
        uniform_groups: `skip` gives zero-std groups 0 afterwards, as in `group_advantages`.

    Returns:
        Shape (groups · group_size,).
    """
    columns = [group_advantages(column, column, group_size, "keep", GDPO_EPS) for column in rewards.unbind(dim=1)]
    total = sum(weight * column for weight, column in zip(weights, columns, strict=True))
    advantages = (total - total.mean()) / (total.std() + GDPO_EPS)
    if uniform_groups == "skip":
        dropped = is_zero_std(rewards[:, 0], group_size).repeat_interleave(group_size)
        advantages = advantages.masked_fill(dropped, 0.0)
    return advantages


def is_zero_std(rewards: Values, group_size: int) -> Tensor:
    """Which groups hold one value only: shape (groups,), bool. Exact, where rounding blurs a computed std of 0."""
    grouped = _floating(rewards).view(-1, group_size)
    return grouped.amax(dim=1) == grouped.amin(dim=1)


def answer_mask(token_texts: Sequence[str]) -> list[bool]:
    """Which tokens the answer constraint covers: those that overlap the text from the first `<answer>` to the end.

    The tag may be split over tokens or share one with the thought; no tag, no token. Paper: the thought is masked.

    Args:
        token_texts: the completion's tokens, each decoded by itself, in order.
    """
    start, end, mask = "".join(token_texts).find(OPEN_TAG), 0, []
    for token in token_texts:
        end += len(token)
        mask.append(0 <= start < end)
    return mask


def answer_anchored_kl(logp: Values, ref_logp: Values, mask: Tensor | Sequence[bool]) -> Tensor:
    """KL to the reference model on answer tokens only, per token: `exp(d) − d − 1`, `d = log π_ref − log π`.

    Paper: KL on the answer tokens, the thought masked; the k3 estimator is our choice (ms-swift's).

    Args:
        logp: log π of the sampled tokens, any shape; the result is differentiable in it.
        ref_logp: log π_ref, same shape; no gradient flows into it.
        mask: bool, same shape; True on answer tokens.

    Returns:
        Same shape and dtype as `logp`; value and gradient are exactly 0 off the mask.
    """
    import torch

    policy = _floating(logp)
    reference = _floating(ref_logp).detach().to(policy.dtype)
    on_answer = torch.as_tensor(mask, dtype=torch.bool, device=policy.device)
    # Masked before exp: an infinite difference off the mask must not become NaN in the gradient.
    difference = torch.where(on_answer, reference - policy, torch.zeros_like(policy))
    return torch.expm1(difference) - difference


def _floating(values: Any) -> Tensor:
    """Floating tensors as they are; lists, numbers and integer tensors as float64."""
    import torch

    tensor = values if isinstance(values, torch.Tensor) else torch.as_tensor(values, dtype=torch.float64)
    return tensor if tensor.is_floating_point() else tensor.to(torch.float64)
