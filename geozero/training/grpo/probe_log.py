"""The answers of a model in training to a few fixed questions, step by step, in its run's `thoughts.jsonl`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from geozero.corpus.sample import Sample
from geozero.training import metrics

FILE = "thoughts.jsonl"


@dataclass(frozen=True, slots=True)
class Probe:
    """One question and its completions."""

    sample: Sample
    texts: dict[int, str]  # step → completion


def append(run: Path, step: int, samples: Sequence[str], texts: Sequence[str]) -> None:
    """Add one step's completions; `samples` are the questions as JSON."""
    path = run / FILE
    with path.open("a", encoding="utf-8") as file:
        if path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            file.write("\n")  # a kill cut the line before off
        for sample, text in zip(samples, texts, strict=True):
            file.write(json.dumps({"step": step, "sample": sample, "text": text}) + "\n")


def read(run: Path) -> list[Probe]:
    """The probes of a run in order; of a repeated step the last answers count, and a cut-off line is skipped."""
    found: dict[str, Probe] = {}
    for row in metrics.read(run / FILE):
        sample = Sample.from_json(row["sample"])
        found.setdefault(sample.id, Probe(sample, {})).texts[int(row["step"])] = row["text"]
    return list(found.values())
