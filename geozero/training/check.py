"""Arguments against the installed ms-swift's own parsers: names, types and choices, before anything is loaded."""

from __future__ import annotations

from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from functools import cache
from typing import Any

from geozero.errors import InputError


def require(kind: str, words: Sequence[str]) -> None:
    """Parse the words the way ms-swift will, without acting on them.

    Args:
        kind: of the launcher: sft, grpo, export or rollout.

    Raises:
        InputError: an option is unknown or misspelt, or has a value that it cannot have; A²GRPO refuses it.
    """
    parser = _parser(kind)
    try:
        values, unknown = parser.parse_known_args(list(words))
    except (ArgumentError, _Wrong) as error:
        raise InputError(f"ms-swift: {error}", f"the arguments of {kind}", "see the section's `extra`") from None
    if unknown:
        raise InputError(f"ms-swift knows no {unknown[0]}", f"the arguments of {kind}", "see the section's `extra`")
    if kind == "grpo":
        from geozero.training.a2grpo import check_arguments

        check_arguments(values)


class _Wrong(Exception):
    """What argparse would end the process with."""


@cache
def _parser(kind: str) -> ArgumentParser:
    from swift.utils import utils
    from transformers import HfArgumentParser

    with utils._patch_get_type_hints():
        parser = HfArgumentParser([_arguments_class(kind)], allow_abbrev=False)

    def error(message: str) -> None:
        raise _Wrong(message)

    parser.error = error
    return parser  # type: ignore[no-any-return]


def _arguments_class(kind: str) -> Any:
    if kind == "grpo":
        from geozero.training.a2grpo import A2GRPOArguments

        return A2GRPOArguments
    from swift.arguments import ExportArguments, RolloutArguments, SftArguments

    return {"sft": SftArguments, "export": ExportArguments, "rollout": RolloutArguments}[kind]
