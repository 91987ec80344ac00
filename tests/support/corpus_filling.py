"""Filling a corpus, also in a process that will be killed."""

from __future__ import annotations

from typing import Any

from geozero.corpus.images import StoredImage
from geozero.corpus.sample import SPLITS, Sample, digest
from geozero.corpus.store import (
    CorpusWriter,
)


def image(number: int, size: int = 50) -> StoredImage:
    """The corpus never decodes: any bytes will do."""
    data = number.to_bytes(4, "big") * (size // 4)
    return StoredImage(digest(data), data, 60, 40, f"{number:016x}")


def sample(number: int, **changes: Any) -> Sample:
    values: dict[str, Any] = {
        "id": f"id{number:04d}",
        "task": ("vqa", "caption")[number % 2],
        "source": "s",
        "split": SPLITS[number % 3],
        "image_id": image(number).image_id,
        "image_key": f"s/{number}",
        "question": f"What is {number}?",
        "answer": str(number),
        "references": (str(number),),
        "width": 60,
        "height": 40,
    }
    return Sample(**{**values, **changes})


def fill(writer: CorpusWriter, n: int) -> None:
    for number in range(n):
        writer.add_image(image(number), f"s/{number}")
        assert writer.add(sample(number))
