"""The rewards of A²GRPO as ms-swift plug-ins: R_a from the task's own parser, R_t = g(R_a) · S_t from the group.

ms-swift calls a reward with all completions that a process holds in a step and, as lists beside them, the columns
of their rows; the column `sample` carries the `Sample` as JSON. A process must hold whole groups.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from geozero.common.errors import InputError
from geozero.corpus.sample import Sample
from geozero.params import METHOD, A2grpo
from geozero.tasks import get
from geozero.tasks.boxes import Convention
from geozero.tasks.text import thought, words
from geozero.training.grpo.objective import gate_value, group_scores
from geozero.training.grpo.thinking_scores import Thought, ngrams

ANSWER_REWARD = "geozero_answer"
THINKING_REWARD = "geozero_thinking"
REWARD_FUNCS = [ANSWER_REWARD, THINKING_REWARD]


def answer_rewards(
    completions: Sequence[str], samples: Sequence[str], boxes: Convention, graded: bool = False
) -> list[float]:
    """R_a of each completion in tagged mode, by its task.

    Args:
        samples: each completion's `Sample` as JSON.
        graded: a count that is nearly right earns part of it.
    """
    return list(_answer_rewards(tuple(completions), tuple(samples), boxes, graded))


@lru_cache(maxsize=2)  # both rewards of a step ask about the same completions
def _answer_rewards(
    completions: tuple[str, ...], samples: tuple[str, ...], boxes: Convention, graded: bool
) -> tuple[float, ...]:
    parsed = {text: Sample.from_json(text) for text in set(samples)}
    return tuple(
        get(parsed[text].task).reward(completion, parsed[text], "tagged", boxes, graded)
        for completion, text in zip(completions, samples, strict=True)
    )


def thinking_rewards(
    completions: Sequence[str], samples: Sequence[str], settings: A2grpo, boxes: Convention
) -> list[float]:
    """R_t = g(R_a) · S_t of each completion, its group being the completions of the same sample."""
    rewards = answer_rewards(completions, samples, boxes, settings.graded_counts)
    groups: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        groups.setdefault(sample, []).append(i)
    gates = [gate_value(reward, settings.gate, settings.gate_k, settings.gate_tau) for reward in rewards]
    questions = {sample: asked(Sample.from_json(sample)) for sample in groups}
    batch: list[Thought] = []
    batch += [
        Thought.read(thought(completion), questions[sample], gate > 0, batch)
        for completion, sample, gate in zip(completions, samples, gates, strict=True)
    ]
    values = [0.0] * len(completions)
    bounds = settings.thought_words, settings.thought_words_max
    for group in groups.values():
        if any(gates[i] for i in group):
            scores = group_scores([batch[i] for i in group], *bounds, form=settings.thinking_score)
            for i, score in zip(group, scores, strict=True):
                values[i] = gates[i] * score
    return values


def asked(sample: Sample) -> str:
    """The first line of a question without the classes that it offers, which are not what is asked."""
    line = sample.question.strip().partition("\n")[0]
    offered = "|".join(map(re.escape, sorted(sample.classes, key=len, reverse=True)))
    return re.sub(rf"\b(?:{offered})\b", " ", line) if offered else line


def by_source(sources: Sequence[str], values: Sequence[float]) -> dict[str, float]:
    """The mean reward of each source's completions."""
    found: dict[str, list[float]] = {}
    for source, value in zip(sources, values, strict=True):
        found.setdefault(source, []).append(value)
    return {source: sum(own) / len(own) for source, own in found.items()}


def distinct(completions: Sequence[str]) -> float:
    """Share of distinct word trigrams among all trigrams of the completions' thoughts (distinct-3); 0 without any.

    It falls with the number of thoughts: compare steps of one run, not runs of other batch sizes.
    """
    grams = [gram for completion in completions for gram in ngrams(words(thought(completion)))]
    return len(set(grams)) / len(grams) if grams else 0.0


def method_settings(args: Any) -> A2grpo:
    """The method's parameters, from the trainer's arguments of the same names.

    Raises:
        InputError: one is out of range, as only `extra` can make it.
    """
    names = [name for name, field in A2grpo.model_fields.items() if METHOD in field.metadata]
    try:
        return A2grpo(steps=1, **{name: getattr(args, name) for name in names})
    except ValidationError as error:
        first = error.errors()[0]
        raise InputError(f"--{first['loc'][0]} {first['input']}: {first['msg']}", hint="see a2grpo.extra") from None


class AnswerReward:
    """ms-swift's reward function `geozero_answer`."""

    def __init__(self, args: Any) -> None:
        self.settings, self.boxes = method_settings(args), args.boxes

    def __call__(self, completions: list[str], sample: list[str], **columns: Any) -> list[float]:
        return answer_rewards(completions, sample, self.boxes, self.settings.graded_counts)


class ThinkingReward:
    """ms-swift's reward function `geozero_thinking`; its weight among the rewards is λ."""

    def __init__(self, args: Any) -> None:
        self.settings, self.boxes = method_settings(args), args.boxes

    def __call__(self, completions: list[str], sample: list[str], **columns: Any) -> list[float]:
        return thinking_rewards(completions, sample, self.settings, self.boxes)


def register() -> None:
    """Make both rewards known to ms-swift in this process."""
    from swift.rewards import orms

    orms[ANSWER_REWARD] = AnswerReward
    orms[THINKING_REWARD] = ThinkingReward
