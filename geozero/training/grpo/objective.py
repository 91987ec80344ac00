"""The A²GRPO objective as pure functions: gate, thinking score, group advantages, answer-anchored KL.

Nothing here needs ms-swift; torch is imported by the functions that take tensors. What the paper gives and what is
our choice stands in each docstring (paper: arXiv 2511.22645).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, overload

from geozero.tasks.text import CLOSE_TAG, OPEN_TAG, words

if TYPE_CHECKING:
    from torch import Tensor

UniformGroups = Literal["skip", "keep"]
GateForm = Literal["curve", "sigmoid", "open"]
Diversity = Literal["wanted", "ignored", "unwanted"]

GATE_K = 10.0
GATE_TAU = 0.5
THINKING_WEIGHT = 0.5
THOUGHT_WORDS = 40
THOUGHT_WORDS_MAX = 200
NGRAM = 3
ADVANTAGE_EPS = 1e-4  # as ms-swift


@overload
def gate(answer_reward: float, k: float = ..., tau: float = ...) -> float: ...
@overload
def gate(answer_reward: Tensor | Sequence[float], k: float = ..., tau: float = ...) -> Tensor: ...
def gate(answer_reward: float | Tensor | Sequence[float], k: float = GATE_K, tau: float = GATE_TAU) -> float | Tensor:
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
    """The gate (`curve`), or what an ablation puts in its place: a plain sigmoid σ(k(r−τ)), or none, which is 1."""
    if form == "open":
        return 1.0
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
    """S_t in [0, 1] of one thought: adequacy × non-repetition × diversity. Paper: scores the thought; the form is ours.

    Adequacy is `min(1, words / l0)`, past `l_max` times `exp(−(words − l_max) / decay)`; non-repetition the share of
    distinct word trigrams; diversity 1 − the mean trigram Jaccard similarity to the other thoughts. Words are lower
    case without punctuation; a text of one or two words counts as one gram.

    Args:
        thought: what stands before `<answer>`; an empty one scores 0.
        others: the other thoughts of the group; none makes diversity 1.
        decay: words past `l_max` over which adequacy falls by e; None takes half of `l_max`.
    """
    return _thinking_score(_Read.of(thought), [_Read.of(other) for other in others], l0, l_max, decay)


def thinking_scores(
    thoughts: Sequence[str],
    l0: int = THOUGHT_WORDS,
    l_max: int = THOUGHT_WORDS_MAX,
    decay: float | None = None,
    diversity: Diversity = "wanted",
) -> list[float]:
    """`thinking_score` of every thought of a group, the group's others beside it; each is read once.

    Args:
        diversity: `unwanted` puts the mean similarity to the others in its place (1 for a thought alone), `ignored` 1.
    """
    read = [_Read.of(thought) for thought in thoughts]
    return [_thinking_score(one, read[:i] + read[i + 1 :], l0, l_max, decay, diversity) for i, one in enumerate(read)]


class _Read(NamedTuple):
    """A thought's words and trigrams, counted."""

    n_words: int
    n_grams: int
    distinct: frozenset[tuple[str, ...]]

    @classmethod
    def of(cls, thought: str) -> _Read:
        tokens = words(thought)
        grams = ngrams(tokens)
        return cls(len(tokens), len(grams), frozenset(grams))


def _thinking_score(
    one: _Read, others: Sequence[_Read], l0: int, l_max: int, decay: float | None, diversity: Diversity = "wanted"
) -> float:
    if not one.n_words:
        return 0.0
    adequacy = min(1.0, one.n_words / l0)
    if one.n_words > l_max:
        adequacy *= math.exp((l_max - one.n_words) / (decay or l_max / 2))
    return adequacy * len(one.distinct) / one.n_grams * _place_in_group(one, others, diversity)


def _place_in_group(one: _Read, others: Sequence[_Read], diversity: Diversity) -> float:
    if not others or diversity == "ignored":
        return 1.0
    similarity = sum(jaccard(one.distinct, other.distinct) for other in others) / len(others)
    return similarity if diversity == "unwanted" else 1 - similarity


def ngrams(tokens: Sequence[str]) -> list[tuple[str, ...]]:
    """Word trigrams in order; a text of one or two words is one gram, an empty one has none."""
    n = min(NGRAM, len(tokens))
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)] if n else []


def jaccard(a: frozenset[tuple[str, ...]], b: frozenset[tuple[str, ...]]) -> float:
    """Share of the n-grams of two texts that both have; 1 where neither has any."""
    common = len(a & b)
    return common / (len(a) + len(b) - common) if a or b else 1.0


@overload
def combine(
    answer_reward: float, thinking_score: float, weight: float = ..., k: float = ..., tau: float = ...
) -> float: ...
@overload
def combine(
    answer_reward: Tensor | Sequence[float],
    thinking_score: Tensor | Sequence[float],
    weight: float = ...,
    k: float = ...,
    tau: float = ...,
) -> Tensor: ...
def combine(
    answer_reward: float | Tensor | Sequence[float],
    thinking_score: float | Tensor | Sequence[float],
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
    rewards: Tensor | Sequence[float],
    answer_rewards: Tensor | Sequence[float],
    group_size: int,
    uniform_groups: UniformGroups = "skip",
    eps: float = ADVANTAGE_EPS,
) -> Tensor:
    """Group-relative advantages `A_i = (R_i − mean) / (std + eps)`, sample standard deviation (paper; eps as ms-swift).

    A group whose total rewards are all equal (a group of one member too) gets exactly 0. One whose *answer* rewards
    are all equal carries no answer signal: `skip` (our default) gives it 0, `keep` treats it as any other.

    Args:
        rewards: R, shape (groups · group_size,), the members of a group side by side.
        answer_rewards: R_a, same shape.

    Returns:
        Advantages, same shape and dtype.

    Raises:
        ValueError: shapes differ, are no multiple of `group_size`, or `uniform_groups` is another word.
    """
    import torch

    total, answer = _floating(rewards), _floating(answer_rewards)
    if total.ndim != 1 or total.shape != answer.shape:
        raise ValueError(f"rewards and answer rewards must be flat and alike, got {total.shape} and {answer.shape}")
    if group_size < 1 or total.numel() % group_size:
        raise ValueError(f"{total.numel()} rewards do not make groups of {group_size}")
    if uniform_groups not in ("skip", "keep"):
        raise ValueError(f"uniform_groups is 'skip' or 'keep', not '{uniform_groups}'")
    grouped = total.view(-1, group_size)
    silent = is_uniform(total, group_size)
    if uniform_groups == "skip":
        silent = silent | is_uniform(answer, group_size)
    std = grouped.std(dim=1, keepdim=True) if group_size > 1 else torch.zeros_like(grouped)
    advantages = (grouped - grouped.mean(dim=1, keepdim=True)) / (std + eps)
    return advantages.masked_fill(silent.unsqueeze(1), 0.0).reshape(-1)


def is_uniform(rewards: Tensor | Sequence[float], group_size: int) -> Tensor:
    """Which groups hold one value only: shape (groups,), bool. Exact, where a std of 0 is blurred by rounding."""
    grouped = _floating(rewards).view(-1, group_size)
    return grouped.amax(dim=1) == grouped.amin(dim=1)


def answer_mask(token_texts: Sequence[str]) -> list[bool]:
    """Which tokens the answer constraint covers: those that overlap the text from the first `<answer>` to the end.

    The tag may be split over tokens or share one with the thought; no tag, no token. Paper: the thought is masked.

    Args:
        token_texts: the completion's tokens, each decoded by itself, in order.
    """
    start = "".join(token_texts).find(OPEN_TAG)
    return _overlap(token_texts, start, math.inf) if start >= 0 else [False] * len(token_texts)


def said_mask(token_texts: Sequence[str]) -> list[bool]:
    """Which tokens say the answer itself: those that overlap the text between the first `<answer>` and `</answer>`.

    As `answer_mask`, without the tags; where no tag closes, the answer goes on to the end.
    """
    text = "".join(token_texts)
    start = text.find(OPEN_TAG)
    if start < 0:
        return [False] * len(token_texts)
    start += len(OPEN_TAG)
    close = text.find(CLOSE_TAG, start)
    return _overlap(token_texts, start, math.inf if close < 0 else close)


def _overlap(token_texts: Sequence[str], start: int, stop: float) -> list[bool]:
    """Which tokens reach into the characters from `start` to before `stop`."""
    mask, end = [], 0
    for token in token_texts:
        begin, end = end, end + len(token)
        mask.append(begin < stop and end > start)
    return mask


def support(ref_logp: Tensor | Sequence[Sequence[float]], said: Tensor | Sequence[Sequence[bool]]) -> Tensor:
    """How well a thought leads to its answer in the eyes of the frozen reference, in [0, 1] (our choice).

    The geometric mean of π_ref over the tokens of the answer, given question, image and thought. The policy cannot
    raise it by being sure of itself, only by a thought from which the reference too goes on to that answer.

    Args:
        ref_logp: log π_ref of the sampled tokens, shape (completions, tokens).
        said: `said_mask` of each completion, same shape.

    Returns:
        Shape (completions,); 0 where no token says an answer.
    """
    import torch

    reference = _floating(ref_logp)
    mask = torch.as_tensor(said, dtype=torch.bool, device=reference.device)
    count = mask.sum(dim=1)
    total = torch.where(mask, reference, torch.zeros_like(reference)).sum(dim=1)
    return torch.where(count > 0, torch.exp(total / count.clamp(min=1)), torch.zeros_like(total))


def answer_anchored_kl(
    logp: Tensor | Sequence[float], ref_logp: Tensor | Sequence[float], mask: Tensor | Sequence[bool]
) -> Tensor:
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
