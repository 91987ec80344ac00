"""What the commands share: common options, lines about a corpus, tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from geozero.common.redaction import plain

PARAMS = Path("params.yaml")
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameter file; profiles/ holds examples.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the whole plan and stop.")]


def echo(text: str, err: bool = False) -> None:
    """Print to the terminal; what would control it is written out."""
    typer.echo(plain(text), err=err)


def summary(manifest: dict[str, Any], out: Path) -> None:
    """One line of a corpus, then one for each reason of refusal and each thing fixed, from its manifest."""
    echo(f"{out}\t{manifest['n_samples']} samples\t{manifest['n_images']} images\t{manifest['n_rejects']} rejected")
    for row in manifest["rejects"]:
        echo(f"{row['source']}\trejected\t{row['reason']}\t{row['n']}")
    notes = manifest.get("notes", {})
    for what, (here, published) in notes.get("published", {}).items():
        echo(f"{out}\tother than published\t{what}\t{here}\t{published}")
    if "splits" in notes:
        echo(f"{out}\tsplits\t{notes['splits']}")
    for what, n in notes.get("mended", {}).items():
        echo(f"{out}\tfixed or unusual, kept\t{what}\t{n}")


def draw_table(titles: Sequence[str], rows: Iterable[Sequence[str | tuple[str, str]]]) -> None:
    """Draw a table on the terminal; a cell is a text, or a text with its style."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        cells = (cell if isinstance(cell, tuple) else (cell, "") for cell in row)
        table.add_row(*(Text(plain(text), style) for text, style in cells))
    Console().print(table)
