"""Arguments against the installed ms-swift's own parsers: names, types and choices, before anything is loaded."""

from __future__ import annotations

import json
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError


def validate_arguments(kind: str, words: Sequence[str]) -> Any:
    """Parse the words the way ms-swift will, without acting on them; returns what they say.

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
        from geozero.training.grpo.swift_checks import check_arguments

        check_arguments(values)
    return values


def validate_architecture(model: Path, model_type: str) -> None:
    """Refuse a checkpoint that is no model of ms-swift's `model_type`; it would fail far from here, or load as noise.

    Raises:
        InputError: its configuration names architectures, none of which ms-swift lists for the type, or a type of
            configuration that its architecture does not have.
    """
    import transformers
    from swift.model import MODEL_MAPPING

    file = model / "config.json"
    config = json.loads(file.read_text())
    found = config.get("architectures") or []
    known = MODEL_MAPPING[model_type].architectures if model_type in MODEL_MAPPING else []
    if found and known and not set(found) & set(known):
        raise InputError(
            f"a {found[0]}, but model.model_type is {model_type} ({', '.join(known)})",
            str(file),
            "give a checkpoint of that architecture, or set model.model_type to this one's",
        )
    built = getattr(transformers, found[0], None) if found else None
    wanted = getattr(getattr(built, "config_class", None), "model_type", None)
    if wanted and config.get("model_type") != wanted:
        said = f"its model_type is {config.get('model_type')}, but a {found[0]}'s is {wanted}"
        raise InputError(said, str(file), "download the checkpoint again")


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
        from geozero.training.grpo.trainer import A2GRPOArguments

        return A2GRPOArguments
    from swift.arguments import ExportArguments, RolloutArguments, SftArguments

    return {"sft": SftArguments, "export": ExportArguments, "rollout": RolloutArguments}[kind]
