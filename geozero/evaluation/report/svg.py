"""Pieces that charts are drawn of: SVG elements as escaped markup, axis ticks, numbers as they are printed."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

LABEL_LETTERS = 16  # what fits beside a chart


def fitted(name: str) -> str:
    return name if len(name) <= LABEL_LETTERS else name[: LABEL_LETTERS - 1] + "…"


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round values (1, 2 or 5 times a power of ten) that cover [low, high] with about `about` steps."""
    if not high > low:
        return [low]
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def padded(low: float, high: float) -> tuple[float, float]:
    """An axis range: from 0 where all values are positive and not far from it, with air above."""
    if low >= 0 and low < 0.6 * high:
        low = 0.0
    span = max(high - low, 1e-3 * abs(high)) or 1.0
    start, end = low if low == 0 else low - 0.06 * span, high + 0.08 * span
    return (start, end) if end > start else (start, start + 1.0)  # denormal numbers


def number(value: float) -> str:
    """A tick or read-out: three significant digits, thousands as k, no trailing zeros."""
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    return "0" if abs(value) < 1e-12 else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def short_count(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"


def r(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


def svg(width: float, height: float, said: str, parts: Sequence[Markup], kind: str = "") -> Markup:
    label = Markup('role="img" aria-label="{}"').format(said) if said else Markup('aria-hidden="true"')
    opening = Markup('<svg class="plot {}" viewBox="0 0 {} {}" {}>').format(kind, r(width), r(height), label)
    return opening + Markup("").join(parts) + Markup("</svg>")


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    drawn = Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>')
    return drawn.format(kind, r(x1), r(y1), r(x2), r(y2))


def text(x: float, y: float, said: str, anchor: str, kind: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{}" y="{}" text-anchor="{}">{}</text>').format(kind, r(x), r(y), anchor, said)


def path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    d = "M" + "L".join(f"{r(x)} {r(y)}" for x, y in points)
    return Markup('<path class="{}" d="{}"/>').format(kind, escape(d))
