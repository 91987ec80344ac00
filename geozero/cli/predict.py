"""`geozero predict`: ask a model about one's own images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from geozero.common.errors import InputError

app = typer.Typer()


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images; GeoTIFF too (`pip install 'geozero\\[geo]'`).")],
    model: Annotated[str, typer.Option(help="A checkpoint, or a hub name in the local cache.")],
    question: Annotated[str, typer.Option(help="What is asked about each image.")] = "Describe this image.",
    engine: Annotated[Literal["auto", "vllm", "transformers"], typer.Option(help="What answers.")] = "auto",
    mode: Annotated[
        Literal["tagged", "direct"], typer.Option(help="tagged: think first; direct: answer alone.")
    ] = "tagged",
    boxes: Annotated[
        Literal["norm1000", "pixels", "resized28", "norm100"], typer.Option(help="What the model's coordinates mean.")
    ] = "norm1000",
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens an answer.")] = 1024,
) -> None:
    """Ask a model about one's own images.

    Example: geozero predict --model models/mine harbour.tif --question "Where is the largest ship?"
    """
    from geozero.engines import open_engine
    from geozero.inference import predict as ask

    missing = [path for path in images if not path.is_file()]
    if missing:
        raise InputError("no such image", str(missing[0]), "give files, not directories")
    show = ask.block if sys.stdout.isatty() else ask.line
    answering = open_engine(engine, model)
    found = []
    try:
        for one in ask.predict(answering, images, question, mode, boxes, max_tokens):
            found.append(one)
            if one.error is None or len(images) > 1:
                typer.echo(show(one))
    finally:
        answering.close()
    ask.require_any(found)
