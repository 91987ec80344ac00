"""What the trainer asks its sampler for: how many validation prompts at once, how many prompts in place of others.

A stand-in takes the place of the trainer's state; its methods are the real ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from reward_samples import make

pytest.importorskip("torch")
pytestmark = pytest.mark.slow  # it imports ms-swift

SIZE, PROMPTS = 4, 6  # of a group; of a step
ROWS = [{"row": i} for i in range(100)]


def a2grpo_trainer() -> Any:
    from geozero.common import process

    process.prepare()
    from geozero.training.grpo import trainer

    return trainer


def validate(n_val: int, use_vllm: bool, out: Path, rank: int = 0, processes: int = 1) -> tuple[list[list[int]], Any]:
    """The rows asked for, call by call, and the trainer."""
    calls: list[list[int]] = []
    (out / "logging.jsonl").write_text("")
    os.utime(out / "logging.jsonl", (0, 0))

    def rollout(rows: list[dict[str, Any]]) -> list[Any]:
        calls.append([row["row"] for row in rows])
        return list(rows)

    def log(metrics: dict[str, float]) -> None:
        metrics["eval_answer_reward"] = 0.5

    one = SimpleNamespace(
        accelerator=SimpleNamespace(process_index=rank, num_processes=processes),
        args=SimpleNamespace(
            use_vllm=use_vllm, per_device_train_batch_size=2, steps_per_generation=3, output_dir=str(out)
        ),
        eval_dataset=ROWS[:n_val],
        model=SimpleNamespace(eval=lambda: None),
        callback_handler=SimpleNamespace(on_evaluate=lambda args, state, control, metrics: control),
        state=None,
        control="as it was",
        log=log,
        scored=[],
    )
    one._rollout_samples = rollout
    one._compute_rewards_per_func = one.scored.append
    metrics = a2grpo_trainer().A2GRPOTrainer.evaluate(one)
    assert metrics == {"eval_answer_reward": 0.5}
    assert len(one.scored) == 1 and len(one.scored[0]) == sum(map(len, calls))
    assert (out / "logging.jsonl").stat().st_mtime > 0  # progress for the watchdog
    return calls, one


def test_vllm_gets_all_validation_prompts_at_once(tmp_path: Path) -> None:
    calls, _ = validate(50, use_vllm=True, out=tmp_path)
    assert calls == [list(range(50))]


def test_the_trainer_itself_samples_as_many_as_in_a_training_step(tmp_path: Path) -> None:
    calls, _ = validate(20, use_vllm=False, out=tmp_path)
    assert [len(call) for call in calls] == [6, 6, 6, 2]
    assert [row for call in calls for row in call] == list(range(20))


def test_processes_share_the_validation_prompts_and_ask_equally_often(tmp_path: Path) -> None:
    asked = [validate(10, use_vllm=True, out=tmp_path, rank=rank, processes=4)[0] for rank in range(4)]
    assert {len(calls) for calls in asked} == {1} and {len(calls[0]) for calls in asked} == {3}
    assert {row for calls in asked for row in calls[0]} == set(range(10))


def resample(uniform: int, draws: int, still_uniform: Callable[[int], bool]) -> tuple[list[int], Any]:
    """How many completions each round samples where so many of a step's groups have no spread."""
    import torch

    trainer = a2grpo_trainer()
    drawn: list[int] = []
    logged: dict[str, float] = {}

    def sample(prompt: int, k: int) -> Any:
        turns = [{"role": "user", "content": f"question {prompt}"}, {"role": "assistant", "content": str(k)}]
        empty = dict.fromkeys(("images", "videos", "audios", "tools", "objects", "extra"))
        return SimpleNamespace(messages=turns, prompt=prompt, k=k, **empty)

    def rewards(samples: list[Any], alike: Callable[[int], bool]) -> Any:
        return torch.tensor([[0.0 if alike(s.prompt) else float(s.k % 2), 0.1] for s in samples])

    def rollout(rows: list[dict[str, Any]]) -> list[Any]:
        drawn.append(len(rows))
        return [sample(row["row"], i % SIZE) for i, row in enumerate(rows)]

    step = [sample(prompt, k) for prompt in range(1000, 1000 + PROMPTS) for k in range(SIZE)]
    one = SimpleNamespace(
        accelerator=SimpleNamespace(process_index=0, num_processes=1),
        args=SimpleNamespace(seed=7),
        settings=SimpleNamespace(resample=draws),
        state=SimpleNamespace(global_step=0, max_steps=4),
        train_dataset=ROWS,
        num_iterations=1,
        shuffle_dataset=True,
        _group_size=SIZE,
        _log=logged.__setitem__,
        _rollout_samples=rollout,
        _compute_rewards_per_func=lambda samples: rewards(samples, still_uniform),
    )
    one._further_rows = lambda *args: trainer.A2GRPOTrainer._further_rows(one, *args)
    one._rewards_per_func = rewards(step, lambda prompt: prompt < 1000 + uniform)
    kept = trainer.A2GRPOTrainer._resample(one, step)
    assert len(kept) == len(step) == len(one._rewards_per_func)
    assert logged["resampled"] == len(drawn)
    assert math.isclose(logged["resampled_share"], sum(drawn) / len(step))
    return drawn, one


def test_a_round_samples_one_prompt_for_each_group_that_has_no_spread() -> None:
    assert resample(0, draws=2, still_uniform=lambda _: False)[0] == []
    assert resample(2, draws=2, still_uniform=lambda _: False)[0] == [2 * SIZE]
    assert resample(PROMPTS, draws=2, still_uniform=lambda _: False)[0] == [PROMPTS * SIZE]


def test_the_rounds_end_where_nothing_has_a_spread() -> None:
    drawn, one = resample(3, draws=2, still_uniform=lambda _: True)
    assert drawn == [3 * SIZE, 3 * SIZE]
    from geozero.training.grpo.objective import is_zero_std

    assert int(is_zero_std(one._rewards_per_func[:, 0], SIZE).sum()) == 3


def test_the_answer_reward_of_each_source_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    trainer = a2grpo_trainer()
    kind = trainer.A2GRPOTrainer
    scored = torch.tensor([[1.0, 0.5], [0.0, 0.0], [0.5, 0.25]])
    monkeypatch.setattr(kind.__mro__[1], "_compute_rewards_per_func", lambda self, samples: scored)
    monkeypatch.setattr(trainer, "gather_object", list)
    one, logged = object.__new__(kind), {}
    monkeypatch.setattr(kind, "_log", lambda self, name, value: logged.update({name: float(value)}))
    texts = [make("vqa", str(i), source=source).to_json() for i, source in enumerate(("one", "two", "one"))]
    samples = [
        SimpleNamespace(messages=[{"content": "I look. <answer>yes</answer>"}], extra={"sample": text})
        for text in texts
    ]
    assert one._compute_rewards_per_func(samples) is scored
    assert {name: value for name, value in logged.items() if name.startswith("answer_reward")} == {
        "answer_reward": 0.5,
        "answer_reward/one": 0.75,
        "answer_reward/two": 0.0,
    }
