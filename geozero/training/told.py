"""Which lines of a training's output somebody wants to see, at a terminal and in a flow's log; its log file has all."""

from __future__ import annotations

LOSSES = "{'loss'"  # of ms-swift's hundreds of lines, those with a logged step's metrics
# How lines begin that the training stages themselves say.
BEGINNINGS = (
    "resumed",
    "another process",
    "guard:",
    "no step",
    "no checkpoint",
    "out of memory",
    "node ",
    "checkpoint-",
    "replay:",
    "left out:",
)


def told(line: str) -> bool:
    """Whether a line tells how the training goes."""
    return LOSSES in line or line.startswith(BEGINNINGS)
