"""What a flow shows in Prefect beside its states, and can do without: a progress bar of a long stage, artifacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import get_run_logger
from prefect.artifacts import create_progress_artifact, update_progress_artifact

from geozero.common.progress import Progress


def leave_artifact(create: Callable[..., object], **given: Any) -> None:
    """Create an artifact by one of Prefect's functions; a server that is away costs the artifact, not the run."""
    try:
        create(**given)
    except Exception as error:
        get_run_logger().warning(f"no artifact {given.get('key')}: {error}")


@contextmanager
def artifact_progress(stage: str, steps: int, unit: str = "step") -> Iterator[Progress]:
    """Shown with the task that calls it; without an answer from the server there is no bar, but the stage runs."""
    artifact: Any = None
    try:
        artifact = create_progress_artifact(0.0, key=f"{stage}-progress", description=f"{stage}: starting")
    except Exception as error:
        get_run_logger().warning(f"no progress bar: {error}")

    def publish(percent: float, text: str) -> None:
        if artifact is not None:
            update_progress_artifact(artifact, percent, description=text)

    with Progress(stage, steps, unit, publish=publish) as progress:
        yield progress
