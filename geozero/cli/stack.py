"""`geozero stack up|down|status`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geozero.stack.control import ServiceStatus

app = typer.Typer(help="A local stack: Prefect server, MLflow, a cpu and a gpu worker.", no_args_is_help=True)

Root = Annotated[Path, typer.Option("--root", help="The checkout; the stack's state lies in its .geozero/.")]


@app.command()
def up(
    root: Root = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Of the MLflow server.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which it gives up.")] = 240,
) -> None:
    """Start what does not run yet; returns when all is healthy.

    Example: geozero stack up --port 4200 --mlflow-port 5000
    """
    from geozero.stack import control
    from geozero.stack.services import StackPlan

    _show(
        control.up(
            StackPlan(root.resolve(), host, port, mlflow_port), timeout, tell=lambda line: typer.echo(line, err=True)
        )
    )
    typer.echo(f"export PREFECT_API_URL={StackPlan(root, host, port).prefect_address}/api", err=True)


@app.command()
def down(root: Root = Path()) -> None:
    """End the stack and whatever it has started; the history of runs stays.

    Example: geozero stack down
    """
    from geozero.stack import control

    if not control.down(root.resolve(), tell=lambda line: typer.echo(line, err=True)):
        typer.echo("nothing was running", err=True)


@app.command()
def status(root: Root = Path()) -> None:
    """What runs and where; the exit code is 1 unless everything is up.

    Example: geozero stack status
    """
    from geozero.stack import control

    parts = control.status(root.resolve())
    _show(parts)
    if any(part.state != "up" for part in parts):
        raise typer.Exit(1)


def _show(parts: Iterable[ServiceStatus]) -> None:
    rows = [(p.name, p.state, str(p.pid or "-"), p.address, str(p.log)) for p in parts]
    if not sys.stdout.isatty():
        for row in rows:
            typer.echo("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("part", "state", "pid", "address", "log", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        table.add_row(*row)
    Console().print(table)
