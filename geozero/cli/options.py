"""Option types that several commands share."""

from __future__ import annotations

from typing import Any

import typer

from geozero.tasks import TASKS


def task_option(help: str, *names: str) -> Any:
    """An option that takes the name of a task."""
    return typer.Option(*names, parser=_task, metavar=f"[{'|'.join(TASKS)}]", help=help)


def _task(name: str) -> str:
    if name not in TASKS:
        raise typer.BadParameter(f"unknown task '{name}' (one of {', '.join(TASKS)})")
    return name
