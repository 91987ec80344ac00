"""From the files that `geozero evaluate` wrote to the parts of a page: `MODEL/BENCHMARK.json` in one directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from geozero.common.errors import InputError
from geozero.common.lenient_json import parse_rows
from geozero.corpus.sample import TaskName, digest
from geozero.evaluation.benchmark import benchmarks, reference_rows
from geozero.evaluation.gallery_items import record_gallery
from geozero.evaluation.report.schema import FILES, ReportInputs
from geozero.evaluation.report.tables import in_order
from geozero.evaluation.result_sets import EvalSlice
from geozero.evaluation.score_rows import evaluation_parts
from geozero.evaluation.scored import PROTOCOLS, Protocol, ScoredRecords
from geozero.inference.corpus_job import PromptMode
from geozero.metrics.records import parse_records
from geozero.tasks import TASKS
from geozero.tasks.boxes import CONVENTIONS

MAX_RESULT = 200_000_000  # bytes; a larger JSON file is no result of ours


class GroupResult(BaseModel):
    """The part of a result about one group."""

    n: int
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None] = {}


class ReasoningResult(BaseModel):
    """The part of a result about reasoning; the rest is checked as the page shows it."""

    model_config = ConfigDict(extra="allow")

    n_with_thought: int = 0
    words: dict[str, float] | None = None


class Result(GroupResult):
    """What `geozero evaluate` wrote; other keys are kept as they are."""

    model_config = ConfigDict(extra="allow")

    task: TaskName
    protocol: Protocol
    groups: dict[str, dict[str, GroupResult]] = {}
    well_formed_share: float | None = None
    reasoning: ReasoningResult = ReasoningResult()
    problems: dict[str, Any] = {}


def find_results(folder: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Every result of `geozero evaluate` below `folder`, by name, as it stands in its file."""
    found = []
    for path in sorted(folder.rglob("*.json")):
        try:
            value = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_RESULT else None
        except (OSError, ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("task") in tuple(TASKS) and value.get("protocol") in PROTOCOLS:
            found.append((path, value))
    return found


def collect(folder: Path, n_gallery: int) -> ReportInputs:
    """The parts of a page from the results in `folder`. The records behind a result are read and scored again, so that
    models can be compared question by question and their mistakes be looked at.

    Raises:
        InputError: there is no result.
    """
    results = find_results(folder)
    if not results:
        what = f"none of {', '.join(FILES.values())}, and no result of `geozero evaluate`"
        raise InputError(what, str(folder), "evaluate first (`--out DIR/MODEL/BENCHMARK.json`), or name another --data")
    inputs, slices = ReportInputs(folder=folder), []
    for path, given in results:
        try:
            result = Result.model_validate(given).model_dump()
        except ValidationError as error:
            fault = error.errors()[0]
            what = f"is no whole result: {'.'.join(map(str, fault['loc']))} {fault['msg']}"
            inputs.fault("scores", f"{path.relative_to(folder)} {what}")
            continue
        result["problems"] = {"reasons": {}, **result["problems"]}
        try:
            records, base = _records(path, result)
        except ValueError as error:
            records, base = [], None
            inputs.fault("comparisons", f"{path.relative_to(folder)}: {error}; its scores stand alone")
        slices.append(_slice(folder, path, result, records, base))
    if not slices:
        raise InputError(inputs.faults["scores"][0], str(folder), "score the records again")
    order = in_order({(part.model, part.mode) for part in slices})
    slices.sort(key=lambda part: order.index((part.model, part.mode)))
    for name, rows in evaluation_parts(slices).items():
        inputs.use(name, rows)
    inputs.use("references", _references(slices))
    inputs.use("gallery", record_gallery([part for part in slices if part.rows], n_gallery))
    return inputs


def _slice(folder: Path, path: Path, result: dict[str, Any], rows: list[Any], base: Path | None) -> EvalSlice:
    model, mode, benchmark = names_of(folder, path, result)
    boxes: Any = result["boxes"] if result.get("boxes") in CONVENTIONS else "norm1000"
    scored = ScoredRecords(TASKS[result["task"]], parse_records(rows, base), result["protocol"], boxes)
    return EvalSlice(model, mode, "", result["protocol"], benchmark, scored, result, rows)


def names_of(folder: Path, path: Path, result: Mapping[str, Any]) -> tuple[str, str, str]:
    """Model, prompt mode and benchmark of a result: `MODEL/BENCHMARK.json`, `MODEL/tagged/BENCHMARK.json` (or direct,
    forced), or `MODEL.json`, whose benchmark is the task; a benchmark that the result names comes first."""
    inside, stem = list(path.relative_to(folder).parent.parts), path.stem
    for protocol in PROTOCOLS:  # one benchmark may be scored under both
        for mark in (".", "_", "-"):
            stem = stem.removesuffix(mark + protocol)
    mode = inside.pop() if len(inside) > 1 and inside[-1] in get_args(PromptMode) else ""
    model, benchmark = ("/".join(inside), stem) if inside else (stem, str(result["task"]))
    given = result.get("benchmark")
    name = given.get("name") if isinstance(given, dict) else None
    return model, mode, name if isinstance(name, str) and name else benchmark


def _records(path: Path, result: Mapping[str, Any]) -> tuple[list[Any], Path]:
    """The records that a result was made from, and where relative images count from.

    Raises:
        ValueError: what is wrong with them.
    """
    origin = result.get("records")
    name = origin.get("path") if isinstance(origin, dict) else None
    if not isinstance(name, str) or not isinstance(origin, dict):
        raise ValueError("it does not say which records it was made from")
    place = next((place for place in (Path(name), path.parent / name) if place.is_file()), None)
    if place is None:
        raise ValueError(f"{name} is no longer there")
    data = place.read_bytes()
    if origin.get("blake2b", digest(data)) == digest(data):
        try:
            rows = parse_rows(data, place.suffix)
        except (ValueError, RecursionError):
            raise ValueError(f"{name} is not JSON") from None
        rows = _counted(rows, result) if isinstance(rows, list) else []
        if len(rows) == result["n"]:
            return rows, place.parent
    raise ValueError(f"{name} has changed since it was scored")


def _counted(rows: list[Any], result: Mapping[str, Any]) -> list[Any]:
    """The records that a benchmark counts: those of its question types."""
    given = result.get("benchmark")
    if not isinstance(given, dict) or not given.get("n_left_out") or given.get("name") not in benchmarks():
        return rows
    kinds = benchmarks()[given["name"]].question_types
    types = parse_records(rows).question_types
    return [row for row, kind in zip(rows, types, strict=True) if kind is None or kind in kinds]


def _references(slices: Sequence[EvalSlice]) -> Iterator[dict[str, Any]]:
    """What papers report on the benchmarks that were scored, each once."""
    known = benchmarks()
    for name, task in dict.fromkeys((part.source or "", part.task) for part in slices):
        if name in known and known[name].task == task:
            for row in reference_rows(name):
                yield {**row._asdict(), "task": task, "source": f"{row.source}, {row.edition} ({row.date})"}
