"""The command line: each command parses its arguments and calls one function. Heavy imports wait until needed."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from typer.exceptions import TyperException

from geozero import __version__
from geozero.cli.data import app as data
from geozero.cli.difficulty import app as difficulty
from geozero.cli.download import app as download
from geozero.cli.evaluation import app as evaluation
from geozero.cli.predict import app as predict
from geozero.cli.probe_thinking import app as probe_thinking
from geozero.cli.runs import app as runs
from geozero.cli.stack import app as stack
from geozero.cli.toy import app as toy
from geozero.cli.trace import app as trace
from geozero.cli.training import app as training
from geozero.common import process_tags
from geozero.common.errors import EXIT_BAD_INPUT, InputError, refusal
from geozero.common.redaction import PlainFormatter
from geozero.common.terminal import echo

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
        echo(f"geozero {__version__}")
        raise typer.Exit


@app.command()
def doctor() -> None:
    """What this machine can run, what is missing and how to fix it.

    Example: geozero doctor
    """
    from geozero.doctor import doctor as examine
    from geozero.doctor import render

    render(examine())


# A group without a name puts its commands beside the others, in the order of the work.
app.add_typer(download)
app.add_typer(data)
app.add_typer(difficulty)
app.add_typer(training)
app.add_typer(evaluation)
app.add_typer(probe_thinking)
app.add_typer(predict)
app.add_typer(trace)
app.add_typer(toy, name="toy")
app.add_typer(stack, name="stack")
app.add_typer(runs, name="runs")


def main() -> None:
    """Run the command line: 0 done, 2 wrong use or bad input (one line), 1 our fault (traceback)."""
    process_tags.end_with_owner()
    if logging.lastResort is not None:  # the handler of whoever sets up none, as here
        logging.lastResort.setFormatter(PlainFormatter())
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
    echo(f"geozero: {fault}", err=True)
    sys.exit(EXIT_BAD_INPUT)
