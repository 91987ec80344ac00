"""The records that the page is made from, validated one by one; texts are clipped, what is no number is none."""

from __future__ import annotations

import math
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MAX_TEXT = 4000  # characters of one text that the page carries; a runaway completion must not fill it


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


class Place(Record):
    """What a number is about: which questions, and by which rules."""

    split: str
    world: str
    protocol: str = "strict"
    task: str
    source: str | None = None
    question_type: str | None = None
    n: int = 0


class Score(Place):
    """One score with its 95 % interval, all in the metric's own scale (shares from 0 to 1; `…_percent` to 100)."""

    model: str
    mode: str
    metric: str
    headline: bool | None = None
    value: Number = None
    low: Number = None
    high: Number = None


class Baseline(Place):
    """What guessing gets: by chance, and by always giving the most frequent answer."""

    metric: str
    chance: Number = None
    majority: Number = None


class ModelRef(Record):
    model: str
    mode: str = ""


class Comparison(Place):
    """Two models, or two ways of asking one, on the same questions: `second` minus `first`, paired."""

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


class Reasoning(Place):
    """How one model thinks at one place; `help`: with the thought minus without it."""

    model: str
    mode: str = ""
    metric: str = ""
    n_with_thought: int = 0
    share_with_thought: Number = None
    words: dict[str, Number] | None = None
    distinct_n: dict[str, Number] | None = None
    agreement: Number = None
    help: Comparison | None = None


class Group(Record):
    """A class, a question type or a size of boxes: its own n, metrics and intervals."""

    n: int = 0
    metrics: dict[str, Number] = {}
    intervals: dict[str, list[float] | None] = {}


class Confusion(Record):
    """Rows are true classes, columns predicted ones, the last of them everything else; without a matrix, too many."""

    classes: list[str] = []
    columns: list[str] = []
    matrix: list[list[int]] = []
    n_classes: int = 0


class Estimated(Record):
    value: Number = None
    interval: list[float] | None = None
    n: int = 0


class Bin(Record):
    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


class Calibration(Record):
    n: int = 0
    bins: list[Bin] = []
    expected_calibration_error: Number = None


class SelfConsistency(Record):
    """Several answers to a question: pass@k by k, the vote, agreement against accuracy."""

    n_questions: int = 0
    k: list[int] = []
    pass_at_k: dict[str, Estimated] = {}
    vote: Estimated = Estimated()
    calibration: Calibration = Calibration()


class Detail(Place):
    """What one score is made of."""

    model: str
    mode: str = ""
    groups: dict[str, dict[str, Group]] = {}
    confusion: Confusion | None = None
    self_consistency: SelfConsistency | None = None
    diagnosis: dict[str, Any] = {}
    notes: list[Text] = []
    missing: dict[str, Text] = {}
    problems: dict[str, int] = {}


class Reference(Record):
    """A published score of somebody else's model; `published` as printed, `rules` whose rules it was made by."""

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
    """What one model answered; `right` overrides what the task makes of the reward, `box` is in pixels."""

    who: Text = ""
    thought: Text = ""
    answer: Text = ""
    raw: Text = ""
    reward: Number = None
    right: bool | None = None
    box: PixelBox = None


class GalleryItem(Record):
    """One held-out question with its image, its truth and what was answered before and after RL.

    The image is base64 JPEG, or `image_ref`: a file below the directory of gallery.json.
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


class Step(Record):
    """What a model in training answered after so many steps."""

    step: int
    thought: Text = ""
    answer: Text = ""
    reward: Number = None


class Probe(Record):
    """One question that was asked again and again while a model learned."""

    id: str
    task: str
    source: str = ""
    question: Text
    answer: Text = ""
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
