"""The ablation as one HTML page: scores and differences drawn with their seeds, how thoughts went, all tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from benchmarks.ablation.by_type import HEADER, cells
from benchmarks.ablation.statistics import COSTS, OURS, SHAPES, STEPS, gap_of, shown
from geozero.common.atomic import write_text
from geozero.training.metrics import read

CURVES = {
    "answer_reward": "answer reward",
    "thought_words": "words a thought",
    "well_formed": "well formed",
    "distinct": "distinct-3",
    "answer_kl": "KL on the answer, nats a token",
    "dropped_groups": "share of groups without a signal",
}
INK, FAINT = "#1d5fd1", "#8d959c"
ROW = 0.34  # inches
WINDOW = 8  # steps of the running mean


def write(found: Mapping[str, Any], results: Sequence[Mapping[str, Any]], runs: Path, start: str, out: Path) -> None:
    """Write the page; it needs nothing else.

    Args:
        found: `statistics.report`.
        runs: where the arms' stages lie, for their curves.
        start: what the arms started from.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    text = environment.get_template("page.html.j2").render(
        start=start,
        arms=found["arms"],
        splits=found["splits"],
        drawings={split: _scores(found["arms"], rows) for split, rows in found["splits"].items()},
        curves=_curves(results, runs),
        gap_of=gap_of,
        shown=shown,
        about=(*SHAPES, *COSTS, STEPS),
        by_type=found.get("by_type", {}),
        header=HEADER,
        cells=cells,
    )
    write_text(out, text)


def _scores(arms: Mapping[str, Any], rows: Mapping[str, Any]) -> Markup:
    """Left: every row's mean over tasks, its interval, and each seed; right: A²GRPO minus the row."""
    figure = Figure(figsize=(11, 1.1 + ROW * len(rows)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    places = np.arange(len(rows))[::-1]
    for place, (name, row) in zip(places, rows.items(), strict=True):
        ink = INK if name == OURS else "#444"
        left.plot(
            [100 * v for v in row["by_seed"]], [place - 0.28] * len(row["by_seed"]), "|", color=FAINT, ms=6, mew=1.5
        )
        left.plot([100 * v for v in row["interval"]], [place, place], color=ink, lw=1.6)
        left.plot(100 * row["mean"], place, "o", color=ink, ms=6)
        gap = row.get(f"{OURS} minus it")
        if gap:
            right.plot([100 * gap["low"], 100 * gap["high"]], [place, place], color="#444", lw=1.6)
            right.plot(100 * gap["difference"], place, "o", color="#444", ms=6)
    left.set_yticks(places, [arms[name]["what"] for name in rows])
    left.set_xlabel("mean over tasks, percent; grey: single seeds")
    right.axvline(0, color=INK, lw=1)
    right.set_xlabel("A²GRPO minus it, points")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="x", color="#eee")
        axes.set_axisbelow(True)
    return _svg(figure)


def _curves(results: Sequence[Mapping[str, Any]], runs: Path) -> Markup:
    """What training logged, the mean of each arm's seeds, smoothed."""
    rows: dict[str, dict[str, list[list[float]]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        curve = read(runs / result["run"] / "metrics.jsonl")
        for name in CURVES:
            values = [row[name] for row in curve if name in row]
            if values:
                rows[name][result["arm"]].append(values)
    drawn = [name for name in CURVES if rows[name]]
    if not drawn:
        return Markup("")
    across = 2
    down = -(-len(drawn) // across)
    figure = Figure(figsize=(11, 2.8 * down), layout="constrained")
    grid = figure.subplots(down, across, squeeze=False).ravel()
    for axes, name in zip(grid, drawn, strict=False):
        for arm, curves in rows[name].items():
            steps = min(map(len, curves))
            mean = np.mean([curve[:steps] for curve in curves], axis=0)
            smooth = np.convolve(mean, np.ones(min(WINDOW, steps)) / min(WINDOW, steps), mode="valid")
            width = 2.4 if arm == OURS else 1.2
            axes.plot(np.arange(steps - len(smooth), steps) + 1, smooth, lw=width, label=arm)
        axes.set_title(CURVES[name], loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[len(drawn) :]:
        axes.set_axis_off()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False)
    return _svg(figure)


def _svg(figure: Figure) -> Markup:
    """The drawing alone, without the file's head."""
    text = StringIO()
    FigureCanvasSVG(figure).print_svg(text, metadata={"Date": None})
    drawing = text.getvalue()
    return Markup(drawing[drawing.index("<svg") :])
