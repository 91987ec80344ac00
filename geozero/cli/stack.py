"""`geozero stack up|down|status`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geozero.common.terminal import draw_table, echo

if TYPE_CHECKING:
    from geozero.stack.control import ServiceStatus

app = typer.Typer(help="A local stack: Prefect server, MLflow, a cpu and a gpu worker.", no_args_is_help=True)

Root = Annotated[Path, typer.Option("--root", help="The checkout; the stack's state is kept in its .geozero/.")]


def _pools(text: str | None) -> str | None:
    from geozero.stack.services import POOLS

    names = (text or "none").split(",")
    if names != ["none"] and (unknown := [name for name in names if name not in POOLS]):
        raise typer.BadParameter(f"'{unknown[0]}' is none of {', '.join(POOLS)}, none")
    return text


@app.command()
def up(
    root: Root = Path(),
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the Prefect server.")] = 4200,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Of the MLflow server.")] = 5000,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    pools: Annotated[
        str | None,
        typer.Option(callback=_pools, help="Which pools get a worker here: cpu,gpu (the default), cpu, gpu or none."),
    ] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds after which to give up.")] = 240,
) -> None:
    """Start the services that do not run yet; returns when all are healthy.

    Example: geozero stack up --port 4200 --mlflow-port 5000
    """
    from geozero.stack import control
    from geozero.stack.services import StackPlan

    place = root.resolve()
    chosen = control.pools_of(place) if pools is None else tuple(pool for pool in pools.split(",") if pool != "none")
    plan = StackPlan(place, host, port, mlflow_port, chosen)
    _show(control.up(plan, timeout, _log))
    _log(f"export PREFECT_API_URL={plan.prefect_address}/api")


@app.command()
def down(root: Root = Path()) -> None:
    """End the stack and everything that it has started; the history of runs stays.

    Example: geozero stack down
    """
    from geozero.stack import control

    if not control.down(root.resolve(), _log):
        _log("nothing was running")


@app.command()
def status(root: Root = Path()) -> None:
    """Show each service and its state; the exit code is 1 unless everything is up.

    Example: geozero stack status
    """
    from geozero.stack import control

    services = control.status(root.resolve())
    _show(services)
    if any(service.state != "up" for service in services):
        raise typer.Exit(1)


def _show(services: Iterable[ServiceStatus]) -> None:
    rows = [(one.name, one.state, str(one.pid or "-"), one.address, str(one.log)) for one in services]
    if sys.stdout.isatty():
        draw_table(("service", "state", "pid", "address", "log"), rows)
    else:
        echo("\n".join("\t".join(row) for row in rows))


def _log(line: str) -> None:
    echo(line, err=True)
