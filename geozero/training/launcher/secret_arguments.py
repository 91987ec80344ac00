"""Secrets among ms-swift's arguments (a hub token, an address with a password), which a section's `extra` may hold.

Command lines, which all users of a machine can read, show them as `***`; the launcher finds them in its environment and
keeps them out of what it writes: its output, `args.json` and the arguments pickled beside each checkpoint.
"""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from geozero.common.redaction import redacted

VARIABLE = "GEOZERO_SECRET_ARGUMENTS"  # a JSON object: name → value
SHORTEST = 4  # a shorter word is hidden under its name only, not wherever it stands


def secrets_of(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Those arguments that hold a secret."""
    shown = redacted(dict(arguments))
    return {name: value for name, value in arguments.items() if shown[name] != value}


def environment(arguments: Mapping[str, Any]) -> dict[str, str]:
    """What the launcher's environment has to hold besides its arguments; empty where none is secret."""
    secrets = secrets_of(arguments)
    return {VARIABLE: json.dumps(secrets)} if secrets else {}


def restore(words: Sequence[str]) -> list[str]:
    """In the launcher: its words with the secrets put back; from now on nothing is written with them."""
    from geozero.training.arguments import words_of

    secrets: dict[str, Any] = json.loads(os.environ.pop(VARIABLE, "{}"))
    if not secrets:
        return list(words)
    _conceal(secrets)
    restored: list[str] = []
    hidden = False  # whether the words since the last name stand for a secret
    for word in words:
        if word.startswith("--"):
            hidden = word[2:] in secrets
            restored += words_of(word[2:], secrets[word[2:]]) if hidden else [word]
        elif not hidden:
            restored.append(word)
    return restored


def _conceal(secrets: Mapping[str, Any]) -> None:
    import torch
    from swift.arguments import BaseArguments
    from transformers import TrainingArguments

    pairs = sorted(_pairs(dict(secrets), redacted(dict(secrets))), key=lambda pair: -len(pair[0]))

    def hide(text: str) -> str:
        for secret, shown in pairs:
            text = text.replace(secret, shown)
        return text

    for stream in (sys.stdout, sys.stderr):
        write = stream.write
        stream.write = lambda text, write=write: write(hide(text))  # type: ignore[method-assign]

    save_args, save = BaseArguments.save_args, torch.save

    def save_hidden_args(self: Any, output_dir: str | None = None) -> None:
        save_args(self, output_dir)
        file = Path(output_dir or self.output_dir) / "args.json"
        if file.is_file():
            values = redacted(json.loads(file.read_text()))
            file.write_text(hide(json.dumps(values, ensure_ascii=False, indent=2)))

    def save_hidden(value: Any, *given: Any, **options: Any) -> None:
        if isinstance(value, TrainingArguments):
            value = copy.copy(value)
            vars(value).update(redacted(vars(value)))
        save(value, *given, **options)

    BaseArguments.save_args, torch.save = save_hidden_args, save_hidden


def _pairs(given: Any, shown: Any) -> Iterator[tuple[str, str]]:
    """Each text that is a secret, and what is shown for it; also as JSON writes it."""
    if isinstance(given, Mapping):
        for name, value in given.items():
            yield from _pairs(value, shown[name]) if name in shown else ()
    elif isinstance(given, list):
        for one, other in zip(given, shown, strict=True):
            yield from _pairs(one, other)
    elif isinstance(given, str) and given != shown and len(given) >= SHORTEST:
        yield from {(given, shown), (json.dumps(given)[1:-1], shown), (repr(given)[1:-1], shown)}
