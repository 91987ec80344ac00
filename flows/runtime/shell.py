"""Start a flow from a shell: bad input ends in one line and exit code 2, before a server is started for it."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geozero.common.errors import EXIT_BAD_INPUT, InputError
from geozero.engines import checkpoint
from geozero.workspace import Workspace

PREFECT_LOGGERS = ("prefect.flow_runs", "prefect.task_runs", "prefect.engine")


def start(
    flow: Any,
    model: bool = False,
    check: Callable[..., object] | None = None,
    options: Callable[[argparse.ArgumentParser], object] | None = None,
    choose: Callable[[dict[str, Any]], Callable[..., object]] | None = None,
) -> None:
    """Run a flow with `--params FILE`.

    Args:
        model: whether the flow's first argument is a checkpoint.
        check: takes the workspace and the flow's own options; raises InputError where the flow cannot run.
        options: adds the flow's own options to the parser.
        choose: removes the options that say where the flow runs, and returns the function that runs it there.
    """
    parser = argparse.ArgumentParser(description=flow.description.partition("\n")[0])
    if model:
        parser.add_argument("model", type=Path, help="directory of a checkpoint")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the parameter file")
    if options is not None:
        options(parser)
    given = vars(parser.parse_args())
    try:
        run = flow if choose is None else choose(given)
        workspace = Workspace.open(given["params"])
        if check is not None:
            check(workspace, **{name: value for name, value in given.items() if name not in ("model", "params")})
        if model:
            checkpoint.resolve(given["model"])
        require_server()
        run(**given)
    except InputError as error:
        print(f"geozero: {error}", file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)


def require_server() -> None:
    """Raises InputError if a Prefect server is configured that does not answer; without one, none is needed."""
    from prefect import get_client
    from prefect.settings import PREFECT_API_URL

    address = PREFECT_API_URL.value()
    if not address:
        return
    with get_client(sync_client=True) as client:
        fault = client.api_healthcheck()
    if fault is not None:
        hint = "start it with `geozero stack up`, or unset PREFECT_API_URL to run without one"
        raise InputError(f"no Prefect server answers: {str(fault).splitlines()[0][:200]}", address, hint)


def without_traceback(record: logging.LogRecord) -> bool:
    """A logging filter that drops the traceback of bad input; the message is enough."""
    if record.exc_info and isinstance(record.exc_info[1], InputError):
        record.exc_info = None
    return True


for _name in PREFECT_LOGGERS:  # wherever a flow runs, because people read a worker's log too
    logging.getLogger(_name).addFilter(without_traceback)
