"""`geozero download`: the one command that goes online."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geozero.common.errors import EXIT_BAD_INPUT
from geozero.common.terminal import echo

app = typer.Typer()


@app.command()
def download(
    sources: Annotated[list[str], typer.Argument(help="Names that `geozero sources` lists.")],
    root: Annotated[Path, typer.Option(help="Each data set gets a directory of its name in here.")],
    jobs: Annotated[int, typer.Option(min=1, help="Files that are fetched at a time.")] = 4,
    extras: Annotated[bool, typer.Option("--extras", help="Also files that others added, such as splits.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what is known and stop; nothing is fetched.")
    ] = False,
) -> None:
    """Fetch data sets, verify them, and print the steps for those that need a person.

    Run it again to resume what was interrupted, or to check what you fetched by hand.

    Example: geozero download eurosat rsvqa_lr --root ~/archives
    """
    from geozero.curation.download.download import about
    from geozero.curation.download.download import download as fetch

    for source in sources:
        for line in about(source, root / source) if dry_run else ():
            echo("\t".join(line))
    if not dry_run and not fetch(sources, root, jobs=jobs, extras=extras, on_line=lambda line: echo("\t".join(line))):
        raise typer.Exit(EXIT_BAD_INPUT)
