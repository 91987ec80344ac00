"""The preflight before RL: A²GRPO needs a model that keeps the format and whose groups have different rewards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import InputError
from geozero.tasks.text import is_well_formed

QUESTIONS_PER_SOURCE = 40  # of `val`: with 8 rollouts each, shares are known to a few points


@dataclass(frozen=True)
class PreflightResult:
    """Measured on `val`: shares of well-formed completions and of groups that are not zero-std, mean R_a, groups."""

    well_formed: float
    mixed_groups: float
    mean_reward: float
    n_groups: int


def measure(records: Iterable[Mapping[str, Any]]) -> PreflightResult:
    """From records `{sample, raw_output, reward}` with several rollouts per sample.

    Raises:
        InputError: there are none.
    """
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["sample"]].append(record)
    rollouts = [rollout for group in groups.values() for rollout in group]
    if not rollouts:
        raise InputError("no validation completions to measure", hint="ingest a source with a val split")
    mixed = sum(len({rollout["reward"] for rollout in group}) > 1 for group in groups.values())
    return PreflightResult(
        well_formed=sum(is_well_formed(rollout["raw_output"]) for rollout in rollouts) / len(rollouts),
        mixed_groups=mixed / len(groups),
        mean_reward=sum(rollout["reward"] for rollout in rollouts) / len(rollouts),
        n_groups=len(groups),
    )


def require(result: PreflightResult, min_well_formed: float, min_mixed_groups: float) -> None:
    """Raises InputError if a share is below its bound; says which and what helps."""
    where = "the preflight before A²GRPO"
    if result.well_formed < min_well_formed:
        what = f"{result.well_formed:.0%} of tagged answers are well formed, RL needs {min_well_formed:.0%}"
        raise InputError(what, where, "shorten SFT, lower its learning rate, or raise sft.replay_share")
    if result.mixed_groups < min_mixed_groups:
        what = f"{result.mixed_groups:.0%} of the groups are mixed, RL needs {min_mixed_groups:.0%}"
        hint = "shorten SFT, raise a2grpo.temperature or a2grpo.group_size, or choose other thresholds in select"
        raise InputError(what, where, hint)
