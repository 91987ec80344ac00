"""The whole line through real ms-swift in children of their own: SFT, A²GRPO, and a kill in between."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from training_line import RL, apart, weights
from training_line import corpus as corpus
from training_line import sft_model as sft_model
from training_stage import make_params

from geozero.corpus.store import Corpus, subset
from geozero.engines import open_engine
from geozero.engines.base import Request, SamplingParams
from geozero.engines.vllm_inprocess import built_for_cpu
from geozero.params import Params
from geozero.tasks import messages
from geozero.training import checkpoints, stage
from geozero.training.grpo import probe_log
from geozero.training.launcher import watchdog
from geozero.training.metrics import read

pytestmark = pytest.mark.slow


SCRIPT = """
import sys
from pathlib import Path
from geozero.corpus.store import Corpus, subset
from geozero.params import Params
from geozero.tasks import messages
from geozero.training import checkpoints, stage
from geozero.training.grpo import probe_log
from geozero.training.dataset import Replay, image_uri

values, kind, corpus, base, out = sys.argv[1:]
run = stage.run_sft if kind == "sft" else stage.run_a2grpo
print_step = lambda step, values: print("step", step, flush=True)
say = lambda line: line.startswith("interrupted ") and print(line, flush=True)
run(Params.model_validate_json(values), Path(corpus), Path(base), Path(out), on_line=say, on_metrics=print_step)
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


def test_sft_then_a2grpo(sft_model: stage.StageResult, tiny_random: Path, corpus: Path, tmp_path: Path) -> None:
    params = make_params(a2grpo=RL)
    result = stage.run_a2grpo(params, corpus, sft_model.model, tmp_path / "runs")
    assert apart(sft_model.model, tiny_random) > 0
    assert apart(result.model, sft_model.model) > 0
    assert {p.name for p in result.model.iterdir()} == {p.name for p in tiny_random.iterdir()}
    for name in ("config.json", "generation_config.json", "tokenizer.json"):
        assert (result.model / name).read_bytes() == (tiny_random / name).read_bytes()
    rows = read(result.directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    expected = {"loss", "reward", "answer_reward", "thinking_reward", "answer_kl", "thought_words", "well_formed"}
    assert all(expected | {"dropped_groups"} <= set(row) for row in rows)
    assert rows[0]["well_formed"] > 0.5
    assert min(row["dropped_groups"] for row in rows) < 1  # of a step's four groups all may be alike, now and then
    assert 0 < rows[0]["thinking_reward"] < rows[0]["answer_reward"] < 1
    by_source = [value for name, value in rows[0].items() if name.startswith("answer_reward/")]
    assert by_source and min(by_source) <= rows[0]["answer_reward"] <= max(by_source)
    assert rows[0]["reward"] == pytest.approx(rows[0]["answer_reward"] + 0.5 * rows[0]["thinking_reward"], abs=1e-6)
    assert rows[0]["answer_kl"] == 0  # the policy is its own reference before the first update
    assert rows[3]["answer_kl"] > 0
    saved = json.loads((result.directory / "args.json").read_text())
    assert (saved["gate_k"], saved["thinking_weight"]) == (params.a2grpo.gate_k, params.a2grpo.thinking_weight)

    from transformers import AutoProcessor, Qwen3VLForConditionalGeneration

    AutoProcessor.from_pretrained(result.model)
    Qwen3VLForConditionalGeneration.from_pretrained(result.model)


def test_resampling_validation_and_curriculum(sft_model: stage.StageResult, corpus: Path, tmp_path: Path) -> None:
    """Groups without an answer signal are replaced, val chooses the checkpoint, easy samples come first."""
    whole = Corpus(corpus)
    data = tmp_path / "data"
    subset(whole, list(whole.samples()), data / "hard", {"made_by": "test"})
    rates = {s.id: i / 100 for i, s in enumerate(whole.samples())}
    pq.write_table(pa.table({"id": list(rates), "p": list(rates.values())}), data / "pass_rates.parquet")
    val = [replace(s, split="val") for s in whole.samples()]
    subset(whole, val, data / "val", {"made_by": "test"})
    more = {"resample": 2, "keep": "best", "val_prompts": 8, "order": "easy_first", "probes": 3, "probe_steps": 3}
    # A model trained for a few steps may lose the answer format: only a warning here, the guards have their own tests.
    guards = {"entropy": {"limit": 0.01}, "well_formed": {"action": "warn"}, "window": 2}
    params = make_params(a2grpo=RL | more | {"guards": guards})
    logged: list[str] = []
    runs = tmp_path / "runs"
    result = stage.run_a2grpo(params, data / "hard", sft_model.model, runs, val=[data / "val"], on_line=logged.append)
    rows = read(result.directory / "metrics.jsonl")
    steps = [row for row in rows if "loss" in row and "eval_loss" not in row]
    judged = {row["step"]: row["eval_answer_reward"] for row in rows if "eval_answer_reward" in row}
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert list(judged) == [1, 2, 3, 4]  # a fifth of four steps is one
    assert all(row["resampled"] in (0, 1, 2) for row in steps)
    # a round samples as many groups as are to be replaced, so two rounds at most as many as the step's own twice over
    assert all(row["resampled_share"] <= 2 * row["resampled"] / 2 for row in steps)
    assert all({"distinct", "entropy/mean", "completions/clipped_ratio"} <= set(row) for row in steps)
    chosen = json.loads((result.directory / "stage.json").read_text())["model_step"]
    assert judged[chosen] == max(judged.values())
    assert any(line.startswith(f"selected checkpoint-{chosen} (best validation") for line in logged)
    weights(result.model)
    probes = probe_log.read(result.directory)
    assert len({probe.sample.id for probe in probes}) == len(probes) == 3
    assert all(list(probe.texts) == [0, 3, 4] and all(probe.texts.values()) for probe in probes)


def test_pools_follow_the_groups_and_survive_a_kill(sft_model: stage.StageResult, corpus: Path, tmp_path: Path) -> None:
    """Each step draws from pools by the latest group means; a killed run goes on with the prompts of a straight one."""
    whole = Corpus(corpus)
    subset(whole, list(whole.samples()), tmp_path / "data/hard", {"made_by": "test"})
    rates = {s.id: i % 4 / 3 for i, s in enumerate(whole.samples())}
    pq.write_table(pa.table({"id": list(rates), "p": list(rates.values())}), tmp_path / "data/pass_rates.parquet")
    more = {"order": "pools", "pool_easy": 0.25, "pool_hard": 0.25, "guards": {"well_formed": {"action": "warn"}}}
    params = make_params(a2grpo=RL | more)
    drawn = []
    for name in ("straight", "killed"):
        arguments = tmp_path / "data/hard", sft_model.model, tmp_path / name
        if name == "killed":
            start_and_kill(params, "grpo", *arguments, at=2)
        result = stage.run_a2grpo(params, *arguments)
        lines = (result.directory / "pools.jsonl").read_text().split("\n")
        values = [json.loads(line) for line in lines if line]
        drawn.append({value["step"]: (value["rows"], value["means"]) for value in values})
    assert sorted(drawn[0]) == [0, 1, 2, 3] and drawn[0] == drawn[1]
    rows = read(result.directory / "metrics.jsonl")
    assert all({"pool_easy", "pool_medium", "pool_hard"} <= set(row) for row in rows)


@pytest.mark.skipif(not built_for_cpu(), reason="no vLLM for CPUs is installed")
def test_colocated_vllm_samples_with_the_weights_of_each_step(
    sft_model: stage.StageResult, corpus: Path, tmp_path: Path
) -> None:
    """Real vLLM beside the trainer answers before and after as transformers does with those weights."""
    whole = Corpus(corpus)
    val = [replace(s, split="val") for s in whole.samples()]
    subset(whole, val, tmp_path / "val", {"made_by": "test"})
    more = {"vllm": "colocate", "probes": 6, "probe_steps": 4, "learning_rate": 3e-3}
    params = make_params(a2grpo=RL | more | {"guards": {"well_formed": {"action": "warn"}}})
    result = stage.run_a2grpo(params, corpus, sft_model.model, tmp_path / "runs", val=[tmp_path / "val"])
    steps = [row for row in read(result.directory / "metrics.jsonl") if "loss" in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert "Traceback" not in (result.directory / "train.log").read_text()
    probes = probe_log.read(result.directory)
    images = Corpus(tmp_path / "val")
    requests = [
        Request(p.sample.id, messages(p.sample, "tagged"), images.image_bytes(p.sample.image_id)) for p in probes
    ]
    for step, model in ((0, sft_model.model), (4, result.model)):
        engine = open_engine(
            "transformers", model, max_pixels=params.model.max_pixels, max_length=params.model.max_length
        )
        answers = engine.generate(requests, SamplingParams(max_tokens=RL["max_completion_tokens"]))
        engine.close()
        assert [p.texts[step] for p in probes] == [row[0].text for row in answers]
    assert any(p.texts[0] != p.texts[4] for p in probes)  # else the comparison after the training would say nothing


@pytest.mark.parametrize("kind", [pytest.param("sft", marks=pytest.mark.long), "a2grpo"])
def test_a_killed_run_ends_where_an_undisturbed_one_does(
    kind: str, sft_model: stage.StageResult, corpus: Path, tmp_path: Path
) -> None:
    params, base = make_params(sft={"steps": 4}, a2grpo=RL), sft_model.model
    run = stage.run_sft if kind == "sft" else stage.run_a2grpo
    undisturbed = run(params, corpus, base, tmp_path / "a")
    start_and_kill(params, kind, corpus, base, tmp_path / "b", at=3)
    logged: list[str] = []
    resumed = run(params, corpus, base, tmp_path / "b", on_line=logged.append)
    assert any(line.startswith("resuming from checkpoint-") for line in logged)
    assert [row["step"] for row in read(resumed.directory / "metrics.jsonl")] == [1, 2, 3, 4]
    assert apart(undisturbed.model, base) > 1e-5
    assert apart(resumed.model, undisturbed.model) < 1e-6


def test_sigterm_reaches_the_trainer_which_leaves_with_a_checkpoint(
    sft_model: stage.StageResult, corpus: Path, tmp_path: Path
) -> None:
    params = make_params(sft={"steps": 60, "batch_size": 16, "micro_batch_size": 16})
    words = [sys.executable, "-c", SCRIPT, params.model_dump_json(), "sft", str(corpus), str(sft_model.model)]
    with subprocess.Popen([*words, str(tmp_path)], stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.split() == ["step", "2"]:
                running.terminate()
    assert line.startswith("interrupted at step ") and line.endswith("/60; rerun the same command to resume\n")
    assert running.returncode == 128 + signal.SIGTERM
    (directory,) = tmp_path.iterdir()
    last = checkpoints.newest(directory)
    assert last is not None and 2 <= last.step < 12  # the first one by plan would be 12
    assert not (directory / "DONE").exists()


def test_a_lora_adapter_is_merged_into_a_plain_model(tiny_random: Path, corpus: Path, tmp_path: Path) -> None:
    params = make_params(sft={"steps": 2, "tuner": "lora"})  # the first of a warm-up changes nothing
    result = stage.run_sft(params, corpus, tiny_random, tmp_path / "runs")
    assert set(weights(result.model)) == set(weights(tiny_random))
    assert apart(result.model, tiny_random) > 0
    params = make_params(a2grpo=RL | {"steps": 1, "tuner": "lora"})
    result = stage.run_a2grpo(params, corpus, result.model, tmp_path / "runs")
    assert "shared image encoding is off" not in (result.directory / "train.log").read_text()


def test_two_processes_train_one_model(
    sft_model: stage.StageResult, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    result = stage.run_a2grpo(make_params(a2grpo=RL | {"steps": 2}), corpus, sft_model.model, tmp_path / "runs")
    rows = read(result.directory / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2]
    assert 0 < rows[0]["thinking_reward"] < rows[0]["answer_reward"] < 1  # each process holds whole groups
    assert apart(result.model, sft_model.model) > 1e-5


@pytest.mark.long
def test_two_nodes_of_which_one_loses_its_trainer_end_where_one_node_does(
    sft_model: stage.StageResult, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = sft_model.model
    with monkeypatch.context() as alone:
        alone.setenv("NPROC_PER_NODE", "2")
        undisturbed = stage.run_a2grpo(make_params(a2grpo=RL), corpus, base, tmp_path / "one")
    params = make_params(a2grpo=RL, hardware={"nodes": 2, "restarts": 1})
    words = [sys.executable, "-c", SCRIPT, params.model_dump_json(), "a2grpo", str(corpus), str(base)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    there = os.environ | {"NPROC_PER_NODE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    first, other = (
        subprocess.Popen(
            [*words, str(tmp_path / "two")], env=there | {"NODE_RANK": rank}, stdout=subprocess.PIPE, text=True
        )
        for rank in "01"
    )
    steps = []
    with first, other:
        for line in first.stdout:
            steps += [int(line.split()[1])]
            if steps == [1, 2]:
                for trainer in watchdog.trainers(other.pid):
                    trainer.kill()
    assert (first.returncode, other.returncode, steps) == (0, 0, [1, 2, 3, 4])
    (directory,) = (tmp_path / "two").iterdir()
    (retry,) = json.loads((directory / "stage.json").read_text())["retries"]
    assert retry == "node 1: a process ended with code 1"
    assert apart(undisturbed.model, base) > 1e-5
    assert apart(directory / "model", undisturbed.model) < 1e-6


@pytest.mark.parametrize(("dtype", "most"), [("float32", 1e-4), ("bfloat16", 0.03)])
def test_a_merged_adapter_gives_the_log_probabilities_of_the_trained_policy(
    dtype: str, most: float, tiny_random: Path, tmp_path: Path
) -> None:
    from geozero.common import process

    process.prepare()
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import Qwen3VLForConditionalGeneration

    load = partial(Qwen3VLForConditionalGeneration.from_pretrained, dtype=getattr(torch, dtype))
    ids = torch.randint(20, 200, (4, 24), generator=torch.Generator().manual_seed(1))

    def log_probabilities(model: Any) -> Any:
        with torch.no_grad():
            return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.float().log_softmax(-1)

    targets = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
    policy = get_peft_model(load(tiny_random), LoraConfig(r=8, lora_alpha=16, target_modules=targets, lora_dropout=0.0))
    torch.manual_seed(2)
    for name, weight in policy.named_parameters():
        if "lora_B" in name:  # zero before training
            weight.data.normal_(0, 0.05)
    trained, checkpoint = log_probabilities(policy), tmp_path / "checkpoint-1"
    policy.save_pretrained(checkpoint)
    params = make_params(model={"path": str(tiny_random), "dtype": dtype})
    checkpoints.assemble_model(checkpoint, tiny_random, params.model, tmp_path / "model")
    difference = (log_probabilities(load(tmp_path / "model")) - trained).abs().mean()
    assert difference < most
    assert (log_probabilities(load(tiny_random)) - trained).abs().mean() > 10 * most  # the adapter does something
