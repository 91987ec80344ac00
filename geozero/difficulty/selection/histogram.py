"""How pass rates spread, per task: plain numbers for the report, and an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from geozero.common.atomic import replacing
from geozero.common.errors import InputError

MOST_BINS = 20
FORMATS = (".png", ".svg", ".pdf")


def histogram(rates: npt.NDArray[np.float64], k: int) -> dict[str, list[float] | list[int]]:
    """Edges and counts of pass rates: one bin for each possible number of successes, at most `MOST_BINS`.

    Args:
        rates: pass rates [N] in [0, 1]; NaN is left out.
        k: answers a sample.
    """
    bins = min(k + 1, MOST_BINS)
    known = rates[~np.isnan(rates)]
    counts = np.bincount(np.rint(known * (bins - 1)).astype(int), minlength=bins)
    edges = (np.arange(bins + 1) - 0.5) / max(1, bins - 1)
    return {"edges": [round(float(e), 6) for e in edges], "counts": [int(c) for c in counts]}


def check_name(out: Path) -> None:
    """Raises InputError if an image of that name cannot be drawn."""
    if out.suffix.lower() not in FORMATS:
        raise InputError("unknown kind of image", str(out), f"use a name that ends in {', '.join(FORMATS)}")


def draw(numbers: dict[str, Any], out: Path, easy: float, hard: float) -> None:
    """Draw one histogram a task, the selection's two thresholds in it, to a PNG, SVG or PDF file.

    Args:
        numbers: task → what `histogram` gives.
        easy: pass rate from which on a sample is easy.
        hard: pass rate up to which a sample is hard.
    """
    check_name(out)
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "geozero"  # equal numbers, equal bytes
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, max(1, len(numbers)), figsize=(3.2 * max(1, len(numbers)), 2.8), squeeze=False)
    for axis, (task, values) in zip(axes[0], sorted(numbers.items()), strict=False):
        edges = np.array(values["edges"])
        middles = (edges[1:] + edges[:-1]) / 2
        colours = ["#2a9d8f" if m >= easy else "#e76f51" if m <= hard else "#adb5bd" for m in middles]
        axis.bar(middles, values["counts"], width=np.diff(edges) * 0.9, color=colours)
        for threshold in (easy, hard):
            axis.axvline(threshold, color="#495057", linewidth=0.8, linestyle=":")
        axis.set_title(task, fontsize=10)
        axis.set_xlabel("pass rate", fontsize=8)
        axis.tick_params(labelsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("samples", fontsize=8)
    figure.tight_layout()
    metadata = {".png": None, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[out.suffix.lower()]
    with replacing(out) as temporary:
        figure.savefig(temporary, format=out.suffix.lower().lstrip("."), dpi=150, metadata=metadata)
    plt.close(figure)
