"""The name of a flow's run in MLflow: what it is, and which parameters differ from those of its profile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

import yaml

from geozero.common.redaction import redact
from geozero.params import Params
from geozero.tracking import flatten, lineage
from geozero.workspace import Workspace

NAMED, VALUE_LENGTH = 4, 30  # parameters in a name, characters of each value


def run_name(name: str, workspace: Workspace) -> str:
    """`sft sft.steps=80, seed=3`; the name alone where nothing was changed.

    The profile is the parameter file as committed, or else profiles/NAME.yaml; where neither holds this profile, it is
    the file as it lies there, from which only the fields of a form can differ.
    """
    after = flatten(workspace.settings.model_dump())
    base = next((one for one in _profiles(workspace) if one.profile == workspace.settings.profile), None)
    before = after if base is None else flatten(base.model_dump())
    differ = [f"{key}={str(after[key])[:VALUE_LENGTH]}" for key in after if after[key] != before.get(key)]
    more = f" and {len(differ) - NAMED} more" if len(differ) > NAMED else ""
    return redact(f"{name} {', '.join(differ[:NAMED])}{more}".rstrip())


def _profiles(workspace: Workspace) -> Iterator[Params]:
    file = workspace.file
    saved = workspace.root / "profiles" / f"{workspace.settings.profile}.yaml"
    for text in (lineage.committed(file), saved.read_text() if saved.is_file() else "", file.read_text()):
        with suppress(yaml.YAMLError, ValueError):  # of another version
            yield Params.model_validate(yaml.safe_load(text or ""))
