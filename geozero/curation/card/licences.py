"""What licences allow, as far as their short names say it; of a mixture the strictest part decides. No legal advice."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# beginning of a part of a licence's text → (may be passed on, may be used commercially); None: it does not say
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
    """Whether something may be passed on, and used commercially; None: not known."""

    redistribute: bool | None
    commercial: bool | None


def terms(licence: str) -> Terms:
    """What a licence allows by its name; parts are separated by `;`, such as texts and images."""
    return strictest(_part(part) for part in licence.split(";"))


def strictest(every: Iterable[Terms]) -> Terms:
    """What all of them allow: no where one says no, unknown where one does not say."""
    listed = list(every)
    return Terms(_all(t.redistribute for t in listed), _all(t.commercial for t in listed))


def describe(value: bool | None) -> str:
    """Yes, no, or not known, in words."""
    return "not known: ask the authors" if value is None else "yes" if value else "no"


def _part(text: str) -> Terms:
    for pattern, redistribute, commercial in _KNOWN:
        if re.search(rf"\b(?:{pattern})", text, re.IGNORECASE):
            return Terms(redistribute, commercial)
    return Terms(None, None)


def _all(values: Iterable[bool | None]) -> bool | None:
    listed = list(values)
    return False if False in listed else None if None in listed or not listed else True
