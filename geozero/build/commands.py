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


def tile(
    scenes: Annotated[list[Path], typer.Argument(help="Pictures; GeoTIFF too (`pip install 'geozero[geo]'`).")],
    out: Annotated[Path, typer.Option(help="Directory to write; an older one of the same scenes is replaced.")],
    annotations: Annotated[Path | None, typer.Option(help="Their boxes: COCO's detection JSON.")] = None,
    side: Annotated[int, typer.Option(min=1, help="Pixels of a tile.")] = 512,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels that neighbours share at least; if left out, a quarter.")
    ] = None,
    bands: Annotated[str, typer.Option(help="As red, green and blue, from 1, such as 4,3,2.")] = "",
    stretch: Annotated[
        Literal["percentile", "range", "none"], typer.Option(help="What --low and --high mean.")
    ] = "percentile",
    low: Annotated[float, typer.Option(help="This value or percentile becomes black.")] = 2.0,
    high: Annotated[float, typer.Option(help="This value or percentile becomes white.")] = 98.0,
    joint: Annotated[bool, typer.Option("--joint", help="One stretch for all bands.")] = False,
) -> None:
    """Cut scenes, 16-bit and many-banded ones too, into 8-bit RGB tiles that `geozero ingest coco` reads.

    Example: geozero tile harbour.tif --bands 4,3,2 --annotations harbour.json --out tiles
    """
    from geozero.bands import Stretch
    from geozero.build.tile import tile_scenes
    from geozero.errors import InputError

    numbers = [part.strip() for part in bands.split(",") if part.strip()]
    if not all(part.isascii() and part.isdecimal() for part in numbers):
        raise InputError(f"bands '{bands}'", "--bands", "numbers from 1, separated by commas")
    made = tile_scenes(
        scenes,
        out,
        annotations,
        side=side,
        overlap=overlap,
        bands=tuple(map(int, numbers)),
        stretch=Stretch(stretch, low, high, joint),
    )
    typer.echo(f"{out}\t{made.tiles} tiles\t{made.objects} objects\t{made.vague} cut off")
