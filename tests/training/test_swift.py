"""A²GRPO inside real ms-swift: what the override does to losses, gradients and weights.

The experiments run in one process of their own (this file as a script): imports are paid once, and what the launcher
registers and hides does not reach other tests.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

GROUP, COMPLETION = 4, 12


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("swift")
    done = subprocess.run([sys.executable, __file__, str(out)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads((out / "results.json").read_text())


def test_an_all_answer_mask_is_stock_grpo(results: dict[str, Any]) -> None:
    assert results["moved"]["stock"] > 1e-3  # the comparison is about something
    assert results["apart"]["all_mask-stock"] < 1e-6
    assert results["apart"]["beta_0-stock"] > 1e-4


def test_an_empty_mask_is_beta_0(results: dict[str, Any]) -> None:
    assert results["moved"]["beta_0"] > 1e-3
    assert results["apart"]["empty_mask-beta_0"] == 0.0


def test_half_a_mask_is_something_else(results: dict[str, Any]) -> None:
    assert results["apart"]["half_mask-stock"] > 1e-5
    assert results["apart"]["half_mask-beta_0"] > 1e-5


def test_an_all_wrong_batch_moves_nothing(results: dict[str, Any]) -> None:
    assert results["moved"]["all_wrong"] == 0.0
    assert results["logs"]["all_wrong"]["thinking_reward"] == 0.0


def test_right_answers_alone_move_nothing_when_dropped_and_something_when_kept(results: dict[str, Any]) -> None:
    assert results["moved"]["all_right_skip"] == 0.0
    assert results["logs"]["all_right_skip"]["dropped_groups"] == 1.0
    assert results["moved"]["all_right_keep"] > 1e-3
    assert results["logs"]["all_right_keep"]["dropped_groups"] == 0.0


def test_a_form_of_the_thinking_score_that_a_user_adds_reaches_the_reward(results: dict[str, Any]) -> None:
    assert (
        results["logs"]["half_for_all"]["thinking_reward"]
        == 0.5
        != results["logs"]["all_right_keep"]["thinking_reward"]
    )
    assert results["moved"]["half_for_all"] == 0.0  # a group whose rewards are all alike moves nothing


def test_the_kl_is_exactly_zero_on_thought_tokens(results: dict[str, Any]) -> None:
    seen = results["gradients"]
    assert seen["thought_tokens"] > 0
    assert seen["answer_tokens"] > 0
    assert seen["thought_value"] == 0.0
    assert seen["thought_gradient"] == 0.0
    assert seen["answer_value"] > 1e-3
    assert seen["answer_gradient"] > 1e-6


def test_sharing_a_prompt_changes_no_number(results: dict[str, Any]) -> None:
    assert results["shared"]["members"] > 0
    assert results["shared"]["apart"] == []
    assert results["apart"]["unshared-shared"] < 1e-6
    assert results["apart"]["shared-half_mask"] > 1e-3  # the vision tower did move


def test_a_group_may_be_spread_over_forward_passes(results: dict[str, Any]) -> None:
    """Half a group a pass: the second half is made from the first one's encoding, from which a collator has taken."""
    assert results["moved"]["parts"] > 1e-3
    assert results["apart"]["parts-half_mask"] < 1e-5


def test_the_metrics_have_their_names(results: dict[str, Any]) -> None:
    expected = {"loss", "reward", "answer_reward", "thinking_reward", "answer_kl", "thought_words", "well_formed"}
    assert expected | {"dropped_groups"} <= set(results["logs"]["half_mask"])
    assert results["logs"]["half_mask"]["answer_kl"] > 0


@pytest.mark.parametrize(
    "name",
    ["use_liger_kernel", "kl_in_reward", "padding_free", "sequence_parallel_size", "loss_type", "multi_turn_scheduler"],
)
def test_what_would_bypass_the_override_is_refused(name: str, results: dict[str, Any]) -> None:
    assert name in results["refused"]
    assert "cannot be combined" in results["refused"][name]


# -- the experiments ---------------------------------------------------------------------------------------------


def experiments(out: Path) -> dict[str, Any]:
    """Train two steps of SGD from the same model on the same completions, with one thing changed a time."""
    from tiny_random import build
    from training_corpus import build_corpus

    from geozero.corpus.store import Corpus
    from geozero.training.dataset import swift_rows
    from geozero.training.launcher import launch

    base, reference = build(out / "base"), build(out / "reference", seed=1)
    swift_rows(Corpus(build_corpus(out / "corpus")), "tagged", "norm1000", out / "rows.jsonl")

    from geozero.training.grpo import group_batching, objective, rewards, trainer

    launch._hide_unused([])
    from swift.trainers import TrainerFactory
    from transformers import AutoTokenizer

    from geozero.engines.checkpoint import Vocabulary
    from geozero.engines.families import Family

    settings = base / "generation_config.json"  # stock GRPO must sample from the same tokens as ours
    suppressed = Vocabulary.of(base, AutoTokenizer.from_pretrained(base)).suppressed
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"suppress_tokens": suppressed}))

    def noise(completions: list[str], samples: list[str], boxes: str, graded: bool) -> list[float]:
        return [float(sum(map(ord, c)) % 2) for c in completions]

    def wrong(completions: list[str], samples: list[str], boxes: str, graded: bool) -> list[float]:
        return [0.0] * len(completions)

    def right(completions: list[str], samples: list[str], boxes: str, graded: bool) -> list[float]:
        return [1.0] * len(completions)

    def train(name: str, *extra: str, reward: Callable[..., list[float]] = noise, **changes: Any) -> dict[str, float]:
        kept = {key: getattr(trainer, key) for key in changes}
        scores = rewards.answer_rewards
        rewards.answer_rewards = reward
        for key, value in changes.items():
            setattr(trainer, key, value)
        try:
            launch.main(["grpo", *ARGUMENTS, "--model", str(base), "--ref_model", str(reference),
                         "--dataset", str(out / "rows.jsonl"), "--output_dir", str(out / name), *extra])  # fmt: skip
        finally:
            rewards.answer_rewards = scores
            for key, value in kept.items():
                setattr(trainer, key, value)
        lines = (out / name / "logging.jsonl").read_text().splitlines()
        return {k: v for k, v in json.loads(lines[1]).items() if isinstance(v, float)}

    objective.THINKING_SCORES["half"] = lambda *_: 0.5
    gradients: dict[str, Any] = {}
    watcher = watched(trainer.A2GRPOTrainer, gradients)
    keep, free = ("--uniform_groups", "keep"), ("--beta", "0")
    halves = ("--per_device_train_batch_size", str(GROUP // 2), "--gradient_accumulation_steps", "4")
    logs = {
        "all_mask": train("all_mask", *keep, answer_mask=lambda t: [True] * len(t)),
        "empty_mask": train("empty_mask", answer_mask=lambda t: [False] * len(t)),
        "beta_0": train("beta_0", *free),
        "half_mask": train("half_mask", answer_mask=second_half, A2GRPOTrainer=watcher),
        "parts": train("parts", *halves, answer_mask=second_half),
        "all_wrong": train("all_wrong", *free, *keep, reward=wrong),
        "all_right_skip": train("all_right_skip", *free, reward=right),
        "all_right_keep": train("all_right_keep", *free, *keep, reward=right),
        "half_for_all": train("half_for_all", *free, *keep, "--thinking_score", "half", reward=right),
    }
    shared, images = compare_encodings(group_batching), Family.dedup_images
    Family.dedup_images = lambda self, model: None
    unfrozen = ("--freeze_vit", "false", "--freeze_aligner", "false")  # so that the vision tower has gradients
    logs["unshared"] = train("unshared", *unfrozen, answer_mask=second_half)
    Family.dedup_images = images
    logs["shared"] = train("shared", *unfrozen, answer_mask=second_half)

    mapping, stock = TrainerFactory.TRAINER_MAPPING, "swift.rlhf_trainers.GRPOTrainer"
    registered = trainer.SwiftA2GRPO.main
    trainer.SwiftA2GRPO.main = lambda self: (mapping.update(grpo=stock), registered(self))
    logs["stock"] = train("stock", "--uniform_groups", "keep")
    trainer.SwiftA2GRPO.main = registered

    refused = {}
    for name, value in (
        ("use_liger_kernel", "true"), ("kl_in_reward", "true"), ("padding_free", "true"),
        ("sequence_parallel_size", "2"), ("loss_type", "real"), ("multi_turn_scheduler", "x"),
    ):  # fmt: skip
        try:
            trainer.main([*ARGUMENTS, "--model", str(base), "--dataset", str(out / "rows.jsonl"), f"--{name}", value])
        except Exception as error:
            refused[name] = str(error)
    return {
        "moved": {name: distance(base, out / name) for name in logs},
        "apart": {
            pair: distance(*(out / name for name in pair.split("-")))
            for pair in ("all_mask-stock", "beta_0-stock", "empty_mask-beta_0", "half_mask-stock", "half_mask-beta_0",
                         "parts-half_mask",
                         "unshared-shared", "shared-half_mask")
        },
        "logs": logs,
        "gradients": gradients,
        "shared": shared,
        "refused": refused,
    }  # fmt: skip


def second_half(texts: list[str]) -> list[bool]:
    return [2 * i >= len(texts) for i in range(len(texts))]


def watched(trainer: Any, seen: dict[str, Any]) -> Any:
    """The trainer, telling what the KL is and does token by token, with the surrogate's part taken away."""
    import torch

    class Watched(trainer):
        def _compute_loss_and_metrics(self, model: Any, model_inputs: Any, grpo_batch: Any) -> Any:
            if not seen:
                silent = grpo_batch.advantages
                grpo_batch.advantages = torch.zeros_like(silent)
                loss, _ = super()._compute_loss_and_metrics(model, model_inputs, grpo_batch)
                (slope,) = torch.autograd.grad(loss, self.logps)
                difference = grpo_batch.ref_per_token_logps - self.logps.detach()
                value = torch.exp(difference) - difference - 1
                inside = grpo_batch.completion_mask.bool()
                for name, tokens in (("thought", inside & ~grpo_batch.answer), ("answer", inside & grpo_batch.answer)):
                    seen[f"{name}_tokens"] = int(tokens.sum())
                    seen[f"{name}_value"] = float(value[tokens].abs().max())
                    seen[f"{name}_gradient"] = float(slope[tokens].abs().max())
                grpo_batch.advantages = silent
            return super()._compute_loss_and_metrics(model, model_inputs, grpo_batch)

        def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
            values = super()._get_per_token_logps_and_entropies(*args, **kwargs)
            if torch.is_grad_enabled():
                self.logps = values[0]
            return values

    Watched.__name__ = Watched.__qualname__ = "A2GRPOTrainer"  # found by this name in the module
    return Watched


def compare_encodings(groups: Any) -> dict[str, Any]:
    """Let every shared encoding from now on be compared with the full one."""
    import torch

    seen: dict[str, Any] = {"members": 0, "apart": []}
    exchange = groups.EncodingCache.__call__

    def both(self: Any, sample: Any, template: Any) -> Any:
        short, full = exchange(self, sample, template), self._encode(sample, template)
        seen["members"] += 1
        for key in full.keys() | short.keys():
            a, b = full.get(key), short.get(key)
            if not (torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b) and key != "_extra_kwargs":
                seen["apart"].append(key)
        return short

    groups.EncodingCache.__call__ = both
    return seen


def distance(a: Path, b: Path) -> float:
    """Largest difference of any weight between two models (a run: its last checkpoint)."""
    from safetensors.torch import load_file

    left, right = (load_file(p / "model.safetensors" if (p / "config.json").is_file() else
                             p / "checkpoint-2" / "model.safetensors") for p in (a, b))  # fmt: skip
    return max(float((left[k] - right[k]).abs().max()) for k in left)


ARGUMENTS = (
    "--model_type qwen3_vl --template geozero_qwen3_vl --split_dataset_ratio 0 --add_version false --check_model false "
    "--report_to none --torch_dtype float32 --bf16 false --fp16 false --attn_impl sdpa --max_pixels 16384 "
    "--max_length 512 --tuner_type full --freeze_vit true --freeze_aligner true --gradient_checkpointing false "
    f"--max_steps 2 --per_device_train_batch_size {2 * GROUP} --gradient_accumulation_steps 1 "
    f"--num_generations {GROUP} --max_completion_length {COMPLETION} --temperature 1.0 --beta 0.5 --optim sgd "
    "--learning_rate 0.05 --lr_scheduler_type constant --warmup_ratio 0 --weight_decay 0 --max_grad_norm 1e9 --seed 3 "
    "--data_seed 3 --save_strategy steps --save_steps 2 --save_only_model true --logging_steps 1 --disable_tqdm true "
    "--dataset_num_proc 1 --dataloader_num_workers 0 --use_cpu true --thought_words 2"
).split()

if __name__ == "__main__":
    import os

    from geozero.common import process

    os.environ["MODELSCOPE_CACHE"] = f"{sys.argv[1]}/cache"
    process.prepare()
    outcome = experiments(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "results.json").write_text(json.dumps(outcome, indent=1))
