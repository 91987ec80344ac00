"""The gallery of the page: questions with small images, packed so that thousands of them open at once.

Texts go into one JSON block, images (each once, as base64 JPEG) into blocks of `IMAGES_PER_BLOCK`; the page parses
a block when it first shows one of its images. All JSON is escaped so that it can stand in a script element.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import decode, thumbnail
from geozero.corpus.sample import digest
from geozero.evaluation.report.schema import MAX_TEXT, GalleryItem, Output, clip
from geozero.tasks import get

IMAGES_PER_BLOCK = 100
BUDGET_BYTES = 26_000_000  # of JPEG in all; base64 makes a third more; with the texts the page stays below 60 MB
TEXT_BUDGET_BYTES = 16_000_000
TEXTS_PER_ITEM, SHORTEST_TEXT = 8, 80  # question, truth, and three texts of each of two answers
BEFORE_AFTER = ("before RL", "after RL")  # whose answers they are, where the items do not say
FIRST_LAST = ("the first model", "the last model")  # where they say more than one name
SIZES = ((384, 82), (256, 78), (192, 72), (128, 68))  # longer side in pixels and JPEG quality, from fine to coarse
SCRIPT_ESCAPES = str.maketrans(
    {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
)


@dataclass(slots=True)
class Gallery:
    """What the page embeds: JSON of all items, JSON blocks of images, the values to filter by, and faults."""

    count: int = 0
    items: str = "[]"
    image_blocks: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    splits: list[str] = field(default_factory=list)
    names: tuple[str, str] = BEFORE_AFTER
    faults: list[str] = field(default_factory=list)


def gather(items: Sequence[GalleryItem], folder: Path, budget: int = BUDGET_BYTES) -> Gallery:
    """Pack the items; `folder` is where `image_ref` is looked up. A bad image costs only that image."""
    side, quality = _size(items, folder, budget)
    limit = _text_limit(items)
    images: dict[str, int] = {}  # hash of the given bytes → place in `encoded`
    encoded: list[str] = []
    sizes: list[tuple[int, int]] = []
    rows, lost, first = [], 0, ""
    for item in items:
        place = None
        try:
            data = _bytes(item, folder)
            key = digest(data)
            if key not in images:
                image = decode(data)
                small = thumbnail(image, side, quality)
                images[key] = len(encoded)
                encoded.append(base64.b64encode(small).decode())
                sizes.append(image.size)
            place = images[key]
        except BadRecord as error:
            lost, first = lost + 1, first or f"{item.id}: {error}"
        rows.append(_row(item, place, sizes[place] if place is not None else (1, 1), limit))
    blocks = [encoded[i : i + IMAGES_PER_BLOCK] for i in range(0, len(encoded), IMAGES_PER_BLOCK)]
    return Gallery(
        count=len(rows),
        items=script_json(rows),
        image_blocks=[script_json(block) for block in blocks],
        tasks=_distinct(item.task for item in items),
        sources=_distinct(item.source for item in items),
        splits=_distinct(item.split for item in items),
        names=_names(items),
        faults=[f"{lost} of {len(rows)} images could not be read ({first})"] if lost else [],
    )


def _names(items: Sequence[GalleryItem]) -> tuple[str, str]:
    """Whose answers stand on the left and on the right: one name where all items say the same, before and after RL
    where none says whose they are, and nothing where there are no such answers."""
    found = []
    for side, usual, several in zip(("before", "after"), BEFORE_AFTER, FIRST_LAST, strict=True):
        names = {output.who for item in items if (output := getattr(item, side)) is not None}
        found.append((names.pop() or usual) if len(names) == 1 else several if names else "")
    return found[0], found[1]


def right(task: str, output: Output | None) -> bool | None:
    """Whether an answer is right: as given, else what the task makes of its reward; None for captions."""
    if output is None or output.right is not None or output.reward is None:
        return output.right if output is not None else None
    try:
        return get(task).succeeds(output.reward)
    except InputError:
        return output.reward >= 1.0


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no `<`, `>`, `&` or line separator survives as itself."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(SCRIPT_ESCAPES)


def _row(item: GalleryItem, image: int | None, size: tuple[int, int], limit: int) -> dict[str, Any]:
    return {
        "id": item.id,
        "task": item.task,
        "source": item.source,
        "split": item.split,
        "question": clip(item.question, limit),
        "answer": clip(item.answer, limit),
        "image": image,
        "width": item.width if item.width > 0 else size[0],
        "height": item.height if item.height > 0 else size[1],
        "box": _rounded(item.box),
        "before": _output(item.task, item.before, limit),
        "after": _output(item.task, item.after, limit),
    }


def _output(task: str, output: Output | None, limit: int) -> dict[str, Any] | None:
    if output is None:
        return None
    return {
        "who": clip(output.who, SHORTEST_TEXT),
        "thought": clip(output.thought, limit),
        "answer": clip(output.answer, limit),
        "raw": "" if output.raw.strip() == output.answer.strip() else clip(output.raw, limit),
        "reward": None if output.reward is None else round(output.reward, 4),
        "right": right(task, output),
        "box": _rounded(output.box),
    }


def _bytes(item: GalleryItem, folder: Path) -> bytes:
    if item.image_jpeg_base64:
        try:
            return base64.b64decode(item.image_jpeg_base64, validate=True)
        except (binascii.Error, ValueError):
            raise BadRecord("image_not_base64") from None
    if not item.image_ref:
        raise BadRecord("image_missing")
    path = (folder / item.image_ref).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise BadRecord("image_missing", item.image_ref)
    return path.read_bytes()


def _size(items: Sequence[GalleryItem], folder: Path, budget: int) -> tuple[int, int]:
    """The finest size that keeps all images within the budget, judged by up to 40 of them spread over the items."""
    chosen = [items[i] for i in range(0, len(items), max(1, len(items) // 40))]
    images = []
    for item in chosen:
        try:
            images.append(decode(_bytes(item, folder)))
        except BadRecord:
            continue
    distinct = len({item.image_ref or digest((item.image_jpeg_base64 or "").encode()) for item in items})
    for side, quality in SIZES[:-1]:
        mean = sum(len(thumbnail(image, side, quality)) for image in images) / max(1, len(images))
        if mean * distinct <= budget:
            return side, quality
    return SIZES[-1]


def _text_limit(items: Sequence[GalleryItem]) -> int:
    """Characters a text may keep, so that all texts stay within their budget."""
    texts = [t for i in items for t in (i.question, i.answer)]
    texts += [t for i in items for o in (i.before, i.after) if o is not None for t in (o.thought, o.answer, o.raw)]
    characters = sum(map(len, texts))
    size = sum(len(t.encode("utf-8", "replace")) for t in texts)
    if size <= TEXT_BUDGET_BYTES:
        return MAX_TEXT
    return max(SHORTEST_TEXT, int(TEXT_BUDGET_BYTES / (len(items) * TEXTS_PER_ITEM) * characters / size))


def _rounded(box: tuple[float, float, float, float] | None) -> list[float] | None:
    return None if box is None else [round(v, 1) for v in box]


def _distinct(values: Any) -> list[str]:
    return sorted({v for v in values if v})
