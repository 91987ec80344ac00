"""What of a training's output is shown at a terminal and in a flow's log, and how; its log file has all of it."""

from __future__ import annotations

import ast
from typing import Any

LOSS_METRICS = "{'loss'"  # of ms-swift's hundreds of lines, those with a logged step's metrics
# How lines begin that the training stages themselves say.
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
    "interrupted",
    "waiting for",
)
# Of a step's thirty metrics, those that say how it goes: name in ms-swift's line, how they are shown.
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
    """Whether a line tells how the training goes."""
    return LOSS_METRICS in line or line.startswith(LOG_PREFIXES)


def format_progress_line(line: str) -> str:
    """A line as people read it: a step's metrics in a few words, any other as it is."""
    start = line.find(LOSS_METRICS)
    if start < 0:
        return line
    try:
        metrics: Any = ast.literal_eval(line[start:].strip())
        step = f"step {metrics['global_step/max_steps']}"
        unwanted = {"loss"} if "answer_reward" in metrics else set()  # of a policy gradient it says nothing
        parts = [words.format(float(metrics[n])) for n, words in PROGRESS_METRICS if n in metrics and n not in unwanted]
    except (ValueError, SyntaxError, KeyError, TypeError):
        return line
    left = f"{metrics['remaining_time']} left" if "remaining_time" in metrics else ""
    return " · ".join(filter(None, (step, *parts, left)))
