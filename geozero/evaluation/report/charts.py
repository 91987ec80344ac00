"""Charts as SVG strings, drawn with the colours of the page's style sheet, so that they follow light and dark.

Texts are escaped. Sizes are SVG user units, which are CSS pixels at full width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

CHART_WIDTH, CHART_HEIGHT = 380, 200
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 44, 12, 10, 26
MAX_POINTS = 400  # more than a chart of this width can show
SMOOTH_FROM = 20  # fewer points than this are drawn as they are
SMOOTH_SHARE = 12  # the running mean spans one part in this many of the curve
FOREST_WIDTH, FOREST_ROW, FOREST_LABEL, FOREST_VALUE = 300, 24, 116, 40
STRIP_WIDTH, STRIP_HEIGHT = 110, 12
HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT = 270, 150
CALIBRATION_SIDE = 220
LABEL_LETTERS = 16  # what fits beside a chart


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: `points` are (step, value); `tone` names a colour class of the style sheet."""

    label: str
    points: Sequence[tuple[float, float]]
    tone: str = "after"


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its 95 % interval (both in the metric's own scale)."""

    label: str
    value: float
    low: float | None
    high: float | None
    tone: str = "base"


@dataclass(frozen=True, slots=True)
class Figure:
    """A plot with its caption. `legend` holds (colour class, label, value) above it, `bands` the same below it; `data`
    are its numbers as JSON for the read-out under the pointer."""

    title: str
    svg: Markup
    aside: str = ""
    legend: Sequence[tuple[str, str, str]] = ()
    bands: Sequence[tuple[str, str, str]] = ()
    note: str = ""
    data: str = ""


# --- charts -----------------------------------------------------------------------------------------------


def line_chart(title: str, series: Sequence[Series], stage: str = "", note: str = "", share: bool = False) -> Figure:
    """Curves over steps; long noisy ones get a running mean on top. `share` pins the axis to 0–1."""
    drawn = [Series(s.label, thin(s.points), s.tone) for s in series if s.points]
    xs = [x for s in drawn for x, _ in s.points]
    ys = [y for s in drawn for _, y in s.points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = (0.0, 1.0) if share and max(ys) <= 1 and min(ys) >= 0 else padded(min(ys), max(ys))
    width, height = CHART_WIDTH - MARGIN_LEFT - MARGIN_RIGHT, CHART_HEIGHT - MARGIN_TOP - MARGIN_BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x_low) / (x_high - x_low) if x_high > x_low else 0.5
        up = (y - y_low) / (y_high - y_low)
        return MARGIN_LEFT + across * width, MARGIN_TOP + (1 - up) * height

    parts = []
    for tick in ticks(y_low, y_high, 4):
        _, y = at(x_low, tick)
        parts.append(line(MARGIN_LEFT, y, CHART_WIDTH - MARGIN_RIGHT, y, "grid"))
        parts.append(text(MARGIN_LEFT - 6, y + 4, number(tick), "end"))
    for tick in ticks(x_low, x_high, 5):
        if x_low <= tick <= x_high:
            parts.append(text(at(tick, y_low)[0], CHART_HEIGHT - 8, number(tick), "middle"))
    parts.append(text(MARGIN_LEFT - 6, CHART_HEIGHT - 8, "step", "end"))
    window = 1
    for s in drawn:
        if len(s.points) >= SMOOTH_FROM:
            window = max(3, len(s.points) // SMOOTH_SHARE)
            parts.append(path([at(*p) for p in s.points], f"curve faint {s.tone}"))
            parts.append(path([at(*p) for p in running_mean(s.points, window)], f"curve {s.tone}"))
        elif len(s.points) > 1:
            parts.append(path([at(*p) for p in s.points], f"curve {s.tone}"))
        else:
            x, y = at(*s.points[0])
            parts.append(tag("circle", kind=f"dot {s.tone}", cx=x, cy=y, r=3))
    parts.append(tag("line", kind="cursor", y1=MARGIN_TOP, y2=MARGIN_TOP + height))
    last = [number(s.points[-1][1]) for s in drawn]
    label = "; ".join(f"{s.label} from {number(s.points[0][1])} to {end}" for s, end in zip(drawn, last, strict=True))
    data = {
        "x": [x_low, x_high],
        "left": MARGIN_LEFT,
        "width": width,
        "series": [[[x, float(f"{y:.4g}")] for x, y in s.points] for s in drawn],
    }
    smoothed = f"thick line: mean over {window} points; number: last point" if window > 1 else ""
    return Figure(
        title,
        svg(CHART_WIDTH, CHART_HEIGHT, f"{title} over steps {number(x_low)} to {number(x_high)}: {label}", parts),
        aside=stage,
        legend=[(s.tone, s.label, end) for s, end in zip(drawn, last, strict=True)],
        note="; ".join(n for n in (note, smoothed) if n),
        data=json.dumps(data),
    )


def forest(rows: Sequence[Estimate], marks: Mapping[str, float], factor: float = 100) -> Markup:
    """One line per estimate: dot, interval, number; `marks` are reference values such as chance and majority.

    The axis spans what is drawn, out to the next tenths: dots are compared by place, so it need not start at 0.
    """
    left, width = FOREST_LABEL, FOREST_WIDTH - FOREST_LABEL - FOREST_VALUE
    drawn = [v for row in rows for v in (row.value, row.low, row.high) if v is not None] + list(marks.values())
    start, end = math.floor(min(drawn) * 10) / 10, math.ceil(max(drawn) * 10) / 10
    end = end if end > start else start + 0.1

    def x(value: float) -> float:
        return left + (value - start) / (end - start) * width

    bottom = len(rows) * FOREST_ROW + 4
    parts = []
    for tick in ticks(start, end, 3):
        parts.append(line(x(tick), 2, x(tick), bottom, "grid"))
        parts.append(text(x(tick), bottom + 14, number(tick * factor), "middle"))
    parts += [line(x(value), 2, x(value), bottom, f"mark {name}") for name, value in marks.items()]
    for index, row in enumerate(rows):
        y = index * FOREST_ROW + FOREST_ROW / 2 + 2
        parts.append(text(0, y + 4, fitted(row.label), "start", "label"))
        if row.low is not None and row.high is not None:
            parts.append(line(x(row.low), y, x(row.high), y, f"interval {row.tone}"))
        parts.append(tag("circle", kind=f"dot {row.tone}", cx=x(row.value), cy=y, r=4.5))
        parts.append(text(FOREST_WIDTH, y + 4, f"{row.value * factor:.1f}", "end", "value"))
    label = "; ".join(f"{row.label} {row.value * factor:.1f}" for row in rows)
    return svg(FOREST_WIDTH, len(rows) * FOREST_ROW + 26, label, parts)


def difference_strip(value: float, low: float, high: float, span: float) -> Markup:
    """A difference with its interval around 0; the strip reaches `span` either way, or as far as the interval."""
    reach = max(span, abs(low), abs(high), abs(value)) or 1.0

    def x(at: float) -> float:
        return STRIP_WIDTH / 2 * (1 + 0.96 * at / reach)

    y, tone = STRIP_HEIGHT / 2, "after" if value > 0 else "before"
    parts = [line(x(0), 0, x(0), STRIP_HEIGHT, "axis"), line(x(low), y, x(high), y, f"interval {tone}")]
    parts.append(tag("circle", kind=f"dot {tone}", cx=x(value), cy=y, r=3))
    return svg(STRIP_WIDTH, STRIP_HEIGHT, "", parts, "strip")


def histogram(edges: Sequence[float], counts: Sequence[int], x_label: str) -> Markup:
    """Bars between `edges` (one more than `counts`), each with its count above."""
    top = max([*counts, 1])
    base = HISTOGRAM_HEIGHT - 34
    low, high = edges[0], edges[-1]

    def x(value: float) -> float:
        return 6 + (value - low) / (high - low) * (HISTOGRAM_WIDTH - 12)

    parts = [line(0, base, HISTOGRAM_WIDTH, base, "axis")]
    for (start, end), count in zip(pairwise(edges), counts, strict=False):
        tall, wide = count / top * (base - 18), max(0.5, x(end) - x(start) - 2)
        parts.append(tag("rect", kind="bar", x=x(start) + 1, y=base - tall, width=wide, height=tall, rx="1.5"))
        if count:
            shown = str(count) if count < 10_000 else f"{count / 1000:.0f}k"
            parts.append(text((x(start) + x(end)) / 2, base - tall - 4, shown, "middle"))
    parts += [text(x(tick), base + 14, number(tick), "middle") for tick in ticks(low, high, 4)]
    parts.append(text(HISTOGRAM_WIDTH / 2, base + 30, x_label, "middle", "label"))
    return svg(HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, f"histogram of {x_label}: " + ", ".join(map(str, counts)), parts)


def stacked_bar(shares: Mapping[str, int]) -> Markup:
    """One bar split by counts; the classes `band-<name>` colour it."""
    total = sum(shares.values()) or 1
    pieces, x = [], 0.0
    for name, count in shares.items():
        width = count / total * HISTOGRAM_WIDTH
        title = f"{name.replace('_', ' ')}: {count}"
        pieces.append(
            tag("rect", tag("title", title), kind=f"band band-{name}", x=x, y=0, width=max(0.0, width - 1), height=12)
        )
        x += width
    return svg(HISTOGRAM_WIDTH, 12, ", ".join(f"{k} {v}" for k, v in shares.items()), pieces, "stack")


def calibration(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Accuracy over confidence, both 0 to 1: a dot per bin (confidence, accuracy, n), whose area grows with n."""
    side, edge = CALIBRATION_SIDE, 34
    span = side - edge - 10

    def at(x: float, y: float) -> tuple[float, float]:
        return edge + x * span, 10 + (1 - y) * span

    parts = []
    for tick in (0.0, 0.5, 1.0):
        parts += [line(*at(tick, 0), *at(tick, 1), "grid"), line(*at(0, tick), *at(1, tick), "grid")]
        parts.append(text(at(tick, 0)[0], side - 18, number(100 * tick), "middle"))
        parts.append(text(edge - 5, at(0, tick)[1] + 4, number(100 * tick), "end"))
    parts.append(line(*at(0, 0), *at(1, 1), "mark"))
    most = max(n for _, _, n in bins)
    for x, y, n in bins:
        (cx, cy), radius = at(x, y), 2.5 + 6 * math.sqrt(n / most)
        parts.append(tag("circle", tag("title", f"{n} questions"), kind="dot after", cx=cx, cy=cy, r=radius))
    parts.append(text(edge + span / 2, side - 3, "agreement of the answers", "middle", "label"))
    label = "; ".join(f"agreement {100 * x:.0f}, right {100 * y:.0f}, n {n}" for x, y, n in bins)
    return svg(side, side, f"accuracy over agreement: {label}", parts, "calibration")


def thin(points: Sequence[tuple[float, float]], most: int = MAX_POINTS) -> list[tuple[float, float]]:
    """At most `most` points: means of neighbours, the last one kept as it is."""
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / (most - 1))
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    means = [(g[len(g) // 2][0], sum(y for _, y in g) / len(g)) for g in groups]
    return [*means[:-1], points[-1]] if means else []


def running_mean(points: Sequence[tuple[float, float]], window: int) -> list[tuple[float, float]]:
    """The centred mean over `window` points; the window shrinks at the ends."""
    half = window // 2
    smooth = []
    for i, (x, _) in enumerate(points):
        near = points[max(0, i - half) : i + half + 1]
        smooth.append((x, sum(y for _, y in near) / len(near)))
    return smooth


# --- axes and numbers -------------------------------------------------------------------------------------


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


def fitted(name: str) -> str:
    return name if len(name) <= LABEL_LETTERS else name[: LABEL_LETTERS - 1] + "…"


def r(value: float) -> str:
    """A coordinate to a tenth of a pixel."""
    return f"{value:.1f}".removesuffix(".0")


# --- SVG elements -----------------------------------------------------------------------------------------


def tag(name: str, *inside: str, **attributes: str | float) -> Markup:
    """An element around escaped texts and other elements; `kind` is its class, numbers are coordinates."""
    texts = {k.replace("_", "-"): v if isinstance(v, str) else r(v) for k, v in attributes.items()}
    head = Markup("").join(Markup(' {}="{}"').format("class" if k == "kind" else k, v) for k, v in texts.items())
    if not inside:
        return Markup("<{}{}/>").format(name, head)
    return Markup("<{}{}>{}</{}>").format(name, head, Markup("").join(inside), name)


def svg(width: float, height: float, label: str, parts: Sequence[Markup], kind: str = "") -> Markup:
    named = {"role": "img", "aria_label": label} if label else {"aria_hidden": "true"}
    return tag("svg", *parts, kind=f"plot {kind}", viewBox=f"0 0 {r(width)} {r(height)}", **named)


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return tag("line", kind=kind, x1=x1, y1=y1, x2=x2, y2=y2)


def text(x: float, y: float, label: str, anchor: str, kind: str = "tick") -> Markup:
    return tag("text", label, kind=kind, x=x, y=y, text_anchor=anchor)


def path(points: Sequence[tuple[float, float]], kind: str) -> Markup:
    return tag("path", kind=kind, d="M" + "L".join(f"{r(x)} {r(y)}" for x, y in points))
