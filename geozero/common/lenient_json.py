"""JSON as models and other people's scripts write it, read without losing more than the value that is wrong."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(data: bytes) -> Any:
    """JSON as models and other people's scripts write it; an integer longer than Python reads becomes an infinity, so
    that it costs its record alone.

    Raises:
        ValueError: it is no JSON, or no UTF-8.
        RecursionError: it is nested too deeply.
    """
    return json.loads(data.decode("utf-8-sig"), parse_int=_integer)


def _integer(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # the JSON scanner passes digits alone: there are too many of them
        return -math.inf if text.startswith("-") else math.inf


def as_text(value: Any) -> str | None:
    """Text, or a number or a list of numbers written as text; None for anything else (null, NaN, true, objects)."""
    if isinstance(value, str):
        return value
    numbers = value if isinstance(value, list) else [value]
    try:
        return str(value) if numbers and all(map(_is_number, numbers)) else None
    except ValueError:  # an integer of more digits than Python writes
        return None


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return isinstance(value, int) or math.isfinite(value)
