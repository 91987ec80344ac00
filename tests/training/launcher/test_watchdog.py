"""Hung, out of memory, terminated, on several nodes: small scripts stand in for the trainer."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from paths import SUPPORT
from processes import is_gone_soon
from training_corpus import build_corpus
from training_stage import base as base  # a fixture
from training_stage import make_params

from geozero.common import process
from geozero.common.errors import InputError
from geozero.params import Hardware
from geozero.training import arguments, replay, stage
from geozero.training.launcher import multi_node, retry, watchdog
from geozero.training.metrics import NonFiniteStop, read

# What the launcher would do, step by step; `behaviour.json` in the stage's directory says how it goes wrong.
TRAINER = """
import faulthandler, json, os, signal, sys, time
sys.path.insert(0, {tests!r})
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from training_stage import log_line, write_checkpoint
faulthandler.register(signal.SIGUSR1, all_threads=True)
words = sys.argv[1:]
value = lambda name: words[words.index(name) + 1]
out, steps = Path(value("--output_dir")), int(value("--max_steps"))
first = int(value("--resume_from_checkpoint").rpartition("-")[2]) if "--resume_from_checkpoint" in words else 0
how = json.loads(Path({behaviour!r}).read_text())
micro = int(value("--per_device_train_batch_size"))
with (out / "calls").open("a") as file:
    file.write(f"{{first}} {{micro}} {{value('--gradient_accumulation_steps')}}\\n")
terminated = []
signal.signal(signal.SIGTERM, lambda *_: terminated.append(1))
def hang_here():
    if how.get("stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)  # as a scheduler does that suspends a job
    time.sleep(600)
for step in range(first + 1, steps + 1):
    if step == how.get("hang_at") and not (how.get("once") and first):
        hang_here()
    if micro > how.get("most", 10**9):
        print("Traceback (most recent call last):")
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.")
        print("\\n" * 60, flush=True)
        sys.exit(1)
    with (out / "logging.jsonl").open("a") as file:
        values = {{"loss": float("nan")}} if step == how.get("nan_at") else {{}}
        file.write(log_line(step, well_formed=how.get("well_formed", 1.0), **values) + "\\n")
    print("step", step, flush=True)
    if step not in how.get("unsaved", []):
        rows = map(json.loads, (out / "logging.jsonl").read_text().splitlines())
        by_step = {{int(row["global_step/max_steps"].split("/")[0]): row for row in rows}}  # the last start's
        write_checkpoint(out, step, [by_step[n] | {{"step": n}} for n in range(1, step + 1)])
    time.sleep(how.get("pause", 0))
    if terminated:
        sys.exit(0)
sys.exit(how.get("code", 0))
"""


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_corpus(tmp_path_factory.mktemp("data") / "corpus")


@pytest.fixture
def behave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Put the script in the launcher's place; the returned function says how it behaves from now on."""
    script, behaviour = tmp_path / "geozero_trainer.py", tmp_path / "behaviour.json"
    behaviour.write_text("{}")
    script.write_text(TRAINER.format(tests=str(SUPPORT), behaviour=str(behaviour)))
    command = [sys.executable, str(script)]
    monkeypatch.setattr(watchdog, "LAUNCHER", str(script))
    monkeypatch.setattr(watchdog, "FLUSH_SECONDS", 0.3)
    monkeypatch.setattr(
        arguments,
        "launch_command",
        lambda kind, planned, *_: [*command, kind, *arguments.flatten(planned)],
    )
    return lambda **how: behaviour.write_text(json.dumps(how))


def calls(result: stage.StageResult) -> list[str]:
    return (result.directory / "calls").read_text().splitlines()


def record(directory: Path) -> dict:
    return json.loads((directory / "stage.json").read_text())


# -- hung --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stopped", [False, True])
def test_a_hung_training_is_dumped_killed_and_goes_on(
    stopped: bool, behave, corpus: Path, base: Path, tmp_path: Path
) -> None:
    behave(hang_at=3, once=True, stopped=stopped)
    logged: list[str] = []
    params = make_params(hardware={"stall_minutes": 0.1})
    result = stage.run_sft(params, corpus, base, tmp_path / "runs", on_line=logged.append)
    assert calls(result) == ["0 8 1", "2 8 1"]
    assert "hang_here" in (result.directory / "train.log").read_text()  # where it hung
    assert sum("no step for 0.1 minutes" in line for line in logged) == 1
    assert any(line == "resuming from checkpoint-2 (step 2/4)" for line in logged)
    assert len(record(result.directory)["retries"]) == 1
    assert [row["step"] for row in read(result.directory / "metrics.jsonl")] == [1, 2, 3, 4]


@pytest.mark.parametrize("allowed", [True, False])
def test_py_spy_says_where_it_hung_or_the_training_does_itself(
    allowed: bool, behave, corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = tmp_path / "bin/py-spy"
    spy.parent.mkdir()
    spy.write_text(f"#!/bin/sh\necho stacks of $3\nexit {0 if allowed else 1}\n")
    spy.chmod(0o755)
    monkeypatch.setenv("PATH", f"{spy.parent}:{os.environ['PATH']}")
    behave(hang_at=3, once=True)
    result = stage.run_sft(make_params(hardware={"stall_minutes": 0.1}), corpus, base, tmp_path / "runs")
    (logged,) = record(result.directory)["retries"]
    (dump,) = result.directory.glob("stacks-*.txt")
    assert dump.read_text().startswith("stacks of ")
    assert logged.endswith(str(dump if allowed else result.directory / "train.log"))
    assert ("hang_here" in (result.directory / "train.log").read_text()) is not allowed


def test_one_that_hangs_at_the_same_place_is_given_up(behave, corpus: Path, base: Path, tmp_path: Path) -> None:
    behave(hang_at=3)
    params = make_params(hardware={"stall_minutes": 0.1, "restarts": 1})
    with pytest.raises(InputError, match=r"hung 2 times .*no step for 0.1 minutes; stacks in .*raise hardware.stall_m"):
        stage.run_sft(params, corpus, base, tmp_path / "runs")
    (directory,) = (tmp_path / "runs").iterdir()
    # the first start made two checkpoints; the second and the third none
    assert (directory / "calls").read_text().splitlines() == ["0 8 1", "2 8 1"]
    assert checkpoint_names(directory) == ["checkpoint-1", "checkpoint-2"]


def test_a_hung_training_under_torchrun_is_ended_too(behave, tmp_path: Path) -> None:
    """torchrun starts its workers in sessions of their own; one that hangs would keep its GPU beside the next."""
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import os, signal, time\nsignal.signal(signal.SIGUSR1, signal.SIG_IGN)\n"
        "print(os.getpid(), flush=True)\ntime.sleep(60)\n"
    )
    words = f"[{sys.executable!r}, {str(worker)!r}, {watchdog.LAUNCHER!r}]"
    agent = f"import subprocess; subprocess.run({words}, start_new_session=True)"
    numbers: list[int] = []
    lines: list[str] = []
    log, hardware = tmp_path / "log", Hardware(stall_minutes=1 / 60)
    with (
        pytest.raises(watchdog.HangDetected, match="no step for"),
        watchdog.Watchdog(hardware, tmp_path / "steps", log, lines.append) as watched,
    ):
        command = [sys.executable, "-c", agent]
        process.run(command, log, on_line=lambda line: numbers.append(int(line)), on_start=watched.watch)
    assert numbers and is_gone_soon(numbers[0])


def checkpoint_names(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.glob("checkpoint-*"))


# -- out of memory -----------------------------------------------------------------------------------------------


def test_out_of_memory_is_retried_once_with_half_the_micro_batch(
    behave, corpus: Path, base: Path, tmp_path: Path
) -> None:
    behave(most=4)
    logged: list[str] = []
    result = stage.run_sft(make_params(), corpus, base, tmp_path / "runs", on_line=logged.append)
    assert calls(result) == ["0 8 1", "0 4 2"]
    assert any("half the micro-batch, 4" in line for line in logged)
    assert "half the micro-batch" in record(result.directory)["retries"][0]


def test_out_of_memory_twice_is_one_line(behave, corpus: Path, base: Path, tmp_path: Path) -> None:
    behave(most=2)
    with pytest.raises(InputError, match=r"out of memory with 4 samples per forward pass .*sft.micro_batch_size"):
        stage.run_sft(make_params(), corpus, base, tmp_path / "runs")


def test_half_a_batch_keeps_the_groups_whole() -> None:
    planned = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 3}
    half = retry.halve_micro_batch(planned)
    assert half == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 6}
    assert retry.halve_micro_batch(planned | {"per_device_train_batch_size": 1}) is None


# -- SIGTERM -----------------------------------------------------------------------------------------------------

STAGE = """
import sys
sys.path.insert(0, {tests!r})
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from training_stage import make_params
from geozero.training import arguments, stage
from geozero.training.launcher import watchdog
watchdog.LAUNCHER = {script!r}
arguments.launch_command = lambda kind, planned, *_: [sys.executable, {script!r}, kind, *arguments.flatten(planned)]
corpus, base, runs = (Path(word) for word in sys.argv[1:])
stage.run_sft(make_params(), corpus, base, runs, on_line=lambda line: print(line, flush=True))
"""


def test_sigterm_is_a_checkpoint_and_an_exit(behave, corpus: Path, base: Path, tmp_path: Path) -> None:
    behave(pause=0.5)
    code = STAGE.format(tests=str(SUPPORT), script=str(tmp_path / "geozero_trainer.py"))
    words = [sys.executable, "-c", code, str(corpus), str(base), str(tmp_path / "runs")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            if line.startswith("step 2"):
                running.send_signal(signal.SIGTERM)
    assert running.returncode == 128 + signal.SIGTERM
    (directory,) = (tmp_path / "runs").iterdir()
    assert not (directory / "DONE").exists()
    names = checkpoint_names(directory)
    assert "checkpoint-2" in names and "checkpoint-4" not in names
    behave()
    result = stage.run_sft(make_params(), corpus, base, tmp_path / "runs")
    assert calls(result)[1].split()[0] == names[-1].removeprefix("checkpoint-")
    assert [row["step"] for row in read(result.directory / "metrics.jsonl")] == [1, 2, 3, 4]


# -- guards in a stage -------------------------------------------------------------------------------------------


def test_a_guard_stops_the_stage_and_keeps_its_checkpoints(behave, corpus: Path, base: Path, tmp_path: Path) -> None:
    behave(well_formed=0.1, pause=0.2)
    bounds = {"window": 2, "well_formed": {"limit": 0.5, "action": "stop"}}
    params = make_params(a2grpo={"steps": 20, "guards": bounds})
    logged: list[str] = []
    with pytest.raises(InputError, match="a collapse guard stopped the training at step 2"):
        stage.run_a2grpo(params, corpus, base, tmp_path / "runs", on_line=logged.append)
    (directory,) = (tmp_path / "runs").iterdir()
    assert "checkpoint-2" in checkpoint_names(directory)
    assert not (directory / "DONE").exists()
    assert any(line.startswith("guard: step 2: 0.1 well-formed") for line in logged)
    assert read(directory / "metrics.jsonl")[1]["guards_crossed"] == 1
    n_calls = len((directory / "calls").read_text().splitlines())
    with pytest.raises(InputError, match="at step 2"):  # at once, without another start
        stage.run_a2grpo(params, corpus, base, tmp_path / "runs")
    assert len((directory / "calls").read_text().splitlines()) == n_calls
    behave(well_formed=0.1)
    warned = make_params(a2grpo={"steps": 20, "guards": bounds | {"well_formed": {"limit": 0.5, "action": "warn"}}})
    result = stage.run_a2grpo(warned, corpus, base, tmp_path / "runs")
    assert result.directory == directory  # the bounds are no part of the fingerprint


@pytest.mark.parametrize("kind", ["sft", "a2grpo"])
def test_nan_stops_a_stage_that_resumes_from_an_older_checkpoint(
    kind: str, behave, corpus: Path, base: Path, tmp_path: Path
) -> None:
    train = {"sft": stage.run_sft, "a2grpo": stage.run_a2grpo}[kind]
    params = make_params(sft={"steps": 6}, a2grpo={"steps": 6})
    for _ in range(2):  # the second time in a replayed step
        behave(nan_at=4, unsaved=[3, 4], pause=0.3)
        with pytest.raises(NonFiniteStop, match=r"training stopped at step 4: loss is nan .*checkpoints are kept"):
            train(params, corpus, base, tmp_path / "runs")
    (directory,) = (tmp_path / "runs").iterdir()
    assert checkpoint_names(directory) == ["checkpoint-1", "checkpoint-2"] and not (directory / "DONE").exists()
    behave()
    result = train(params, corpus, base, tmp_path / "runs")
    assert [call.split()[0] for call in calls(result)] == ["0", "2", "2"] and result.model.is_dir()


def test_a_checkpoint_behind_a_nan_is_no_start(behave, corpus: Path, base: Path, tmp_path: Path) -> None:
    behave(nan_at=4)  # the last step, and its checkpoint is written
    with pytest.raises(NonFiniteStop, match="loss is nan"):
        stage.run_sft(make_params(), corpus, base, tmp_path / "runs")
    (directory,) = (tmp_path / "runs").iterdir()
    behave()
    with pytest.raises(NonFiniteStop, match=r"checkpoint-4 was trained through step 4, where loss is nan .*remove it"):
        stage.run_sft(make_params(), corpus, base, tmp_path / "runs")
    shutil.rmtree(directory / "checkpoint-4")
    assert stage.run_sft(make_params(), corpus, base, tmp_path / "runs").model.is_dir()


def test_a_process_that_fails_behind_its_last_checkpoint_costs_nothing(
    behave, corpus: Path, base: Path, tmp_path: Path
) -> None:
    behave(code=134)  # as an abort at the interpreter's end
    logged: list[str] = []
    result = stage.run_sft(make_params(), corpus, base, tmp_path / "runs", on_line=logged.append)
    assert calls(result) == ["0 8 1"] and result.model.is_dir()
    assert (
        logged[-1].startswith("checkpoint-4 is complete, so the training counts")
        and "ended with code 134" in logged[-1]
    )


@pytest.mark.parametrize("wanted", [{"deepspeed": "zero3"}, {"attention": "flash_attn"}])
def test_what_is_not_installed_is_one_line(wanted: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"is not installed in hardware\..* \(pip install "):
        arguments.check_hardware(Hardware(**wanted))


# -- nodes -------------------------------------------------------------------------------------------------------


def test_a_node_knows_itself_by_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NODE_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert multi_node.this_node(Hardware()).leads
    with pytest.raises(InputError, match="this node does not know which of 2 it is"):
        multi_node.this_node(Hardware(nodes=2))
    monkeypatch.setenv("NODE_RANK", "1")
    monkeypatch.setenv("MASTER_ADDR", "first")
    node = multi_node.this_node(Hardware(nodes=2))
    assert (node.rank, node.n, node.address, node.port, node.leads) == (1, 2, "first", 29500, False)
    words = arguments.torchrun(node, 8)
    for name, value in (("--nnodes", "2"), ("--node_rank", "1"), ("--nproc_per_node", "8"), ("--master_addr", "first")):
        assert words[words.index(name) + 1] == value
    monkeypatch.setenv("NODE_RANK", "2")
    with pytest.raises(InputError, match="ranks count from 0"):
        multi_node.this_node(Hardware(nodes=2))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes that look at each other often."""
    monkeypatch.setattr(multi_node, "TOUCH_SECONDS", 0.05)
    monkeypatch.setattr(multi_node, "GRACE_SECONDS", 0.3)
    monkeypatch.setattr(multi_node, "REPORT_SECONDS", 0.5)
    monkeypatch.setattr(watchdog, "CHECK_SECONDS", 0.1)


FIRST = multi_node.Node(0, 2, "here", 1)


@contextmanager
def following(directory: Path, start) -> Iterator[None]:
    """Another node that does `start` until the block ends."""
    done = directory / "DONE"

    def follow() -> None:
        for launch in multi_node.launches(directory, done, 10.0):
            start(launch)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    time.sleep(0.3)
    yield
    done.touch()
    follower.join(5)
    assert not follower.is_alive()


def test_another_node_starts_what_the_first_one_starts(quick: None, tmp_path: Path) -> None:
    started: list[list[str]] = []
    stale = {"launch": "a", "words": ["sft", "--stale"]}
    (tmp_path / multi_node.LAUNCH).write_text(json.dumps(stale))  # what a killed run left
    os.utime(tmp_path / multi_node.LAUNCH, (1, 1))
    with following(tmp_path, lambda launch: started.append(launch.words)):
        assert started == []
        for attempt in (1, 2):
            with multi_node.leader_launch(tmp_path, FIRST, ["sft", f"--attempt={attempt}"]):
                time.sleep(0.4)
    assert started == [["sft", "--attempt=1"], ["sft", "--attempt=2"]]
    assert not (tmp_path / multi_node.LAUNCH).exists()


def test_a_first_node_that_died_and_came_back_is_joined_again(quick: None, tmp_path: Path) -> None:
    started: list[tuple[list[str], str]] = []

    def work(launch: multi_node.LeaderLaunch) -> None:
        while not launch.abort_reason():
            time.sleep(0.05)
        started.append((launch.words, launch.abort_reason()))

    with following(tmp_path, work):
        (tmp_path / multi_node.LAUNCH).write_text(json.dumps({"launch": "killed", "words": ["sft"]}))
        time.sleep(0.2)
        (tmp_path / multi_node.LAUNCH).touch()
        time.sleep(0.2)  # then its node is killed, and nobody takes the file away
        with multi_node.leader_launch(tmp_path, FIRST, ["sft"]):  # the same words from the same checkpoint
            time.sleep(0.5)
    assert started == [(["sft"], "node 0 has restarted"), (["sft"], "node 0 has stopped")]


def failing_node(directory: Path, why: str) -> threading.Thread:
    """Another node that fails of `why` in the first start, once that has a second checkpoint."""

    def fail() -> None:
        while not (directory / "checkpoint-2" / "trainer_state.json").is_file():
            time.sleep(0.05)
        time.sleep(0.5)
        launch = multi_node.LeaderLaunch.read(directory / multi_node.LAUNCH)
        assert launch is not None
        launch.fail(f"node 1: {why}")

    thread = threading.Thread(target=fail, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize(("why", "second"), [("a process ended with code 1", "2 8 1"), ("out of memory", "2 4 2")])
def test_a_failure_of_another_node_ends_the_start_and_another_follows(
    why: str, second: str, quick: None, behave, corpus: Path, base: Path, tmp_path: Path, monkeypatch
) -> None:
    behave(hang_at=3, once=True)  # as a first node does that waits for others, which are gone
    monkeypatch.setenv("NODE_RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.setenv("NPROC_PER_NODE", "1")
    params = make_params(hardware={"nodes": 2, "restarts": 1, "stall_minutes": 1}, sft={"batch_size": 16})
    directory = stage.run_sft(params, corpus, base, tmp_path / "runs", dry_run=True).directory
    logged: list[str] = []
    failing_node(directory, why)
    result = stage.run_sft(params, corpus, base, tmp_path / "runs", on_line=logged.append)
    assert calls(result) == ["0 8 1", second]
    assert any(line == f"node 1: {why}; killing the trainer" for line in logged)
    assert len(record(result.directory)["retries"]) == 1
    assert not (directory / multi_node.FAILED).exists() and not (directory / multi_node.LAUNCH).exists()


def test_a_node_whose_first_one_never_comes_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multi_node, "TOUCH_SECONDS", 0.05)
    with pytest.raises(InputError, match="no sign of node 0"):
        list(multi_node.launches(tmp_path, tmp_path / "DONE", 0.2))


def test_a_follower_joins_every_training_of_the_first_node_and_nothing_that_an_earlier_one_left(
    quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NODE_RANK", "1"), ("MASTER_ADDR", "here"), ("NPROC_PER_NODE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(arguments, "torchrun", lambda node, processes: ["-c", "import sys; print(*sys.argv[3:])"])
    params, joined, both = make_params(hardware={"nodes": 2}), list[str](), threading.Event()
    for stage_name in ("filter-0-aaa", "sft-bbb", "sft-left-over"):
        (tmp_path / stage_name).mkdir()
    (tmp_path / "sft-left-over" / multi_node.LAUNCH).write_text('{"launch": "x", "words": ["old"]}')

    class Ended(Exception):
        pass

    def log(line: str) -> None:
        joined.append(line)
        if "second" in line:
            both.set()
            raise Ended

    def first_node() -> None:
        for stage_name, word in (("filter-0-aaa", "first"), ("sft-bbb", "second")):
            with multi_node.leader_launch(tmp_path / stage_name, FIRST, [word]):
                end = time.monotonic() + 20
                while word not in joined and not both.is_set() and time.monotonic() < end:
                    time.sleep(0.02)

    threading.Thread(target=first_node, daemon=True).start()
    with pytest.raises(Ended):
        retry.follow_all(params, tmp_path, log)
    assert "first" in joined and "old" not in joined
    assert [line for line in joined if "joining" in line] == [
        f"node 1: joining {name}" for name in ("filter-0-aaa", "sft-bbb")
    ]
    for rank, nodes, words in (("0", 2, "node 0 leads"), ("1", 1, "only one node")):
        monkeypatch.setenv("NODE_RANK", rank)
        with pytest.raises(InputError, match=words):
            retry.follow_all(make_params(hardware={"nodes": nodes}), tmp_path, log)


def test_of_several_nodes_only_the_first_writes_the_filtering_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "runs/filter-0-x/model"
    made.mkdir(parents=True)
    result = stage.StageResult(made.parent, made, "x", False, ())
    monkeypatch.setattr(stage, "run_filter", lambda *_, **__: result)
    params = make_params(hardware={"nodes": 2}, filter={"folds": 2})
    for rank in ("1", "0"):
        monkeypatch.setenv("NODE_RANK", rank)
        monkeypatch.setenv("MASTER_ADDR", "here")
        given = (params, tmp_path, tmp_path, tmp_path / "runs", tmp_path / "models")
        assert stage.run_filters(*given) == [result, result]
        assert (tmp_path / "models").exists() == (rank == "0")


def test_another_node_waits_for_what_the_first_one_makes(quick: None, tmp_path: Path) -> None:
    made, sign = tmp_path / "made.json", tmp_path / "log"

    def make() -> None:
        for n in range(8):
            sign.write_text(str(n))
            os.utime(sign, (n, n))
            time.sleep(0.1)
        made.touch()

    threading.Thread(target=make, daemon=True).start()
    multi_node.wait_for_leader(made, sign, 0.5)  # longer than that in all, but never without a sign
    made.unlink()
    with pytest.raises(InputError, match="no sign of node 0"):
        multi_node.wait_for_leader(made, sign, 0.3)


def test_replay_is_sampled_by_the_first_node_alone(
    quick: None, corpus: Path, tiny_random: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NODE_RANK", "1"), ("MASTER_ADDR", "here"), ("NPROC_PER_NODE", "1")):
        monkeypatch.setenv(name, value)
    params = make_params(hardware={"nodes": 2, "stall_minutes": 0.005}, sft={"replay_share": 0.5})
    with pytest.raises(InputError, match="no sign of node 0"):
        replay.collect(params, tiny_random, corpus, tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stepping", [True, False])
def test_another_node_goes_by_the_steps_that_the_first_one_logs(
    stepping: bool, quick: None, corpus: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("NODE_RANK", "1"), ("MASTER_ADDR", "here"), ("NPROC_PER_NODE", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(watchdog, "FLUSH_SECONDS", 0.1)
    work = "import sys, time; time.sleep(2); print('to the end')"
    monkeypatch.setattr(arguments, "torchrun", lambda node, processes: ["-c", work])
    params = make_params(hardware={"nodes": 2, "stall_minutes": 0.02}, sft={"batch_size": 16})
    directory = stage.run_sft(params, corpus, base, tmp_path / "runs", dry_run=True).directory
    directory.mkdir(parents=True)

    def first_node() -> None:
        with multi_node.leader_launch(directory, FIRST, ["sft"]):
            for n in range(15):
                time.sleep(0.2)
                if stepping:
                    (directory / "logging.jsonl").write_text(str(n))
        (directory / "DONE").touch()

    threading.Thread(target=first_node, daemon=True).start()
    logged: list[str] = []
    stage.run_sft(params, corpus, base, tmp_path / "runs", on_line=logged.append)
    assert ("to the end" in logged) is stepping
    assert any(line.startswith("no step for 0.02 minutes") for line in logged) is not stepping
