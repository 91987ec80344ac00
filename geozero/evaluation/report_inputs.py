"""What the page is made from: a directory of JSON files, read with tolerance and validated record by record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from geozero.errors import InputError

MAX_TEXT = 4000  # characters of one text that the page carries; a runaway completion must not fill it
FILES = {
    "scores": "scores.json",
    "baselines": "baselines.json",
    "goals": "goals.json",
    "difficulty": "difficulty.json",
    "curves": "curves.json",
    "gallery": "gallery.json",
    "lineage": "lineage.json",
    "timings": "timings.json",
}


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _box(value: Any) -> Any:
    """Four finite numbers, or no box: what a model wrote may be anything."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    whole = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
    return tuple(float(v) for v in value) if whole else None


def clip(value: Any, most: int = MAX_TEXT) -> str:
    """The value as text of at most about `most` characters; what is cut off is counted."""
    text = "" if value is None else str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


Number = Annotated[float | None, BeforeValidator(_finite)]
PixelBox = Annotated[tuple[float, float, float, float] | None, BeforeValidator(_box)]
Text = Annotated[str, BeforeValidator(clip)]


class Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Score(Record):
    """One score with its 95 % interval, all in the metric's own scale (shares from 0 to 1)."""

    model: str
    mode: str
    split: str
    world: str
    task: str
    source: str | None = None
    question_type: str | None = None
    metric: str
    value: Number = None
    low: Number = None
    high: Number = None
    n: int = 0


class Baseline(Record):
    """What guessing gets: by chance, and by always giving the most frequent answer."""

    split: str
    world: str
    task: str
    source: str | None = None
    question_type: str | None = None
    metric: str
    n: int = 0
    chance: Number = None
    majority: Number = None


class Goal(Record):
    name: str
    wanted: Any = None
    reached: Any = None
    ok: bool | None = None
    note: Text = ""


class Output(Record):
    """What one model answered; `right` overrides what the task makes of the reward, `box` is in pixels."""

    thought: Text = ""
    answer: Text = ""
    raw: Text = ""
    reward: Number = None
    right: bool | None = None
    box: PixelBox = None


class GalleryItem(Record):
    """One held-out question with its picture, its truth and what was answered before and after RL.

    The picture is base64 JPEG, or `image_ref`: a file below the directory of gallery.json.
    """

    id: str
    task: str
    source: str = ""
    split: str = ""
    question: Text
    answer: Text = ""
    image_jpeg_base64: str | None = None
    image_ref: str | None = None
    width: int = 0
    height: int = 0
    box: PixelBox = None
    before: Output | None = None
    after: Output | None = None


class Timing(Record):
    stage: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Difficulty(Record):
    """One task's histogram of difficulty (`edges` one longer than `counts`) and the sizes of its bands."""

    edges: list[float] = []
    counts: list[int] = []
    bands: dict[str, int] = {}


class ReportInputs(BaseModel):
    """All parts of the page; an empty one is shown as missing, with what `faults` says of it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    folder: Path = Path()
    scores: list[Score] = []
    baselines: list[Baseline] = []
    goals: list[Goal] = []
    difficulty: dict[str, Difficulty] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    gallery: list[GalleryItem] = []
    lineage: dict[str, Any] = {}
    timings: list[Timing] = []
    faults: dict[str, list[str]] = {}  # part → what is missing or was left out

    def fault(self, part: str, text: str) -> None:
        self.faults.setdefault(part, []).append(text)


AnyRecord = TypeVar("AnyRecord", bound=Record)


def read_inputs(folder: Path) -> ReportInputs:
    """Read the JSON files of `folder`; what is missing or broken is noted and the rest is used.

    Raises:
        InputError: there is no such directory, or it holds none of the files.
    """
    if not folder.is_dir():
        raise InputError("no such directory", str(folder), "evaluate first; the page is made from its JSON files")
    if not any((folder / name).exists() for name in FILES.values()):
        raise InputError(f"none of {', '.join(FILES.values())}", str(folder), "evaluate first, or name another --data")
    inputs = ReportInputs(folder=folder)
    inputs.scores = _records(inputs, "scores", Score)
    inputs.baselines = _records(inputs, "baselines", Baseline)
    inputs.goals = _records(inputs, "goals", Goal)
    inputs.gallery = _records(inputs, "gallery", GalleryItem)
    inputs.timings = _records(inputs, "timings", Timing)
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


def _records(inputs: ReportInputs, part: str, model: type[AnyRecord]) -> list[AnyRecord]:
    kept: list[AnyRecord] = []
    _each(inputs, part, _load(inputs, part, list) or [], lambda row: kept.append(model.model_validate(row)))
    return kept


def _each(inputs: ReportInputs, part: str, rows: list[Any], use: Callable[[Any], None]) -> None:
    """Use every row; those that are no valid records are counted, the first one's reason is kept."""
    refused, first = 0, ""
    for index, row in enumerate(rows):
        try:
            use(row)
        except ValidationError as error:
            fault = error.errors()[0]
            first = first or f"record {index}: {'.'.join(map(str, fault['loc']))} {fault['msg']}"
            refused += 1
    if refused:
        inputs.fault(part, f"{refused} of {len(rows)} records in {FILES[part]} were left out ({first})")


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
