"""Sample: the one record that flows through everything, and its Arrow schema."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from geozero.common.errors import BadRecord, InputError

SCHEMA_VERSION = 2

TaskName = str  # one of `geozero.tasks.TASKS`
Split = Literal["train", "val", "test"]
Box = tuple[float, float, float, float]

SPLITS: tuple[Split, ...] = get_args(Split)


# A control token as chat tokenizers write it, such as `<|image_pad|>` or `<|im_end|>`. In a text it would be read as
# the token: one image too many ends a training, a turn's end lets a data set write the chat.
SPECIAL_TOKEN_START = "<|"
SPECIAL_TOKEN = re.compile(r"<\|[^|<>\s]{1,64}\|>")


@dataclass(frozen=True, slots=True)
class Sample:
    """One question about one image, with its truth.

    `question` is the user's text as a model reads it (task template already applied, no image tag); `answer` the truth
    as text (boxes in pixels, as their task writes them); `references` all truths where several are right; `box`
    absolute pixels xyxy of the stored image, `width` and `height` its size in pixels; `image_id` the content hash of
    the stored bytes, `image_key` where the image comes from (`set/class/name`, the unit of leak control); `classes`
    the label set of the source, if it has one.
    """

    id: str
    task: TaskName
    source: str
    split: Split
    image_id: str
    image_key: str
    question: str
    answer: str
    references: tuple[str, ...] = ()
    box: Box | None = None
    width: int = 0
    height: int = 0
    question_type: str | None = None
    classes: tuple[str, ...] = ()

    def validate(self) -> Sample:
        """Return self, or raise BadRecord naming the first rule of all tasks that is broken; a task's own rules are
        kept by `geozero.tasks.validate`."""
        if self.split not in SPLITS:
            raise BadRecord("unknown_split", self.split)
        if not self.question.strip():
            raise BadRecord("question_empty")
        if not self.answer.strip():
            raise BadRecord("answer_empty")
        if self.width <= 0 or self.height <= 0:
            raise BadRecord("image_size_missing", f"{self.width}x{self.height}")
        for text in (self.question, self.answer, *self.references):
            if found := SPECIAL_TOKEN.search(text):
                raise BadRecord("special_token", found[0])
        return self

    def to_row(self) -> dict[str, Any]:
        """A plain dict in the columns of `SCHEMA` (lists for tuples)."""
        row = {name: getattr(self, name) for name in FIELD_NAMES}
        row["references"], row["classes"] = list(self.references), list(self.classes)
        row["box"] = None if self.box is None else list(self.box)
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Sample:
        """The inverse of `to_row`; columns that a Sample does not have are ignored."""
        values = {name: row[name] for name in FIELD_NAMES if name in row}
        values["references"] = tuple(values.get("references") or ())
        values["classes"] = tuple(values.get("classes") or ())
        box = values.get("box")
        values["box"] = None if box is None else tuple(box)
        return cls(**values)

    def to_json(self) -> str:
        return json.dumps(self.to_row(), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Sample:
        return cls.from_row(json.loads(text))


FIELD_NAMES: tuple[str, ...] = tuple(f.name for f in dataclasses.fields(Sample))

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("task", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("answer", pa.string(), nullable=False),
        pa.field("references", pa.list_(pa.string())),
        pa.field("box", pa.list_(pa.float64())),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("question_type", pa.string()),
        pa.field("classes", pa.list_(pa.string())),
    ]
)


def samples_of(batch: pa.RecordBatch) -> Iterator[Sample]:
    """The samples in a batch with the columns of `SCHEMA`; equal lists, such as a data set's classes, share a tuple."""
    values = [
        _tuples(column) if pa.types.is_list(field.type) and name != "box" else column.to_pylist()
        for name, field, column in ((n, SCHEMA.field(n), batch.column(n)) for n in FIELD_NAMES)
    ]
    box = FIELD_NAMES.index("box")
    values[box] = [None if value is None else tuple(value) for value in values[box]]
    return (Sample(*row) for row in zip(*values, strict=True))


def _tuples(column: pa.Array) -> list[tuple[str, ...]]:
    """The lists of a column as tuples, each different one converted once; null as ()."""
    encoded = pc.list_flatten(column).dictionary_encode()
    codes, words = encoded.indices.to_pylist(), encoded.dictionary.to_pylist()
    ends = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False).cumsum().tolist()
    known: dict[tuple[int, ...], tuple[str, ...]] = {(): ()}
    found = []
    for start, end in pairwise([0, *ends]):
        key = tuple(codes[start:end])
        if key not in known:
            known[key] = tuple([words[code] for code in key])
        found.append(known[key])
    return found


def check_box(box: Box | None, width: int, height: int) -> None:
    """Raise BadRecord unless `box` (xyxy pixels) is finite, not degenerate and inside the image."""
    if box is None:
        raise BadRecord("box_missing")
    if len(box) != 4:
        raise BadRecord("box_not_four_numbers", str(box))
    x1, y1, x2, y2 = box
    if not all(math.isfinite(v) for v in box):
        raise BadRecord("box_not_finite", str(box))
    if x2 <= x1 or y2 <= y1:
        raise BadRecord("box_degenerate", str(box))
    if x1 < 0 or y1 < 0 or x2 > width or y2 > height:
        raise BadRecord("box_outside_image", f"{box} in {width}x{height}")


def sample_id(source: str, key: str, *fields: str) -> str:
    """128-bit hash of the source, the source's own key and the sample's untemplated fields."""
    return digest("\x1f".join((source, key, *fields)).encode())


def digest(data: bytes) -> str:
    """The project's content hash: BLAKE2b, 128 bits, hexadecimal."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def stable_unit(key: str, salt: str = "") -> float:
    """A number in [0, 1) that depends on the text alone, be it valid Unicode or not: splits, shards and templates go
    by it.
    """
    raw = hashlib.blake2b(f"{salt}\x1f{key}".encode(errors="surrogatepass"), digest_size=8).digest()
    return (int.from_bytes(raw, "big") >> 11) / (1 << 53)  # 53 bits: exactly a float, never rounded to 1.0


def parse_shard(text: str) -> tuple[int, int]:
    """`i/n` with 0 ≤ i < n.

    Raises:
        InputError: anything else.
    """
    left, _, right = text.partition("/")
    if left.isascii() and left.isdigit() and right.isascii() and right.isdigit() and int(left) < int(right):
        return int(left), int(right)
    raise InputError(f"no such shard '{text}'", "--shard", "write i/n with i from 0 to n - 1, such as 0/4")


def stable_choice(options: Iterable[Any], key: str, salt: str = "") -> Any:
    """One of the options, chosen by the stable hash of `key`."""
    listed = list(options)
    return listed[int(stable_unit(key, salt) * len(listed))]


def fold_of(image_key: str, folds: int) -> int:
    """The cross-fitting fold of an image: a filtering model answers only about folds it was not trained on."""
    return int(stable_unit(image_key, salt="fold") * folds)
