"""The gallery of the page: questions with small images, packed so that thousands of them open at once.

Texts go into one JSON block, images (each once, as base64 JPEG) into blocks of `IMAGES_PER_BLOCK`; the page parses a
block when it first shows one of its images. All JSON is escaped so that it can stand in a script element.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geozero.common.errors import BadRecord
from geozero.corpus.images import decode, thumbnail
from geozero.corpus.sample import digest
from geozero.evaluation.report.schema import MAX_TEXT, GalleryItem, Output, clip
from geozero.tasks import TASKS

IMAGES_PER_BLOCK = 100
BUDGET_BYTES = 26_000_000  # of all JPEGs; base64 adds a third, and with the texts the page stays below 60 MB
TEXT_BUDGET_BYTES = 16_000_000
TEXTS_PER_ITEM, SHORTEST_TEXT = 8, 80  # question, truth, and three texts of each of two answers
SIDES = {"before": ("before RL", "the first model"), "after": ("after RL", "the last model")}
SIZES = ((384, 82), (256, 78), (192, 72), (128, 68))  # longer side in pixels and JPEG quality, from fine to coarse
SCRIPT_ESCAPES = str.maketrans({c: f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"})


@dataclass(frozen=True, slots=True)
class Gallery:
    """What the page embeds: JSON of all items, JSON blocks of images, the values to filter by, and faults."""

    count: int
    items: str
    image_blocks: list[str]
    tasks: list[str]
    sources: list[str]
    splits: list[str]
    names: tuple[str, str]
    faults: list[str]


def gather(items: Sequence[GalleryItem], folder: Path, budget: int = BUDGET_BYTES) -> Gallery:
    """Pack the items; `folder` is where `image_ref` is looked up. A bad image costs only that image."""
    side, quality = _size(items, folder, budget)
    limit = _text_limit(items)
    images: dict[str, tuple[int, int, int]] = {}  # hash of the given bytes → place in `encoded`, width, height
    encoded: list[str] = []
    rows, bad = [], []
    for item in items:
        place, width, height = None, 1, 1
        try:
            data = _bytes(item, folder)
            key = digest(data)
            if key not in images:
                image = decode(data)
                images[key] = len(encoded), *image.size
                encoded.append(base64.b64encode(thumbnail(image, side, quality)).decode())
            place, width, height = images[key]
        except BadRecord as error:
            bad.append(f"{item.id}: {error}")
        rows.append(_row(item, place, (width, height), limit))
    blocks = [encoded[i : i + IMAGES_PER_BLOCK] for i in range(0, len(encoded), IMAGES_PER_BLOCK)]
    return Gallery(
        count=len(rows),
        items=script_json(rows),
        image_blocks=[script_json(block) for block in blocks],
        tasks=_distinct(item.task for item in items),
        sources=_distinct(item.source for item in items),
        splits=_distinct(item.split for item in items),
        names=(_name(items, "before"), _name(items, "after")),
        faults=[f"{len(bad)} of {len(rows)} images could not be read ({bad[0]})"] if bad else [],
    )


def _name(items: Iterable[GalleryItem], side: str) -> str:
    """Whose answers stand on a side: one name where all items give the same, before or after RL where none gives any,
    and nothing where there are no such answers."""
    usual, several = SIDES[side]
    names = {output.who for item in items if (output := getattr(item, side)) is not None}
    return (names.pop() or usual) if len(names) == 1 else several if names else ""


def right(task: str, output: Output | None) -> bool | None:
    """Whether an answer is right: as given, else what the task concludes from its reward (None: it cannot)."""
    if output is None or output.right is not None or output.reward is None:
        return None if output is None else output.right
    return TASKS[task].succeeds(output.reward) if task in TASKS else output.reward >= 1.0


def script_json(value: Any) -> str:
    """JSON that is safe inside a script element: no `<`, `>`, `&` or line separator survives as itself."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(SCRIPT_ESCAPES)


def _row(item: GalleryItem, image: int | None, size: tuple[int, int], limit: int) -> dict[str, Any]:
    names = {"id": item.id, "task": item.task, "source": item.source, "split": item.split}
    texts = {name: clip(getattr(item, name), limit) for name in ("question", "answer")}
    width, height = (given if given > 0 else own for given, own in zip((item.width, item.height), size, strict=True))
    answers = {side: _output(item.task, getattr(item, side), limit) for side in SIDES}
    return names | texts | {"image": image, "width": width, "height": height, "boxes": _rounded(item)} | answers


def _output(task: str, output: Output | None, limit: int) -> dict[str, Any] | None:
    if output is None:
        return None
    raw = "" if output.raw.strip() == output.answer.strip() else output.raw
    texts = {"thought": output.thought, "answer": output.answer, "raw": raw}
    return {
        "who": clip(output.who, SHORTEST_TEXT),
        **{name: clip(text, limit) for name, text in texts.items()},
        "reward": None if output.reward is None else round(output.reward, 4),
        "right": right(task, output),
        "boxes": _rounded(output),
    }


def _bytes(item: GalleryItem, folder: Path) -> bytes:
    if item.image_jpeg_base64:
        try:
            return base64.b64decode(item.image_jpeg_base64, validate=True)
        except (binascii.Error, ValueError):
            raise BadRecord("image_not_base64") from None
    path = (folder / (item.image_ref or "")).resolve()
    if not item.image_ref or not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise BadRecord("image_missing", item.image_ref or "")
    return path.read_bytes()


def _size(items: Sequence[GalleryItem], folder: Path, budget: int) -> tuple[int, int]:
    """The finest size that keeps all images within the budget, judged by up to 40 of them spread over the items."""
    images = []
    for item in items[:: max(1, len(items) // 40)]:
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
    """Characters of a text that are kept, so that all texts stay within their budget."""
    texts = [text for item in items for text in _texts(item)]
    size = sum(len(text.encode("utf-8", "replace")) for text in texts)
    if size <= TEXT_BUDGET_BYTES:
        return MAX_TEXT
    return max(SHORTEST_TEXT, int(TEXT_BUDGET_BYTES / (len(items) * TEXTS_PER_ITEM) * sum(map(len, texts)) / size))


def _texts(item: GalleryItem) -> Iterator[str]:
    yield from (item.question, item.answer)
    for output in (item.before, item.after):
        if output is not None:
            yield from (output.thought, output.answer, output.raw)


def _rounded(part: GalleryItem | Output) -> list[list[float]]:
    return [[round(v, 1) for v in box] for box in part.boxes or ([part.box] if part.box else [])]


def _distinct(values: Iterable[str]) -> list[str]:
    return sorted({v for v in values if v})
