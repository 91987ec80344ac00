"""The command line: each command parses its words and calls one function. Heavy imports wait until they are needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.exceptions import TyperException

from geozero import __version__
from geozero.cli.data import app as build
from geozero.cli.difficulty import app as difficulty
from geozero.cli.evaluation import app as evaluation
from geozero.cli.runs import app as runs
from geozero.cli.stack import app as stack
from geozero.cli.toy import app as toy
from geozero.cli.training import app as training
from geozero.common import process
from geozero.common.errors import InputError, refusal

EXIT_BAD_INPUT = 2
app = typer.Typer(
    name="geozero",
    help="Teach vision-language models to reason about remote sensing images without hand-written reasoning.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"geozero {__version__}")
        raise typer.Exit


@app.command()
def doctor() -> None:
    """What this machine can run, what is missing and how to fix it.

    Example: geozero doctor
    """
    from geozero.doctor import doctor as examine
    from geozero.doctor import render

    render(examine())


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


# Without a name, a room's commands stand beside the others; in the order of the work.
app.add_typer(build)
app.add_typer(difficulty)
app.add_typer(training)
app.add_typer(evaluation)
app.command()(predict)
app.add_typer(toy, name="toy")
app.add_typer(stack, name="stack")
app.add_typer(runs, name="runs")


def main() -> None:
    """Run the command line: 0 done, 2 wrong use or bad input (one line), 1 our fault (traceback)."""
    process.end_with_caller()
    try:
        sys.exit(app(prog_name="geozero", standalone_mode=False))
    except InputError as error:
        fault = error
    except TyperException as error:  # wrong use: typer itself would draw a box of several lines
        what = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
        if not what:  # a command without arguments has shown its help
            sys.exit(error.exit_code)
        context = getattr(error, "ctx", None)
        fault = InputError(what, hint=f"see `{context.command_path if context else 'geozero'} --help`")
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise
        fault = refused
    typer.echo(f"geozero: {fault}", err=True)
    sys.exit(EXIT_BAD_INPUT)
