"""The A²GRPO objective under its public name; the code is in `geozero.training.grpo.objective`."""

from geozero.training.grpo.objective import (
    answer_anchored_kl,
    answer_mask,
    combine,
    gate,
    group_advantages,
    thinking_score,
)

__all__ = ["answer_anchored_kl", "answer_mask", "combine", "gate", "group_advantages", "thinking_score"]
