"""Every pin has the hashes of its files, and pip is made to compare them."""

from __future__ import annotations

import hashlib
import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from paths import ROOT

REQUIREMENTS = ROOT / "requirements"
FILES = sorted([*REQUIREMENTS.glob("*.lock"), *REQUIREMENTS.glob("*.txt")])
LINE = re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( --hash=sha256:[0-9a-f]{64})+")


@pytest.fixture
def make_env(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(REQUIREMENTS))
    return importlib.import_module("make_env")


@pytest.fixture
def hashes(make_env: ModuleType) -> ModuleType:
    return importlib.import_module("hashes")


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.name)
def test_every_pin_has_hashes(make_env: ModuleType, hashes: ModuleType, file: Path) -> None:
    pins = [pin for pin in make_env.pins_of(file.read_text()) if not hashes.ELSEWHERE.match(pin)]
    lines = make_env.with_hashes(pins, REQUIREMENTS)
    assert len(lines) == len(pins) > 0 and [line for line in lines if not LINE.fullmatch(line)] == []


def test_each_hash_belongs_to_a_pin(make_env: ModuleType) -> None:
    pins = {make_env.key_of(*pin.split("==")) for file in FILES for pin in make_env.pins_of(file.read_text())}
    known = make_env.known_hashes(REQUIREMENTS)
    assert sorted(set(known) - pins) == [], "run `python requirements/hashes.py refresh`"


def test_a_pin_without_a_hash_is_named(make_env: ModuleType) -> None:
    with pytest.raises(make_env.Failed, match=r"no hash of numpy==0\.0\.1: .*refresh"):
        make_env.with_hashes(["numpy==0.0.1"], REQUIREMENTS)


def wheel(place: Path) -> Path:
    """The smallest package that pip installs."""
    import zipfile

    path = place / "geozero_nothing-1.0-py3-none-any.whl"
    info = "geozero_nothing-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: geozero-nothing\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.mark.parametrize("tampered", [False, True])
def test_another_file_than_the_locked_one_is_refused(tampered: bool, tmp_path: Path, make_env: ModuleType) -> None:
    for name in ("make_env.py", "hashes.py"):
        (tmp_path / name).write_text((REQUIREMENTS / name).read_text())
    package = wheel(tmp_path)
    sums = f"# sums\n{hashlib.sha256(package.read_bytes()).hexdigest()}  {package.name}\n"
    (tmp_path / "sha256sums").write_text(sums)
    (tmp_path / "extra.txt").write_text("# an extra\ngeozero-nothing==1.0\n")
    if tampered:
        package.write_bytes(package.read_bytes() + b"\0")
    command = [sys.executable, str(tmp_path / "hashes.py"), "install", str(tmp_path / "extra.txt")]
    options = ["--no-index", "--find-links", str(tmp_path), "--target", str(tmp_path / "site")]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert (tmp_path / "site/geozero_nothing-1.0.dist-info").exists() is not tampered, done.stderr
    if tampered:
        assert done.returncode != 0 and "another index" in make_env.explain(done.stderr)


def test_the_environment_and_the_extras_are_installed_with_hashes() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "pip install" not in makefile and makefile.count("requirements/hashes.py install") >= 5
    assert '"--require-hashes", "-r", str(rest)' in (REQUIREMENTS / "make_env.py").read_text()
