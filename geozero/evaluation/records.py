"""Records to be scored, `{raw_output, pred, label, image_path, …}`, read however broken they are."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geozero.errors import InputError
from geozero.images import ALLOWED_FORMATS

MAX_LISTED = 100  # problems shown one by one; all of them are counted


class Record(NamedTuple):
    """One answer of a model and its truth.

    `row` counts from 0 in file order. `text` is the completion, or the prediction alone where a record has no
    completion (then `raw` is False), or "" where neither is `readable`. `label` is the truth as it stood in the file;
    `width` and `height` are pixels, 0 where unknown.
    """

    row: int
    id: str
    text: str
    label: Any
    image_path: str
    width: float
    height: float
    question_type: str | None
    raw: bool
    readable: bool

    @property
    def place(self) -> str:
        """How messages name the record."""
        return f"record {self.row}" + (f" (id {self.id})" if self.id != str(self.row) else "")


class Problem(NamedTuple):
    """What is wrong with one record; it is counted wrong or left out by the protocol's rule, never dropped unseen."""

    row: int
    id: str
    reason: str
    detail: str = ""


@dataclass
class RecordList:
    """Records in file order, what was wrong with them, and the directory that relative image paths start from."""

    items: list[Record]
    problems: list[Problem] = field(default_factory=list)
    base: Path | None = None

    def __len__(self) -> int:
        return len(self.items)

    def report(self, record: Record, reason: str, detail: object = "") -> None:
        """List `record` as a problem."""
        self.problems.append(Problem(record.row, record.id, reason, str(detail)[:200]))

    def problem_summary(self) -> dict[str, Any]:
        """Counts by reason and the first problems one by one, ready for JSON."""
        return {
            "n": len(self.problems),
            "reasons": dict(sorted(Counter(p.reason for p in self.problems).items())),
            "first": [p._asdict() for p in self.problems[:MAX_LISTED]],
        }


def read_records(source: Path | str | Sequence[Any]) -> RecordList:
    """Records from a JSON file (a list of objects) or from a list already in memory.

    Raises:
        InputError: the file is missing, is not JSON, or holds no list.
    """
    if not isinstance(source, Path | str):
        return parse_records(source)
    path = Path(source)
    try:
        rows = json.loads(path.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError:
        raise InputError("no such records file", str(path), "pass the JSON that `geozero infer` wrote") from None
    except OSError as error:
        raise InputError(f"records cannot be read: {error.strerror}", str(path), "pass a readable file") from None
    except RecursionError:
        raise InputError("JSON nested too deeply", str(path), "pass a flat list of records") from None
    except ValueError as error:
        raise InputError(f"not JSON: {str(error)[:200]}", str(path), "pass a JSON list of records") from None
    if not isinstance(rows, list):
        raise InputError(f"a JSON {type(rows).__name__} instead of a list", str(path), "pass a JSON list of records")
    return parse_records(rows, path.parent)


def parse_records(rows: Iterable[Any], base: Path | None = None) -> RecordList:
    """Every row becomes a record, in order; what is wrong with a row is listed and costs only that row."""
    result = RecordList([], base=base)
    seen: set[str] = set()
    for index, row in enumerate(rows):
        record = _parse(index, row, result)
        result.items.append(record)
        if record.id in seen:
            result.report(record, "duplicate_id", record.id)
        seen.add(record.id)
    return result


def as_text(value: Any) -> str | None:
    """Text, or a number or a list of numbers written as text; None for anything else (null, NaN, true, objects)."""
    if isinstance(value, str):
        return value
    if _is_number(value):
        return str(value)
    if isinstance(value, list) and value and all(_is_number(v) for v in value):
        return str(value)
    return None


def image_sizes(records: RecordList) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Widths and heights in pixels (n,): the record's own, else its picture file's (header only); 0 where unknown."""
    width = np.array([r.width for r in records.items], dtype=np.float64)
    height = np.array([r.height for r in records.items], dtype=np.float64)
    known: dict[str, tuple[int, int]] = {}
    for i in np.flatnonzero((width == 0) | (height == 0)).tolist():
        name = records.items[i].image_path
        if name not in known:
            known[name] = _file_size(name, records.base)
        width[i], height[i] = known[name]
    return width, height


def _file_size(name: str, base: Path | None) -> tuple[int, int]:
    from PIL import Image

    for path in [Path(name), *([base / name] if base else [])]:
        try:
            if name and path.is_file():
                with Image.open(path, formats=ALLOWED_FORMATS) as image:
                    return image.size
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            continue
    return 0, 0


def _parse(index: int, row: Any, result: RecordList) -> Record:
    if not isinstance(row, dict):
        record = Record(index, str(index), "", None, "", 0.0, 0.0, None, False, False)
        result.report(record, "not_an_object", type(row).__name__)
        return record
    given, raw = row.get("raw_output"), True
    text = given if isinstance(given, str) else as_text(given)
    if text is None:
        text, raw = as_text(row.get("pred")), False
    image_path, question_type = row.get("image_path"), row.get("question_type")
    record = Record(
        index,
        _identity(row.get("id"), index),
        "" if text is None else text,
        row.get("label"),
        image_path if isinstance(image_path, str) else "",
        _side(row.get("width")),
        _side(row.get("height")),
        question_type if isinstance(question_type, str) and question_type else None,
        raw and text is not None,
        text is not None,
    )
    if text is None:
        result.report(record, "prediction_missing", f"raw_output is {_kind(given)}, pred is {_kind(row.get('pred'))}")
    return record


def _identity(value: Any, index: int) -> str:
    return str(value)[:200] if isinstance(value, str | int) and not isinstance(value, bool) else str(index)


def _side(value: Any) -> float:
    """A side in pixels; numbers written as text are read, anything that is no positive number is unknown (0)."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return 0.0
    return float(value) if _is_number(value) and 0 < value < 1e9 else 0.0


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__
