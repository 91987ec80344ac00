"""`geozero predict`: ask a model about your own images."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from geozero.cli.trust import TrustCheckpoint
from geozero.common.errors import InputError
from geozero.common.terminal import echo

if TYPE_CHECKING:
    from geozero.inference.predict import Prediction

app = typer.Typer()


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Images; GeoTIFF too (`pip install 'geozero\\[geo]'`).")],
    model: Annotated[str, typer.Option(help="A checkpoint, or a hub name in the local cache.")],
    question: Annotated[str, typer.Option(help="The question about each image.")] = "Describe this image.",
    engine: Annotated[Literal["auto", "vllm", "transformers"], typer.Option(help="The inference engine.")] = "auto",
    mode: Annotated[
        Literal["tagged", "direct"], typer.Option(help="tagged: think first; direct: answer alone.")
    ] = "tagged",
    boxes: Annotated[
        Literal["norm1000", "pixels", "resized28", "norm100", "norm1", "norm1024"] | None,
        typer.Option(help="What the model's coordinates mean; if left out, what its family is pre-trained with."),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens per answer.")] = 1024,
    max_megapixels: Annotated[float, typer.Option(min=0, help="A larger image is not asked about.")] = 64.0,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Ask a model about your own images.

    Example: geozero predict --model models/mine harbour.tif --question "Where is the largest ship?"
    """
    from geozero.inference.predict import predict as answer

    missing = [path for path in images if not path.is_file()]
    if len(missing) == len(images):
        raise InputError("no such image", str(missing[0]), "give files, not directories")
    show = block if sys.stdout.isatty() else line
    found = []
    for one in answer(
        model,
        images,
        question,
        engine=engine,
        mode=mode,
        boxes=boxes,
        max_tokens=max_tokens,
        max_megapixels=max_megapixels,
    ):
        found.append(one)
        if one.error is None or len(images) > 1:
            echo(show(one))
    if all(one.error is not None for one in found):
        raise InputError("no image could be answered about", str(found[0].image), str(found[0].error))


def line(found: Prediction) -> str:
    """One plain line: image, answer, boxes in pixels (and on the map), thought; tabs between, none within."""
    if found.error is not None:
        parts = [str(found.image), "failed", found.error]
    else:
        boxes = [" ".join(part) for part in _boxes(found)]
        parts = [str(found.image), found.answer, *boxes, *([found.thought] if found.thought else [])]
    return "\t".join(" ".join(part.split()) for part in parts)


def block(found: Prediction) -> str:
    """Several lines for a reader: the thought, then the answer."""
    if found.error is not None:
        return f"{found.image}: {found.error}"
    rows = [f"{found.image}", *([f"  {found.thought}"] if found.thought else []), f"  → {found.answer}"]
    return "\n".join([*rows, *(f"    box in {frame} {box}" for frame, box in _boxes(found))])


def _boxes(found: Prediction) -> Iterator[tuple[str, str]]:
    """The answer's boxes in pixels, then in the image's own coordinate system."""
    from geozero.tasks.boxes import format_box

    yield from (("pixels", format_box(box)) for box in found.boxes)
    for box in found.map_boxes:
        yield str(found.crs), f"[{', '.join(f'{v:.6f}' for v in box)}]"
