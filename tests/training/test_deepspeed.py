"""ZeRO-2 and ZeRO-3 over two processes on gloo: the weights that plain DDP ends with."""

from __future__ import annotations

from pathlib import Path

import pytest
from training_line import RL, apart
from training_line import corpus as corpus  # a fixture
from training_line import sft_model as sft_model  # a fixture
from training_stage import make_params

from geozero.training import stage
from geozero.training.metrics import read

pytestmark = pytest.mark.deepspeed

WAYS = {
    "sft": {},
    "a2grpo": {},
    "a2grpo, colocated vLLM": {"vllm": "colocate"},
    "a2grpo, LoRA": {"tuner": "lora", "learning_rate": 1e-2},
    "a2grpo, several iterations": {"steps": 6, "extra": {"num_iterations": 2, "loss_type": "dapo"}, "resample": 1},
}


def rewards(run: stage.StageResult) -> list[float]:
    """Equal where the very same completions were sampled."""
    return [row["answer_reward"] for row in read(run.directory / "metrics.jsonl") if "answer_reward" in row]


@pytest.fixture(autouse=True)
def two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("deepspeed", reason="`make test-deepspeed` installs it")
    monkeypatch.setenv("NPROC_PER_NODE", "2")


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_are_those_of_plain_ddp(
    way: str, sft_model: stage.StageResult, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(zero: str | None) -> stage.StageResult:
        params = make_params(sft={"batch_size": 16}, a2grpo=RL | WAYS[way], hardware={"deepspeed": zero})
        run = stage.run_sft if way == "sft" else stage.run_a2grpo
        return run(params, corpus, sft_model.model, tmp_path / str(zero))

    plain = train(None)
    assert apart(plain.model, sft_model.model) > 1e-5
    for zero in ("zero2", "zero3"):
        found = train(zero)
        assert apart(plain.model, found.model) < 1e-5  # of plain's tensors: ZeRO-2 also writes the tied lm_head
        if way != "sft":
            assert rewards(found) == rewards(plain) != []
