"""The headline plots as files of their own: SVG that carries its colours, for papers, issues and MLflow."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from geozero.evaluation.report.scores import World

STYLE = (Path(__file__).parent / "page.css").read_text(encoding="utf-8")
_OPENING = re.compile(r"<svg\b[^>]*>")


def plot_files(worlds: Sequence[World]) -> Iterator[tuple[str, str]]:
    """File name and SVG of each headline figure; names are unique and plain."""
    seen: set[str] = set()
    for world in worlds:
        for figure in world.headlines:
            name = (
                re.sub(r"[^a-z0-9]+", "-", f"{world.name} {figure.title} {figure.split}".lower()).strip("-") or "plot"
            )
            while name in seen:
                name += "-2"
            seen.add(name)
            yield f"{name}.svg", standalone(str(figure.plot))


def standalone(svg: str) -> str:
    """A plot of the page as a file: name space, a white ground, and the page's light colours."""
    style = "\n".join(
        line for line in _light().splitlines() if line.startswith((":root", "  --", "}", ".plot", ".base"))
    )
    opening = _OPENING.match(svg)
    if opening is None:
        raise ValueError("no SVG")
    head = opening.group().replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return f'{head}<style>{style}</style><rect width="100%" height="100%" fill="#fff"/>{svg[opening.end() :]}\n'


def _light() -> str:
    """The style sheet without what holds in the dark only."""
    dark = STYLE.index("@media (prefers-color-scheme: dark)")
    return STYLE[:dark] + STYLE[STYLE.index("\n}\n", dark) + 3 :]
