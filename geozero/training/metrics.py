"""The curve of a run: from ms-swift's `logging.jsonl` to `metrics.jsonl`, one line a step, replayed steps left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

SOURCE, TARGET = "logging.jsonl", "metrics.jsonl"
STEP = "global_step/max_steps"
LEFT_OUT = ("rewards/",)  # ms-swift's per-function copies of answer_reward and thinking_reward
VALIDATION = "eval_"
SUMMARY = "train_runtime"  # marks the line that sums a run up


Annotate = Callable[[int, Mapping[str, float]], Mapping[str, float]]


class Curve:
    """Follows a run's log while it is written; after a resume it goes on behind the last step it has written down.

    A step may have two rows: what the training logged, and what the validation after it did (`eval_…`).

    Args:
        annotate: takes a step and its numbers, and gives further ones for the same row.
    """

    def __init__(self, run: Path, annotate: Annotate | None = None) -> None:
        self._source, self._target = run / SOURCE, run / TARGET
        self._annotate = annotate
        self._last = {True: 0, False: 0}  # by whether the row is a validation's
        for row in read(self._target):
            self._last[_validates(row)] = max(self._last[_validates(row)], row["step"])
        self._position = 0

    def fresh(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Rows that came since the last call, each written to `metrics.jsonl` before it is given out."""
        if not self._source.is_file() or self._source.stat().st_size <= self._position:
            return
        with self._source.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._position += len(line)
                point = parse(line)
                if point is None or point[0] <= self._last[_validates(point[1])]:
                    continue
                self._last[_validates(point[1])] = point[0]
                if self._annotate is not None:
                    point[1].update(self._annotate(*point))
                with self._target.open("a") as target:
                    target.write(json.dumps({"step": point[0], **point[1]}) + "\n")
                yield point


def _validates(values: Mapping[str, Any]) -> bool:
    return any(name.startswith(VALIDATION) for name in values)


def parse(line: bytes | str) -> tuple[int, dict[str, float]] | None:
    """Step and numbers of one line of ms-swift's log; None for a summary or anything else."""
    try:
        values = json.loads(line)
        step = int(str(values[STEP]).split("/")[0])
    except (ValueError, KeyError, TypeError):
        return None
    if SUMMARY in values:
        return None
    return step, {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and not name.startswith(LEFT_OUT)
    }


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a `metrics.jsonl`; a last line that a kill cut off is passed over."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows
