"""The A²GRPO trainer: ms-swift's GRPO with our rewards, our group rule and a KL on answer tokens only.

The one override that the answer constraint needs: after the policy's log-probabilities are computed and before the
loss reads the reference's, the policy's own detached values take the reference's place on thought tokens; there value
and gradient of ms-swift's k3 term are exactly 0. Importing this module imports ms-swift: call `process.prepare` first.
"""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass, fields, make_dataclass, replace
from functools import cached_property, lru_cache
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
from geozero.corpus.sample import Sample
from geozero.engines.checkpoint import Vocabulary
from geozero.engines.families import family_of
from geozero.params import METHOD, A2grpo, Model
from geozero.tasks.text import is_well_formed, thought, words
from geozero.training.grpo import group_batching, rewards
from geozero.training.grpo.callbacks import ProbeCallback
from geozero.training.grpo.curriculum import Resampling, read_rates
from geozero.training.grpo.objective import (
    answer_anchored_kl,
    answer_mask,
    decoupled_advantages,
    group_advantages,
    is_zero_std,
)
from geozero.training.grpo.patches import restore_base_on_unmerge, restore_generate_forward
from geozero.training.grpo.pools import NAMES, PoolLog, Pools
from geozero.training.grpo.swift_checks import check_arguments, check_swift
from geozero.training.metrics import SOURCE

# The method's parameters as trainer arguments, taken from their fields in geozero/params.py; the file of questions that
# are answered on the way; and the table of pass rates by which pools begin.
MethodArguments = make_dataclass(
    "MethodArguments",
    [
        *(
            (name, field.annotation, field.default)
            for section in (A2grpo, Model)
            for name, field in section.model_fields.items()
            if METHOD in field.metadata
        ),
        ("probe_rows", str | None, None),
        ("pool_rates", str | None, None),
    ],
)


@dataclass
class A2GRPOConfig(MethodArguments, GRPOConfig):  # type: ignore[misc, valid-type]
    """Training arguments; ms-swift fills them from `A2GRPOArguments` by name."""

    def __post_init__(self) -> None:
        super().__post_init__()
        local = self.per_device_train_batch_size * self.steps_per_generation
        if local % self.num_generations:
            raise InputError(
                f"{local} completions per step and device are no whole number of groups of {self.num_generations}",
                "per_device_train_batch_size × gradient_accumulation_steps",
                "make prompts_per_step a multiple of the number of devices",
            )


@dataclass
class A2GRPOArguments(MethodArguments, RLHFArguments):  # type: ignore[misc, valid-type]
    """Command line of `launch grpo`: ms-swift's RLHF arguments and the method's own."""

    def __post_init__(self) -> None:
        check_arguments(self)
        settings = rewards.method_settings(self)
        self.rlhf_type = "grpo"
        self.reward_funcs = list(rewards.REWARD_FUNCS)
        self.reward_weights = [1.0, settings.thinking_weight]
        super().__post_init__()


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
    """GRPO over R = R_a + λ·R_t, zero-std groups dropped, KL on answer tokens only."""

    args: A2GRPOConfig
    request_config: Any
    control: Any
    _rewards_per_func: torch.Tensor  # of all processes' completions, shape (completions, 2)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        family = family_of(self.model.model_meta.model_type)
        for model in (self.model, self.ref_model):
            if model is not None:
                family.dedup_images(model)
                restore_generate_forward(model)
        restore_base_on_unmerge(self.model)
        if self.args.probe_rows:
            self.add_callback(ProbeCallback(self.generate_greedily, Path(self.args.probe_rows), self.args.probe_steps))

    @cached_property
    def settings(self) -> A2grpo:
        """The method's parameters."""
        return rewards.method_settings(self.args)

    @property
    def _group_size(self) -> int:
        return int(self.num_generations if self.model.training else self.num_generations_eval)

    def generate_greedily(self, rows: list[dict[str, Any]]) -> list[str]:
        """Greedy completions of rows; what the training draws and logs stays the same."""
        usual, self.request_config = self.request_config, replace(self.request_config, temperature=0.0, n=1)
        try:
            samples = self._generate_completions(self.to_samples(rows))
        finally:
            self.request_config = usual
        return [sample.messages[-1]["content"] for sample in samples]

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Rewards of one answer to each validation prompt; no loss is computed, since only the rewards select.

        vLLM gets all prompts at once, so that it wakes and takes the weights once per checkpoint; the trainer itself
        samples as many at a time as in a training step. Where the prompts do not divide among the processes, the first
        ones are asked twice.
        """
        rank, n_processes = int(self.accelerator.process_index), int(self.accelerator.num_processes)
        rows, share = self.eval_dataset, -(-len(self.eval_dataset) // n_processes)
        own = [dict(rows[(i * n_processes + rank) % len(rows)]) for i in range(share)]
        step = self.args.per_device_train_batch_size * self.args.steps_per_generation
        at_once = share if self.args.use_vllm else step
        self.model.eval()
        samples: list[Any] = []
        with torch.no_grad():
            for start in range(0, share, at_once):
                samples += self._rollout_samples(own[start : start + at_once])
                (Path(self.args.output_dir) / SOURCE).touch()  # the watchdog counts it as progress
            self._compute_rewards_per_func(samples)
        metrics: dict[str, float] = {}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def prepare_rollout(self) -> None:
        super().prepare_rollout()
        if not self.args.use_vllm:  # a weak policy samples `<|image_pad|>`, and its text could not be read back
            vocabulary = Vocabulary.of(Path(self.model.model_dir), self.processing_class)
            self.engine.generation_config = deepcopy(self.engine.generation_config)
            self.engine.generation_config.suppress_tokens = list(vocabulary.suppressed)

    def _compute_rewards_per_func(self, samples: list[Any]) -> torch.Tensor:
        """R_a and R_t of all processes' completions, shape (completions, 2); logs what the completions look like."""
        values: torch.Tensor = super()._compute_rewards_per_func(samples)
        completions = [sample.messages[-1]["content"] for sample in samples]
        n_words = gather_object([len(words(thought(completion))) for completion in completions])
        well_formed = gather_object([is_well_formed(completion) for completion in completions])
        distinct = gather_object([rewards.distinct(completions)])
        sources = gather_object([Sample.from_json(sample.extra["sample"]).source for sample in samples])
        self._log("answer_reward", values[:, 0].mean())
        for source, reward in rewards.by_source(sources, values[:, 0].tolist()).items():
            self._log(f"answer_reward/{source}", reward)
        self._log("thinking_reward", values[:, 1].mean())
        self._log("thought_words", sum(n_words) / len(n_words))
        self._log("well_formed", sum(well_formed) / len(well_formed))
        self._log("distinct", sum(distinct) / len(distinct))
        return values

    @cached_property
    def _pools(self) -> Pools | None:
        """The pools that prompts are drawn from, as the steps before this one left them; None in another order."""
        if self.args.pool_rates is None:
            return None
        rates = read_rates(Path(self.args.pool_rates))
        ids = [json.loads(row["sample"])["id"] for row in self.train_dataset]
        easy, hard = self.settings.pool_easy, self.settings.pool_hard
        pools = Pools([rates.get(name) for name in ids], (easy, 1 - easy - hard, hard), self.args.seed)
        self._pool_log.replay(pools, self._prompt_step)
        return pools

    @property
    def _pool_log(self) -> PoolLog:
        return PoolLog(Path(self.args.output_dir))

    @property
    def _prompt_step(self) -> int:
        """How often prompts were drawn before this step."""
        return int(self.state.global_step // self.num_iterations)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Completions and rewards of the step's prompts: the sampler's, or those that the pools give instead."""
        if not self.model.training or self._pools is None:
            return list(super()._generate_and_score_completions(inputs))
        size, own = self._group_size, len(inputs) // self._group_size
        step, first = self._prompt_step, int(self.accelerator.process_index) * own
        rows = self._pools.draw(step, own * int(self.accelerator.num_processes))
        chosen = [dict(self.train_dataset[row]) for row in rows[first : first + own] for _ in range(size)]
        found = list(super()._generate_and_score_completions(chosen))
        means = self._rewards_per_func[:, 0].view(-1, size).mean(dim=1).tolist()
        for name, pool in zip(NAMES, range(len(NAMES)), strict=True):
            self._log(f"pool_{name}", sum(self._pools.pool(row) == pool for row in rows) / len(rows))
        self._pools.update(step, rows, means)
        if self.accelerator.is_main_process:
            self._pool_log.write(step, rows, means)
        return found

    def _score_completions(self, samples: list[Any]) -> list[Any]:
        """Rewards; zero-std groups are replaced by new prompts' groups, up to `resample` times.

        ms-swift's own resampling looks at the spread of the whole reward, to which thoughts add even where all
        answers are alike, and takes either a batch of new groups only or none.
        """
        samples = list(super()._score_completions(samples))
        return self._resample(samples) if self.model.training and self.settings.resample else samples

    def _resample(self, samples: list[Any]) -> list[Any]:
        size, n, rounds, drawn = self._group_size, len(samples), 0, 0
        kept, values = list(gather_object(samples)), self._rewards_per_func
        while rounds < self.settings.resample and (needed := int(is_zero_std(values[:, 0], size).sum())):
            rounds += 1
            new = self._rollout_samples(self._further_rows(rounds, n, needed))
            new_values = self._compute_rewards_per_func(new)
            kept, values = group_batching.replace_zero_std_groups(kept, values, gather_object(new), new_values, size)
            drawn += len(new_values)
        self._log("resampled", rounds)
        self._log("resampled_share", drawn / len(values))
        self._rewards_per_func = values
        first = int(self.accelerator.process_index) * n
        return kept[first : first + n]

    def _further_rows(self, draw: int, n: int, needed: int) -> list[dict[str, Any]]:
        """This process's rows of a step's draw (from 1), each prompt repeated for its group.

        Args:
            n: completions of this process in a step.
            needed: groups that all processes are to sample together; each gets as many as any other.
        """
        size, processes = self._group_size, int(self.accelerator.num_processes)
        resampling = Resampling(
            rows=len(self.train_dataset),
            prompts=n * processes // size,
            steps=self.state.max_steps // self.num_iterations,
            draws=self.settings.resample,
            shuffled=self.shuffle_dataset,
            seed=self.args.seed,
        )
        rows = resampling.drawn(self.state.global_step // self.num_iterations, draw)
        own = -(-needed // processes)
        first = int(self.accelerator.process_index) * own
        return [dict(self.train_dataset[row]) for row in rows[first : first + own] for _ in range(size)]

    def _compute_advantages(
        self, samples: list[Any], rewards_per_func: torch.Tensor, batch_encoded_inputs: list[dict[str, Any]]
    ) -> torch.Tensor:
        """Group-relative advantages over R, shape (completions,); ms-swift's own are computed for its metrics only."""
        super()._compute_advantages(samples, rewards_per_func, batch_encoded_inputs)
        total, answer = (rewards_per_func * self.reward_weights).sum(dim=1), rewards_per_func[:, 0]
        skip = self.settings.uniform_groups == "skip"
        self._log("dropped_groups", is_zero_std(answer, self._group_size).float().mean() if skip else 0.0)
        if self.settings.reward_scaling == "gdpo":
            weights = self.reward_weights.to(rewards_per_func.device)
            return decoupled_advantages(rewards_per_func, weights, self._group_size, self.settings.uniform_groups)
        return group_advantages(total, answer, self._group_size, self.settings.uniform_groups)

    def _prepare_batch_inputs(self, samples: list[Any]) -> list[dict[str, Any]]:
        batches: list[dict[str, Any]] = super()._prepare_batch_inputs(samples)
        for batch in batches:
            plain: GRPOBatch = batch["grpo_batch"]
            batch["grpo_batch"] = AnchoredBatch(
                **{f.name: getattr(plain, f.name) for f in fields(GRPOBatch)},
                answer=self._answer_columns(batch["model_inputs"]["input_ids"], plain),
                reference=plain.ref_per_token_logps,
            )
        return batches

    def _answer_columns(self, input_ids: torch.Tensor, batch: GRPOBatch) -> torch.Tensor:
        """Each row's `answer_mask`, laid over the columns in which ms-swift keeps completions."""
        ids = input_ids[:, -batch.logits_to_keep :]
        mask = torch.zeros_like(ids, dtype=torch.bool)
        for row in range(ids.shape[0]):
            columns = batch.completion_mask[row].nonzero().squeeze(1)
            texts = [self._token_text(token) for token in ids[row, columns].tolist()]
            mask[row, columns] = torch.tensor(answer_mask(texts), dtype=torch.bool, device=mask.device)
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
        if not torch.is_grad_enabled() and self._is_sampling_policy(model):
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

    def _is_sampling_policy(self, model: Any) -> bool:
        """Whether `model` is the policy that sampled, and not a LoRA model with its adapter off as the reference."""
        return (
            self.model.training
            and model is self.model
            and not self.old_policy()
            and (self.ref_model is not None or self.beta == 0.0)
        )

    def _anchor(self, batch: AnchoredBatch, logps: torch.Tensor) -> None:
        assert batch.answer is not None and batch.reference is not None
        policy = logps.detach()
        if self.settings.kl_tokens == "answer":
            batch.ref_per_token_logps = torch.where(batch.answer, batch.reference, policy)
        kl = answer_anchored_kl(policy, batch.reference, batch.answer).sum()
        total, tokens = gather(torch.stack([kl, batch.answer.sum().to(kl.dtype)]).unsqueeze(0)).sum(dim=0)
        self._log("answer_kl", total / tokens.clamp(min=1))

    def _log(self, name: str, value: torch.Tensor | float) -> None:
        self._metrics["train" if self.model.training else "eval"][name].append(float(value))


class SwiftA2GRPO(SwiftRLHF):  # type: ignore[misc]
    args_class = A2GRPOArguments


def main(arguments: list[str]) -> None:
    """Train; `arguments` are ms-swift's for GRPO and the method's own."""
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
