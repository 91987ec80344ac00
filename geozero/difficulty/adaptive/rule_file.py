"""The frozen stopping rule on disk, beside the answers that it was learned from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from geozero import params
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.difficulty.adaptive.stopping_rule import Rule


def save(directory: Path, rule: Rule) -> Rule:
    """Freeze a rule in a fingerprint's directory; where another worker was quicker, its rule is returned."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / file_name(rule.key)
    mine = path.with_name(f".{path.name}.{os.getpid()}")
    write_json(mine, _to_json(rule))
    try:
        os.link(mine, path)  # unlike a rename it fails where the file exists
    except FileExistsError:
        pass
    finally:
        mine.unlink()
    return load(directory, rule.key) or rule


def load(directory: Path, key: str) -> Rule | None:
    """The frozen rule of that name; None where there is none yet.

    Raises:
        InputError: unreadable.
    """
    path = directory / file_name(key)
    if not path.is_file():
        return None
    try:
        value = json.loads(path.read_text())
        return Rule(
            int(value["k"]),
            float(value["easy"]),
            float(value["hard"]),
            params.Adaptive(**value["settings"]),
            {kind: frozenset((int(n), int(s)) for n, s in pairs) for kind, pairs in value["stops"].items()},
            {kind: tuple(map(float, shares)) for kind, shares in value["frequencies"].items()},
            {name: float(v) for name, v in value["checked"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError("unreadable stopping rule", str(path), "delete it and sample again") from None


def file_name(key: str) -> str:
    return f"_adaptive-{key}.json"  # see `store` for the `_`


def _to_json(rule: Rule) -> dict[str, Any]:
    return {
        "k": rule.k,
        "easy": rule.easy,
        "hard": rule.hard,
        "settings": rule.settings.model_dump(),
        "stops": {kind: sorted(pairs) for kind, pairs in sorted(rule.stops.items())},
        "frequencies": {kind: list(shares) for kind, shares in sorted(rule.frequencies.items())},
        "checked": dict(rule.checked),
    }
