"""What was scored: one model, one way of asking, one place; the unit that rows, comparisons and the page count in."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from geozero.corpus.sample import TaskName
from geozero.evaluation.evaluate import Protocol, evaluate, score
from geozero.inference.corpus_job import PromptMode, records_path
from geozero.metrics.records import RecordList, parse_records
from geozero.metrics.scores import Scores
from geozero.tasks.boxes import Convention

HARD_SUFFIX = "_hard"
TOY_PREFIX = "toy_"


@dataclass(frozen=True)
class ModelAnswers:
    """The records that one model gave: `out` as in `corpus_job.CorpusJob`, and the ways it was asked."""

    model: str
    out: Path
    modes: tuple[PromptMode, ...]


@dataclass(frozen=True)
class EvalSlice:
    """Records of one model and way of asking, with what `evaluate` made of them.

    `source` None: all sources of a world, split and task together. `base` is where relative image paths count from.
    """

    model: str
    mode: str
    split: str
    world: str
    task: TaskName
    source: str | None
    records: Sequence[Any] = field(repr=False)
    result: dict[str, Any] = field(repr=False)
    protocol: Protocol = "strict"
    boxes: Convention = "norm1000"
    base: Path | None = None

    @property
    def place(self) -> dict[str, Any]:
        """The columns that name this part in a row."""
        return {
            "model": self.model,
            "mode": self.mode,
            "split": self.split,
            "world": self.world,
            "task": self.task,
            "source": self.source,
            "protocol": self.protocol,
        }

    @cached_property
    def listed(self) -> RecordList:
        """The records as columns."""
        return parse_records(self.records, self.base)

    @cached_property
    def scores(self) -> Scores:
        """Their scores, record by record."""
        return score(self.task, self.protocol, self.listed, self.boxes)


def split_of(source: str, split: str = "test") -> str:
    """The harder world is a split of its own in every table."""
    return f"{split}{HARD_SUFFIX}" if source.endswith(HARD_SUFFIX) else split


def world_of(source: str) -> str:
    """Rendered and real imagery are never averaged."""
    return "toy" if source.startswith(TOY_PREFIX) else source


def eval_slices(answered: Sequence[ModelAnswers], sources: Sequence[str], boxes: Convention) -> Iterator[EvalSlice]:
    """Strict scores of every model and way of asking: a part for each source and task, then one for all sources of a
    world, split and task."""
    for model in answered:
        for mode in model.modes:
            whole: dict[tuple[str, str, TaskName], list[EvalSlice]] = defaultdict(list)
            for source in sources:
                for task, found in by_task(records_path(model.out, mode, source)).items():
                    result = evaluate(task, "strict", found, boxes=boxes)
                    split, world = split_of(source), world_of(source)
                    part = EvalSlice(model.model, mode, split, world, task, source, found, result, boxes=boxes)
                    whole[world, split, task].append(part)
                    yield part
            for (_, _, task), members in whole.items():
                first = members[0]
                if len(members) == 1:  # the same records: no need to draw the intervals again
                    yield replace(first, source=None)
                    continue
                together = [record for part in members for record in part.records]
                yield replace(
                    first, source=None, records=together, result=evaluate(task, "strict", together, boxes=boxes)
                )


def by_task(path: Path) -> dict[TaskName, list[dict[str, Any]]]:
    """The records of a file that `inference` wrote, by their task."""
    found: dict[TaskName, list[dict[str, Any]]] = defaultdict(list)
    for record in json.loads(path.read_text()):
        found[record["task"]].append(record)
    return dict(found)
