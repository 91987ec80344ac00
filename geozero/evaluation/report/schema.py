"""The inputs of the page: a directory of JSON files, read with tolerance and validated record by record.

Long texts are truncated, and numbers that are not finite become None.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from geozero.common.errors import InputError
from geozero.evaluation.statistics import MIN_MARKED, holm

CHOOSING = "val"  # the split that chooses; a score on it is no result
MAX_TEXT = 4000  # characters of one text on the page, so that a runaway completion cannot fill it


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_number(value: Any) -> bool:
    """A finite number; an integer too large for a float is none."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _box(value: Any) -> Any:
    """Four finite numbers, or no box: what a model wrote may be anything."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    return tuple(float(v) for v in value) if all(map(_is_number, value)) else None


def _box_list(value: Any) -> Any:
    return [box for box in map(_box, value) if box] if isinstance(value, list | tuple) else []


def clip(value: Any, most: int = MAX_TEXT) -> str:
    """The value as text of about `most` characters at most, followed by how many were cut off."""
    text = "" if value is None else str(value)
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


Number = Annotated[float | None, BeforeValidator(_finite)]
PixelBox = Annotated[tuple[float, float, float, float] | None, BeforeValidator(_box)]
PixelBoxes = Annotated[list[tuple[float, float, float, float]], BeforeValidator(_box_list)]
Text = Annotated[str, BeforeValidator(clip)]


class Record(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Place(Record):
    """What a number is about: which questions, and by which rules."""

    split: str
    world: str
    protocol: str = "strict"
    task: str
    source: str | None = None
    question_type: str | None = None
    n: int = 0


class ModelPlace(Place):
    model: str
    mode: str = ""


class Score(ModelPlace):
    """One score with its 95 % interval, all in the metric's own scale (shares from 0 to 1; `…_percent` to 100)."""

    metric: str
    value: Number = None
    low: Number = None
    high: Number = None


class Baseline(Place):
    """The score of guessing: by chance, and by always giving the most frequent answer."""

    metric: str
    chance: Number = None
    majority: Number = None


class ModelRef(Record):
    model: str
    mode: str = ""

    @property
    def key(self) -> tuple[str, str]:
        return self.model, self.mode


class Comparison(Place):
    """Two models, or two prompt modes of one, on the same questions: `second` minus `first`, paired."""

    first: ModelRef
    second: ModelRef
    metric: str
    headline: bool = False
    before: Number = None
    after: Number = None
    difference: Number = None
    low: Number = None
    high: Number = None
    p_value: Number = None
    units: int | None = None  # independent questions, or images; None in old files: n
    p_corrected: Number = None  # for all comparisons of the page; set by `correct`


class Estimated(Record):
    value: Number = None
    interval: list[float] | None = None
    n: int = 0


class Reasoning(ModelPlace):
    """How one model reasons at one place; `help`: its score with the thought minus its score without; `changed`: share
    of answers that are others without the thought, or with another question's."""

    metric: str = ""
    share_with_thought: Number = None
    words: dict[str, Number] | None = None
    distinct_n: dict[str, Number] | None = None
    agreement: Number = None
    help: Comparison | None = None
    changed: dict[str, Estimated | None] = {}


class GroupScore(Record):
    """A class, a question type or a size of boxes: its own n, metrics and intervals."""

    n: int = 0
    metrics: dict[str, Number] = {}
    intervals: dict[str, list[float] | None] = {}


class Confusion(Record):
    """Rows are true classes, columns predicted ones, the last of which is any other answer; too many have no matrix."""

    classes: list[str] = []
    columns: list[str] = []
    matrix: list[list[int]] = []
    n_classes: int = 0


class Bin(Record):
    n: int
    confidence: float
    accuracy: float


class Calibration(Record):
    bins: list[Bin] = []
    expected_calibration_error: Number = None


class Abstention(Record):
    """Only questions whose answers agree at least so much are answered: at most `risk` of those are wrong."""

    risk: float
    agreement: Number = None
    answered: Estimated = Estimated()
    wrong: Estimated = Estimated()


class SelfConsistency(Record):
    """Several answers per question: pass@k by k, the vote, agreement against accuracy."""

    n_questions: int = 0
    k: list[int] = []
    pass_at_k: dict[str, Estimated] = {}
    vote: Estimated = Estimated()
    calibration: Calibration = Calibration()
    abstention: Abstention | None = None


class Detail(ModelPlace):
    """What stands behind one score."""

    groups: dict[str, dict[str, GroupScore]] = {}
    confusion: Confusion | None = None
    self_consistency: SelfConsistency | None = None
    diagnosis: dict[str, Any] = {}
    notes: list[Text] = []
    missing: dict[str, Text] = {}
    problems: dict[str, int] = {}


class Reference(Record):
    """A published score: `published` as printed, `rules` names whose rules it was made by."""

    model: str
    benchmark: str
    task: str = ""
    metric: str
    published: Number = None
    question_type: str | None = None
    rules: str = ""
    source: Text = ""
    note: Text = ""


class Goal(Record):
    name: str
    wanted: Any = None
    reached: Any = None
    ok: bool | None = None
    note: Text = ""


class Output(Record):
    """One model's answer. `right` overrides what the task concludes from the reward; `box` (of several, `boxes`) is in
    pixels; `flags` say what is wrong with its form (malformed, cut off, unparsable)."""

    model: Text = ""
    mode: Text = ""
    who: Text = ""
    thought: Text = ""
    answer: Text = ""
    raw: Text = ""
    reward: Number = None
    right: bool | None = None
    box: PixelBox = None
    boxes: PixelBoxes = []
    flags: list[Text] = []


class Question(Record):
    """One question and its truth; the image is base64 JPEG."""

    id: str
    task: str
    source: str = ""
    question: Text
    answer: Text = ""
    image_jpeg_base64: str | None = None


class GalleryItem(Question):
    """The answers of all models to a held-out question.

    The image may be a file, `image_path`, which the JSON cannot name. `before` and `after` are answers in older files.
    """

    split: str = ""
    question_type: Text = ""
    image_path: Path | None = None
    width: int = 0
    height: int = 0
    box: PixelBox = None
    boxes: PixelBoxes = []
    answers: list[Output] = []
    before: Output | None = None
    after: Output | None = None

    @property
    def outputs(self) -> list[Output]:
        old = (("before RL", self.before), ("after RL", self.after))
        return [*self.answers, *(o if o.who else o.model_copy(update={"who": name}) for name, o in old if o)]


class Step(Output):
    """The answer of a model in training after so many steps."""

    step: int


class Probe(Question):
    """One question that a model answered repeatedly during training."""

    image_jpeg_base64: Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]+=*$")] | None = None
    steps: list[Step] = []


class Timing(Record):
    stage: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Difficulty(Record):
    """One task's histogram of difficulty (`edges` one longer than `counts`) and the sizes of its bands."""

    edges: list[float] = []
    counts: list[int] = []
    bands: dict[str, int] = {}


class ReportInputs(BaseModel):
    """All parts of the page; a part is read from the file of its name. An empty part is shown as missing, with what
    `faults` says of it."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    scores: list[Score] = []
    baselines: list[Baseline] = []
    comparisons: list[Comparison] = []
    reasoning: list[Reasoning] = []
    details: list[Detail] = []
    goals: list[Goal] = []
    difficulty: dict[str, Difficulty] = {}
    curves: dict[str, list[dict[str, Any]]] = {}
    probes: list[Probe] = []
    gallery: list[GalleryItem] = []
    lineage: dict[str, Any] = {}
    timings: list[Timing] = []
    references: list[Reference] = []  # from the benchmark definitions
    folder: Path = Path()
    faults: dict[str, list[str]] = {}  # part → what is missing or was left out

    def fault(self, part: str, text: str) -> None:
        self.faults.setdefault(part, []).append(text)

    def use(self, part: str, rows: Iterable[Any]) -> None:
        """Validate rows and keep them as a part. Invalid ones are counted, with the first reason."""
        (model,) = get_args(type(self).model_fields[part].annotation)
        kept, n, n_refused, first = [], 0, 0, ""
        for n, row in enumerate(rows, start=1):
            try:
                kept.append(model.model_validate(row))
            except ValidationError as error:
                fault = error.errors()[0]
                first = first or f"record {n - 1}: {'.'.join(map(str, fault['loc']))} {fault['msg']}"
                n_refused += 1
        setattr(self, part, kept)
        if n_refused:
            self.fault(part, f"{n_refused} of {n} records in {FILES.get(part, part)} were left out ({first})")


def correct(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """The comparisons with the p-values of those that may be called significant corrected for their number.

    These are the headline metrics over whole test sets of at least `MIN_MARKED` independent questions or images;
    validation splits, single question types and other metrics are shown and never called significant.
    """
    rows = list(comparisons)
    tested = [
        i
        for i, c in enumerate(rows)
        if c.headline and c.question_type is None and c.split != CHOOSING and c.p_value is not None
        if (c.n if c.units is None else c.units) >= MIN_MARKED
    ]
    for i, p in zip(tested, holm([rows[i].p_value or 0.0 for i in tested]), strict=True):
        rows[i] = rows[i].model_copy(update={"p_corrected": p})
    return rows


FILES = {name: f"{name}.json" for name in ReportInputs.model_fields if name not in ("references", "folder", "faults")}
OPTIONAL = {"probes"}  # a run may well have none: no fault


def is_run(folder: Path) -> bool:
    """Whether a directory holds what a pipeline run leaves.

    Raises:
        InputError: there is no such directory.
    """
    if not folder.is_dir():
        raise InputError("no such directory", str(folder), "evaluate first; the page is made from its JSON files")
    return any((folder / name).exists() for name in FILES.values())


def read_inputs(folder: Path) -> ReportInputs:
    """Read the JSON files of `folder`. What is missing or broken is noted, and the rest is used.

    Raises:
        InputError: there is no such directory, or it holds none of the files.
    """
    if not is_run(folder):
        raise InputError(f"none of {', '.join(FILES.values())}", str(folder), "evaluate first, or name another --data")
    inputs = ReportInputs(folder=folder)
    for part in FILES:
        if part in OPTIONAL and not (folder / FILES[part]).exists():
            continue
        kind = get_origin(ReportInputs.model_fields[part].annotation) or dict
        value = _load(inputs, part, kind)
        if part == "gallery":  # only this program names files outside the directory
            value = [{**row, "image_path": None} if isinstance(row, dict) else row for row in value]
        if kind is list:
            inputs.use(part, value)
        elif part == "curves":
            inputs.curves = _curves(inputs, value)
        elif part == "difficulty":
            inputs.difficulty = _difficulty(inputs, value)
        else:
            setattr(inputs, part, value)
    return inputs


def _load(inputs: ReportInputs, part: str, kind: type) -> Any:
    """The parsed file of a part; where it is absent, not JSON, of another type or empty, a fault and an empty value."""
    name = FILES[part]
    try:
        value = json.loads((inputs.folder / name).read_text(encoding="utf-8"))
    except FileNotFoundError:
        problem = f"{name} is missing"
    except (OSError, ValueError, RecursionError) as error:
        problem = f"{name} could not be read: {error}"
    else:
        if isinstance(value, kind) and value:
            return value
        problem = f"{name} is empty" if isinstance(value, kind) else f"{name} does not hold a {kind.__name__}"
    inputs.fault(part, problem)
    return kind()


def _curves(inputs: ReportInputs, stages: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """`{stage: rows}`; only rows with a numeric step, only finite numbers in them."""
    curves: dict[str, list[dict[str, Any]]] = {}
    for stage, rows in stages.items():
        usable = [_numbers(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        usable = [row for row in usable if "step" in row]
        if usable:
            curves[stage] = sorted(usable, key=lambda row: row["step"])
        else:
            inputs.fault("curves", f"'{stage}' in curves.json has no rows with a step")
    return curves


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if _is_number(value)}


def _difficulty(inputs: ReportInputs, tasks: dict[str, Any]) -> dict[str, Difficulty]:
    """Histograms by task; `bands` stand beside the tasks or inside each of them."""
    bands = tasks.pop("bands", {})
    bands = bands if isinstance(bands, dict) else {}
    found: dict[str, Difficulty] = {}
    for task in dict.fromkeys([*tasks, *bands]):
        entry = tasks.get(task, {})
        values = {"bands": bands.get(task, {}), **(entry if isinstance(entry, dict) else {})}
        try:
            part = Difficulty.model_validate(values)
        except ValidationError as error:
            inputs.fault("difficulty", f"'{task}' was left out: {error.errors()[0]['msg']}")
            continue
        rises = all(a < b for a, b in pairwise(part.edges))
        if len(part.edges) != len(part.counts) + 1 or not rises:
            inputs.fault("difficulty", f"'{task}' has no histogram: its edges do not fit its counts")
            part = Difficulty(bands=part.bands)
        found[task] = part
    return found
