"""The differences between two runs: parameters, data, code, scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from geozero.tracking.runs import Facts

ABSENT = "-"


@dataclass(frozen=True)
class ComparedRow:
    """One line of the comparison; `change` is b − a of two scores."""

    section: str
    name: str
    a: str
    b: str
    change: float | None = None


def compare(a: Facts, b: Facts, everything: bool = False) -> list[ComparedRow]:
    """The rows that differ, in the order parameters, data, code, scores.

    Args:
        everything: include the rows that are equal.
    """
    rows = [
        *_texts("parameters", a.parameters, b.parameters),
        *_texts("data", a.data, b.data),
        *_texts("code", a.code, b.code),
        *_scores(a.scores, b.scores),
    ]
    return [row for row in rows if everything or row.a != row.b or row.change not in (None, 0.0)]


def _texts(section: str, a: Mapping[str, str], b: Mapping[str, str]) -> Iterator[ComparedRow]:
    for name in sorted({*a, *b}):
        yield ComparedRow(section, name, a.get(name, ABSENT), b.get(name, ABSENT))


def _scores(a: Mapping[str, float], b: Mapping[str, float]) -> Iterator[ComparedRow]:
    for name in sorted({*a, *b}):
        first, second = (f"{scores[name]:.6g}" if name in scores else ABSENT for scores in (a, b))
        gain = b[name] - a[name] if name in a and name in b else math.nan
        yield ComparedRow("scores", name, first, second, gain if math.isfinite(gain) else None)
