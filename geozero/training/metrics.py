"""The curve of a run: from ms-swift's `logging.jsonl` to `metrics.jsonl`, one line a step, replayed steps left out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SOURCE, TARGET = "logging.jsonl", "metrics.jsonl"
STEP = "global_step/max_steps"
LEFT_OUT = ("rewards/",)  # ms-swift's per-function copies of answer_reward and thinking_reward
SUMMARY = "train_runtime"  # marks the line that sums a run up


class Curve:
    """Follows a run's log while it is written; after a resume it goes on behind the last step it has written down."""

    def __init__(self, run: Path) -> None:
        self._source, self._target = run / SOURCE, run / TARGET
        self._last = max((row["step"] for row in read(self._target)), default=0)
        self._position = 0

    def fresh(self) -> Iterator[tuple[int, dict[str, float]]]:
        """Steps that came since the last call, each written to `metrics.jsonl` before it is given out."""
        if not self._source.is_file() or self._source.stat().st_size <= self._position:
            return
        with self._source.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._position += len(line)
                point = parse(line)
                if point is None or point[0] <= self._last:
                    continue
                self._last = point[0]
                with self._target.open("a") as target:
                    target.write(json.dumps({"step": point[0], **point[1]}) + "\n")
                yield point


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
