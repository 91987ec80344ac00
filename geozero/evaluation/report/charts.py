"""Small charts as SVG strings: they take their colours from the page's style sheet, so they follow light and dark.

Texts are escaped; sizes are SVG user units, which are CSS pixels at full width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from geozero.evaluation.report.svg import fitted, line, number, padded, path, r, short_count, svg, text, ticks

CHART_WIDTH, CHART_HEIGHT = 380, 200
MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 44, 12, 10, 26
MAX_POINTS = 400  # more than a chart of this width can show
SMOOTH_FROM = 20  # fewer points than this are drawn as they are
SMOOTH_SHARE = 12  # the running mean spans one part in this many of the curve
FOREST_WIDTH, FOREST_ROW, FOREST_LABEL, FOREST_VALUE = 300, 24, 116, 40
STRIP_WIDTH, STRIP_HEIGHT = 96, 12
HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT = 270, 150
CALIBRATION_SIDE = 220
MATRIX_SIDE, MATRIX_LABEL, MATRIX_MAX_NAMES = 340, 96, 24  # more classes than that are drawn without their names


@dataclass(frozen=True, slots=True)
class Series:
    """One curve: `points` are (step, value); `tone` names a colour class of the style sheet."""

    label: str
    points: Sequence[tuple[float, float]]
    tone: str = "after"


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawn chart: its image and, for the page's read-out under the pointer, its numbers as JSON."""

    title: str
    stage: str
    note: str
    svg: Markup
    series: Sequence[Series]
    data: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """A score with its 95 % interval (both in the metric's own scale)."""

    label: str
    value: float
    low: float | None
    high: float | None
    tone: str = "base"


def line_chart(title: str, series: Sequence[Series], stage: str = "", note: str = "", share: bool = False) -> Chart:
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
            x, _ = at(tick, y_low)
            parts.append(text(x, CHART_HEIGHT - 8, number(tick), "middle"))
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
            parts.append(Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(s.tone, r(x), r(y)))
    parts.append(Markup('<line class="cursor" y1="{}" y2="{}"/>').format(MARGIN_TOP, MARGIN_TOP + height))
    said = "; ".join(f"{s.label} from {number(s.points[0][1])} to {number(s.points[-1][1])}" for s in drawn)
    drawing = svg(CHART_WIDTH, CHART_HEIGHT, f"{title} over steps {number(x_low)} to {number(x_high)}: {said}", parts)
    data = {
        "x": [x_low, x_high],
        "left": MARGIN_LEFT,
        "width": width,
        "series": [[[x, float(f"{y:.4g}")] for x, y in s.points] for s in drawn],
    }
    smoothed = f"bold: mean over {window} points" if window > 1 else ""
    return Chart(title, stage, "; ".join(n for n in (note, smoothed) if n), drawing, drawn, json.dumps(data))


def forest(rows: Sequence[Estimate], marks: Mapping[str, float], factor: float = 100) -> Markup:
    """One line per estimate: dot, interval, number; `marks` are reference values such as chance and majority.

    The axis spans what is drawn, out to the next tenths: dots are compared by place, so it need not start at 0.
    """
    height = len(rows) * FOREST_ROW + 26
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
    for name, value in marks.items():
        parts.append(line(x(value), 2, x(value), bottom, f"mark {name}"))
    for index, row in enumerate(rows):
        y = index * FOREST_ROW + FOREST_ROW / 2 + 2
        parts.append(text(0, y + 4, fitted(row.label), "start", "label"))
        if row.low is not None and row.high is not None:
            parts.append(line(x(row.low), y, x(row.high), y, f"interval {row.tone}"))
        parts.append(Markup('<circle class="dot {}" cx="{}" cy="{}" r="4.5"/>').format(row.tone, r(x(row.value)), r(y)))
        parts.append(text(FOREST_WIDTH, y + 4, f"{row.value * factor:.1f}", "end", "value"))
    said = "; ".join(f"{row.label} {row.value * factor:.1f}" for row in rows)
    return svg(FOREST_WIDTH, height, said, parts)


def strip(row: Estimate, marks: Mapping[str, float], top: float = 1.0) -> Markup:
    """A table cell's interval on the 0–`top` scale, with the reference values as ticks."""

    def x(value: float) -> float:
        return 3 + max(0.0, min(1.0, value / top)) * (STRIP_WIDTH - 6)

    y = STRIP_HEIGHT / 2
    parts = [line(3, y, STRIP_WIDTH - 3, y, "grid")]
    parts += [line(x(v), 0, x(v), STRIP_HEIGHT, f"tick {name}") for name, v in marks.items()]
    if row.low is not None and row.high is not None:
        parts.append(line(x(row.low), y, x(row.high), y, f"interval {row.tone}"))
    parts.append(Markup('<circle class="dot {}" cx="{}" cy="{}" r="3"/>').format(row.tone, r(x(row.value)), r(y)))
    return svg(STRIP_WIDTH, STRIP_HEIGHT, "", parts, "strip")


def histogram(edges: Sequence[float], counts: Sequence[int], x_label: str) -> Markup:
    """Bars between `edges` (one more than `counts`), each with its count above."""
    top = max([*counts, 1])
    width = HISTOGRAM_WIDTH - 12
    base = HISTOGRAM_HEIGHT - 34
    low, high = edges[0], edges[-1]

    def x(value: float) -> float:
        return 6 + (value - low) / (high - low) * width

    parts = [line(0, base, HISTOGRAM_WIDTH, base, "axis")]
    for start, end, count in zip(edges, edges[1:], counts, strict=False):
        tall = count / top * (base - 18)
        bar = Markup('<rect class="bar" x="{}" y="{}" width="{}" height="{}" rx="1.5"/>')
        parts.append(bar.format(r(x(start) + 1), r(base - tall), r(max(0.5, x(end) - x(start) - 2)), r(tall)))
        if count:
            parts.append(text((x(start) + x(end)) / 2, base - tall - 4, short_count(count), "middle"))
    parts += [text(x(tick), base + 14, number(tick), "middle") for tick in ticks(low, high, 4)]
    parts.append(text(HISTOGRAM_WIDTH / 2, base + 30, x_label, "middle", "label"))
    return svg(HISTOGRAM_WIDTH, HISTOGRAM_HEIGHT, f"histogram of {x_label}: " + ", ".join(map(str, counts)), parts)


def stacked_bar(parts_of: Mapping[str, int]) -> Markup:
    """One bar split by counts; the classes `band-<name>` colour it."""
    total = sum(parts_of.values()) or 1
    pieces, x = [], 0.0
    for name, count in parts_of.items():
        width = count / total * HISTOGRAM_WIDTH
        piece = Markup('<rect class="band band-{}" x="{}" y="0" width="{}" height="12"><title>{}: {}</title></rect>')
        pieces.append(piece.format(name, r(x), r(max(0.0, width - 1)), name.replace("_", " "), count))
        x += width
    return svg(HISTOGRAM_WIDTH, 12, ", ".join(f"{k} {v}" for k, v in parts_of.items()), pieces, "stack")


def calibration(bins: Sequence[tuple[float, float, int]]) -> Markup:
    """Accuracy over confidence, both 0 to 1, a dot a bin (confidence, accuracy, n) whose area grows with n."""
    side, edge = CALIBRATION_SIDE, 34
    span = side - edge - 10

    def at(x: float, y: float) -> tuple[float, float]:
        return edge + x * span, 10 + (1 - y) * span

    parts = []
    for tick in (0.0, 0.5, 1.0):
        parts.append(line(*at(tick, 0), *at(tick, 1), "grid"))
        parts.append(line(*at(0, tick), *at(1, tick), "grid"))
        parts.append(text(at(tick, 0)[0], side - 18, number(100 * tick), "middle"))
        parts.append(text(edge - 5, at(0, tick)[1] + 4, number(100 * tick), "end"))
    parts.append(line(*at(0, 0), *at(1, 1), "mark"))
    most = max(n for _, _, n in bins)
    for x, y, n in bins:
        cx, cy = at(x, y)
        dot = Markup('<circle class="dot after" cx="{}" cy="{}" r="{}"><title>{} questions</title></circle>')
        parts.append(dot.format(r(cx), r(cy), r(2.5 + 6 * math.sqrt(n / most)), n))
    parts.append(text(edge + span / 2, side - 3, "agreement of the answers", "middle", "label"))
    said = "; ".join(f"agreement {100 * x:.0f}, right {100 * y:.0f}, n {n}" for x, y, n in bins)
    return svg(side, side, f"accuracy over agreement: {said}", parts, "calibration")


def confusion(classes: Sequence[str], columns: Sequence[str], matrix: Sequence[Sequence[int]]) -> Markup:
    """A heat map: rows are true classes, columns predicted ones, each cell shaded by its share of the row."""
    named = len(classes) <= MATRIX_MAX_NAMES
    left, top = (MATRIX_LABEL, MATRIX_LABEL) if named else (8, 8)
    cell = MATRIX_SIDE / max(len(columns), 1)
    parts = []
    for i, (name, row) in enumerate(zip(classes, matrix, strict=True)):
        total = sum(row) or 1
        if named:
            parts.append(text(left - 5, top + (i + 0.5) * cell + 4, fitted(name), "end"))
        for j, count in enumerate(row):
            if not count:
                continue
            kind = "cell right" if columns[j] == name else "cell wrong"
            square = Markup(
                '<rect class="{}" x="{}" y="{}" width="{}" height="{}" opacity="{}"><title>{}</title></rect>'
            )
            said = f"{name} taken for {columns[j]}: {count} of {total}"
            place = (r(left + j * cell), r(top + i * cell), r(max(0.6, cell - 1)), r(max(0.6, cell - 1)))
            parts.append(square.format(kind, *place, f"{0.12 + 0.88 * count / total:.2f}", said))
    if named:
        for j, name in enumerate(columns):
            turned = Markup('<text class="tick" text-anchor="start" transform="translate({} {}) rotate(-55)">{}</text>')
            parts.append(turned.format(r(left + (j + 0.5) * cell), r(top - 5), fitted(name)))
    frame = Markup('<rect class="frame" x="{}" y="{}" width="{}" height="{}"/>')
    parts.append(frame.format(left, top, r(MATRIX_SIDE), r(cell * len(classes))))
    right = sum(row[columns.index(name)] for name, row in zip(classes, matrix, strict=True) if name in columns)
    said = f"confusion of {len(classes)} classes, {right} of {sum(map(sum, matrix))} on the diagonal"
    width = left + MATRIX_SIDE + (40 if named else 8)
    return svg(width, top + cell * len(classes) + 8, said, parts, "matrix")


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
