"""Paired comparisons on the page: looked up by the scores they are between, and as a table of their own."""

from __future__ import annotations

from collections.abc import Sequence

from geozero.evaluation.report.schema import Comparison, Score

Key = tuple[object, ...]


class Pairs:
    """Comparisons by what they are between, whichever of the two came first."""

    def __init__(self, comparisons: Sequence[Comparison]) -> None:
        self._found: dict[Key, Comparison] = {}
        for c in comparisons:
            place = (c.world, c.split, c.protocol, c.task, c.source, c.question_type, c.metric)
            self._found[*place, c.first.model, c.first.mode, c.second.model, c.second.mode] = c

    def between(self, before: Score, after: Score) -> Comparison | None:
        """`after` minus `before`, two scores of one place and metric; None where they were not compared."""
        s = before
        place = (s.world, s.split, s.protocol, s.task, s.source, s.question_type, s.metric)
        found = self._found.get((*place, before.model, before.mode, after.model, after.mode))
        if found is not None:
            return found
        found = self._found.get((*place, after.model, after.mode, before.model, before.mode))
        return None if found is None else turned(found)


def turned(c: Comparison) -> Comparison:
    """The same comparison the other way round."""
    values = {"first": c.second, "second": c.first, "before": c.after, "after": c.before}
    values |= {name: None if v is None else -v for name, v in _negated(c).items()}
    return c.model_copy(update=values)


def _negated(c: Comparison) -> dict[str, float | None]:
    return {"difference": c.difference, "low": c.high, "high": c.low}


def mark(c: Comparison | None) -> str:
    """`up` or `down` where the interval of a difference excludes 0, else nothing: no other difference is marked."""
    if c is None or c.low is None or c.high is None:
        return ""
    return "up" if c.low > 0 else "down" if c.high < 0 else ""


def scale(metric: str) -> float:
    """Differences of shares are shown in points."""
    return 1.0 if metric.endswith("_percent") else 100.0


def signed(c: Comparison) -> str:
    """`+3.2 [+0.4, +6.1], p = 0.012`, in points."""
    if c.difference is None or c.low is None or c.high is None:
        return ""
    by = scale(c.metric)
    text = f"{c.difference * by:+.1f} [{c.low * by:+.1f}, {c.high * by:+.1f}]"
    return (text + probability(c.p_value, ", p ")).replace("-", "−")


def probability(p: float | None, before: str = "") -> str:
    """A p-value as papers write it."""
    return "" if p is None else f"{before}< 0.001" if p < 0.001 else f"{before}= {p:.3f}"
