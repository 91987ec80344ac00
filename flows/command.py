"""How a flow starts from a shell: bad input ends in one line and exit code 2, before a server is started for it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geozero.engines import checkpoint
from geozero.errors import InputError
from geozero.workspace import Workspace

BAD_INPUT = 2


def start(flow: Any, model: bool = False, check: Callable[[Workspace], object] | None = None) -> None:
    """Run a flow with `--params FILE`.

    Args:
        model: the flow's first argument is a checkpoint, given before the options.
        check: raises InputError where the flow cannot run in this checkout.
    """
    parser = argparse.ArgumentParser(description=flow.description)
    if model:
        parser.add_argument("model", type=Path, help="directory of a checkpoint")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), help="the parameter file")
    given = parser.parse_args()
    try:
        space = Workspace.open(given.params)
        if check is not None:
            check(space)
        if model:
            checkpoint.resolve(given.model)
        flow(**vars(given))
    except InputError as error:
        print(f"geozero: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)
