"""What the pipeline refuses before it begins."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from paths import ROOT

from flows.pipeline import check_all
from geozero.common.errors import InputError
from geozero.workspace import Workspace


def workspace(place: Path, profile: str, **sections: dict[str, object]) -> Workspace:
    values = yaml.safe_load((ROOT / "profiles" / f"{profile}.yaml").read_text())
    for name, section in sections.items():
        values.setdefault(name, {}).update(section)
    shutil.copy(ROOT / "dvc.yaml", place)
    (place / "params.yaml").write_text(yaml.safe_dump(values))
    return Workspace.open(place / "params.yaml")


def test_a_stage_that_could_not_train_ends_the_pipeline_before_the_stages_ahead_of_it(tmp_path: Path) -> None:
    check_all(workspace(tmp_path, "cpu-toy"))
    sft_only = {"a2grpo": {"tuner": "full"}, "hardware": {"gpus": None}}
    with pytest.raises(InputError, match=r"float32 master weights.*a2grpo\.tuner"):
        check_all(workspace(tmp_path, "qwen3-vl-2b-1gpu", **sft_only))


def test_more_gpus_than_there_are_end_the_pipeline_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(InputError, match=r"needs 1 GPUs per node and 0 are visible.*hardware\.gpus"):
        check_all(workspace(tmp_path, "qwen3-vl-2b-1gpu"))
