"""The ablation's arms, its statistics on made-up outcomes, and that a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from test_training_rewards import make as make_sample
from test_training_stage import make_params

from benchmarks import ablation


def result(arm: str, seed: int, right: float, n: int = 200) -> dict[str, Any]:
    """Outcomes of one arm and seed: each task right with probability `right`, the same hard questions for all."""
    rng = np.random.default_rng(seed)
    difficulty = np.random.default_rng(0).random(n)
    values = {f"s{i}": float(d + rng.normal(0, 0.05) < right) for i, d in enumerate(difficulty)}
    outcomes = {"toy_aid_hard": {"scene_cls": values}, "neon": {"vqa": dict(list(values.items())[:50])}}
    about = {"well_formed": 1.0, "thought_words": 20.0, "distinct": 0.5, "answer_kl": 0.01, "seconds": 9.0}
    return {"arm": arm, "seed": seed, "outcomes": outcomes, **about}


@pytest.mark.parametrize("name", list(ablation.ARMS))
def test_every_arm_is_a_valid_profile_that_differs(name: str) -> None:
    arm, params = ablation.ARMS[name], make_params()
    changed = ablation.settings_of(params, arm, seed=3)
    assert changed.seed == 3
    if arm.stage == "sft":
        assert changed.sft.steps == params.a2grpo.steps
    else:
        differs = {k for k, v in changed.a2grpo.model_dump().items() if v != params.a2grpo.model_dump()[k]}
        assert differs == set(arm.changes)  # a change that is the profile's own value would compare nothing


def test_the_three_main_arms() -> None:
    assert [name for name, arm in ablation.ARMS.items() if arm.main] == ["sft", "grpo", "a2grpo"]


def test_a_real_difference_is_found_and_none_is_not_invented() -> None:
    results = [result("a2grpo", s, 0.7) for s in range(5)] + [result("grpo", s, 0.6) for s in range(5)]
    results += [result("sft", s, 0.7) for s in range(10, 15)]
    found = ablation.report(results)["splits"]["test_hard"]
    gap = found["grpo"]["a2grpo minus it"]
    assert gap["low"] > 0 and gap["difference"] == pytest.approx(0.1, abs=0.04) and gap["p_value"] < 0.01
    none = found["sft"]["a2grpo minus it"]
    assert none["low"] < 0 < none["high"] and none["p_value"] > 0.05
    low, high = found["a2grpo"]["interval"]
    assert low < found["a2grpo"]["mean"] < high
    assert "a2grpo minus it" not in found["a2grpo"]


def test_questions_are_paired() -> None:
    """Two arms that are right on the same questions differ by exactly 0, however few the questions."""
    results = [result(arm, s, 0.5, n=20) for arm in ("a2grpo", "grpo") for s in range(3)]
    gap = ablation.report(results)["splits"]["test_hard"]["grpo"]["a2grpo minus it"]
    assert (gap["difference"], gap["low"], gap["high"], gap["p_value"]) == (0, 0, 0, 1)


def test_arms_with_fewer_seeds_stand_beside_the_others() -> None:
    results = [result("a2grpo", s, 0.7) for s in range(4)] + [result("no_gate", 0, 0.3)]
    found = ablation.report(results)
    assert found["arms"]["no_gate"]["seeds"] == 1
    text = ablation.page(found)
    assert "A²GRPO without gate" in text and "## neon" in text and "## test_hard" in text


def test_outcomes_follow_the_strict_protocol() -> None:
    vqa = make_sample("vqa")
    assert ablation.outcome({"pred": "Yes."}, vqa, "norm1000") == 1.0
    assert ablation.outcome({"pred": ""}, vqa, "norm1000") == 0.0
    box = make_sample("grounding", box=(10.0, 10.0, 50.0, 50.0), answer="[10, 10, 50, 50]")
    assert ablation.outcome({"pred": "[100, 100, 500, 300]"}, box, "norm1000") == 1.0  # IoU exactly one half
    assert ablation.outcome({"pred": "[100, 100, 500, 290]"}, box, "norm1000") == 0.0


def test_a_stopped_ablation_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trained: list[tuple[str, int]] = []

    def train(space: Any, arm: str, seed: int, start: Path, out: Path) -> Any:
        if len(trained) == 3:
            raise KeyboardInterrupt
        trained.append((arm, seed))
        directory = out / "runs" / f"{arm}-{seed}"
        directory.mkdir(parents=True)
        (directory / "metrics.jsonl").write_text('{"step": 1, "answer_kl": 0.5}\n')
        return SimpleNamespace(directory=directory, model=directory / "model")

    def judge(space: Any, arm: str, *_: Any) -> dict[str, Any]:
        return {k: v for k, v in result(arm, 1, 0.5).items() if k not in ("arm", "seed", "seconds", "answer_kl")}

    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(ablation, "judge", judge)
    space: Any = SimpleNamespace(newest=lambda stage: tmp_path)
    arms = ["grpo", "a2grpo", "no_gate"]
    with pytest.raises(KeyboardInterrupt):
        ablation.run(space, arms, 2, 1, tmp_path / "out", None)
    trained.append(("killed", 0))
    found = ablation.run(space, arms, 2, 1, tmp_path / "out", None)
    assert trained == [("grpo", 1), ("a2grpo", 1), ("no_gate", 1), ("killed", 0), ("grpo", 2), ("a2grpo", 2)]
    assert [found["arms"][arm]["seeds"] for arm in arms] == [2, 2, 1]
    assert found["arms"]["grpo"]["answer_kl"] == 0.5
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == found
