"""A trained stage made small: parameters, a base model, the log and checkpoints that a trainer leaves."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from weights import write_weights

from geozero.params import Params, load
from geozero.training import checkpoints
from geozero.training.stage_spec import StageSpec

PROFILE = ROOT / "params.yaml"


SMALL = {
    "filter": {"folds": 2, "steps": 4, "batch_size": 8, "micro_batch_size": 4},
    "sft": {"steps": 4, "batch_size": 8, "micro_batch_size": 8, "replay_share": 0.0},
    "a2grpo": {"steps": 3, "group_size": 4, "prompts_per_step": 2, "micro_batch_size": 8, "max_completion_tokens": 16},
}


def make_params(**sections: dict) -> Params:
    """The demo's profile, small, with some values replaced."""
    values = load(PROFILE).model_dump()
    for changes in (SMALL, sections):
        for name, section in changes.items():
            values[name] |= section
    return Params.model_validate(values)


def spec_of(params: Params, section: Any, **changes: Any) -> StageSpec:
    """A stage whose data and model need not be there, unless `changes` name some."""
    values = {"corpus": Path("nowhere"), "base": Path(params.model.path), "out_root": Path("runs")} | changes
    return StageSpec(section, section, params, **values)


def write_checkpoint(run: Path, step: int, history: Sequence[dict[str, Any]] = ()) -> Path:
    path = run / f"checkpoint-{step}"
    path.mkdir(parents=True)
    write_weights(path / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        with zipfile.ZipFile(path / name, "w") as archive:
            archive.writestr("data", b"x" * 100)
    (path / checkpoints.STATE).write_text(json.dumps({"global_step": step, "log_history": list(history)}))
    return path


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.mkdir()
    write_weights(path / "model.safetensors")
    (path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    (path / "generation_config.json").write_text('{"suppress_tokens": [3]}')
    (path / "chat_template.jinja").write_text("x")
    return path


def log_line(step: int, **values: object) -> str:
    return json.dumps(
        {"loss": 1.0 / step, "rewards/AnswerReward/mean": 1.0, "global_step/max_steps": f"{step}/9", **values}
    )
