"""The fields of Prefect's forms, with bounds; an empty field keeps the parameter file's value."""

from __future__ import annotations

import inspect
from dataclasses import replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import Field, ValidationError
from pydantic_core import MISSING

from geozero.common.errors import InputError
from geozero.params import Params
from geozero.workspace import Workspace

Flow = TypeVar("Flow")

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


def form(flow: Flow) -> Flow:
    """Make Prefect show `X | None = None` as a plain field that may stay empty.

    For a union Prefect shows a switch with the field behind it, and reports a wrong value only as matching no schema;
    for a plain type it shows the field and names the violated bound. The function itself does not change, only the
    signature that `prefect deploy` reads.
    """
    signature = inspect.signature(flow.fn, eval_str=True)  # type: ignore[attr-defined]
    fields = [
        one.replace(annotation=_without_none(one.annotation), default=MISSING) if one.default is None else one
        for one in signature.parameters.values()
    ]
    flow.__signature__ = signature.replace(parameters=fields)  # type: ignore[attr-defined]
    return flow


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    return Union[tuple(one for one in get_args(annotation) if one is not NoneType)]  # noqa: UP007 (of a list)


def opened(params: Path, section: str | None = None, seed: int | None = None, **given: Any) -> Workspace:
    """The workspace of a parameter file, with the values of a form in place of the file's.

    Raises:
        InputError: no such file, or values that contradict each other.
    """
    workspace = Workspace.open(params)
    changes = {name: value for name, value in given.items() if value is not None}
    if seed is None and not changes:
        return workspace
    values = workspace.settings.model_dump()
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
    return replace(workspace, settings=settings)


def seconds(hours: float | None) -> float | None:
    """A time limit in the unit that Prefect expects."""
    return None if hours is None else 3600.0 * hours
