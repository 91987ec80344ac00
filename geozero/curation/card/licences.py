"""What licences allow, by their short names; in a mixture the strictest part decides. This is no legal advice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# start of a licence's name → (may be redistributed, may be used commercially); None: unknown
_KNOWN: tuple[tuple[str, bool | None, bool | None], ...] = (
    (r"academic|research|non-?commercial", None, False),
    (r"cc[- ]by(?:-sa)?-nc-nd|cc[- ]by-nd", False, None),
    (r"cc[- ]by(?:-sa)?-nc", True, False),
    (r"cc0|public domain", True, True),
    (r"cc[- ]by", True, True),
    (r"mit\b|apache|bsd", True, True),
)


@dataclass(frozen=True, slots=True)
class Terms:
    """Whether something may be redistributed, and used commercially; None: unknown."""

    redistribute: bool | None
    commercial: bool | None


def terms(licence: str) -> Terms:
    """What a licence allows, by its name; parts (for texts and images) are separated by `;`."""
    return strictest(_part(part) for part in licence.split(";"))


def strictest(every: Iterable[Terms]) -> Terms:
    """What all of them allow together: no if one says no, unknown if one does not say."""
    listed = list(every)
    return Terms(_all(t.redistribute for t in listed), _all(t.commercial for t in listed))


def describe(value: bool | None) -> str:
    """Yes, no or unknown, in words."""
    return "not known: ask the authors" if value is None else "yes" if value else "no"


def _part(text: str) -> Terms:
    for pattern, redistribute, commercial in _KNOWN:
        if re.search(rf"\b(?:{pattern})", text, re.IGNORECASE):
            return Terms(redistribute, commercial)
    return Terms(None, None)


def _all(values: Iterable[bool | None]) -> bool | None:
    listed = list(values)
    return False if False in listed else None if None in listed or not listed else True
