"""What a training says of itself is shown wherever it runs: every line that a stage tells passes the one filter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.watching import COMMAND, training
from geozero.training.told import told

TRAINING = Path(__file__).resolve().parents[1] / "geozero/training"
STAGES = ("attempts", "checkpoints", "replay", "stage", "supervise")


def lines_told() -> Iterator[tuple[str, str]]:
    """Every text that is passed to `tell`, its places filled in with a checkpoint's name."""
    for name in STAGES:
        for node in ast.walk(ast.parse((TRAINING / f"{name}.py").read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("tell", "self.tell"):
                text = node.args[0]
                if isinstance(text, ast.Constant):
                    yield name, str(text.value)
                elif isinstance(text, ast.JoinedStr):
                    parts = [str(p.value) if isinstance(p, ast.Constant) else "checkpoint-7" for p in text.values]
                    yield name, "".join(parts)


def in_flow(line: str) -> bool:
    """Whether a flow's log gets it."""
    passed: list[str] = []
    training(passed.append)(line)
    return passed == [line]


def test_every_line_that_a_stage_tells_is_shown_at_a_terminal_and_in_a_flow() -> None:
    found = list(lines_told())
    assert len(found) >= 8
    assert {text for _, text in found if not in_flow(text)} == set()
    assert {text for _, text in found if not told(text)} == {text for _, text in found if text.startswith(COMMAND)}


@pytest.mark.parametrize("line", ["{'loss': 0.5, 'step': 3}", "[rank0] {'loss': 0.5}", "guard: half the answers"])
def test_losses_and_guards_are_shown(line: str) -> None:
    assert told(line) and in_flow(line)


@pytest.mark.parametrize("line", ["adalora_beta1=0.85,", "", "The guard: of nothing", "[INFO:swift] no step"])
def test_ms_swift_s_other_lines_are_not(line: str) -> None:
    assert not told(line) and not in_flow(line)
