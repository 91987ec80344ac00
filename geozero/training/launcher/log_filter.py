"""Filter and format a trainer's output for the terminal and flow logs. The log file keeps everything."""

from __future__ import annotations

import ast
from typing import Any

LOSS_METRICS = "{'loss'"  # in the lines of ms-swift with a step's metrics
# The first words of the lines that a stage itself logs.
LOG_PREFIXES = (
    "resuming from",
    "another process",
    "guard:",
    "no step",
    "no checkpoint",
    "aborted:",
    "out of memory",
    "node ",
    "checkpoint-",
    "selected",
    "replay:",
    "left out:",
    "padding:",
    "interrupted",
    "waiting for",
)
# The metrics that are shown of a step's thirty: ms-swift's name, format.
PROGRESS_METRICS = (
    ("loss", "loss {:.4f}"),
    ("token_acc", "tokens right {:.0%}"),
    ("answer_reward", "answer reward {:.2f}"),
    ("thinking_reward", "thinking {:.2f}"),
    ("thought_words", "{:.1f} words"),
    ("well_formed", "well formed {:.0%}"),
    ("completions/clipped_ratio", "cut off {:.0%}"),
    ("answer_kl", "answer KL {:.3f}"),
)


def is_progress_line(line: str) -> bool:
    """Whether a line is about the training's progress."""
    return LOSS_METRICS in line or line.startswith(LOG_PREFIXES)


def format_progress_line(line: str) -> str:
    """A step's metrics in a few words; any other line as it is."""
    start = line.find(LOSS_METRICS)
    if start < 0:
        return line
    try:
        metrics: Any = ast.literal_eval(line[start:].strip())
        step = f"step {metrics['global_step/max_steps']}"
        skipped = {"loss"} if "answer_reward" in metrics else set()  # a policy gradient's says nothing
        parts = [text.format(float(metrics[n])) for n, text in PROGRESS_METRICS if n in metrics.keys() - skipped]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return line
    left = f"{metrics['remaining_time']} left" if "remaining_time" in metrics else ""
    return " · ".join(filter(None, (step, *parts, left)))
