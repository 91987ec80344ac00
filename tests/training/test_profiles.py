"""Every profile's plan, and every profile's arguments against the installed ms-swift's own parsers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from paths import ROOT, SUPPORT, TESTS
from training_corpus import build_corpus
from training_stage import make_params, spec_of

from benchmarks import published_steps
from geozero.common import process
from geozero.common.errors import InputError
from geozero.params import Mark, Params, load
from geozero.training import arguments, stage
from geozero.training.estimate import dry_run, model_size
from geozero.training.estimate.cost import Measured, estimate
from geozero.training.estimate.step_time import StepTime, step_time
from geozero.training.stage_spec import SMOKE_SAMPLES, SMOKE_STEPS, StageSpec

PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
SECTIONS = {"grpo": "a2grpo"}  # of a kind of launch
REAL = [path for path in PROFILES if path.stem != "cpu-toy"]


# -- against ms-swift --------------------------------------------------------------------------------------------

# Names of arguments that ms-swift has not, or values that it does not take: each has to be refused by its name.
WRONG = {
    "misspelt": ("sft", {"learning_rat": 1e-4}, "--learning_rat"),
    "abbreviated": ("sft", {"gradient_accumulation": 1}, "--gradient_accumulation"),
    "no choice": ("sft", {"tuner_type": "everything", "loss_type": "x", "torch_dtype": "int3"}, "torch_dtype"),
    "no number": ("grpo", {"num_generations": "eight"}, "num_generations"),
    "out of range": ("grpo", {"gate_k": -1.0}, "--gate_k -1.0: Input should be greater than 0"),
    "no form": ("grpo", {"thinking_score": "beauty"}, "no form 'beauty' of S_t"),
    "no such gate": ("grpo", {"gate": "half"}, "gate: invalid choice: 'half'"),
    "spread filter": ("grpo", {"dynamic_sample": True}, "dynamic_sample=True cannot be combined"),
    "moving reference": ("grpo", {"sync_ref_model": True}, "sync_ref_model=True cannot be combined"),
    "stale completions": ("grpo", {"async_generate": True}, "async_generate=True cannot be combined"),
}

ARCHITECTURES = {  # architecture and model_type of a config.json
    "same architecture": ("Qwen3VLForConditionalGeneration", "qwen3_vl"),
    "llama": ("LlamaForCausalLM", "llama"),
    "another's type": ("Qwen3VLForConditionalGeneration", "llama"),
}


def checked() -> dict[str, str]:
    """In a process of its own: what ms-swift's parsers say to every profile and to every wrong argument."""
    from geozero.common import process

    process.prepare()
    from geozero.training.launcher import argument_validation, launch

    launch._hide_unused([])  # vLLM is no part of the parsers, and a minute on a busy machine
    answers = {}

    def ask(name: str, kind: str, planned: dict[str, Any]) -> None:
        try:
            argument_validation.validate_arguments(kind, arguments.flatten(planned))
            answers[name] = "fine"
        except InputError as error:
            answers[name] = str(error)

    for path in PROFILES:
        for smoke in (False, True):
            params = load(path).model_copy(update={"smoke": smoke})
            for kind in ("filter", "sft", "a2grpo"):
                spec = spec_of(params, kind)
                ask(f"{path.stem} {kind} {smoke}", spec.kind, arguments.of_stage(spec, Path("out")))
        server = params.model_copy(update={"a2grpo": params.a2grpo.model_copy(update={"vllm": "server"})})
        ask(f"{path.stem} server", "grpo", arguments.of_stage(spec_of(server, "a2grpo"), Path("out")))
        ask(f"{path.stem} rollout", "rollout", arguments.rollout_server(server, Path("base")))
        ask(f"{path.stem} export", "export", arguments.export(Path("b"), Path("a"), params.model, Path("out")))
    with TemporaryDirectory() as llama:
        for name, (architecture, kind) in ARCHITECTURES.items():
            (Path(llama) / "config.json").write_text(json.dumps({"architectures": [architecture], "model_type": kind}))
            try:
                argument_validation.validate_architecture(Path(llama), "qwen3_vl")
                answers[name] = "fine"
            except InputError as error:
                answers[name] = str(error)
    for name, (kind, extra, _) in WRONG.items():
        params = make_params(**{"sft" if kind == "sft" else "a2grpo": {"extra": extra}})
        ask(name, kind, arguments.of_stage(spec_of(params, SECTIONS.get(kind, kind)), Path("out")))
    return answers


@pytest.fixture(scope="module")
def answers() -> dict[str, str]:
    code = "import sys, json; sys.path[:0] = sys.argv[1:]; import test_profiles as t; "
    code += "print('ANSWERS' + json.dumps(t.checked()))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(SUPPORT), str(TESTS / "training")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, str] = json.loads(done.stdout.rpartition("ANSWERS")[2])
    return found


@pytest.mark.slow
def test_ms_swift_knows_every_argument_of_every_profile(answers: dict[str, str]) -> None:
    profiles = {name: answer for name, answer in answers.items() if name not in {*WRONG, *ARCHITECTURES}}
    assert len(profiles) == 9 * len(PROFILES)
    assert {name: answer for name, answer in profiles.items() if answer != "fine"} == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WRONG))
def test_a_wrong_argument_is_refused_by_its_name(name: str, answers: dict[str, str]) -> None:
    assert WRONG[name][2] in answers[name]
    assert "\n" not in answers[name]


@pytest.mark.slow
def test_a_checkpoint_of_another_architecture_is_refused(answers: dict[str, str]) -> None:
    assert answers["same architecture"] == "fine"
    assert answers["llama"].startswith("a LlamaForCausalLM, but model.model_type is qwen3_vl")
    assert answers["another's type"].startswith("its model_type is llama, but a Qwen3VLForConditionalGeneration's is")


# -- shapes ------------------------------------------------------------------------------------------------------


def test_the_published_models_have_the_parameters_of_their_cards() -> None:
    sizes = {name.split("-")[2]: model_size.of(config).parameters for name, config in model_size.PUBLISHED.items()}
    assert sizes == {"2B": 2_127_532_032, "8B": 8_767_123_696}


def test_the_count_is_that_of_the_weights() -> None:
    base = ROOT / "models/tiny-qwen3-vl"
    header = (base / "model.safetensors").read_bytes()
    length = int.from_bytes(header[:8], "little")
    tensors = {k: v for k, v in json.loads(header[8 : 8 + length]).items() if k != "__metadata__"}
    total = sum((v["data_offsets"][1] - v["data_offsets"][0]) // 4 for v in tensors.values())
    shape = model_size.read(base)
    assert shape is not None and shape.parameters == total
    assert model_size.read("somebody/else") is None


# -- estimates ---------------------------------------------------------------------------------------------------


def estimated(kind: str, path: Path = REAL[-1], **sections: dict[str, Any]) -> Any:
    values = load(path).model_dump()
    for name, section in sections.items():
        values[name] |= section
    params = Params.model_validate(values)
    spec = spec_of(params, kind)
    shape = model_size.read(params.model.path)
    assert shape is not None
    return estimate(shape, params, spec.settings, arguments.of_stage(spec, Path("out")), 512 * 512)


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
@pytest.mark.parametrize("kind", ["filter", "sft", "a2grpo"])
def test_every_profile_fits_its_gpus(path: Path, kind: str) -> None:
    found = estimated(kind, path)
    assert 5 < found.peak < 0.9 * load(path).hardware.gpu_memory
    assert found.step is not None and 0.1 < found.step.total < 60 and 0.05 < found.step.mfu < 0.3
    assert 5 < sum(found.host.values()) < 200


def test_memory_falls_as_it_is_shared() -> None:
    alone = estimated("sft", hardware={"deepspeed": None})
    by_stage = [estimated("sft", hardware={"deepspeed": f"zero{i}"}).parts for i in (1, 2, 3)]
    n = 8
    assert alone.parts["optimiser"] == pytest.approx(4 * alone.parts["gradients"] / 2)
    whole = alone.parts["gradients"]
    assert [p["gradients"] for p in by_stage] == pytest.approx([whole, whole / n, whole / n])
    assert by_stage[0]["optimiser"] == pytest.approx(6 * whole / n)  # 12 bytes a parameter against 2
    assert by_stage[2]["weights"] == pytest.approx(alone.parts["weights"] / n)
    assert estimated("sft", hardware={"deepspeed": "zero2_offload"}).parts["optimiser"] == 0


def test_what_else_memory_depends_on() -> None:
    plain = estimated("a2grpo").parts
    assert estimated("a2grpo", a2grpo={"beta": 0.0}).parts.get("reference") is None
    assert estimated("a2grpo", a2grpo={"micro_batch_size": 8}).parts["activations"] == 2 * plain["activations"]
    lora = estimated("a2grpo", a2grpo={"tuner": "lora", "lora": {"rank": 8}}).parts
    assert lora["adapter and optimiser"] < 1 and "reference" not in lora
    more = estimated("sft", hardware={"gradient_checkpointing": False}).parts["activations"]
    assert more > 3 * estimated("sft").parts["activations"]
    assert estimated("a2grpo").sampling > 0 and estimated("a2grpo", a2grpo={"vllm": "off"}).sampling == 0


def test_vllm_and_the_trainer_share_a_gpu_with_as_little_moved_as_memory_allows() -> None:
    def shared(**changes: Any) -> tuple[int, bool]:
        hardware = changes.pop("hardware", {})
        found = estimated("a2grpo", hardware=hardware, a2grpo=changes).colocation
        return found.sleep_level, found.offload

    assert shared() == (0, False)  # 35 GB of training and 36 GB of vLLM fit into 80 GB
    assert shared(vllm_memory=0.6) == (1, False)
    assert shared(vllm_memory=0.8) == (1, True)
    assert shared(vllm_memory=0.8, sleep_level=2, offload=False) == (2, False)
    assert shared(hardware={"gpu_memory": 40.0}) == (1, True)
    assert estimated("a2grpo", a2grpo={"vllm": "off"}).colocation is None
    small = {"hardware": {"gpu_memory": 40.0}}
    assert estimated("a2grpo", **small).host.keys() == {
        "processes", "loader workers", "offloaded while vLLM samples", "vLLM's weights while it sleeps"
    }  # fmt: skip


def test_the_trainer_is_told_what_the_estimate_says(tmp_path: Path) -> None:
    for memory, told in ((80.0, (0, False)), (40.0, (1, True))):
        values = load(REAL[-1]).model_dump()
        values["hardware"] |= {"gpu_memory": memory}
        planned = arguments.of_stage(spec_of(Params.model_validate(values), "a2grpo"), tmp_path)
        assert (planned["sleep_level"], planned["offload_model"]) == told
        assert planned["offload_optimizer"] == planned["offload_model"]


def test_frozen_weights_that_are_kept_for_the_merge_are_counted() -> None:
    kept = estimated("a2grpo", REAL[0]).host["frozen weights kept for the merge"]
    assert kept == pytest.approx(2.82, abs=0.01)  # GB, as docs/training.md says


def test_time_follows_what_was_measured() -> None:
    shape = model_size.read(load(REAL[-1]).model.path)
    params = load(REAL[-1])
    spec = spec_of(params, "a2grpo")
    planned = arguments.of_stage(spec, Path("out"))
    assert shape is not None

    def step(**found: float) -> StepTime:
        one = estimate(shape, params, spec.settings, planned, 512 * 512, Measured(**found)).step
        assert one is not None
        return one

    assert step(completion=300).total > 1.5 * step(completion=60).total
    assert step(resampled=1.0).sampling > 1.2 * step(resampled=0.0).sampling
    assert step(resampled=1.0).update == step(resampled=0.0).update
    slow = estimated("a2grpo", hardware={"train_tflops": 25.0}).step
    assert slow.mfu == pytest.approx(25 / 989, rel=0.4)  # padding is not useful work


def test_too_little_host_memory_is_one_line_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    monkeypatch.setattr(arguments, "check_hardware", lambda _: None)
    base, corpus = ROOT / "models/tiny-qwen3-vl", build_corpus(tmp_path / "corpus")
    params = make_params(hardware={"gpus": 1, "host_memory": 0.5})
    with pytest.raises(
        InputError, match=r"about 9 GB of host memory .* there are 0\.5.*hardware\.loader_workers"
    ) as error:
        stage.run_sft(params, corpus, base, tmp_path / "runs")
    assert "\n" not in str(error.value) and not (tmp_path / "runs").exists()


@pytest.mark.parametrize("row", published_steps.runs(), ids=lambda row: row.run)
def test_published_step_times_are_met(row: published_steps.Published) -> None:
    ratio = step_time(row.shape, row.batch, row.gpus, row.moved).total / row.seconds
    assert 1 / published_steps.GOAL < ratio < published_steps.GOAL


# -- plans -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", REAL, ids=lambda p: p.stem)
def test_a_plan_needs_neither_weights_nor_data_nor_gpus(path: Path, tmp_path: Path) -> None:
    params, logged = load(path), []
    result = stage.run_a2grpo(
        params, tmp_path / "hard", Path(params.model.path), tmp_path / "runs", dry_run=True, on_line=logged.append
    )
    plan_of = dict(line.split("\t", 1) for line in logged)
    assert {"profile", "model", "data", "steps", "devices", "memory", "hours", "disk", "command"} <= plan_of.keys()
    assert "billion parameters, not here yet" in plan_of["model"]
    assert "not there yet" in plan_of["data"]
    assert "(estimate: sampling " in plan_of["hours"] and "per validation" in plan_of["hours"]
    assert ("all weights" in plan_of["model"]) == (params.a2grpo.tuner == "full" and not params.a2grpo.freeze_vit)
    assert "host memory" in plan_of and "TOO LITTLE" not in plan_of["host memory"]  # the machine is another one
    assert not result.reused and list(tmp_path.iterdir()) == []
    nodes = str(params.hardware.nodes)
    assert (f"--nnodes {nodes} " in plan_of["command"]) == (params.hardware.nodes > 1)
    with pytest.raises(InputError, match="no such model"):
        stage.run_a2grpo(params, tmp_path / "hard", Path(params.model.path), tmp_path / "runs")


NO_MASTERS = r"without float32 master weights.* hardware\.deepspeed .*\.tuner: lora.* model\.dtype: float32"


@pytest.mark.parametrize("path", PROFILES, ids=lambda p: p.stem)
def test_no_profile_trains_bfloat16_weights_without_masters(path: Path) -> None:
    for section in ("filter", "sft", "a2grpo"):
        arguments.check_masters(load(path), section)


@pytest.mark.parametrize(
    ("dtype", "settings", "deepspeed", "refused"),
    [
        ("bfloat16", {}, None, True),
        ("bfloat16", {"extra": {"tuner_type": "full"}, "tuner": "lora"}, None, True),
        ("float32", {"extra": {"torch_dtype": "bfloat16"}}, None, True),
        ("bfloat16", {"tuner": "lora"}, None, False),
        ("bfloat16", {}, "zero2", False),
        ("bfloat16", {"extra": {"deepspeed": "zero3"}}, None, False),
        ("float32", {}, None, False),
        ("float16", {}, None, False),
    ],
)
def test_full_training_in_bfloat16_needs_masters(
    dtype: str, settings: dict[str, Any], deepspeed: str | None, refused: bool, tmp_path: Path
) -> None:
    params = make_params(model={"dtype": dtype}, sft=settings, a2grpo=settings, hardware={"deepspeed": deepspeed})
    base, log = ROOT / "models/tiny-qwen3-vl", lambda _: None
    for run, section in ((stage.run_sft, "sft"), (stage.run_a2grpo, "a2grpo")):
        if not refused:
            arguments.check_masters(params, section)
            run(params, tmp_path, base, tmp_path / "runs", dry_run=True, on_line=log)
            continue
        with pytest.raises(InputError, match=NO_MASTERS) as planned:
            run(params, tmp_path, base, tmp_path / "runs", dry_run=True, on_line=log)
        corpus = build_corpus(tmp_path / f"corpus-{section}")
        with pytest.raises(InputError, match=NO_MASTERS) as started:
            run(params, corpus, base, tmp_path / "runs")
        assert str(planned.value) == str(started.value) and "\n" not in str(started.value)
        assert not (tmp_path / "runs").exists()


def test_a_plan_counts_the_data_and_names_the_server(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "corpus")
    base = ROOT / "models/tiny-qwen3-vl"
    logged: list[str] = []
    params = make_params(a2grpo={"vllm": "server", "vllm_server": "far:7777"})
    result = stage.run_a2grpo(params, corpus, base, tmp_path / "runs", dry_run=True, on_line=logged.append)
    plan_of = dict(line.split("\t", 1) for line in logged)
    assert "40 training samples" in plan_of["data"]
    assert plan_of["steps"] == "3 of 2 prompts per step × 4 completions, 0.15 times the data"
    assert "launch rollout" in plan_of["first"] and "--port 7777" in plan_of["first"]
    assert str(result.directory) in plan_of["command"]
    assert "unknown on a CPU" in plan_of["hours"]


def write_run(run: Path, spec: StageSpec, **changes: Any) -> None:
    """What a finished run of a stage leaves of its parameters and its speed."""
    run.mkdir()
    settings = spec.settings.model_dump(exclude=spec.settings.marked(Mark.NOT_TRAINING))
    model, hardware = spec.params.model.identity(), spec.params.hardware.model_dump()
    (run / "stage.json").write_text(json.dumps({"settings": settings | changes, "model": model, "hardware": hardware}))
    (run / "metrics.jsonl").write_text('{"step": 1, "train_speed(s/it)": 9.0}\n{"step": 4, "train_speed(s/it)": 2.0}\n')


def test_hours_are_measured_by_an_earlier_run_of_the_same_shape(tmp_path: Path) -> None:
    params = make_params(sft={"steps": 3600})
    spec = spec_of(params, "sft", out_root=tmp_path)
    assert dry_run.measured_seconds(spec) is None
    write_run(tmp_path / "sft-0123", spec_of(params.model_copy(update={"smoke": True}), "sft"))
    assert dry_run.measured_seconds(spec) == 2.0
    other = spec_of(make_params(sft={"micro_batch_size": 4}), "sft", out_root=tmp_path)
    assert dry_run.measured_seconds(other) is None


def test_hours_of_a2grpo_are_measured_too_by_a_run_of_an_earlier_version_as_well(tmp_path: Path) -> None:
    spec = spec_of(make_params(a2grpo={"steps": 3600, "probes": 2}), "a2grpo", out_root=tmp_path)
    write_run(tmp_path / "a2grpo-0123", spec_of(make_params(), "a2grpo"), support="none", diversity="wanted")
    assert dry_run.measured_seconds(spec) == 2.0
    write_run(tmp_path / "a2grpo-4567", spec_of(make_params(a2grpo={"group_size": 2}), "a2grpo"), support="times")
    assert dry_run.measured_seconds(spec) == 2.0  # a run with a removed option is no measure


# -- smoke -------------------------------------------------------------------------------------------------------


def test_a_smoke_run_is_the_same_path_with_few_samples_and_steps(tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "corpus", n_images=40)
    params = make_params(sft={"steps": 100})
    smoke = params.model_copy(update={"smoke": True})
    whole, few = (spec_of(p, "sft", corpus=corpus, base=corpus) for p in (params, smoke))
    assert (few.settings.steps, few.limit) == (SMOKE_STEPS, SMOKE_SAMPLES)
    assert few.write_rows(tmp_path / "rows").n == SMOKE_SAMPLES < whole.write_rows(tmp_path / "rows").n
    a, b = (arguments.of_stage(spec, tmp_path) for spec in (whole, few))
    assert {name for name in a if a[name] != b[name]} == {"max_steps", "save_steps"}
    many = spec_of(
        smoke.model_copy(update={"a2grpo": smoke.a2grpo.model_copy(update={"prompts_per_step": 64})}), "a2grpo"
    )
    assert many.limit == 64  # one step needs as many prompts
