"""Arguments against the installed ms-swift's own parsers: names, types and choices, before anything is loaded."""

from __future__ import annotations

import json
from argparse import ArgumentError, ArgumentParser
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from geozero.common.errors import InputError


def validate_arguments(kind: str, words: Sequence[str]) -> Any:
    """Parse the words the way ms-swift will, without acting on them; returns what they say.

    Args:
        kind: of the launcher: sft, grpo, export or rollout.

    Raises:
        InputError: an option is unknown or misspelt, or has a value that it cannot have; A²GRPO refuses it.
    """
    place, hint = f"the arguments of {kind}", "see the section's `extra`"
    try:
        values, unknown = _parser(kind).parse_known_args(list(words))
    except (ArgumentError, ValueError) as error:
        raise InputError(f"ms-swift: {error}", place, hint) from None
    if unknown:
        raise InputError(f"ms-swift knows no {unknown[0]}", place, hint)
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
        what = f"a {found[0]}, but model.model_type is {model_type} ({', '.join(known)})"
        hint = "give a checkpoint of that architecture, or set model.model_type to this one's"
        raise InputError(what, str(file), hint)
    built = getattr(transformers, found[0], None) if found else None
    expected = getattr(getattr(built, "config_class", None), "model_type", None)
    if expected and config.get("model_type") != expected:
        what = f"its model_type is {config.get('model_type')}, but a {found[0]}'s is {expected}"
        raise InputError(what, str(file), "download the checkpoint again")


@cache
def _parser(kind: str) -> ArgumentParser:
    from swift import arguments
    from swift.utils import utils
    from transformers import HfArgumentParser

    known: Any = arguments
    if kind == "grpo":
        from geozero.training.grpo import trainer as known
    name = "A2GRPOArguments" if kind == "grpo" else f"{kind.title()}Arguments"  # of ms-swift: Sft, Export, Rollout
    with utils._patch_get_type_hints():
        parser: ArgumentParser = HfArgumentParser([getattr(known, name)], allow_abbrev=False)

    def error(message: str) -> NoReturn:  # in place of argparse's, which ends the process
        raise ValueError(message)

    parser.error = error  # type: ignore[method-assign]
    return parser
