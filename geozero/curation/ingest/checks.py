"""Checks of a record's texts and box: lengths, script, boxes inside their image."""

from __future__ import annotations

import dataclasses
import math
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args, get_type_hints

from geozero import tasks
from geozero.common.errors import BadRecord, InputError
from geozero.corpus.images import MAX_PIXELS, STORED_PIXELS, Reduction
from geozero.corpus.sample import Box
from geozero.sources.base import Record

BOX_TOLERANCE = 1.0  # pixels that an annotation may lie outside its image (rounding, inclusive edges) [ours]
MAX_TEXT = 20_000  # characters of one text; the longest of the field, polygons, have about 8,000
_MOSTLY = 0.5  # share of letters
_MOST = {"max_pixels": STORED_PIXELS}  # what readers of a corpus decode
_LATER = ("store_side", "store_pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """The checks of records and images [all ours].

    Attributes:
        outside: a box that reaches outside its image by at most `box_tolerance` pixels is moved inside (`clamp`, and
            counted in the manifest's notes) or refused like any other.
        resized: a box that was drawn on an image of another size, as its annotation says, is refused, or scaled to
            this image and counted.
        contradictions: an answer that cannot answer its question (an area to a yes/no question) is refused, or kept
            and counted.
        conflicts: a record whose answer differs from that of an earlier record with the same question and image is
            kept and counted, or refused.
        script: `latin` refuses texts whose letters are mostly of another script (it does not test the language).
        shortest, longest: characters of an answer or sentence, and of any text.
        max_pixels: of an image; larger ones are refused. More than 64 million asks for memory: 4 bytes per pixel.
        store_side, store_pixels: a larger image is stored as a smaller copy, at most so many pixels on its longer side
            and in all, its boxes scaled with it; 0 stores it as it is.
    """

    outside: Literal["clamp", "refuse"] = "clamp"
    box_tolerance: float = BOX_TOLERANCE
    resized: Literal["refuse", "scale"] = "refuse"
    contradictions: Literal["refuse", "keep"] = "refuse"
    conflicts: Literal["refuse", "keep"] = "keep"
    script: Literal["latin", "any"] = "latin"
    shortest: int = 1
    longest: int = MAX_TEXT
    max_pixels: int = MAX_PIXELS
    store_side: int = 0
    store_pixels: int = 0

    @property
    def reduction(self) -> Reduction:
        """What `store_side` and `store_pixels` allow."""
        return Reduction(self.store_side, self.store_pixels)

    def options(self) -> dict[str, Any]:
        """As a manifest has them: a check of later versions only where it is used, so that older corpora stay valid."""
        values = dataclasses.asdict(self)
        return {name: value for name, value in values.items() if value or name not in _LATER}

    def check_text(self, record: Record) -> None:
        """Raise BadRecord for a record without a question, or one whose texts are too long, too short, of another
        script, or cannot be stored as UTF-8."""
        if tasks.get(record.task).asks_text and not record.text.strip():
            raise BadRecord("question_empty")
        texts = (record.key, record.image_key, record.text, record.answer, record.question_type or "")
        _check_stored((*texts, *record.references), self.longest)
        _check_labels(record.classes, self.longest)
        for text in (record.answer, *record.references):
            if 0 < len(text.strip()) < self.shortest:
                raise BadRecord("text_too_short", text[:80])
        if self.script == "latin":
            for text in (record.text, record.answer, *record.references):
                if not is_latin(text):
                    raise BadRecord("text_other_script", text[:80])

    def clamped(self, box: Box, width: int, height: int) -> Box:
        """The box moved inside the image if it reaches outside by at most the tolerance; unchanged otherwise, so that
        validation names the fault."""
        return box if self.outside == "refuse" else clamped(box, width, height, self.box_tolerance)


def with_checks(options: list[str]) -> Checks:
    """Checks from options such as `contradictions=keep`.

    Raises:
        InputError: an option without `=`, an unknown one, or a value that it does not take.
    """
    hints = get_type_hints(Checks)
    values: dict[str, str | int | float] = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in hints:
            raise InputError(f"unknown check '{option}'", "--check", f"one of {', '.join(hints)}")
        choices = get_args(hints[name])
        if choices and text not in choices:
            raise InputError(f"check '{name}': '{text}' is not one of {', '.join(choices)}", "--check")
        try:
            values[name] = text if choices else hints[name](text)
        except ValueError:
            raise InputError(f"check '{name}': '{text}' is no number", "--check") from None
        if isinstance(values[name], int | float) and not 0 <= float(values[name]) <= _MOST.get(name, math.inf):
            raise InputError(
                f"check '{name}': {text} is out of range", "--check", f"from 0 to {_MOST.get(name, 'any')}"
            )
    return dataclasses.replace(Checks(), **values)  # type: ignore[arg-type]


def _check_stored(texts: Iterable[str], longest: int) -> None:
    for text in texts:
        if len(text) > longest:
            raise BadRecord("text_too_long", f"{len(text)} characters")
        if storable(text) != text:
            raise BadRecord("text_not_unicode", ascii(text)[:80])


_check_labels = lru_cache(maxsize=64)(_check_stored)  # a data set's records have the same labels


def is_latin(text: str) -> bool:
    """Whether at least half of the text's letters are Latin, or it has none."""
    if text.isascii():
        return True
    letters = [c for c in text if c.isalpha()]
    return sum(unicodedata.name(c, "").startswith("LATIN") for c in letters) >= _MOSTLY * len(letters)


def clamped(box: Box, width: int, height: int, tolerance: float) -> Box:
    """The box moved inside the image if it reaches outside by at most `tolerance` pixels; unchanged otherwise."""
    x1, y1, x2, y2 = box
    if min(x1, y1) < -tolerance or x2 > width + tolerance or y2 > height + tolerance:
        return box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))


def storable(text: str) -> str:
    """The text without lone surrogates, which JSON can name and UTF-8 cannot."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
