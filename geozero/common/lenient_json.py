"""JSON as models and other people's scripts write it, read without losing more than the value that is wrong."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError

LINES = (".jsonl", ".ndjson")


def parse_json(data: bytes) -> Any:
    """JSON as models and other people's scripts write it; an integer longer than Python reads becomes an infinity, so
    that it costs its record alone.

    Raises:
        ValueError: it is no JSON, or no UTF-8.
        RecursionError: it is nested too deeply.
    """
    return json.loads(data.decode("utf-8-sig"), parse_int=_integer)


def read_list(path: Path, what: str, hint: str) -> list[Any]:
    """The list in a JSON file, or the rows of JSON lines; `what` says in errors what it holds.

    Raises:
        InputError: the file is missing, cannot be read, is not JSON, or holds something else.
    """
    try:
        rows = parse_rows(path.read_bytes(), path.suffix)
    except FileNotFoundError:
        raise InputError(f"no such {what} file", str(path), hint) from None
    except OSError as error:
        raise InputError(f"the {what} file cannot be read: {error.strerror}", str(path), hint) from None
    except RecursionError:
        raise InputError("not JSON: nested too deeply", str(path), hint) from None
    except ValueError as error:
        raise InputError(f"not JSON: {str(error)[:200]}", str(path), hint) from None
    if not isinstance(rows, list):
        raise InputError(f"a JSON {type(rows).__name__} instead of a list", str(path), hint)
    return rows


def parse_rows(data: bytes, suffix: str = "") -> Any:
    """What a JSON file holds; of JSON lines a list, in which a line that is no JSON is its own text.

    Raises:
        ValueError: it is neither.
        RecursionError: it is nested too deeply.
    """
    try:
        value = parse_json(data)
    except ValueError:
        lines = [line for line in data.splitlines() if line.strip()]
        if not lines or not isinstance(_line(lines[0]), dict):
            raise
        return [_line(line) for line in lines]
    return [value] if suffix.lower() in LINES and isinstance(value, dict) else value


def _line(line: bytes) -> Any:
    try:
        return parse_json(line)
    except (ValueError, RecursionError):
        return line[:200].decode("utf-8", "replace")


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
