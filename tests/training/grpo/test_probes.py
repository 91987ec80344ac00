"""Questions asked on the way: read as they were written whatever they hold, and a kill costs no later answers."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from geozero.common import process
from geozero.corpus.sample import Sample
from geozero.training.grpo import probe_log

process.prepare()

from geozero.training.grpo.callbacks import CheckpointCallback, ProbeCallback  # noqa: E402

ODD = "Is this\u2028a\u0085ship?"  # line separators that a JSON text may hold as they are


def sample(name: str) -> str:
    return Sample(name, "vqa", "s", "val", "i", "k", ODD, "yes").to_json()


def state(step: int) -> Any:
    return SimpleNamespace(global_step=step, max_steps=5, is_world_process_zero=True)


def test_questions_with_odd_line_separators_are_asked_at_the_start_on_the_way_and_at_the_end(tmp_path: Path) -> None:
    rows = [{"sample": sample(name)} for name in "ab"]
    file = tmp_path / "probe-rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    asked: list[Any] = []

    def answer(questions: list[dict[str, Any]]) -> list[str]:
        asked.append(questions)
        return [f"{len(asked)}\u2028{i}" for i in range(len(questions))]

    probes = ProbeCallback(answer, file, 2)
    probes.on_train_begin(None, state(0), None)
    for step in range(1, 6):
        probes.on_step_end(None, state(step), None)
    probes.on_train_begin(None, state(3), None)  # resumed
    assert all(questions == rows for questions in asked)
    found = probe_log.read(tmp_path)
    assert [(p.sample.question, sorted(p.texts)) for p in found] == [(ODD, [0, 2, 4, 5])] * 2
    assert found[1].texts[2] == "2\u20281"


def test_a_line_that_a_kill_cut_off_costs_itself_alone(tmp_path: Path) -> None:
    names = [sample("a"), sample("b")]
    probe_log.append(tmp_path, 0, names, ["1", "2"])
    file = tmp_path / probe_log.FILE
    file.write_bytes(file.read_bytes()[:-5])
    probe_log.append(tmp_path, 2, names, ["3", "4"])
    assert [p.texts for p in probe_log.read(tmp_path)] == [{0: "1", 2: "3"}, {2: "4"}]


@pytest.mark.parametrize(
    ("logs", "fp16", "ends"),
    [
        ({"loss": float("nan")}, False, True),
        ({"loss": 0.1, "grad_norm": float("inf")}, False, True),
        ({"loss": 0.1, "grad_norm": float("inf")}, True, False),
        ({"loss": float("inf"), "grad_norm": 1.0}, True, True),
        ({"loss": 0.1, "grad_norm": 1.0}, False, False),
        ({"eval_loss": 1.0}, False, False),
    ],
)
def test_a_step_with_nan_ends_the_training_without_a_checkpoint(logs: dict[str, float], fp16: bool, ends: bool) -> None:
    control = SimpleNamespace(should_evaluate=True, should_save=True, should_training_stop=False)
    CheckpointCallback().on_log(SimpleNamespace(fp16=fp16), state(2), control, logs=logs)
    assert (control.should_training_stop, control.should_save, control.should_evaluate) == (ends, not ends, not ends)
