"""Modules of ours as child processes: a model's memory is free only when its process has ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geozero.common import process, process_tags
from geozero.common.atomic import write_json
from geozero.common.errors import EXIT_BAD_INPUT, InputError


def run_module(module: str, *words: str, **options: Any) -> None:
    """Run `python -m MODULE WORDS`, its lines passed on as they are written; `options` are those of `process.run`.

    Raises:
        InputError: the module's own.
        ChildFailed: it ended with another error; the message holds its last lines.
    """
    try:
        process.run([sys.executable, "-u", "-m", module, *words], **options)
    except process.ChildFailed as failed:
        if failed.code == EXIT_BAD_INPUT and failed.tail:  # its last line says what is wrong
            raise InputError(failed.tail[-1].removeprefix("geozero: ")) from None
        raise


def run_job(
    module: str,
    job: Any,
    file: Path,
    log: Path,
    on_line: Callable[[str], None] | None = None,
    **options: Any,
) -> None:
    """Write `job` to `file` and run the module on it; raises what `run_module` raises, whose `options` these are."""
    write_json(file, job)
    run_module(module, str(file), log=log, on_line=on_line, **options)


def job_main(run: Callable[[dict[str, Any]], object], file: str) -> None:
    """The child's side of `run_job`: `run` gets the job; an InputError ends in one line and exit code 2."""
    process_tags.end_with_owner()
    try:
        run(json.loads(Path(file).read_text()))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT)
