"""A job in a process of its own: an engine keeps its memory until its process ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from geozero.common import process, process_tags
from geozero.common.atomic import write_json
from geozero.common.errors import InputError

BAD_INPUT = 2  # exit code of a child whose last line says what is wrong


def run_in_child(
    module: str, job: Any, job_file: Path, log: Path, on_line: Callable[[str], None] | None = None
) -> None:
    """Write `job` to `job_file` and run `python -m MODULE JOB_FILE`, its output to `log` and `on_line`.

    Raises:
        InputError: the child's own.
        ChildFailed: it ended with another error; the message holds its last lines.
    """
    write_json(job_file, job)
    try:
        process.run([sys.executable, "-m", module, str(job_file)], log=log, on_line=on_line)
    except process.ChildFailed as failed:
        if failed.code == BAD_INPUT and failed.tail:
            raise InputError(failed.tail[-1]) from None
        raise


def child_main(run: Callable[[dict[str, Any]], object], job_file: str) -> None:
    """The child's side: `run` gets the job; an InputError ends in one line and exit code 2."""
    process_tags.end_with_owner()
    try:
        run(json.loads(Path(job_file).read_text()))
    except InputError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(BAD_INPUT)
