"""The gate before RL: A²GRPO can only start from a model that keeps the format and whose groups are mixed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from geozero.common.errors import InputError
from geozero.tasks.text import is_well_formed


@dataclass(frozen=True)
class PreflightResult:
    """`well_formed`: share of tagged completions with exactly one answer block; `mixed_groups`: share of groups whose
    answer rewards differ (a uniform group teaches nothing); `mean_reward`: mean R_a; all measured on `val`."""

    well_formed: float
    mixed_groups: float
    mean_reward: float
    n_groups: int


def measure(records: Iterable[Mapping[str, Any]]) -> PreflightResult:
    """From records `{sample, raw_output, reward}` with several rollouts a sample.

    Raises:
        InputError: there are none.
    """
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        groups[record["sample"]].append(record)
    rollouts = [r for group in groups.values() for r in group]
    if not rollouts:
        raise InputError("no validation completions to measure", hint="ingest a source with a val split")
    mixed = sum(len({r["reward"] for r in group}) > 1 for group in groups.values())
    return PreflightResult(
        well_formed=sum(is_well_formed(r["raw_output"]) for r in rollouts) / len(rollouts),
        mixed_groups=mixed / len(groups),
        mean_reward=sum(r["reward"] for r in rollouts) / len(rollouts),
        n_groups=len(groups),
    )


def require(result: PreflightResult, min_well_formed: float, min_mixed_groups: float) -> None:
    """Let the result pass or stop the line.

    Raises:
        InputError: a share is below its bound; says which and what helps.
    """
    if result.well_formed < min_well_formed:
        raise InputError(
            f"{result.well_formed:.0%} of tagged answers are well formed, RL needs {min_well_formed:.0%}",
            "the gate before A²GRPO",
            "shorten SFT, lower its learning rate, or raise sft.replay_share",
        )
    if result.mixed_groups < min_mixed_groups:
        raise InputError(
            f"{result.mixed_groups:.0%} of the groups are mixed, RL needs {min_mixed_groups:.0%}",
            "the gate before A²GRPO",
            "shorten SFT, raise a2grpo.temperature or a2grpo.group_size, or choose other thresholds in select",
        )
