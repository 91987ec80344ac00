"""What the page is made from: a directory of JSON files, read with tolerance and validated record by record."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from geozero.common.errors import InputError
from geozero.evaluation.report.schema import (
    Baseline,
    Comparison,
    Detail,
    Difficulty,
    GalleryItem,
    Goal,
    Probe,
    Reasoning,
    Record,
    Reference,
    Score,
    Timing,
)

FILES = {
    "scores": "scores.json",
    "baselines": "baselines.json",
    "comparisons": "comparisons.json",
    "reasoning": "reasoning.json",
    "details": "details.json",
    "goals": "goals.json",
    "difficulty": "difficulty.json",
    "curves": "curves.json",
    "probes": "probes.json",
    "gallery": "gallery.json",
    "lineage": "lineage.json",
    "timings": "timings.json",
}
OPTIONAL = {"probes"}  # a run may well have none: no fault

MODELS: dict[str, type[Record]] = {  # the parts that are lists of records
    "scores": Score,
    "baselines": Baseline,
    "comparisons": Comparison,
    "reasoning": Reasoning,
    "details": Detail,
    "goals": Goal,
    "references": Reference,
    "probes": Probe,
    "gallery": GalleryItem,
    "timings": Timing,
}


class ReportInputs(BaseModel):
    """All parts of the page; an empty one is shown as missing, with what `faults` says of it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    folder: Path = Path()
    scores: list[Score] = []
    baselines: list[Baseline] = []
    comparisons: list[Comparison] = []
    reasoning: list[Reasoning] = []
    details: list[Detail] = []
    references: list[Reference] = []
    goals: list[Goal] = []
    difficulty: dict[str, Difficulty] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    probes: list[Probe] = []
    gallery: list[GalleryItem] = []
    lineage: dict[str, Any] = {}
    timings: list[Timing] = []
    faults: dict[str, list[str]] = {}  # part → what is missing or was left out

    def fault(self, part: str, text: str) -> None:
        self.faults.setdefault(part, []).append(text)


def is_run(folder: Path) -> bool:
    """Whether a directory holds what a pipeline run leaves.

    Raises:
        InputError: there is no such directory.
    """
    if not folder.is_dir():
        raise InputError("no such directory", str(folder), "evaluate first; the page is made from its JSON files")
    return any((folder / name).exists() for name in FILES.values())


def read_inputs(folder: Path) -> ReportInputs:
    """Read the JSON files of `folder`; what is missing or broken is noted and the rest is used.

    Raises:
        InputError: there is no such directory, or it holds none of the files.
    """
    if not is_run(folder):
        raise InputError(f"none of {', '.join(FILES.values())}", str(folder), "evaluate first, or name another --data")
    inputs = ReportInputs(folder=folder)
    for part in (name for name in FILES if name in MODELS):
        if part in OPTIONAL and not (folder / FILES[part]).exists():
            continue
        use(inputs, part, _load(inputs, part, list) or [])
    inputs.lineage = _load(inputs, "lineage", dict) or {}
    inputs.curves = _curves(inputs)
    inputs.difficulty = _difficulty(inputs)
    return inputs


def _load(inputs: ReportInputs, part: str, kind: type) -> Any:
    """The parsed file of a part, or None with a fault noted: absent, not JSON, another type, empty."""
    name = FILES[part]
    path = inputs.folder / name
    problem: Literal[""] | str = ""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = f"{name} was not there"
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{name} could not be read: {error}"
    else:
        if isinstance(value, kind) and value:
            return value
        problem = f"{name} is empty" if isinstance(value, kind) else f"{name} does not hold a {kind.__name__}"
    inputs.fault(part, problem)
    return None


def use(inputs: ReportInputs, part: str, rows: Iterable[Any]) -> None:
    """Validate rows and keep them as a part; those that are no valid records are counted, the first reason is kept."""
    model, kept = MODELS[part], []
    n, refused, first = 0, 0, ""
    for n, row in enumerate(rows, start=1):
        try:
            kept.append(model.model_validate(row))
        except ValidationError as error:
            fault = error.errors()[0]
            first = first or f"record {n - 1}: {'.'.join(map(str, fault['loc']))} {fault['msg']}"
            refused += 1
    setattr(inputs, part, kept)
    if refused:
        inputs.fault(part, f"{refused} of {n} records in {FILES.get(part, part)} were left out ({first})")


def _curves(inputs: ReportInputs) -> dict[str, list[dict[str, Any]]]:
    """`{stage: rows}`; only rows with a numeric step, only finite numbers in them."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for stage, rows in (_load(inputs, "curves", dict) or {}).items():
        usable = [_numbers(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        usable = [row for row in usable if "step" in row]
        if usable:
            curves[stage] = sorted(usable, key=lambda row: row["step"])
        else:
            inputs.fault("curves", f"'{stage}' in curves.json has no rows with a step")
    return curves


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v)}


def _difficulty(inputs: ReportInputs) -> dict[str, Difficulty]:
    """Histograms by task; `bands` stand beside the tasks or inside each of them."""
    raw = _load(inputs, "difficulty", dict) or {}
    bands = raw.pop("bands", {})
    bands = bands if isinstance(bands, dict) else {}
    found: dict[str, Difficulty] = {}
    for task in [*raw, *(task for task in bands if task not in raw)]:
        entry = raw.get(task, {})
        try:
            part = Difficulty.model_validate(
                {"bands": bands.get(task, {}), **(entry if isinstance(entry, dict) else {})}
            )
        except ValidationError as error:
            inputs.fault("difficulty", f"'{task}' was left out: {error.errors()[0]['msg']}")
            continue
        if len(part.edges) != len(part.counts) + 1 or any(
            b <= a for a, b in zip(part.edges, part.edges[1:], strict=False)
        ):
            inputs.fault("difficulty", f"'{task}' has no histogram: its edges do not fit its counts")
            part = Difficulty(bands=part.bands)
        found[task] = part
    return found
