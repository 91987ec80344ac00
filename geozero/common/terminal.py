"""What the commands share: their common options, and the lines that they print about a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

PARAMS = Path("params.yaml")
ParamsFile = Annotated[Path, typer.Option("--params", help="The parameter file; profiles/ holds examples.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the whole plan and stop.")]


def summary(manifest: dict[str, Any], out: Path) -> None:
    """One line of a corpus, then one for each reason of refusal and each thing fixed, from its manifest."""
    typer.echo(
        f"{out}\t{manifest['n_samples']} samples\t{manifest['n_images']} images\t{manifest['n_rejects']} rejected"
    )
    for row in manifest["rejects"]:
        typer.echo(f"{row['source']}\trejected\t{row['reason']}\t{row['n']}")
    for what, n in manifest.get("notes", {}).get("mended", {}).items():
        typer.echo(f"{out}\tmended or odd, kept\t{what}\t{n}")
