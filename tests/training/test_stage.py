"""Stages without a trainer: arguments, fingerprints, checkpoints, curves; a fake trainer stands in for ms-swift."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import pytest
from paths import ROOT, SUPPORT
from pydantic import ValidationError
from training_corpus import break_by_hand, build_corpus
from training_stage import base as base
from training_stage import log_line, make_params, spec_of, write_checkpoint
from weights import write_weights

from geozero.common.errors import InputError
from geozero.common.process import ChildFailed
from geozero.engines.vllm_inprocess import SAMPLER
from geozero.training import arguments, checkpoints, stage
from geozero.training.metrics import MetricsForwarder, NonFiniteStop, parse, read


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_corpus(tmp_path_factory.mktemp("data") / "corpus")


# -- arguments ---------------------------------------------------------------------------------------------------


def test_arguments_of_sft_say_batches_types_and_extra_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    params = make_params(
        sft={"batch_size": 16, "micro_batch_size": 4, "extra": {"learning_rate": 0.5, "deepspeed": "zero2"}}
    )
    made = arguments.sft(spec_of(params, "sft"), tmp_path)
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (4, 2)
    assert made["learning_rate"] == 0.5
    words = arguments.flatten(made)
    assert words[words.index("--deepspeed") + 1] == "zero2"
    assert words[words.index("--bf16") + 1] == "false"
    half = arguments.sft(spec_of(make_params(model={"dtype": "bfloat16"}), "sft"), tmp_path)
    assert (half["torch_dtype"], half["bf16"], half["fp16"]) == ("bfloat16", True, False)


def test_arguments_of_grpo_carry_the_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "1")
    params = make_params(a2grpo={"beta": 0.1, "gate_k": 3.0, "thought_words": 7, "uniform_groups": "keep"})
    made = arguments.grpo(spec_of(params, "a2grpo"), tmp_path)
    expected = {"num_generations": 4, "beta": 0.1, "gate_k": 3.0, "thought_words": 7, "uniform_groups": "keep"}
    assert made.items() >= (expected | {"boxes": "norm1000"}).items()
    assert made["use_vllm"] is False


def grpo_arguments(tmp_path: Path, **sections: dict) -> dict:
    params = make_params(**sections)
    return arguments.grpo(spec_of(params, "a2grpo"), tmp_path)


def test_where_completions_are_sampled(tmp_path: Path) -> None:
    wanted = {"vllm": "colocate", "vllm_memory": 0.4, "vllm_tensor_parallel": 2}
    colocated = grpo_arguments(tmp_path, a2grpo=wanted, hardware={"gpus": 2})
    words = arguments.flatten(colocated)
    expected = {
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "logits_processors": [SAMPLER],
        "mm_processor_kwargs": {"size": {"shortest_edge": 1024, "longest_edge": 16384}},
    }
    assert json.loads(words[words.index("--vllm_engine_kwargs") + 1]) == expected
    assert (colocated["vllm_gpu_memory_utilization"], colocated["vllm_tensor_parallel_size"]) == (0.4, 2)
    server = grpo_arguments(tmp_path, a2grpo={"vllm": "server", "vllm_server": "node7:8123"})
    assert (server["vllm_server_host"], server["vllm_server_port"], server["vllm_mode"]) == ("node7", 8123, "server")
    params = make_params(a2grpo={"vllm": "server", "vllm_server": "node7:8123", "tuner": "lora", "lora": {"rank": 4}})
    asked = arguments.rollout_server(params, tmp_path)
    assert (asked["host"], asked["port"], asked["vllm_max_lora_rank"]) == ("node7", 8123, 4)
    with pytest.raises(InputError, match="host:port"):
        grpo_arguments(tmp_path, a2grpo={"vllm": "server", "vllm_server": "node7"})
    assert make_params(a2grpo={"vllm": False}).a2grpo.vllm == "off"  # what YAML makes of a bare `off`


def test_a_minimum_image_size_reaches_the_trainer_and_its_vllm(tmp_path: Path) -> None:
    assert "model_kwargs" not in grpo_arguments(tmp_path)
    model = make_params().model.model_dump() | {"min_pixels": 2048}
    found = grpo_arguments(tmp_path, model=model, a2grpo={"vllm": "colocate"}, hardware={"gpus": 1})
    assert found["model_kwargs"] == {"geozero_min_pixels": 2048}
    limits = found["vllm_engine_kwargs"]["mm_processor_kwargs"]["size"]
    assert limits == {"shortest_edge": 2048, "longest_edge": 16384}
    with pytest.raises(ValidationError, match="at most a quarter of max_pixels"):
        make_params(model=model | {"min_pixels": 8192})


def test_the_sampler_that_vllm_loads_by_name_is_there() -> None:
    module, _, name = SAMPLER.partition(":")
    path = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    assert f"class {name}(" in path.read_text()


def test_adapters_have_their_rank_and_rl_no_dropout(tmp_path: Path) -> None:
    lora = {"rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["q_proj"]}
    made = grpo_arguments(tmp_path, a2grpo={"tuner": "lora", "lora": lora})
    assert (made["lora_rank"], made["lora_alpha"], made["target_modules"], made["lora_dropout"]) == (
        4,
        8,
        ["q_proj"],
        0,
    )
    params = make_params(sft={"tuner": "lora", "lora": lora})
    assert arguments.sft(spec_of(params, "sft"), tmp_path)["lora_dropout"] == 0.1
    assert "lora_rank" not in grpo_arguments(tmp_path)


def test_a_profile_for_gpus_is_planned_without_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NPROC_PER_NODE", raising=False)
    params = make_params(
        hardware={"gpus": 2, "nodes": 2, "deepspeed": "zero3", "attention": "flash_attn"},
        sft={"batch_size": 16, "micro_batch_size": 2},
    )
    made = arguments.sft(spec_of(params, "sft"), tmp_path)
    assert (made["per_device_train_batch_size"], made["gradient_accumulation_steps"]) == (2, 2)
    assert (made["deepspeed"], made["attn_impl"], made["gradient_checkpointing"]) == ("zero3", "flash_attn", True)
    assert "use_cpu" not in made
    monkeypatch.setattr(arguments, "visible_gpus", lambda: 1)
    with pytest.raises(InputError, match="needs 2 GPUs per node and 1 are visible"):
        arguments.check_hardware(params.hardware)
    with pytest.raises(InputError, match="no DeepSpeed configuration"):
        broken = make_params(hardware={"deepspeed": "zero9"})
        arguments.sft(spec_of(broken, "sft"), tmp_path)
    (tmp_path / "own.json").write_text("{}")
    own = make_params(hardware={"deepspeed": str(tmp_path / "own.json")})
    assert arguments.sft(spec_of(own, "sft"), tmp_path)["deepspeed"] == str(tmp_path / "own.json")


def test_further_callbacks_stand_beside_ours(tmp_path: Path) -> None:
    made = grpo_arguments(tmp_path, a2grpo={"extra": {"callbacks": ["perf_log"], "beta": 0.5}})
    assert (made["callbacks"], made["beta"]) == ([arguments.CALLBACK, "perf_log"], 0.5)


@pytest.mark.parametrize(
    ("n", "sections", "names"),
    [
        ("1", {"sft": {"batch_size": 8, "micro_batch_size": 3}}, "micro_batch_size"),
        ("3", {"sft": {"batch_size": 8}}, "batch_size"),
        ("two", {}, "NPROC_PER_NODE"),
    ],
)
def test_batches_that_do_not_divide_are_refused(
    n: str, sections: dict, names: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", n)
    params = make_params(**sections)
    with pytest.raises(InputError, match=names):
        arguments.sft(spec_of(params, "sft"), tmp_path)


def test_groups_must_not_be_split_over_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "4")
    params = make_params(a2grpo={"prompts_per_step": 2, "group_size": 4, "micro_batch_size": 2})
    with pytest.raises(InputError, match="prompts_per_step"):
        arguments.grpo(spec_of(params, "a2grpo"), tmp_path)


def test_several_processes_start_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NPROC_PER_NODE", "2")
    alone = make_params().hardware
    assert "torch.distributed.run" in arguments.launch_command("sft", {"a": 1}, alone)
    monkeypatch.setenv("NPROC_PER_NODE", "1")
    command = arguments.launch_command("sft", {"a": True, "b": [1, 2], "c": None}, alone)
    assert command[1:] == ["-m", "geozero.training.launcher.launch", "sft", "--a", "true", "--b", "1", "2"]


# -- checkpoints -------------------------------------------------------------------------------------------------


def test_the_newest_whole_checkpoint_is_taken_and_broken_ones_go(tmp_path: Path) -> None:
    for step in (2, 10, 9):
        write_checkpoint(tmp_path, step)
    (tmp_path / "checkpoint-x").mkdir()
    broken = tmp_path / "checkpoint-10" / "model.safetensors"
    broken.write_bytes(broken.read_bytes()[:-1])
    logged: list[str] = []
    found = checkpoints.newest(tmp_path, logged.append)
    assert found is not None
    assert (found.step, found.path.name) == (9, "checkpoint-9")
    assert not broken.parent.exists()
    assert len(logged) == 1
    assert "cut off" in logged[0]
    assert checkpoints.newest(tmp_path / "none") is None


@pytest.mark.parametrize(
    "damage", ["state", "other_step", "no_weights", "index", "optimizer", "scheduler", "header", "short"]
)
def test_every_damage_is_seen(damage: str, tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 5)
    assert checkpoints.fault(path) is None
    if damage == "state":
        (path / checkpoints.STATE).write_text('{"global_st')
    elif damage == "other_step":
        (path / checkpoints.STATE).write_text('{"global_step": 4}')
    elif damage == "no_weights":
        (path / "model.safetensors").unlink()
    elif damage == "index":
        (path / "model.safetensors.index.json").write_text('{"weight_map": {"w": "model-00002.safetensors"}}')
    elif damage == "optimizer":
        raw = (path / "optimizer.pt").read_bytes()
        (path / "optimizer.pt").write_bytes(raw[: len(raw) // 2])
    elif damage == "scheduler":
        (path / "scheduler.pt").unlink()
    elif damage == "header":
        (path / "model.safetensors").write_bytes((99).to_bytes(8, "little") + b"{" * 99)
    else:
        (path / "model.safetensors").write_bytes(b"abc")
    assert checkpoints.fault(path) is not None


def test_deepspeed_checkpoints_are_known(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, 5)
    for name in ("optimizer.pt", "scheduler.pt"):
        (path / name).unlink()
    (path / "latest").write_text("global_step5\n")
    assert checkpoints.fault(path) is not None
    (path / "global_step5").mkdir()
    with zipfile.ZipFile(path / "global_step5" / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "w") as archive:
        archive.writestr("data", b"x")
    assert checkpoints.fault(path) is None


def test_the_model_is_the_base_with_other_weights(tmp_path: Path, base: Path) -> None:
    trained = write_checkpoint(tmp_path / "run", 3)
    write_weights(trained / "model.safetensors", bytes(32))
    (trained / "generation_config.json").write_text('{"changed": true}')
    out = tmp_path / "run" / "model"
    out.mkdir()
    (out / "stale").write_text("x")
    checkpoints.assemble(trained, base, out)
    names = {p.name for p in out.iterdir()}
    assert names == {"config.json", "generation_config.json", "chat_template.jinja", "model.safetensors"}
    assert (out / "generation_config.json").read_text() == (base / "generation_config.json").read_text()
    assert (out / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


# -- curves ------------------------------------------------------------------------------------------------------


def test_a_line_of_the_log() -> None:
    assert parse(log_line(2, reward=0.5, elapsed_time="2s")) == (2, {"loss": 0.5, "reward": 0.5})
    for other in (log_line(2, train_runtime=1.0), "{", "[]", '{"loss": 1}', "7"):
        assert parse(other) is None


def test_replayed_steps_do_not_come_twice(tmp_path: Path) -> None:
    steps: list[int] = []

    def follow() -> MetricsForwarder:
        return MetricsForwarder(tmp_path, on_metrics=lambda step, values: steps.append(step))

    log = tmp_path / "logging.jsonl"
    follow().forward()
    log.write_text(log_line(1) + "\n" + log_line(2) + "\n" + log_line(3)[:10])
    forwarder = follow()
    forwarder.forward()
    forwarder.forward()
    assert steps == [1, 2]
    log.write_text("".join(log_line(s) + "\n" for s in (1, 2, 3)))
    forwarder.forward()
    assert steps == [1, 2, 3]
    with log.open("a") as file:  # resumed from step 1
        file.write("".join(log_line(s, loss=9.0) + "\n" for s in (2, 3, 4)))
    follow().forward()
    assert steps == [1, 2, 3, 4]
    assert [row["step"] for row in read(tmp_path / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"loss": float("nan")}, "loss is nan"),
        ({"grad_norm": float("inf")}, "grad_norm is inf"),
        ({"kl": float("-inf"), "reward": float("nan")}, "kl is -inf, reward is nan"),
        ({"eval_reward_std": float("nan")}, None),  # of one completion a prompt
        ({"rewards/AnswerReward/std": float("nan")}, None),
    ],
)
def test_a_metric_that_is_no_number_stops_after_its_row(
    values: dict[str, float], reason: str | None, tmp_path: Path
) -> None:
    (tmp_path / "logging.jsonl").write_text(
        "".join(log_line(s, **(values if s == 2 else {})) + "\n" for s in (1, 2, 3))
    )
    steps: list[int] = []
    forwarder = MetricsForwarder(tmp_path, None, lambda step, _: steps.append(step))
    if reason is None:
        forwarder.forward()
    else:
        with pytest.raises(NonFiniteStop, match=f"stopped at step 2: {reason} in "):
            forwarder.forward()
        assert steps == [1, 2]
        MetricsForwarder(tmp_path, None, lambda step, _: steps.append(step)).forward()  # a resumed run's
    assert steps == [1, 2, 3]


def test_gradients_that_overflow_in_float16_are_no_fault(tmp_path: Path) -> None:
    (tmp_path / "logging.jsonl").write_text(log_line(1, grad_norm=float("inf")) + "\n")
    forwarder = MetricsForwarder(tmp_path, scales_loss=True)
    forwarder.forward()
    with (tmp_path / "logging.jsonl").open("a") as log:
        log.write(log_line(2, loss=float("nan")) + "\n")
    with pytest.raises(NonFiniteStop, match="step 2: loss is nan"):
        forwarder.forward()


# -- stages ------------------------------------------------------------------------------------------------------

TRAINER = textwrap.dedent(
    """
    import json, os, sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    from training_stage import log_line, write_checkpoint
    words = sys.argv[1:]
    value = lambda name: words[words.index(name) + 1]
    out, steps, first = Path(value("--output_dir")), int(value("--max_steps")), 0
    if "--resume_from_checkpoint" in words:
        first = int(value("--resume_from_checkpoint").rpartition("-")[2])
    assert Path(value("--dataset")).read_text().count("\\n") > 0
    with (out / "calls").open("a") as file:
        file.write(f"{{first}}\\n")
    for step in range(first + 1, steps + 1):
        with (out / "logging.jsonl").open("a") as file:
            file.write(log_line(step) + "\\n")
        print("step", step, flush=True)
        write_checkpoint(out, step)
        if os.environ.get("DIE_AT") == str(step):
            (out / f"checkpoint-{{step}}" / "model.safetensors").write_bytes(b"half")
            sys.exit(9)
    """
)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a small script in the place of the launcher."""
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER.format(tests=str(SUPPORT)))
    monkeypatch.setattr(
        arguments,
        "launch_command",
        lambda kind, planned, *_: [sys.executable, str(script), kind, *arguments.flatten(planned)],
    )


def test_a_stage_runs_once_and_is_reused(trainer: None, corpus: Path, base: Path, tmp_path: Path) -> None:
    params, points = make_params(), []
    first = stage.run_sft(
        params, corpus, base, tmp_path / "runs", on_metrics=lambda s, v: points.append((s, v["loss"]))
    )
    assert not first.reused
    assert first.directory.name == f"sft-{first.fingerprint}"
    assert points == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]
    assert {"DONE", "model", "metrics.jsonl", "stage.json", "train.log"} <= {p.name for p in first.directory.iterdir()}
    assert not (first.directory / "rows.jsonl").exists()
    again = stage.run_sft(params, corpus, base, tmp_path / "runs")
    assert (again.reused, again.model) == (True, first.model)
    forced = stage.run_sft(params, corpus, base, tmp_path / "runs", force=True)
    assert forced.directory.name == f"{first.directory.name}-2"
    assert (first.directory / "calls").read_text() == "0\n"


def test_samples_that_are_left_out_are_told_and_counted(trainer: None, base: Path, tmp_path: Path) -> None:
    corpus, logged = break_by_hand(build_corpus(tmp_path / "corpus")), []
    done = stage.run_a2grpo(make_params(), corpus, base, tmp_path / "runs", on_line=logged.append)
    rows = json.loads((done.directory / "stage.json").read_text())["rows"]
    assert rows["n"] > 0 and rows["rejected"]["answer_empty"] > 0
    assert any(line.startswith("left out: ") and "answer_empty" in line for line in logged)


def test_a_killed_stage_goes_on_from_its_last_whole_checkpoint(
    trainer: None, corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = make_params()
    monkeypatch.setenv("DIE_AT", "3")
    logged: list[str] = []
    with pytest.raises(ChildFailed):
        stage.run_sft(params, corpus, base, tmp_path / "runs", on_line=logged.append)
    monkeypatch.delenv("DIE_AT")
    points: list[int] = []
    done = stage.run_sft(
        params, corpus, base, tmp_path / "runs", on_line=logged.append, on_metrics=lambda s, v: points.append(s)
    )
    assert (done.directory / "calls").read_text() == "0\n2\n"
    assert any("checkpoint-3 is incomplete" in line for line in logged)
    assert points == [4]  # 1 to 3 were given out before the kill
    assert [row["step"] for row in read(done.directory / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_listener_that_fails_stops_the_stage_which_then_goes_on(
    trainer: None, corpus: Path, base: Path, tmp_path: Path
) -> None:
    def broken(step: int, values: object) -> None:
        raise OSError("the tracking server is away")

    with pytest.raises(OSError, match="away"):
        stage.run_sft(make_params(), corpus, base, tmp_path / "runs", on_metrics=broken)
    done = stage.run_sft(make_params(), corpus, base, tmp_path / "runs")
    assert [row["step"] for row in read(done.directory / "metrics.jsonl")] == [1, 2, 3, 4]


def test_a_kill_after_the_training_costs_no_training(trainer: None, corpus: Path, base: Path, tmp_path: Path) -> None:
    params = make_params()
    done = stage.run_sft(params, corpus, base, tmp_path / "runs")
    (done.directory / "DONE").unlink()
    again = stage.run_sft(params, corpus, base, tmp_path / "runs")
    assert not again.reused
    assert (again.directory / "calls").read_text() == "0\n"


def test_what_the_fingerprint_covers(corpus: Path, base: Path, tmp_path: Path) -> None:
    def fingerprint(**sections: dict) -> str:
        return stage.run_a2grpo(make_params(**sections), corpus, base, tmp_path / "r", dry_run=True).fingerprint

    plain = fingerprint()
    assert fingerprint(sft={"steps": 9}) == plain  # another stage's parameters
    assert fingerprint(a2grpo={"min_well_formed": 0.1, "probes": 3}) == plain  # bounds of the gate, what is looked at
    assert fingerprint(model={"path": "elsewhere"}) == plain
    assert len({plain, fingerprint(a2grpo={"beta": 0.123}), fingerprint(model={"max_pixels": 1})}) == 3
    write_weights(base / "model.safetensors", bytes(64))
    assert fingerprint() != plain
    assert not (tmp_path / "r").exists()  # a dry run writes nothing


def test_bad_input_is_one_error_not_a_traceback(corpus: Path, base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fewer than the 80 prompts"):
        stage.run_a2grpo(make_params(a2grpo={"prompts_per_step": 80}), corpus, base, tmp_path / "runs")
    with pytest.raises(InputError, match="no model here"):
        stage.run_sft(make_params(), corpus, tmp_path, tmp_path / "runs")


@pytest.mark.slow
def test_what_the_child_refuses_is_an_input_error(corpus: Path, base: Path, tmp_path: Path) -> None:
    params = make_params(a2grpo={"extra": {"kl_in_reward": True}})
    with pytest.raises(InputError, match="kl_in_reward=True cannot be combined"):
        stage.run_a2grpo(params, corpus, base, tmp_path / "runs")


def test_filters_train_on_the_other_folds(trainer: None, corpus: Path, base: Path, tmp_path: Path) -> None:
    results = stage.run_filters(make_params(), corpus, base, tmp_path / "runs", tmp_path / "models" / "filter")
    assert [r.directory.name.rsplit("-", 1)[0] for r in results] == ["filter-0", "filter-1"]
    rows = [json.loads((r.directory / "stage.json").read_text())["rows"]["n"] for r in results]
    assert sum(rows) == 40  # two folds: each sample is learned by exactly one model
    assert all(0 < n < 40 for n in rows)
    assert sorted(p.name for p in (tmp_path / "models" / "filter").iterdir()) == ["fold-0", "fold-1"]
    assert (tmp_path / "models" / "filter" / "fold-1" / "config.json").is_file()
    with pytest.raises(InputError, match="no fold 2"):
        stage.run_filter(make_params(), corpus, base, tmp_path, 2)
    one = stage.run_filter(make_params(filter={"folds": 1}), corpus, base, tmp_path / "runs", 0)
    assert json.loads((one.directory / "stage.json").read_text())["rows"]["n"] == 40


def test_the_launcher_refuses_unknown_words() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "geozero.training.launcher.launch", "dance"],
        capture_output=True,
        text=True,
        env=dict(os.environ),
    )
    assert done.returncode == 2
    assert "usage" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("nowhere", r"refused: no such model in .*nowhere \(give a checkpoint's directory"),
        ("empty", r"refused: no model here: config.json is missing in .*empty"),
        ("coded", r"refused: the model brings its own code"),
    ],
)
def test_a_reference_that_is_no_model_is_one_line(broken: str, message: str, tiny_random: Path, tmp_path: Path) -> None:
    """`a2grpo.extra` can name one; ms-swift would run code that it brings."""
    (tmp_path / "empty").mkdir()
    coded = shutil.copytree(tiny_random, tmp_path / "coded")
    (coded / "modeling_own.py").write_text("raise SystemExit('ran')")
    config = json.loads((coded / "config.json").read_text()) | {"auto_map": {"AutoModel": "modeling_own.Own"}}
    (coded / "config.json").write_text(json.dumps(config))
    params = make_params(a2grpo={"extra": {"ref_model": str(tmp_path / broken)}})
    made = arguments.grpo(spec_of(params, "a2grpo", base=tiny_random), tmp_path / "out")
    words = [sys.executable, "-m", "geozero.training.launcher.launch", "grpo", *arguments.flatten(made)]
    done = subprocess.run(words, capture_output=True, text=True, env=dict(os.environ))
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr[-500:]
    assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
