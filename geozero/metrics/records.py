"""Records to be scored, `{raw_output, pred, label, image_path, …}`, read however broken they are."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from geozero.common.errors import InputError
from geozero.common.lenient_json import as_text, read_list
from geozero.corpus.images import ALLOWED_FORMATS
from geozero.metrics.scores import Bools, Floats

MAX_SIDE = 1e9  # pixels; a larger side is no image
MAX_LISTED = 100  # problems shown one by one; all of them are counted
OFFICIAL_HINT = "the published rules stop here; fix the record, or use --protocol strict"


class Problem(NamedTuple):
    """What is wrong with one record (counted from 0); it is counted wrong or left out, never dropped unseen."""

    record: int
    id: str
    reason: str
    detail: str = ""


@dataclass
class RecordList:
    """n records as columns in file order, and what was wrong with them.

    `texts` are completions, or the prediction alone where a record has no completion (then `raw` is False), or ""
    where neither is `readable`. `labels` are truths as they stood in the file. `widths` and `heights` are pixels, 0
    where unknown. `questions` are what was asked, "" where a record does not say. `samples` name the question: records
    with the same one are several answers to it. `tasks` are what a record says of itself, `cut` whether the token limit
    ended its completion (empty: nowhere). Relative image paths also count from `base`.
    """

    ids: list[str]
    texts: list[str]
    labels: list[Any]
    image_paths: list[str]
    question_types: list[str | None]
    widths: Floats
    heights: Floats
    raw: Bools
    readable: Bools
    questions: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    tasks: list[str | None] = field(default_factory=list)
    cut: Bools = field(default_factory=lambda: np.zeros(0, dtype=bool))
    base: Path | None = None
    problems: list[Problem] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def place(self, record: int) -> str:
        """How messages name a record."""
        name = self.ids[record]
        return f"record {record}" + (f" (id {name})" if name != str(record) else "")

    def report(self, record: int, reason: str, detail: object = "") -> None:
        """List a record as a problem."""
        self.problems.append(Problem(record, self.ids[record], reason, str(detail)[:200]))

    def label_texts(self, boxes: bool = False) -> list[str]:
        """The labels as text, of several right answers the first; one that is none is listed, and empty.

        Args:
            boxes: lists of lists and objects hold boxes, and become JSON.
        """
        found = [label if isinstance(label, str) else _label_text(label, boxes) for label in self.labels]
        for i in [i for i, text in enumerate(found) if text is None]:
            self.report(i, "label_missing", f"label is {type(self.labels[i]).__name__}")
        return [text or "" for text in found]

    def alternatives(self) -> dict[int, list[str]]:
        """The right answers beside the first, of the records whose label is a list of texts."""
        lists = {i: label[1:] for i, label in enumerate(self.labels) if isinstance(label, list) and len(label) > 1}
        return {i: rest for i, rest in lists.items() if all(isinstance(text, str) for text in self.labels[i])}

    def required_label_texts(self) -> list[str]:
        """The labels as text; numbers are read as written.

        Raises:
            InputError: one is no text; the published script stops there.
        """
        if set(map(type, self.labels)) == {str}:
            return list(self.labels)
        return [label if type(label) is str else self.required_text(i, label) for i, label in enumerate(self.labels)]

    def required_text(self, record: int, value: Any) -> str:
        """A record's label, or one of its references, as text.

        Raises:
            InputError: it is none; the published script stops there.
        """
        text = as_text(value)
        if text is None:
            kind = "NaN" if isinstance(value, float) and math.isnan(value) else type(value).__name__
            raise InputError(f"the label is no text but {kind}", self.place(record), OFFICIAL_HINT)
        return text

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
    rows = read_list(path, "records", "pass a JSON list of records, as `geozero infer` writes")
    return parse_records(rows, path.parent)


def parse_records(rows: Sequence[Any], base: Path | None = None) -> RecordList:
    """Every row becomes a record, in order; what is wrong with a row is listed and costs only that row."""
    objects: list[dict[str, Any]] = list(rows)
    if set(map(type, rows)) - {dict}:
        objects = [row if isinstance(row, dict) else {} for row in rows]
    keys = set(chain.from_iterable(objects))  # most columns are absent from most files

    def column(name: str) -> list[Any]:
        return list(map(dict.get, objects, repeat(name))) if name in keys else [None] * len(objects)

    def names(name: str, otherwise: Any) -> list[Any]:
        """The texts of a column, `otherwise` for all else."""
        if name not in keys:
            return [otherwise] * len(objects)
        values = column(name)
        return values if set(map(type, values)) == {str} else [v if isinstance(v, str) else otherwise for v in values]

    texts = column("raw_output")
    records = RecordList(
        ids=list(map(str, range(len(objects)))),
        texts=texts,
        labels=column("label"),
        image_paths=names("image_path", ""),
        question_types=[kind or None for kind in names("question_type", None)],
        widths=_sides(column("width")),
        heights=_sides(column("height")),
        raw=np.ones(len(objects), dtype=bool),
        readable=np.ones(len(objects), dtype=bool),
        questions=names("question", ""),
        cut=np.fromiter(map("length".__eq__, names("finish_reason", "")), bool, len(objects)),
        base=base,
    )
    if set(map(type, texts)) - {str}:
        for i in [i for i, text in enumerate(texts) if type(text) is not str]:
            _repair_text(records, i, rows[i])
    for i, row in enumerate(objects if "id" in keys else ()):
        if "id" in row:
            records.ids[i] = _identity(row["id"], i)
    records.samples = list(records.ids)
    if "sample" in keys:
        records.samples = [own or name for own, name in zip(names("sample", ""), records.ids, strict=True)]
    records.tasks = names("task", None)
    if "id" in keys and len(set(records.ids)) < len(records):
        seen: set[str] = set()
        for i, name in enumerate(records.ids):
            if name in seen:
                records.report(i, "duplicate_id", name)
            seen.add(name)
    return records


def image_sizes(records: RecordList) -> tuple[Floats, Floats]:
    """Widths and heights in pixels (n,): the record's own, else its image file's (header only); 0 where unknown."""
    width, height = records.widths.copy(), records.heights.copy()
    known: dict[str, tuple[int, int]] = {}
    for i in np.flatnonzero((width == 0) | (height == 0)).tolist():
        name = records.image_paths[i]
        if name not in known:
            known[name] = _file_size(name, records.base)
        width[i], height[i] = known[name]
    return width, height


def _repair_text(records: RecordList, i: int, row: Any) -> None:
    """The completion of a record whose `raw_output` is no text: as text if it can be, else the bare prediction."""
    given = row if isinstance(row, dict) else {}
    text = as_text(given.get("raw_output"))
    if text is None:
        records.raw[i] = False
        text = as_text(given.get("pred"))
    records.texts[i] = text or ""
    records.readable[i] = text is not None
    if not isinstance(row, dict):
        records.report(i, "not_an_object", type(row).__name__)
    elif text is None:
        kinds = [f"{name} is {_kind(row.get(name))}" for name in ("raw_output", "pred")]
        records.report(i, "prediction_missing", ", ".join(kinds))


def _label_text(label: Any, boxes: bool) -> str | None:
    """A label that is no text: numbers as text, the first of several texts, boxes as JSON; None for all else."""
    if isinstance(label, list) and label and all(isinstance(text, str) for text in label):
        return str(label[0])
    text = as_text(label)
    return json.dumps(label) if text is None and boxes and isinstance(label, list | dict) else text


def _identity(value: Any, index: int) -> str:
    text = as_text(value) if isinstance(value, str | int) else None
    return str(index) if text is None else text[:200]


def _sides(values: list[Any]) -> Floats:
    """Sides in pixels; numbers written as text are read, anything that is no positive number is unknown (0)."""
    try:
        sides = np.array(values, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        sides = np.array([_side(value) for value in values], dtype=np.float64)
    if sides.ndim != 1:
        sides = np.zeros(len(values))
    with np.errstate(invalid="ignore"):
        return np.where((sides > 0) & (sides < MAX_SIDE), sides, 0.0)


def _side(value: Any) -> float:
    try:
        return float(value) if isinstance(value, str | int | float) else 0.0
    except (ValueError, OverflowError):
        return 0.0


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


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__
