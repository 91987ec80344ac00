"""What A²GRPO relies on in ms-swift: arguments that it cannot be combined with, and code that it overrides."""

from __future__ import annotations

import inspect
from dataclasses import fields
from typing import Any

from geozero.common.errors import InputError
from geozero.training.grpo.rewards import REWARD_FUNCS, method_settings
from geozero.training.grpo.thinking_scores import THINKING_SCORES

LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo")  # those with GRPO's clipped ratio

# What would go past the override, or past our rewards and groups: argument, the value it may have, why not another.
REFUSED: tuple[tuple[str, tuple[Any, ...], str], ...] = (
    ("use_liger_kernel", (False, None), "Liger's fused loss never lets go of the log-probabilities"),
    ("kl_in_reward", (False, None), "a KL inside the reward reaches the thought"),
    ("padding_free", (False, None), "the answer mask is laid over padded rows"),
    ("packing", (False, None), "the answer mask is laid over padded rows"),
    ("sequence_parallel_size", (1, None), "the answer mask is laid over whole sequences"),
    ("advantage_estimator", ("grpo", None), "A²GRPO's advantage is relative to its group"),
    ("scale_rewards", ("group", None), "A²GRPO's advantage is relative to its group"),
    ("loss_type", (*LOSS_TYPES, *([t] for t in LOSS_TYPES), None), "A²GRPO's surrogate is GRPO's clipped ratio"),
    ("multi_turn_scheduler", (None,), "a completion is one turn"),
    ("use_gym_env", (False, None), "the rewards are the tasks'"),
    ("reward_model", (None,), "the rewards are the tasks'"),
    ("advantage_reweight", (None,), "the advantages are A²GRPO's"),
    ("sdar_loss_coef", (0.0, None), "a teacher's term is no part of the objective"),
    ("chord_sft_dataset", ([], None), "a supervised term is no part of the objective"),
    ("sync_ref_model", (False, None), "the reference stays as it is"),
    ("async_generate", (False, None), "completions have to come from the policy that learns from them"),
    ("dynamic_sample", (False, None), "it resamples by the spread of R, thoughts included; --resample goes by R_a"),
    ("teacher_model", (None,), "a teacher changes the advantages"),
    ("teacher_model_server", (None,), "a teacher changes the advantages"),
    ("reward_funcs", ([], None, REWARD_FUNCS), "the rewards are the tasks'"),
    ("reward_weights", (None,), "the weight of the thought is --thinking_weight"),
)

# Methods of ms-swift's trainer that are overridden or called, with their parameters.
OVERRIDDEN = {
    "_get_per_token_logps_and_entropies": ["model", "model_inputs", "grpo_batch", "compute_entropy", "origin_data"],
    "_compute_advantages": ["samples", "rewards_per_func", "batch_encoded_inputs"],
    "_compute_rewards_per_func": ["samples"],
    "_score_completions": ["samples"],
    "_rollout_samples": ["inputs"],
    "_prepare_batch_inputs": ["samples"],
    "_compute_loss_and_metrics": ["model", "model_inputs", "grpo_batch"],
}
BATCH_FIELDS = {"completion_mask", "old_per_token_logps", "ref_per_token_logps", "logits_to_keep"}


def check_arguments(arguments: Any) -> None:
    """Refuse what would silently go past the method.

    Raises:
        InputError: the first argument that cannot be combined with A²GRPO, and why; a parameter out of range.
    """
    for name, allowed, reason in REFUSED:
        value = getattr(arguments, name, None)
        if value not in allowed:
            raise InputError(f"{name}={value} cannot be combined with A²GRPO: {reason}", hint=f"leave --{name} out")
    form = method_settings(arguments).thinking_score
    if form not in THINKING_SCORES:
        raise InputError(f"no form '{form}' of S_t", hint=f"one of {', '.join(THINKING_SCORES)}")


def check_swift() -> None:
    """Check that the installed ms-swift still works the way the override relies on.

    Raises:
        InputError: it does not; training would run and be wrong.
    """
    from swift.rl_core.data import GRPOBatch
    from swift.rlhf_trainers.grpo_trainer import GRPOTrainer

    for name, expected in OVERRIDDEN.items():
        found = list(inspect.signature(getattr(GRPOTrainer, name)).parameters)[1:]
        if found != expected:
            raise _other_swift(f"{name} takes {found}")
    if "encode_sample(s, template)" not in inspect.getsource(GRPOTrainer._prepare_batch_inputs):
        raise _other_swift("completions are encoded in another place")
    if missing := BATCH_FIELDS - {f.name for f in fields(GRPOBatch)}:
        raise _other_swift(f"its batch has no {', '.join(sorted(missing))}")
    loss = inspect.getsource(GRPOTrainer._compute_loss_and_metrics)
    if not 0 <= loss.find("self._get_per_token_logps_and_entropies(") < loss.find("= grpo_batch.ref_per_token_logps"):
        raise _other_swift("its loss no longer reads the reference after the policy")


def _other_swift(what: str) -> InputError:
    return InputError(f"another ms-swift than A²GRPO was written for: {what}", hint="install the pinned ms-swift 4.6.0")
