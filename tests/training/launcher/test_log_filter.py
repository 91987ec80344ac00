"""What a training says of itself is shown wherever it runs: every line that a stage tells passes the one filter."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest
from paths import ROOT

from flows.runtime.monitoring import COMMAND, training_log
from geozero.training.launcher.log_filter import format_progress_line, is_progress_line

TRAINING = ROOT / "geozero/training"
MODULES = ("stage", "checkpoints", "replay", "metrics", "grpo/rollout_backend")
MODULES += ("launcher/retry", "launcher/watchdog", "launcher/multi_node")
LOGS = ("log", "run.log", "self._log", "print")
REASONS = ("abort_reason", "_hang")  # functions whose results begin a line


def text_of(node: ast.expr) -> str | None:
    """A literal text, its places filled in with `…`; None for another expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return None


def logged_lines() -> Iterator[str]:
    """Every text that a stage logs, or begins a line with."""
    for name in MODULES:
        for node in ast.walk(ast.parse((TRAINING / f"{name}.py").read_text())):
            found: list[ast.expr] = []
            if isinstance(node, ast.Call) and ast.unparse(node.func) in LOGS:
                found = node.args[:1]
            elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason":
                found = [node.value]
            elif isinstance(node, ast.FunctionDef) and node.name in REASONS:
                found = [
                    r for n in ast.walk(node) if isinstance(n, ast.Return) for r in (n.value, *parts_of(n.value)) if r
                ]
            yield from (text.replace("….name", "checkpoint-7") for text in map(text_of, found) if text)


def parts_of(node: ast.expr | None) -> list[ast.expr]:
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else []


def in_flow(line: str) -> bool:
    """Whether a flow's log gets it."""
    passed: list[str] = []
    training_log(passed.append)(line)
    return passed == [line]


def test_every_line_that_a_stage_logs_is_shown_at_a_terminal_and_in_a_flow() -> None:
    found = {line for line in logged_lines() if not line.startswith("…")}
    assert len(found) >= 15
    assert {line for line in found if not in_flow(line)} == set()
    assert {line for line in found if not is_progress_line(line)} == {f"{COMMAND}…"}


@pytest.mark.parametrize("line", ["{'loss': 0.5, 'step': 3}", "[rank0] {'loss': 0.5}", "guard: half the answers"])
def test_losses_and_guards_are_shown(line: str) -> None:
    assert is_progress_line(line) and in_flow(line)


@pytest.mark.parametrize("line", ["adalora_beta1=0.85,", "", "The guard: of nothing", "[INFO:swift] no step"])
def test_ms_swift_s_other_lines_are_not(line: str) -> None:
    assert not is_progress_line(line) and not in_flow(line)


SFT = "{'loss': 0.81747735, 'grad_norm': 1.07, 'token_acc': 0.787, 'global_step/max_steps': '60/60', 'epoch': 0.98}"
RL = (
    "[rank0] {'loss': -3e-08, 'answer_reward': 0.177287, 'thinking_reward': 0.1012, 'thought_words': 16.945, "
    "'well_formed': 0.9766, 'completions/clipped_ratio': 0.0156, 'answer_kl': 0.0084, 'epoch': 0.25, "
    "'global_step/max_steps': '2/8', 'remaining_time': '1m 28s'}"
)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (SFT, "step 60/60 · loss 0.8175 · tokens right 79%"),
        (
            RL,
            "step 2/8 · answer reward 0.18 · thinking 0.10 · 16.9 words · well formed 98% · cut off 2% · "
            "answer KL 0.008 · 1m 28s left",
        ),
    ],
)
def test_a_step_is_told_in_a_few_words(line: str, words: str) -> None:
    assert format_progress_line(line) == words
    passed: list[str] = []
    training_log(passed.append)(line)
    assert passed == [words]


@pytest.mark.parametrize(
    "line",
    [
        "guard: half the answers",
        "{'loss': 0.5, 'step': 3}",  # no step out of how many: shown as it is
        "{'loss': nan, 'global_step/max_steps': '1/2'}",
        "{'loss': 'much', 'global_step/max_steps': '1/2'}",
        "{'loss': __import__('os').getpid(), 'global_step/max_steps': '1/2'}",
        "{'loss': 0.5, 'global_step/max_steps': '1/2",
    ],
)
def test_what_is_no_step_s_metrics_is_shown_as_it_is(line: str) -> None:
    assert format_progress_line(line) == line
