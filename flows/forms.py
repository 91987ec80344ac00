"""What a run can be asked for in Prefect's form, with bounds; an empty field leaves the parameter file's value."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from geozero.errors import InputError
from geozero.params import Params
from geozero.workspace import Workspace

Steps = Annotated[int, Field(ge=1, le=1_000_000)]
LearningRate = Annotated[float, Field(gt=0, le=0.1)]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
GroupSize = Annotated[int, Field(ge=2, le=64)]
Weight = Annotated[float, Field(ge=0, le=10)]
Hours = Annotated[float, Field(gt=0, le=24 * 90)]
Limit = Annotated[int, Field(ge=1)]
Name = Annotated[str, Field(min_length=1, max_length=60, pattern=r"^[\w.\-]+$")]
Modes = Literal["both", "direct", "tagged"]
Stage = Literal["select", "difficulty", "filter", "raw"]
Engine = Literal["auto", "vllm", "transformers", "server"]
Answers = Annotated[int, Field(ge=1, le=1024)]
Shards = Annotated[int, Field(ge=1, le=4096)]
Number = Annotated[int, Field(ge=0, le=4095)]  # of a shard or a GPU


def opened(params: Path, section: str | None = None, seed: int | None = None, **given: Any) -> Workspace:
    """The workspace of a parameter file, with what the form was given in place of the file's values.

    Raises:
        InputError: no such file, or values that do not go together.
    """
    space = Workspace.open(params)
    changes = {name: value for name, value in given.items() if value is not None}
    if seed is None and not changes:
        return space
    values = space.settings.model_dump()
    if seed is not None:
        values["seed"] = seed
    if section is not None:
        values[section] |= changes
    try:
        settings = Params.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(first["msg"].removeprefix("Value error, "), where or "the form", "correct it") from None
    return replace(space, settings=settings)


def seconds(hours: float | None) -> float | None:
    """A time limit as Prefect takes it."""
    return None if hours is None else 3600.0 * hours
