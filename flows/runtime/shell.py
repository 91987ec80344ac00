"""How a flow starts from a shell: bad input ends in one line and exit code 2, before a server is started for it."""

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
        model: the flow's first argument is a checkpoint, given before the options.
        check: gets the workspace and what was given for `options`; raises InputError where the flow cannot run.
        options: adds the words that are this flow's own.
        choose: takes those words that say where the flow runs out of what was given, and returns what runs it.
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
    """Raises InputError where a Prefect server is set that does not answer; none set is none needed."""
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
    """Let every record pass, but bad input without its traceback: the message is what its reader needs."""
    if record.exc_info and isinstance(record.exc_info[1], InputError):
        record.exc_info = None
    return True


for _name in PREFECT_LOGGERS:  # wherever a flow runs: a worker's log is read by people, too
    logging.getLogger(_name).addFilter(without_traceback)
