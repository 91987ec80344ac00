"""The A²GRPO trainer: ms-swift's GRPO with our rewards, our group rule and a KL on answer tokens only.

The one override that the answer constraint needs: after the policy's log-probabilities are computed and before the
loss reads the reference's, the policy's own detached values take the reference's place on thought tokens; there value
and gradient of ms-swift's k3 term are exactly 0. Importing this module imports ms-swift: call `process.prepare` first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather, gather_object
from swift.arguments import RLHFArguments
from swift.pipelines.train.rlhf import SwiftRLHF
from swift.rl_core.data import GRPOBatch
from swift.rlhf_trainers import grpo_trainer
from swift.rlhf_trainers.arguments import GRPOConfig
from swift.trainers import TrainerFactory
from transformers.integrations import sdpa_attention

from geozero.common.errors import InputError
from geozero.engines.checkpoint import Vocabulary
from geozero.training.grpo import group_batching, rewards
from geozero.training.grpo.callbacks import ProbeCallback
from geozero.training.grpo.curriculum import Resampling
from geozero.training.grpo.objective import (
    GATE_K,
    GATE_TAU,
    THINKING_WEIGHT,
    THOUGHT_WORDS,
    THOUGHT_WORDS_MAX,
    answer_anchored_kl,
    answer_mask,
    gate_value,
    group_advantages,
    is_uniform,
    said_mask,
    support,
)
from geozero.training.grpo.patches import restore_generate_forward

REWARD_FUNCS = [rewards.ANSWER_REWARD, rewards.THINKING_REWARD]
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
    (
        "dynamic_sample",
        (False, None),
        "it resamples by the spread of the whole reward, thoughts included; --resample goes by R_a",
    ),
    ("teacher_model", (None,), "a teacher changes the advantages"),
    ("teacher_model_server", (None,), "a teacher changes the advantages"),
    ("reward_funcs", ([], None, REWARD_FUNCS), "the rewards are the tasks'"),
    ("reward_weights", (None,), "the weight of the thought is --thinking_weight"),
)


CHOICES = {
    "uniform_groups": ("skip", "keep"),
    "gate": ("curve", "sigmoid", "open"),
    "kl_tokens": ("answer", "all"),
    "support": ("none", "times", "alone"),
    "diversity": ("wanted", "ignored", "unwanted"),
}


@dataclass
class MethodArguments:
    """What A²GRPO adds to ms-swift's arguments; docs/method.md gives each symbol, all are our choice."""

    thinking_weight: float = THINKING_WEIGHT  # λ
    support: str = "none"  # none | times | alone
    gate_k: float = GATE_K
    gate_tau: float = GATE_TAU
    gate: str = "curve"  # curve | sigmoid | open
    kl_tokens: str = "answer"  # answer | all
    thought_words: int = THOUGHT_WORDS  # L0
    thought_words_max: int = THOUGHT_WORDS_MAX  # L_max
    diversity: str = "wanted"  # wanted | ignored | unwanted
    uniform_groups: str = "skip"  # skip | keep
    resample: int = 0  # times a step may draw more prompts in place of groups without an answer signal
    boxes: str = "norm1000"  # the coordinate convention of the model's answers
    probe_rows: str | None = None  # questions that are asked on the way
    probe_steps: int = 20


@dataclass
class A2GRPOConfig(MethodArguments, GRPOConfig):  # type: ignore[misc]
    """Training arguments; ms-swift fills them from `A2GRPOArguments` by name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        local = self.per_device_train_batch_size * self.steps_per_generation
        if local % self.num_generations:
            raise InputError(
                f"a device holds {local} completions a step, no whole number of groups of {self.num_generations}",
                "per_device_train_batch_size × gradient_accumulation_steps",
                "make prompts_per_step a multiple of the number of devices",
            )


@dataclass
class A2GRPOArguments(MethodArguments, RLHFArguments):  # type: ignore[misc]
    """Command line of `launch grpo`: ms-swift's RLHF arguments and the method's own."""

    def __post_init__(self) -> None:
        check_arguments(self)
        self.rlhf_type = "grpo"
        self.reward_funcs = list(REWARD_FUNCS)
        self.reward_weights = [1.0, self.thinking_weight]
        super().__post_init__()


def check_arguments(arguments: Any) -> None:
    """Refuse what would silently go past the method.

    Raises:
        InputError: the first argument that cannot be combined with A²GRPO, and why.
    """
    for name, allowed, reason in REFUSED:
        value = getattr(arguments, name, None)
        if value not in allowed:
            raise InputError(f"{name}={value} cannot be combined with A²GRPO: {reason}", hint=f"leave --{name} out")
    for name, words in CHOICES.items():
        if getattr(arguments, name) not in words:
            raise InputError(f"{name} is '{getattr(arguments, name)}'", hint=f"one of {', '.join(words)}")
    if arguments.support != "none" and not arguments.beta:
        raise InputError("support asks the reference, and β = 0 has none", "beta", "give beta, or leave --support out")


@dataclass
class AnchoredBatch(GRPOBatch):  # type: ignore[misc]
    """ms-swift's batch of completions with what the override needs, shape (completions, tokens) both.

    Attributes:
        answer: which tokens the constraint covers, bool.
        reference: the frozen model's log-probabilities; None where β is 0.
    """

    answer: torch.Tensor | None = None
    reference: torch.Tensor | None = None


class A2GRPOTrainer(grpo_trainer.GRPOTrainer):  # type: ignore[misc]
    """GRPO over R = R_a + λ·R_t, groups without an answer signal dropped, KL on answer tokens only."""

    args: A2GRPOConfig
    request_config: Any
    _rewards_per_func: torch.Tensor  # of all processes' completions, shape (completions, 2)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for model in (self.model, self.ref_model):
            if model is not None:
                group_batching.dedup_images(model)
                restore_generate_forward(model)
        if self.args.probe_rows:
            self.add_callback(ProbeCallback(self.answers, Path(self.args.probe_rows), self.args.probe_steps))

    def answers(self, rows: list[dict[str, Any]]) -> list[str]:
        """Greedy completions of rows; nothing that the training draws or logs is touched."""
        usual, self.request_config = self.request_config, replace(self.request_config, temperature=0.0, n=1)
        try:
            samples = self._generate_completions(self.to_samples(rows))
        finally:
            self.request_config = usual
        return [sample.messages[-1]["content"] for sample in samples]

    def prepare_rollout(self) -> None:
        super().prepare_rollout()
        if not self.args.use_vllm:  # a weak policy samples `<|image_pad|>`, and its text could not be read back
            vocabulary = Vocabulary.of(Path(self.model.model_dir), self.processing_class)
            self.engine.generation_config = deepcopy(self.engine.generation_config)
            self.engine.generation_config.suppress_tokens = list(vocabulary.suppressed)

    def _colocate_rollout(self, samples: list[Any], request_config: Any) -> list[Any]:
        """One request with n answers a group, not n requests, where the model itself samples."""
        size = self.num_generations if self.model.training else self.num_generations_eval
        if self.args.use_vllm or not group_batching.share_a_prompt(samples, size):
            return list(super()._colocate_rollout(samples, request_config))
        return group_batching.split_choices(super()._colocate_rollout(samples[::size], replace(request_config, n=size)))

    def _compute_rewards_per_func(self, samples: list[Any]) -> torch.Tensor:
        """R_a and R_t of all processes' completions, shape (completions, 2); logs what the completions look like."""
        values: torch.Tensor = super()._compute_rewards_per_func(samples)
        shapes = gather_object([rewards.completion_shape(sample.messages[-1]["content"]) for sample in samples])
        self._log("answer_reward", values[:, 0].mean())
        self._log("thinking_reward", values[:, 1].mean())
        self._log("thought_words", sum(s.thought_words for s in shapes) / len(shapes))
        self._log("well_formed", sum(s.well_formed for s in shapes) / len(shapes))
        distinct = gather_object([rewards.distinct([sample.messages[-1]["content"] for sample in samples])])
        self._log("distinct", sum(distinct) / len(distinct))
        return values

    def _score_completions(self, samples: list[Any]) -> list[Any]:
        """Rewards, and other prompts in place of groups without an answer signal, up to `resample` times.

        ms-swift's own resampling looks at the spread of the whole reward, to which thoughts add even where all
        answers are alike, and takes either a batch of new groups only or none.
        """
        samples = list(super()._score_completions(samples))
        if not self.model.training or not self.args.resample:
            return samples
        size, kept = int(self.num_generations), list(gather_object(samples))
        values: torch.Tensor = self._rewards_per_func
        rounds = 0
        while rounds < self.args.resample and is_uniform(values[:, 0], size).any():
            rounds += 1
            more = self._rollout_samples(self._further_rows(rounds, len(samples)))
            new_values = self._compute_rewards_per_func(more)
            kept, values = group_batching.replace_zero_std_groups(kept, values, gather_object(more), new_values, size)
        self._log("resampled", rounds)
        self._rewards_per_func = values
        n, index = len(samples), int(self.accelerator.process_index)
        return kept[index * n : (index + 1) * n]

    def _further_rows(self, draw: int, n: int) -> list[dict[str, Any]]:
        """This process's `n` rows, each prompt as often as its group has members, of a step's draw (from 1)."""
        size = int(self.num_generations)
        resampling = Resampling(
            rows=len(self.train_dataset),
            prompts=n * int(self.accelerator.num_processes) // size,
            steps=self.state.max_steps // self.num_iterations,
            draws=self.args.resample,
            shuffled=self.shuffle_dataset,
            seed=self.args.seed,
        )
        rows = resampling.drawn(self.state.global_step // self.num_iterations, draw)
        first = int(self.accelerator.process_index) * n
        return [dict(self.train_dataset[rows[i // size]]) for i in range(first, first + n)]

    def _compute_advantages(
        self, samples: list[Any], rewards_per_func: torch.Tensor, batch_encoded_inputs: list[dict[str, Any]]
    ) -> torch.Tensor:
        """Group-relative advantages over R, shape (completions,); ms-swift's own are computed for its metrics only."""
        super()._compute_advantages(samples, rewards_per_func, batch_encoded_inputs)
        size = self.num_generations if self.model.training else self.num_generations_eval
        if self.args.support != "none":
            rewards_per_func = self._supported(rewards_per_func, batch_encoded_inputs)
        total, answer = (rewards_per_func * self.reward_weights).sum(dim=1), rewards_per_func[:, 0]
        dropped = is_uniform(answer, size).float().mean() if self.args.uniform_groups == "skip" else 0.0
        self._log("dropped_groups", dropped)
        return group_advantages(total, answer, size, self.args.uniform_groups)  # type: ignore[arg-type]

    def _supported(self, values: torch.Tensor, batches: list[dict[str, Any]]) -> torch.Tensor:
        """R_a and R_t with the thought's support by the reference in (`times`) or instead of (`alone`) S_t."""
        rows = [
            support(b.reference, self._over_tokens(inputs["model_inputs"]["input_ids"], b, said_mask))
            for inputs in batches
            for b in [inputs["grpo_batch"]]
        ]
        granted = gather(torch.cat(rows))
        self._log("support", granted[values[:, 0] > 0].mean() if (values[:, 0] > 0).any() else 0.0)
        if self.args.support == "alone":
            gates = [gate_value(v, self.args.gate, self.args.gate_k, self.args.gate_tau) for v in values[:, 0].tolist()]  # type: ignore[arg-type]
            return torch.stack([values[:, 0], torch.tensor(gates).to(granted) * granted], dim=1)
        return torch.stack([values[:, 0], values[:, 1] * granted], dim=1)

    def _prepare_batch_inputs(self, samples: list[Any]) -> list[dict[str, Any]]:
        batches: list[dict[str, Any]] = super()._prepare_batch_inputs(samples)
        for batch in batches:
            plain: GRPOBatch = batch["grpo_batch"]
            batch["grpo_batch"] = AnchoredBatch(
                **{f.name: getattr(plain, f.name) for f in fields(GRPOBatch)},
                answer=self._over_tokens(batch["model_inputs"]["input_ids"], plain, answer_mask),
                reference=plain.ref_per_token_logps,
            )
        return batches

    def _over_tokens(
        self, input_ids: torch.Tensor, batch: GRPOBatch, mask_of: Callable[[list[str]], list[bool]]
    ) -> torch.Tensor:
        """A mask of every row's token texts, laid over the columns in which ms-swift keeps completions."""
        ids = input_ids[:, -batch.logits_to_keep :]
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row in range(ids.shape[0]):
            columns = batch.completion_mask[row].nonzero().squeeze(1)
            texts = [self._token_text(token) for token in ids[row, columns].tolist()]
            mask[row, columns] = torch.tensor(mask_of(texts), dtype=torch.bool, device=mask.device)
        return mask

    @lru_cache(maxsize=1 << 17)  # noqa: B019 - the trainer lives as long as the process
    def _token_text(self, token: int) -> str:
        text: str = self.processing_class.decode([token], skip_special_tokens=False)
        return text

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        model_inputs: dict[str, Any],
        grpo_batch: GRPOBatch,
        compute_entropy: bool = False,
        origin_data: Any = None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """ms-swift's log-probabilities; for the loss, the reference is anchored to the answer on the way."""
        if not torch.is_grad_enabled() and self._sampled_by_itself(model):
            return None, None  # ms-swift then takes the loss's own values, detached: the same numbers, a pass saved
        logps, entropies = super()._get_per_token_logps_and_entropies(
            model, model_inputs, grpo_batch, compute_entropy=compute_entropy, origin_data=origin_data
        )
        if isinstance(grpo_batch, AnchoredBatch):
            if grpo_batch.reference is not None:
                self._anchor(grpo_batch, logps)
        elif torch.is_grad_enabled():
            raise RuntimeError("a loss over a batch without an answer mask: ms-swift took a path unknown to A²GRPO")
        return logps, entropies

    def _sampled_by_itself(self, model: Any) -> bool:
        """Whether the policy asked is the one that sampled, and not a LoRA model with its adapter off as reference."""
        return (
            self.model.training
            and model is self.model
            and not self.old_policy()
            and (self.ref_model is not None or self.beta == 0.0)
        )

    def _anchor(self, batch: AnchoredBatch, logps: torch.Tensor) -> None:
        assert batch.answer is not None and batch.reference is not None
        policy = logps.detach()
        if self.args.kl_tokens == "answer":
            batch.ref_per_token_logps = torch.where(batch.answer, batch.reference, policy)
        kl = answer_anchored_kl(policy, batch.reference, batch.answer).sum()
        total, tokens = gather(torch.stack([kl, batch.answer.sum().to(kl.dtype)]).unsqueeze(0)).sum(dim=0)
        self._log("answer_kl", total / tokens.clamp(min=1))

    def _log(self, name: str, value: torch.Tensor | float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(float(value))


class SwiftA2GRPO(SwiftRLHF):  # type: ignore[misc]
    args_class = A2GRPOArguments


def main(arguments: list[str]) -> None:
    """Train; `arguments` are ms-swift's for GRPO and those of `MethodArguments`."""
    check_swift()
    rewards.register()
    if not isinstance(grpo_trainer.encode_sample, group_batching.EncodingCache):
        grpo_trainer.encode_sample = group_batching.EncodingCache(grpo_trainer.encode_sample)
    if not torch.cuda.is_available():
        # transformers copies shared keys out for each query head wherever there is a mask; torch's CPU kernel takes
        # them as they are: the same numbers, and sampling takes a quarter less.
        sdpa_attention.use_gqa_in_sdpa = lambda *_: True
    TrainerFactory.TRAINER_MAPPING["grpo"] = f"{__name__}.{A2GRPOTrainer.__name__}"
    TrainerFactory.TRAINING_ARGS_MAPPING["grpo"] = f"{__name__}.{A2GRPOConfig.__name__}"
    SwiftA2GRPO(arguments).main()


def check_swift() -> None:
    """Check that the installed ms-swift still works the way the override relies on.

    Raises:
        InputError: it does not; training would run and be wrong.
    """
    expected = {
        "_get_per_token_logps_and_entropies": ["model", "model_inputs", "grpo_batch", "compute_entropy", "origin_data"],
        "_compute_advantages": ["samples", "rewards_per_func", "batch_encoded_inputs"],
        "_compute_rewards_per_func": ["samples"],
        "_score_completions": ["samples"],
        "_rollout_samples": ["inputs"],
        "_prepare_batch_inputs": ["samples"],
        "_colocate_rollout": ["samples", "request_config"],
        "_compute_loss_and_metrics": ["model", "model_inputs", "grpo_batch"],
    }
    for name, parameters in expected.items():
        found = list(inspect.signature(getattr(grpo_trainer.GRPOTrainer, name)).parameters)[1:]
        if found != parameters:
            raise _other_swift(f"{name} takes {found}")
    if "encode_sample(s, template)" not in inspect.getsource(grpo_trainer.GRPOTrainer._prepare_batch_inputs):
        raise _other_swift("completions are encoded in another place")
    needed = {"completion_mask", "old_per_token_logps", "ref_per_token_logps", "logits_to_keep"}
    missing = needed - {f.name for f in fields(GRPOBatch)}
    if missing:
        raise _other_swift(f"its batch has no {', '.join(sorted(missing))}")
    loss = inspect.getsource(grpo_trainer.GRPOTrainer._compute_loss_and_metrics)
    if not 0 <= loss.find("self._get_per_token_logps_and_entropies(") < loss.find("= grpo_batch.ref_per_token_logps"):
        raise _other_swift("its loss no longer reads the reference after the policy")


def _other_swift(what: str) -> InputError:
    return InputError(f"another ms-swift than A²GRPO was written for: {what}", hint="install the pinned ms-swift 4.6.0")
