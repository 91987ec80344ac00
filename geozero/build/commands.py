"""`geozero release`: the authors' formats, written and read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

app = typer.Typer(help="The official JSON and tar formats: write them, read them.", no_args_is_help=True)

Boxes = Annotated[
    Literal["norm1000", "pixels", "norm100"], typer.Option(help="What coordinates in training answers mean.")
]


@app.command("export")
def export_release(
    out: Annotated[Path, typer.Option(help="Directory to write; an older export there is replaced.")],
    raw: Annotated[Path | None, typer.Option(help="The corpus that becomes GeoZero-Raw.json.")] = None,
    instruct: Annotated[Path | None, typer.Option(help="The corpus that becomes GeoZero-Instruct.json.")] = None,
    hard: Annotated[Path | None, typer.Option(help="The corpus that becomes GeoZero-Hard.json.")] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A corpus whose test samples become eval/*.json; repeatable.")
    ] = None,
    boxes: Boxes = "norm1000",
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Which split of --eval is written.")] = "test",
) -> None:
    """Write corpora as the authors release them: JSON, tar shards of pictures, evaluation JSON. Says what is lost.

    Example: geozero release export --raw data/geozero-raw --hard data/geozero-hard --out release
    """
    from geozero.build.release_export import Kind, export

    given: dict[Kind, Path | None] = {"raw": raw, "instruct": instruct, "hard": hard}
    for line in export(out, {kind: path for kind, path in given.items() if path}, evals or [], boxes, split).lines():
        typer.echo(line)


@app.command("import")
def import_release(
    root: Annotated[Path, typer.Argument(help="The release's directory, or an archive of it.")],
    out: Annotated[Path, typer.Option(help="The corpus to write.")],
    file: Annotated[str, typer.Option(help="Name of the JSON list, where there are several.")] = "",
    boxes: Boxes = "norm1000",
    task: Annotated[
        Literal["scene_cls", "vqa", "caption", "grounding"] | None,
        typer.Option(help="Of an evaluation JSON that does not say it."),
    ] = None,
    split: Annotated[Literal["train", "val", "test"], typer.Option(help="Of an evaluation JSON.")] = "test",
    checks: Annotated[
        list[str] | None, typer.Option("--check", help="NAME=VALUE, what is asked of items; repeatable.")
    ] = None,
) -> None:
    """Read GeoZero-Raw, -Instruct, -Hard or an evaluation JSON as a corpus.

    Example: geozero release import ~/GeoZero_Train --file GeoZero-Hard.json --out data/hard
    """
    from geozero.build.checks import with_checks
    from geozero.build.release_import import import_release as read

    manifest: dict[str, Any] = read(
        root, out, file=file, boxes=boxes, task=task, split=split, checks=with_checks(checks or [])
    )
    typer.echo(
        f"{out}\t{manifest['n_samples']} samples\t{manifest['n_images']} images\t{manifest['n_rejects']} rejected"
    )
    for row in manifest["rejects"]:
        typer.echo(f"{row['source']}\trejected\t{row['reason']}\t{row['n']}")
