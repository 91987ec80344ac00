"""The units that score rows, comparisons and the page count in: one model, one prompt mode, one place."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from geozero import tasks
from geozero.evaluation.scored import ScoredRecords
from geozero.inference.corpus_job import PromptMode, records_path
from geozero.metrics.records import parse_records
from geozero.tasks.boxes import Convention

HARD_SUFFIX = "_hard"
TOY_PREFIX, SUITE_PREFIX = "toy_", "toy_suite_"


@dataclass(frozen=True)
class ModelAnswers:
    """The records of one model: `out` as in `corpus_job.CorpusJob`, and the modes it was prompted in."""

    model: str
    out: Path
    modes: tuple[PromptMode, ...]


@dataclass(frozen=True)
class EvalSlice:
    """Records of one model and mode from one place, scored, with the result that `evaluate` gives of them.

    `source` None: all sources of a world, split and task together. `rows` are the records as they stand in their file.
    """

    model: str
    mode: str
    split: str
    world: str
    source: str | None
    scored: ScoredRecords = field(repr=False)
    result: dict[str, Any] = field(repr=False)
    rows: Sequence[Any] = field(repr=False, default=())

    @property
    def task(self) -> str:
        return self.scored.task.name

    @property
    def model_ref(self) -> dict[str, str]:
        """The columns that name its model in a row."""
        return {"model": self.model, "mode": self.mode}

    @property
    def place(self) -> dict[str, Any]:
        """The columns that name its questions and rules in a row."""
        names = {"split": self.split, "world": self.world, "task": self.task, "source": self.source}
        return names | {"protocol": self.scored.protocol}


def split_of(source: str, split: str = "test") -> str:
    """The harder world is a split of its own in every table."""
    return f"{split}{HARD_SUFFIX}" if source.endswith(HARD_SUFFIX) else split


def world_of(source: str) -> str:
    """Rendered and real imagery are never averaged; nor are the suite's questions with the toy world's others."""
    if source.startswith(SUITE_PREFIX):
        return "suite"
    return "toy" if source.startswith(TOY_PREFIX) else source


def eval_slices(answered: Sequence[ModelAnswers], sources: Sequence[str], boxes: Convention) -> Iterator[EvalSlice]:
    """Strict scores of every model and mode: a slice for each source and task, then one for all sources of a world,
    split and task. Every list of records is scored once; a whole of one source is that source's slice."""
    for model in answered:
        for mode in model.modes:
            whole: dict[tuple[str, str, str], list[EvalSlice]] = defaultdict(list)
            for source in sources:
                by_task: dict[str, list[Any]] = defaultdict(list)
                for record in json.loads(records_path(model.out, mode, source).read_text()):
                    by_task[record["task"]].append(record)
                split, world = split_of(source), world_of(source)
                for task, rows in by_task.items():
                    scored = ScoredRecords(tasks.get(task), parse_records(rows), boxes=boxes)
                    part = EvalSlice(model.model, mode, split, world, source, scored, scored.result(), rows)
                    whole[world, split, task].append(part)
                    yield part
            for parts in whole.values():
                together = replace(parts[0], source=None)
                if len(parts) > 1:
                    rows = [row for part in parts for row in part.rows]
                    scored = replace(parts[0].scored, records=parse_records(rows))
                    together = replace(together, scored=scored, result=scored.result(), rows=rows)
                yield together
