"""A checkout at work, and the one line that a user reads when something is wrong."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from geozero.common.errors import Ambiguous, BadRecord, InputError, refusal
from geozero.engines import checkpoint
from geozero.workspace import Workspace

PARAMS = Path(__file__).resolve().parents[1] / "params.yaml"
BASE = PARAMS.parent / "models/tiny-qwen3-vl"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    (tmp_path / "params.yaml").write_text(PARAMS.read_text())
    return Workspace.open(tmp_path / "params.yaml")


def test_everything_stands_beside_the_parameter_file(
    workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace.raw == tmp_path / "data/geozero-raw" and workspace.log("sft") == tmp_path / "runs/logs/sft.log"
    (tmp_path / "profiles").mkdir()
    (tmp_path / "params.yaml").rename(tmp_path / "profiles/one.yaml")
    (tmp_path / "params.yaml").symlink_to("profiles/one.yaml")
    monkeypatch.chdir(tmp_path)
    assert Workspace.open("params.yaml").root == tmp_path  # where the link stands, not what it points to


def test_a_profile_of_a_checkout_works_in_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/one.yaml").write_text(PARAMS.read_text())
    assert Workspace.open(tmp_path / "profiles/one.yaml").root == tmp_path / "profiles"
    (tmp_path / "dvc.yaml").touch()
    assert Workspace.open(tmp_path / "profiles/one.yaml").root == tmp_path


def test_only_finished_corpora_of_the_parameters_are_seen(workspace: Workspace, tmp_path: Path) -> None:
    for name in ("toy_rsicd", "toy_aid", ".toy_aid.part-host-1", "aid"):
        (tmp_path / "data/corpus" / name).mkdir(parents=True)
        (tmp_path / "data/corpus" / name / "manifest.json").write_text("{}")
    (tmp_path / "data/corpus/neon").mkdir()
    assert [p.name for p in workspace.corpora] == ["toy_aid", "toy_rsicd"]  # and none that params.yaml does not name


def test_the_newest_run_is_the_one_finished_last(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no finished sft run in .* `geozero sft` first"):
        workspace.newest("sft")
    base = shutil.copytree(BASE, tmp_path / "models/tiny-qwen3-vl")
    made_of = json.dumps({"base": str(base), "base_hash": "0"})
    for age, name in enumerate(("sft-b", "sft-a", "a2grpo-c", "sft-d")):
        (tmp_path / "runs" / name).mkdir(parents=True)
        if name != "sft-d":  # not finished
            (tmp_path / "runs" / name / "DONE").write_text("")
            (tmp_path / "runs" / name / "stage.json").write_text(made_of)
            os.utime(tmp_path / "runs" / name / "DONE", (1_000 + age, 1_000 + age))
    assert workspace.newest("sft") == tmp_path / "runs/sft-a/model"


def test_a_run_from_another_base_model_is_not_gone_on_with(workspace: Workspace, tmp_path: Path) -> None:
    """A profile of 8 B must not begin its RL with the toy's SFT model, and a moved checkout must find its own."""
    base, run = shutil.copytree(BASE, tmp_path / "models/tiny-qwen3-vl"), tmp_path / "runs/sft-a"
    run.mkdir(parents=True)
    (run / "DONE").write_text("")
    (run / "stage.json").write_text(json.dumps({"base": "/elsewhere/base", "base_hash": "0"}))
    with pytest.raises(InputError, match="those there are smoke runs or from other base models: 1"):
        workspace.newest("sft")
    moved = {"base": "/elsewhere/base", "base_hash": checkpoint.content_hash(base)}
    (run / "stage.json").write_text(json.dumps(moved))
    assert workspace.newest("sft") == run / "model"


def test_only_a_smoke_run_goes_on_with_a_smoke_run(workspace: Workspace, tmp_path: Path) -> None:
    """Else a trial of four steps, made after the real training, would be what RL begins with."""
    base, run = shutil.copytree(BASE, tmp_path / "models/tiny-qwen3-vl"), tmp_path / "runs/sft-a"
    run.mkdir(parents=True)
    (run / "DONE").write_text("")
    (run / "stage.json").write_text(json.dumps({"base": str(base), "limit": 50}))
    with pytest.raises(InputError, match="those there are smoke runs or from other base models: 1"):
        workspace.newest("sft")
    smoke = Workspace(workspace.file, workspace.settings.model_copy(update={"smoke": True}))
    assert smoke.newest("sft") == run / "model"


def test_a_base_that_is_no_directory_is_a_name(workspace: Workspace, tmp_path: Path) -> None:
    assert workspace.base == Path("models/tiny-qwen3-vl")
    (tmp_path / "models/tiny-qwen3-vl").mkdir(parents=True)
    assert workspace.base == tmp_path / "models/tiny-qwen3-vl"


def test_an_error_is_one_line_with_what_where_and_how() -> None:
    error = InputError("not JSON:\n  line 1", "a\tb.json", "correct\nit")
    assert str(error) == "not JSON: line 1 in a b.json (correct it)"
    assert str(InputError("alone")) == "alone" and str(InputError("a", hint="b")) == "a (b)"
    assert isinstance(Ambiguous("x"), InputError)
    assert str(BadRecord("image_missing", "a.jpg")) == "image_missing: a.jpg" and str(BadRecord("x")) == "x"


def test_what_only_the_user_can_fix_is_told_from_our_faults() -> None:
    full = refusal(OSError(errno.ENOSPC, "x"), "out")
    assert str(full) == "no space left on the disk in out (make room, or choose another place)"
    assert str(refusal(PermissionError(errno.EACCES, "x", "/there"), "out")).startswith("no permission in /there (")
    for number in (errno.ENOENT, errno.EIO, errno.EBADF, None):
        assert refusal(OSError(number, "x")) is None
