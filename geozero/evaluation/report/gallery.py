"""The gallery of the page: questions with small images, packed so that thousands of them open at once.

Columns to filter by go into one JSON block, texts into blocks of `TEXTS_PER_BLOCK` items, images (each once, as JPEG)
into blocks of `IMAGES_PER_BLOCK`; the page parses a block when it first shows something of it. Images that do not
fit into the page become files in a folder beside it. All JSON is escaped so that it can stand in a script element.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geozero.common.atomic import replacing
from geozero.common.errors import BadRecord
from geozero.corpus.images import decode, thumbnail
from geozero.corpus.sample import digest
from geozero.evaluation.report.schema import MAX_TEXT, GalleryItem, Output, clip
from geozero.evaluation.report.tables import Column, model_label
from geozero.tasks import TASKS

IMAGES_PER_BLOCK, TEXTS_PER_BLOCK = 100, 200
BUDGET_BYTES = 18_500_000  # of all JPEGs; base64 adds a third, and with the texts the page stays below 30 MB
TEXT_BUDGET_BYTES, TEXTS_ALONE_BYTES = 4_500_000, 18_000_000  # the latter where the images lie beside the page
TEXTS_PER_ITEM, SHORTEST_TEXT = 8, 80  # about: question, truth, and three texts of each of two answers
SIZES = ((384, 82), (256, 78), (192, 72), (128, 68), (128, 55))  # longer side in pixels and JPEG quality
FILE_SIZE = SIZES[0]  # of images beside the page
PROBED = 40  # images that the size is judged by
MAX_CHOICES = 300  # values of one filter
SCRIPT_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


@dataclass(frozen=True, slots=True)
class Gallery:
    """What the page embeds: JSON of the columns, of blocks of texts and of images; the values to filter by; faults."""

    count: int = 0
    index: str = "[]"
    text_blocks: list[str] = field(default_factory=list)
    image_blocks: list[str] = field(default_factory=list)
    choices: dict[str, list[str]] = field(default_factory=dict)
    models: list[str] = field(default_factory=list)
    images: str = ""  # the folder beside the page, with a slash; '': the images are in the page
    faults: list[str] = field(default_factory=list)


def gather(items: Sequence[GalleryItem], models: Sequence[Column], beside: Path, budget: int = BUDGET_BYTES) -> Gallery:
    """Pack the items; `models` is the order of the page's models, `beside` the folder of images that do not fit into
    the page. A bad image costs only that image."""
    if not items:
        return Gallery()
    names = [model_label(*column) for column in models]
    names += [o for o in dict.fromkeys(name(o) for item in items for o in item.outputs) if o not in names]
    size = _size(items, budget)
    side, quality = size or FILE_SIZE
    limit = _text_limit(items, TEXTS_ALONE_BYTES if size is None else TEXT_BUDGET_BYTES)
    images: dict[str, tuple[int, int, int]] = {}  # hash of the given bytes → number, width, height
    encoded: list[str] = []
    rows, texts, bad = [], [], []
    for item in items:
        place, width, height = None, 1, 1
        try:
            data = _bytes(item)
            key = digest(data)
            if key not in images:
                image = decode(data)
                images[key] = len(images), *image.size
                small = thumbnail(image, side, quality)
                if size is None:
                    _write(beside / f"{images[key][0]}.jpg", small)
                else:
                    encoded.append(base64.b64encode(small).decode())
            place, width, height = images[key]
        except BadRecord as error:
            bad.append(f"{item.id}: {error}")
        rows.append(_columns(item, place, (width, height), names))
        texts.append(_texts(item, names, limit))
    return Gallery(
        count=len(rows),
        index=script_json(rows),
        text_blocks=_blocks(texts, TEXTS_PER_BLOCK),
        image_blocks=_blocks(encoded, IMAGES_PER_BLOCK),
        choices={
            "task": _distinct(item.task for item in items),
            "source": _distinct(item.source for item in items),
            "split": _distinct(item.split for item in items),
            "kind": _distinct(item.question_type for item in items),
            "truth": _distinct(item.answer for item in items if answer_is_class(item)),
            "flag": _distinct(flag for item in items for output in item.outputs for flag in output.flags),
        },
        models=names,
        images=f"{beside.name}/" if size is None else "",
        faults=[f"{len(bad)} of {len(rows)} images could not be read ({bad[0]})"] if bad else [],
    )


def name(output: Output) -> str:
    """Whose answer it is."""
    return model_label(output.model, output.mode) if output.model else output.who


def answer_is_class(item: GalleryItem) -> bool:
    """Whether the right answer is one of a few classes, which the page can filter by."""
    return item.task in TASKS and TASKS[item.task].answers_are_classes


def right(task: str, output: Output) -> bool | None:
    """Whether an answer is right: as given, else what the task concludes from its reward (None: it cannot)."""
    if output.right is not None or output.reward is None:
        return output.right
    return TASKS[task].succeeds(output.reward) if task in TASKS else output.reward >= 1.0


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no `<`, `>`, `&` or line separator survives as itself."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(SCRIPT_ESCAPES)


def _columns(item: GalleryItem, image: int | None, size: tuple[int, int], names: Sequence[str]) -> dict[str, Any]:
    """What the page filters and sorts by; of each model [right, reward, flags]."""
    width, height = (given if given > 0 else own for given, own in zip((item.width, item.height), size, strict=True))
    found: dict[str, Any] = {"id": item.id, "task": item.task, "source": item.source, "split": item.split}
    found |= {"kind": item.question_type, "truth": clip(item.answer, SHORTEST_TEXT) if answer_is_class(item) else ""}
    found |= {"image": image, "size": [width, height]}
    outputs = {}
    for o in item.outputs:
        reward = None if o.reward is None else round(o.reward, 4)
        outputs[names.index(name(o))] = [right(item.task, o), reward, o.flags]
    return found | {"out": outputs}


def _texts(item: GalleryItem, names: Sequence[str], limit: int) -> dict[str, Any]:
    """What the page shows of an item; of each model [answer, thought, raw completion, boxes]. The thought is None where
    the whole completion counts as the answer."""
    texts: dict[str, Any] = {key: clip(getattr(item, key), limit) for key in ("question", "answer")}
    outputs = {}
    for o in item.outputs:
        again = " ".join((o.thought, f"<answer>{o.answer}</answer>")).strip()
        raw = "" if " ".join(o.raw.split()) in (" ".join(again.split()), " ".join(o.answer.split())) else o.raw
        whole = o.thought and o.raw.strip() == o.answer.strip()  # no complete answer block: all of it is the answer
        thought = None if whole else clip(o.thought, limit)
        outputs[names.index(name(o))] = [clip(o.answer, limit), thought, clip(raw, limit), _rounded(o)]
    return texts | {"boxes": _rounded(item), "out": outputs}


def _bytes(item: GalleryItem) -> bytes:
    if item.image_path is not None:
        try:
            return item.image_path.read_bytes()
        except OSError:
            raise BadRecord("image_missing", item.image_path.name) from None
    if item.image_jpeg_base64:
        try:
            return base64.b64decode(item.image_jpeg_base64, validate=True)
        except (binascii.Error, ValueError):
            raise BadRecord("image_not_base64") from None
    raise BadRecord("image_missing")


def _size(items: Sequence[GalleryItem], budget: int) -> tuple[int, int] | None:
    """The finest size that keeps all images within the budget, judged by some of them; None where none does."""
    images = []
    for item in items[:: max(1, len(items) // PROBED)]:
        try:
            images.append(decode(_bytes(item)))
        except BadRecord:
            continue
    named = {item.image_path or digest((item.image_jpeg_base64 or "").encode()) for item in items}
    for side, quality in SIZES:
        mean = sum(len(thumbnail(image, side, quality)) for image in images) / max(1, len(images))
        if mean * len(named) <= budget:
            return side, quality
    return None


def _text_limit(items: Sequence[GalleryItem], budget: int) -> int:
    """Characters of a text that are kept, so that all texts stay within their budget."""
    texts = [text for item in items for text in _all_texts(item)]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if size <= budget:
        return MAX_TEXT
    return max(SHORTEST_TEXT, int(budget / (len(items) * TEXTS_PER_ITEM) * sum(map(len, texts)) / size))


def _all_texts(item: GalleryItem) -> Iterator[str]:
    yield from (item.question, item.answer)
    for output in item.outputs:
        yield from (output.thought, output.answer, output.raw)


def _rounded(part: GalleryItem | Output) -> list[list[float]]:
    return [[round(v, 1) for v in box] for box in part.boxes or ([part.box] if part.box else [])]


def _blocks(values: Sequence[Any], size: int) -> list[str]:
    return [script_json(values[i : i + size]) for i in range(0, len(values), size)]


def _distinct(values: Iterable[str]) -> list[str]:
    return sorted({v for v in values if v})[:MAX_CHOICES]


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)
