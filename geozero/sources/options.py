"""Options of a data set from the command line: `--set name=value` fills the fields of a source."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin, get_type_hints

from geozero.common.errors import InputError
from geozero.sources.base import Ratio, Source

_YES, _NO = ("true", "yes", "1"), ("false", "no", "0")


def with_options(source: Source, options: Sequence[str]) -> Source:
    """The source with options such as `answers=binned`, `each=sentence`, `ratio=0.7/0.1`, `questions=presence,count`.

    A ratio is train/val, the rest is test; a tuple is separated by commas.

    Raises:
        InputError: an option without `=`, an unknown one, or a value that it does not take.
    """
    hints = get_type_hints(type(source))
    known = [field.name for field in dataclasses.fields(source)]
    values = {}
    for option in options:
        name, equals, text = option.partition("=")
        if not equals or name not in known:
            raise InputError(f"unknown option '{option}' of {source.title}", "--set", f"one of {', '.join(known)}")
        try:
            values[name] = _value(hints[name], text)
        except ValueError as error:
            raise InputError(f"option '{name}' of {source.title}: {error}", "--set") from None
    if "name" in values and not str(values["name"]).replace("_", "").isalnum():
        raise InputError(f"name '{values['name']}'", "--set", "letters, digits and _ only")
    return dataclasses.replace(source, **values)


def _value(kind: Any, text: str) -> Any:
    if kind is Ratio:
        shares = text.split("/")
        if len(shares) not in (2, 3):
            raise ValueError(f"'{text}' is no ratio: write train/val, such as 0.8/0.1")
        return Ratio(float(shares[0]), float(shares[1]))
    if kind is bool:
        if text.lower() not in (*_YES, *_NO):
            raise ValueError(f"'{text}' is neither true nor false")
        return text.lower() in _YES
    if kind is int or kind is float:
        return kind(text)
    choices = _choices(kind)
    if choices and text not in choices:
        raise ValueError(f"'{text}' is not one of {', '.join(choices)}")
    if kind is str or choices:
        return text
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _choices(kind: Any) -> tuple[str, ...]:
    """The texts that a Literal offers, with None or without."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    found = [_choices(part) for part in get_args(kind) if get_origin(part) is Literal]
    return found[0] if found else ()
