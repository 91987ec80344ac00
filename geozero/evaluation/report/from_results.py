"""From the files that `geozero evaluate` wrote to the parts of a page: `MODEL/BENCHMARK.json` in one directory."""

from __future__ import annotations

import base64
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from geozero.common.errors import BadRecord, InputError
from geozero.common.lenient_json import parse_json
from geozero.corpus.images import decode, thumbnail
from geozero.corpus.sample import TaskName, digest, stable_unit
from geozero.evaluation.benchmark import benchmarks, reference_rows
from geozero.evaluation.comparison_rows import comparison_rows, detail_rows, reasoning_rows
from geozero.evaluation.evaluate import PROTOCOLS, Protocol
from geozero.evaluation.guessing import guesses
from geozero.evaluation.report.inputs import FILES, ReportInputs, use
from geozero.evaluation.report.names import in_order, model_label
from geozero.evaluation.result_sets import EvalSlice
from geozero.evaluation.score_rows import rows_of
from geozero.inference.corpus_job import PromptMode
from geozero.metrics.records import parse_records
from geozero.tasks import TASKS
from geozero.tasks.boxes import CONVENTIONS
from geozero.tasks.text import thought

MAX_RESULT = 200_000_000  # bytes; a larger JSON file is no result of ours
THUMBNAIL = 384  # pixels of the longer side


class GroupResult(BaseModel):
    """What a result holds of one group."""

    n: int
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None] = {}


class ReasoningResult(BaseModel):
    """What a result holds of the thoughts; the rest is checked as the page shows it."""

    model_config = ConfigDict(extra="allow")

    n_with_thought: int = 0
    words: dict[str, float] | None = None


class Result(BaseModel):
    """What `geozero evaluate` wrote; other keys are kept as they are."""

    model_config = ConfigDict(extra="allow")

    task: TaskName
    protocol: Protocol
    n: int
    metrics: dict[str, float | None]
    intervals: dict[str, tuple[float, float] | None] = {}
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
    """The parts of a page from the results in `folder`; what is said of a model is taken from its records again, so
    that models can be compared question by question and their mistakes be looked at.

    Raises:
        InputError: there is no result.
    """
    results = find_results(folder)
    if not results:
        what = f"none of {', '.join(FILES.values())}, and no result of `geozero evaluate`"
        raise InputError(what, str(folder), "evaluate first (`--out DIR/MODEL/BENCHMARK.json`), or name another --data")
    inputs = ReportInputs(folder=folder)
    parts = []
    for path, given in results:
        name = path.relative_to(folder)
        try:
            result = Result.model_validate(given).model_dump()
        except ValidationError as error:
            first = error.errors()[0]
            inputs.fault("scores", f"{name} is no whole result: {'.'.join(map(str, first['loc']))} {first['msg']}")
            continue
        result["problems"] = {"reasons": {}, **result["problems"]}
        records, base, fault = _records(path, result)
        if fault:
            inputs.fault("comparisons", f"{name}: {fault}; its scores stand alone")
        parts.append(_part(folder, path, result, records, base))
    if not parts:
        raise InputError(inputs.faults["scores"][0], str(folder), "score the records again")
    order = in_order({(part.model, part.mode) for part in parts})
    parts.sort(key=lambda part: order.index((part.model, part.mode)))
    whole = [part for part in parts if part.records]
    use(inputs, "scores", rows_of(parts))
    use(inputs, "baselines", (row for part in _one_each(whole) for row in guesses(part)))
    use(inputs, "comparisons", comparison_rows(whole))
    use(inputs, "reasoning", reasoning_rows(parts))
    use(inputs, "details", detail_rows(parts))
    use(inputs, "references", _references(parts))
    use(inputs, "gallery", _gallery(whole, n_gallery))
    return inputs


def names_of(folder: Path, path: Path, result: Mapping[str, Any]) -> tuple[str, str, str]:
    """Model, way of asking and benchmark of a result: `MODEL/BENCHMARK.json`, `MODEL/tagged/BENCHMARK.json` (or
    direct, forced), or `MODEL.json`, whose benchmark is the task; a benchmark that the result names comes first."""
    inside, stem = list(path.relative_to(folder).parent.parts), path.stem
    for protocol in PROTOCOLS:  # one benchmark may be scored under both
        for mark in (".", "_", "-"):
            stem = stem.removesuffix(mark + protocol)
    mode = inside.pop() if len(inside) > 1 and inside[-1] in get_args(PromptMode) else ""
    model, benchmark = ("/".join(inside), stem) if inside else (stem, str(result["task"]))
    said = result.get("benchmark")
    name = said.get("name") if isinstance(said, dict) else None
    return model, mode, name if isinstance(name, str) and name else benchmark


def _part(folder: Path, path: Path, result: dict[str, Any], records: list[Any], base: Path | None) -> EvalSlice:
    model, mode, benchmark = names_of(folder, path, result)
    boxes = result.get("boxes")
    return EvalSlice(
        model=model,
        mode=mode,
        split="",
        world=str(result["protocol"]),
        task=result["task"],
        source=benchmark,
        records=records,
        result=result,
        protocol=result["protocol"],
        boxes=boxes if boxes in CONVENTIONS else "norm1000",
        base=base,
    )


def _records(path: Path, result: Mapping[str, Any]) -> tuple[list[Any], Path | None, str]:
    """The records that a result was made from, where relative images count from, and what is wrong with them."""
    said = result.get("records")
    name = said.get("path") if isinstance(said, dict) else None
    if not isinstance(name, str) or not isinstance(said, dict):
        return [], None, "it does not say which records it was made from"
    for place in (Path(name), path.parent / name):
        if place.is_file():
            data = place.read_bytes()
            if said.get("blake2b", digest(data)) != digest(data):
                return [], None, f"{name} has changed since it was scored"
            try:
                rows = parse_json(data)
            except (ValueError, RecursionError):
                return [], None, f"{name} is not JSON"
            rows = _asked(rows, result) if isinstance(rows, list) else []
            if len(rows) != result["n"]:
                return [], None, f"{name} has changed since it was scored"
            return rows, place.parent, ""
    return [], None, f"{name} is no longer there"


def _asked(rows: list[Any], result: Mapping[str, Any]) -> list[Any]:
    """The records that a benchmark counts: those of its question types."""
    said = result.get("benchmark")
    if not isinstance(said, dict) or not said.get("n_left_out") or said.get("name") not in benchmarks():
        return rows
    kinds = benchmarks()[said["name"]].question_types
    types = parse_records(rows).question_types
    return [row for row, kind in zip(rows, types, strict=True) if kind is None or kind in kinds]


def _references(parts: Sequence[EvalSlice]) -> Iterator[dict[str, Any]]:
    """What papers report on the benchmarks that were scored, each once."""
    known = benchmarks()
    for name, task in dict.fromkeys((part.source or "", part.task) for part in parts):
        if name in known and known[name].task == task:
            yield from ({**asdict(row), "task": task} for row in reference_rows(name))


def _one_each(parts: Sequence[EvalSlice]) -> Iterator[EvalSlice]:
    """The first part of every place: its records tell what guessing gets."""
    seen = set()
    for part in parts:
        key = (part.task, part.source, part.protocol)
        if key not in seen:
            seen.add(key)
            yield part


def _gallery(parts: Sequence[EvalSlice], n: int) -> Iterator[dict[str, Any]]:
    """`n` questions with their images, evenly over the benchmarks by stable hash of their ids: what the first and
    the last model answered, or the only one."""
    places: dict[tuple[str, str | None], list[EvalSlice]] = defaultdict(list)
    for part in parts:
        key = (part.task, part.source)
        if not any((p.model, p.mode) == (part.model, part.mode) for p in places[key]):  # one protocol is enough
            places[key].append(part)
    share = -(-n // len(places)) if places else 0
    left = n
    for (task, source), members in places.items():
        first, last = members[0], members[-1]
        order = sorted(range(len(first.listed)), key=lambda i: stable_unit(first.listed.ids[i], salt="gallery"))
        rows = {name: i for i, name in enumerate(last.listed.ids)}
        for i in order[: min(share, left)]:
            left -= 1
            other = rows.get(first.listed.ids[i])
            yield {
                "id": first.listed.ids[i],
                "task": task,
                "source": source or "",
                "question": _text(first.records[i], "question"),
                "answer": _label(first.listed.labels[i]),
                "question_type": first.listed.question_types[i],
                "image_jpeg_base64": _image(first, i),
                "width": int(first.listed.widths[i]),
                "height": int(first.listed.heights[i]),
                "box": _box(first, "true_box", i),
                "before": None if last is first else _output(first, i),
                "after": None if other is None else _output(last, other),
            }


def _output(part: EvalSlice, i: int) -> dict[str, Any]:
    text = part.listed.texts[i]
    hit = part.scores.per_record.get("hit", part.scores.per_record.get("iou"))
    evaluated = part.scores.per_record.get("evaluated")
    judged = hit is not None and (evaluated is None or bool(evaluated[i]))
    value = float(hit[i]) if judged and hit is not None else None
    return {
        "who": model_label(part.model, part.mode),
        "thought": thought(text) if "<answer>" in text else "",
        "answer": part.scores.per_record["pred"][i],
        "raw": text,
        "reward": value,
        "right": None if value is None else bool(value >= (1.0 if "hit" in part.scores.per_record else 0.5)),
        "box": _box(part, "pred_box", i),
    }


def _box(part: EvalSlice, name: str, i: int) -> list[float] | None:
    rows = part.scores.per_record.get(name)
    return None if rows is None else [float(v) for v in rows[i]]


def _image(part: EvalSlice, i: int) -> str | None:
    """The record's image, small, if its path leads to one."""
    name = part.listed.image_paths[i]
    for path in [Path(name), *([part.base / name] if part.base else [])]:
        try:
            if name and path.is_file():
                return base64.b64encode(thumbnail(decode(path.read_bytes()), THUMBNAIL)).decode()
        except (OSError, ValueError, BadRecord):
            continue
    return None


def _text(record: Any, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) else ""


def _label(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(label, ensure_ascii=False)
