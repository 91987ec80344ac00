"""Child processes: their last words are kept, and nothing of theirs outlives the call, whatever ends it."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from processes import is_gone_soon, is_running

from geozero.common import process, process_tags
from geozero.common.errors import InputError
from geozero.common.process import LAST_LINES, QUIET_AND_OFFLINE, ChildFailed, quiet_environment, run


def sh(script: str, **options: Any) -> list[str]:
    """Run a shell script and return its lines."""
    lines: list[str] = []
    run(["sh", "-c", script], on_line=lines.append, **options)
    return lines


# --- output -----------------------------------------------------------------------------------------------


def test_lines_go_to_the_log_and_to_the_listener_in_order(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    script = "for i in 1 2 3; do echo $i; echo e$i >&2; done; printf 'no end'"
    assert sh(script, log=log) == ["1", "e1", "2", "e2", "3", "e3", "no end"]
    assert log.read_text().splitlines() == ["1", "e1", "2", "e2", "3", "e3", "no end"]
    assert sh("echo again", log=log) == ["again"] and log.read_text().endswith("no endagain\n")


def test_the_working_directory_and_the_input(tmp_path: Path) -> None:
    assert sh("pwd; cat", cwd=tmp_path) == [str(tmp_path)]  # nothing can be typed: a question ends at once


def test_output_that_is_no_text_is_still_shown() -> None:
    assert sh(r"printf '\377x\n'; printf '10%%\r20%%\n'") == ["�x", "10%", "20%"]


def test_a_failed_child_leaves_its_last_lines() -> None:
    with pytest.raises(ChildFailed) as caught:
        run(["sh", "-c", f"seq 1 {LAST_LINES + 60}; echo 'out of memory' >&2; exit 7", "a", "b", "c"])
    failed = caught.value
    assert failed.code == 7 and len(failed.tail) == LAST_LINES
    assert failed.tail[0] == "62" and failed.tail[-1] == "out of memory"
    assert "… ended with code 7:\n62\n63\n" in str(failed) and str(failed).endswith("\nout of memory")


def test_a_killed_child_has_a_negative_code() -> None:
    with pytest.raises(ChildFailed) as caught:
        sh("echo before; kill -9 $$")
    assert caught.value.code == -signal.SIGKILL and caught.value.tail == ["before"]


def test_a_command_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        run(["no-such-command-anywhere"])


# --- nothing outlives the call ----------------------------------------------------------------------------


def test_a_time_out_ends_the_whole_group(tmp_path: Path) -> None:
    """A grandchild holds the pipe open, as data loaders and engines do."""
    start, log = time.monotonic(), tmp_path / "a.log"
    with pytest.raises(TimeoutError, match=r"sh -c .* ran longer than 0\.3 s"):
        sh("sleep 60 & echo $!; echo $$; sleep 60", timeout=0.3, log=log)
    assert time.monotonic() - start < 10
    grandchild, child = map(int, log.read_text().split())
    assert is_gone_soon(grandchild) and is_gone_soon(child)


def test_a_child_that_does_not_listen_is_killed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(process, "TERMINATE_SECONDS", 0.2)
    with pytest.raises(TimeoutError):
        sh("trap '' TERM; echo $$; while :; do sleep 0.05; done", timeout=0.2, log=tmp_path / "a.log")
    assert is_gone_soon(int((tmp_path / "a.log").read_text()))


@pytest.mark.parametrize("code", [0, 3])
def test_a_grandchild_that_is_left_behind_is_ended_and_not_waited_for(code: int, tmp_path: Path) -> None:
    start = time.monotonic()
    try:
        sh(f"sleep 60 & echo $!; exit {code}", log=tmp_path / "a.log")
    except ChildFailed as failed:
        assert failed.code == code
    assert time.monotonic() - start < 10
    assert is_gone_soon(int((tmp_path / "a.log").read_text()))


def test_an_own_session_that_holds_the_pipe_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DRAIN_SECONDS", 0.2)
    start = time.monotonic()
    (number,) = sh("setsid sh -c 'echo $$; exec sleep 60' & sleep 0.3")
    assert time.monotonic() - start < 20
    os.kill(int(number), signal.SIGKILL)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), ValueError("no metrics")])
def test_a_listener_that_fails_ends_the_child(error: Exception, tmp_path: Path) -> None:
    """A child whose output nobody takes would wait for ever once the pipe is full."""

    def listen(line: str) -> None:
        raise error

    start = time.monotonic()
    with pytest.raises(type(error)) as caught:
        run(["sh", "-c", "echo $$; while :; do echo line; done"], log=tmp_path / "a.log", on_line=listen)
    assert caught.value is error and time.monotonic() - start < 10
    assert is_gone_soon(int((tmp_path / "a.log").read_text().split()[0]))


def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "DEVICES", tmp_path)
    process.check_gpu(7, "--gpu")  # none at all, or none that shows itself: the caller's matter
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm", "null"):
        (tmp_path / name).touch()
    assert process.gpus() == 2
    process.check_gpu(1, "--gpu")
    with pytest.raises(InputError, match="no GPU 2: this machine has 2 in --gpu"):
        process.check_gpu(2, "--gpu")


def test_the_gpu_counts_among_the_visible_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6")
    process.choose_gpu(1, "--gpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "6"
    with pytest.raises(InputError, match="no GPU 1: CUDA_VISIBLE_DEVICES shows 1 in --gpu"):
        process.choose_gpu(1, "--gpu")
    monkeypatch.setattr(process, "gpus", lambda: 0)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    process.choose_gpu(3, "--gpu")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "3"


SAY_AND_WAIT = "print(os.getpid(), flush=True); time.sleep(60)"
WAITING = f"import os, time; {SAY_AND_WAIT}"
IMPORTS = "import os, time; from geozero.common.process_tags import end_with_owner"
WAITING_CHILD = f"{IMPORTS}; end_with_owner(); {SAY_AND_WAIT}"
CALLER = """
import sys
from geozero.common import process
process.run([sys.executable, "-c", sys.argv[1]], on_line=lambda line: print(line, flush=True))
"""


def begun(*script: str) -> tuple[subprocess.Popen[str], int]:
    """A process, and the number of the one below it that has said its own."""
    top = subprocess.Popen([sys.executable, "-c", *script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert top.stdout is not None
    number = int(top.stdout.readline())
    assert is_running(number)
    return top, number


def test_a_child_of_ours_ends_with_a_caller_that_is_killed() -> None:
    caller, number = begun(CALLER, WAITING_CHILD)
    caller.kill()
    caller.communicate()
    assert is_gone_soon(number)


def test_a_process_can_end_with_one_further_up() -> None:
    """A trainer's parent is torchrun; what it has to end with is the stage."""
    below = f"{IMPORTS}; end_with_owner(int(os.environ['TOP'])); {SAY_AND_WAIT}"
    between = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}], start_new_session=True)"
    start = f"subprocess.run([sys.executable, '-c', {between!r}])"
    top = f"import os, subprocess, sys; os.environ['TOP'] = str(os.getpid()); {start}"
    highest, number = begun(top)
    highest.kill()
    highest.wait()
    assert is_gone_soon(number)


def test_one_that_shares_the_group_ends_alone() -> None:
    """A worker of a pool: the shell that the command was typed in is in its group as well."""
    below = f"{IMPORTS}; end_with_owner(os.getppid(), alone=True); {SAY_AND_WAIT}"
    caller = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {below!r}])"
    shell, number = begun(f"import subprocess, sys; subprocess.run([sys.executable, '-c', {caller!r}]); {WAITING}")
    os.kill(psutil.Process(number).ppid(), signal.SIGKILL)
    assert is_gone_soon(number)
    assert shell.poll() is None
    shell.kill()
    shell.communicate()


@pytest.mark.parametrize("leads", [True, False], ids=["its child", "a grandchild"])
def test_only_the_child_itself_minds_that_the_caller_is_gone_at_its_start(leads: bool) -> None:
    """A daemon's children inherit the variable of a command that ended long ago."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    script = "from geozero.common import process_tags; import time; process_tags.end_with_owner(); time.sleep(0.5)"
    environment = {**os.environ, process_tags.OWNER: str(ended.pid)}
    child = subprocess.Popen([sys.executable, "-c", script], env=environment, start_new_session=leads)
    assert child.wait() == (-signal.SIGKILL if leads else 0)


def test_a_stopped_process_in_a_session_of_its_own_goes_too() -> None:
    """As a server that hangs, of an engine that is given up: stopped, it cannot notice that its parent is gone."""
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAITING!r}], start_new_session=True)"
    child, number = begun(script)
    os.kill(number, signal.SIGSTOP)
    process.end_tree(child)
    assert is_gone_soon(number)


def test_what_writes_its_checkpoint_in_a_session_of_its_own_may_finish(tmp_path: Path) -> None:
    """A trainer below a stage below dvc, which is gone at the first signal."""
    done = tmp_path / "done"
    work = f"print(1, flush=True); time.sleep(0.7); pathlib.Path({str(done)!r}).touch()"
    trainer = f"import pathlib, time; {work}"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {trainer!r}], start_new_session=True)"
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None and child.stdout.readline()
    process.end_tree(child)
    assert done.exists()


def test_a_log_that_cannot_be_opened_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        run(["touch", str(tmp_path / "started")], log=tmp_path)
    assert not (tmp_path / "started").exists()


def test_there_is_one_place_that_starts_processes() -> None:
    """So that each runs in a session of its own, quiet and offline, and can be ended with all that it started.

    But for process 1 of a container, whose command belongs to the container's own session.
    """
    root = Path(process.__file__).parents[2]
    files = [path for room in ("geozero", "flows") for path in (root / room).rglob("*.py")]
    found = [path.name for path in files if "subprocess.Popen(" in path.read_text()]
    assert sorted(found) == ["container_entry.py", "process.py"]


def test_an_interrupt_ends_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(child: Any, timeout: float | None = None) -> int:
        if timeout == process.TERMINATE_SECONDS:  # the clearing up
            return int(wait(child, timeout))
        while not (tmp_path / "a.log").read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt

    wait = subprocess.Popen.wait
    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sh("echo $$; sleep 60", log=tmp_path / "a.log")
    assert is_gone_soon(int((tmp_path / "a.log").read_text()))


# --- environment ------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """This process's environment as a test may change it, without what the rules are about."""
    ours = {k: v for k, v in os.environ.items() if k not in (*QUIET_AND_OFFLINE, "OMP_NUM_THREADS")}
    monkeypatch.setattr(os, "environ", ours)
    monkeypatch.setattr(process, "has_gpu", lambda: False)
    return ours


def test_a_child_is_quiet_and_offline(environment: dict[str, str]) -> None:
    found = dict(line.split("=", 1) for line in sh("env") if "=" in line)
    assert QUIET_AND_OFFLINE.items() <= found.items() and found["OMP_NUM_THREADS"] == "1"


def test_what_the_user_says_counts(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    environment |= {"HF_HUB_OFFLINE": "0", "OMP_NUM_THREADS": "4"}
    made = quiet_environment({"HF_HUB_OFFLINE": "maybe", "EXTRA": "1"})
    assert (made["HF_HUB_OFFLINE"], made["OMP_NUM_THREADS"], made["EXTRA"]) == ("maybe", "4", "1")
    assert quiet_environment()["HF_HUB_OFFLINE"] == "0"
    del environment["OMP_NUM_THREADS"]
    monkeypatch.setattr(process, "has_gpu", lambda: True)
    assert "OMP_NUM_THREADS" not in quiet_environment()


def test_prepare_sets_the_environment_and_loads_nothing(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment["DO_NOT_TRACK"] = "false"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(process, "sys", SimpleNamespace(modules={}))
    process.prepare()
    assert environment["TRANSFORMERS_OFFLINE"] == "1" and environment["DO_NOT_TRACK"] == "false"
    assert process._libraries == [] or "torch" in process._libraries[0].__class__.__module__


def test_the_model_runner_that_our_sampler_needs_is_not_the_users_choice(environment: dict[str, str]) -> None:
    environment["VLLM_USE_V2_MODEL_RUNNER"] = "1"
    assert quiet_environment()["VLLM_USE_V2_MODEL_RUNNER"] == "0"


@pytest.mark.parametrize("loads", [True, False])
def test_torchvisions_operators_are_declared_only_where_they_do_not_load(
    loads: bool, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    torch = pytest.importorskip("torch")
    (tmp_path / "_C.so").touch()
    declared: list[str] = []

    def load(path: str) -> None:
        assert path == str(tmp_path / "_C.so")
        if not loads:
            raise OSError("undefined symbol")

    library = SimpleNamespace(define=lambda schema: declared.append(schema.partition("(")[0]))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    monkeypatch.setattr(torch.ops, "load_library", load)
    monkeypatch.setattr(torch.library, "Library", lambda *_: library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # as on a login node
    monkeypatch.setattr(process, "_libraries", [])
    monkeypatch.setattr(process, "sys", SimpleNamespace(modules={}))
    process.prepare()
    assert declared == ([] if loads else ["nms", "qnms"])
