"""A section's `extra` may hold a secret: the trainer gets it; nothing that it writes, nor the process list, has it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_corpus import build_corpus
from training_stage import base as base
from training_stage import make_params

from geozero.params import Params
from geozero.training import arguments, stage
from geozero.training.launcher import secret_arguments
from geozero.training.stage_spec import StageSpec

SECRET = "hunter2-planted"
EXTRA = {
    "swanlab_token": SECRET,
    "swanlab_webhook_url": f"https://me:{SECRET}@hook.example/x",
    "lr_scheduler_type": "constant",
}


def command_lines() -> str:
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(file.read_bytes().decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return "\n".join(found)


def test_the_command_shows_stars_and_the_launcher_gets_the_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    concealed: list[Any] = []
    monkeypatch.setattr(secret_arguments, "_conceal", concealed.append)
    given = {
        "model": Path("m"),
        **EXTRA,
        "model_kwargs": {"api_key": SECRET, "n": 3},
        "targets": ["a", "b"],
        "off": None,
    }
    words = arguments.flatten(given)
    assert SECRET not in str(words) and "https://***@hook.example/x" in words
    environment = secret_arguments.environment(given)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    restored = secret_arguments.restore(words)
    assert restored == [word for name, value in given.items() for word in arguments.words_of(name, value)]
    assert [set(one) for one in concealed] == [{"swanlab_token", "swanlab_webhook_url", "model_kwargs"}]
    assert secret_arguments.restore(words) == words  # it was taken out of the environment
    assert secret_arguments.environment({"max_tokens": 3, "lr": "1e-4"}) == {}


def test_the_record_of_a_stage_holds_no_secret(base: Path, tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "corpus")
    params = make_params(sft={"extra": EXTRA})
    spec = StageSpec("sft", "sft", params, corpus, base, tmp_path / "runs")
    lines: list[str] = []
    planned = stage.run_sft(params, corpus, base, tmp_path / "runs", dry_run=True, on_line=lines.append)

    class Rows:
        n, rejected = 1, {}

    record = spec.record(Rows(), planned.command)  # type: ignore[arg-type]
    assert SECRET not in json.dumps(record) + "".join(lines) and record["settings"]["extra"]["swanlab_token"] == "***"


@pytest.mark.slow
def test_nothing_that_a_training_writes_holds_the_secret(tiny_random: Path, tmp_path: Path) -> None:
    corpus = build_corpus(tmp_path / "corpus")
    settings = {"steps": 2, "batch_size": 4, "micro_batch_size": 4, "replay_share": 0.0, "extra": EXTRA}
    params: Params = make_params(sft=settings)
    shown: list[str] = []
    done = stage.run_sft(
        params,
        corpus,
        tiny_random,
        tmp_path / "runs",
        on_line=shown.append,
        on_metrics=lambda step, values: shown.append(command_lines()),
    )
    files = [file for file in (tmp_path / "runs").rglob("*") if file.is_file()]
    assert {"args.json", "training_args.bin", "train.log", "stage.json"} <= {file.name for file in files}
    assert [file for file in files if SECRET.encode() in file.read_bytes()] == []
    assert SECRET not in "\n".join(shown) and "geozero.training.launcher.launch" in "\n".join(shown)
    # the trainer itself had it
    assert json.loads((done.directory / "args.json").read_text())["swanlab_webhook_url"] == "https://***@hook.example/x"
