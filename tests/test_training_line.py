"""The whole line through real ms-swift in children of their own: SFT, A²GRPO, and a kill in between."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from test_training_data import build_corpus
from test_training_stage import make_params

from geozero.params import Params
from geozero.training import stage
from geozero.training.metrics import read

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_corpus(tmp_path_factory.mktemp("data") / "corpus")


SCRIPT = """
import sys
from pathlib import Path
from geozero.params import Params
from geozero.training import stage

values, kind, corpus, base, out = sys.argv[1:]
run = stage.run_sft if kind == "sft" else stage.run_a2grpo
print_step = lambda step, values: print("step", step, flush=True)
run(Params.model_validate_json(values), Path(corpus), Path(base), Path(out), on_metrics=print_step)
"""


def start_and_kill(params: Params, kind: str, corpus: Path, base: Path, out: Path, at: int) -> None:
    """Run a stage in a process of its own and end that with SIGKILL once it has logged step `at`."""
    words = [sys.executable, "-c", SCRIPT, params.model_dump_json(), kind, str(corpus), str(base), str(out)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as stage_process:
        assert stage_process.stdout is not None
        for line in stage_process.stdout:
            if line.split() == ["step", str(at)]:
                break
        stage_process.kill()
    assert stage_process.returncode == -9


def weights(model: Path):
    from safetensors.torch import load_file

    return load_file(model / "model.safetensors")


def apart(a: Path, b: Path) -> float:
    left, right = weights(a), weights(b)
    return max(float((left[k] - right[k]).abs().max()) for k in left)


def test_sft_then_a2grpo(tiny_random: Path, corpus: Path, tmp_path: Path) -> None:
    params = make_params(sft={"steps": 2}, a2grpo={"steps": 2})
    first = stage.run_sft(params, corpus, tiny_random, tmp_path / "runs")
    second = stage.run_a2grpo(params, corpus, first.model, tmp_path / "runs")
    assert apart(first.model, tiny_random) > 0
    assert {p.name for p in second.model.iterdir()} == {p.name for p in tiny_random.iterdir()}
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (second.model / name).read_bytes() == (tiny_random / name).read_bytes()
    assert [row["step"] for row in read(second.directory / "metrics.jsonl")] == [1, 2]
    wanted = {"loss", "reward", "answer_reward", "thinking_reward", "answer_kl", "thought_words", "well_formed"}
    assert wanted | {"dropped_groups"} <= set(read(second.directory / "metrics.jsonl")[0])
    saved = json.loads((second.directory / "args.json").read_text())
    assert (saved["gate_k"], saved["thinking_weight"]) == (params.a2grpo.gate_k, params.a2grpo.thinking_weight)

    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    AutoProcessor.from_pretrained(second.model)
    Qwen3VLForConditionalGeneration.from_pretrained(second.model)


@pytest.mark.parametrize("kind", ["sft", "a2grpo"])
def test_a_killed_run_ends_where_an_undisturbed_one_does(
    kind: str, tiny_random: Path, corpus: Path, tmp_path: Path
) -> None:
    params = make_params(sft={"steps": 4}, a2grpo={"steps": 4})
    run = stage.run_sft if kind == "sft" else stage.run_a2grpo
    undisturbed = run(params, corpus, tiny_random, tmp_path / "a")
    start_and_kill(params, kind, corpus, tiny_random, tmp_path / "b", at=3)
    told: list[str] = []
    resumed = run(params, corpus, tiny_random, tmp_path / "b", on_line=told.append)
    assert any(line.startswith("resumed from checkpoint-") for line in told)
    assert [row["step"] for row in read(resumed.directory / "metrics.jsonl")] == [1, 2, 3, 4]
    assert apart(resumed.model, undisturbed.model) < 1e-6


def test_a_lora_adapter_is_merged_into_a_plain_model(tiny_random: Path, corpus: Path, tmp_path: Path) -> None:
    params = make_params(sft={"steps": 2, "tuner": "lora"})  # the first of a warm-up changes nothing
    result = stage.run_sft(params, corpus, tiny_random, tmp_path / "runs")
    assert set(weights(result.model)) == set(weights(tiny_random))
    assert apart(result.model, tiny_random) > 0


def test_two_processes_train_one_model(
    tiny_random: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    params = make_params(a2grpo={"steps": 1})
    result = stage.run_a2grpo(params, corpus, tiny_random, tmp_path / "runs")
    assert [row["step"] for row in read(result.directory / "metrics.jsonl")] == [1]
