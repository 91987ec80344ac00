"""Reuse of finished corpora, and placeholders for data sets that are missing."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geozero.common.errors import InputError
from geozero.corpus.layout import MANIFEST, read_manifest
from geozero.corpus.store import Corpus

DESCRIPTIVE = ("size",)  # options of a source that only describe it


def finished(
    out: Path,
    made_by: Mapping[str, Any],
    but_for: str | None = None,
    defaults: Mapping[str, Any] | None = None,
    verified: bool = True,
) -> dict[str, Any] | None:
    """The manifest of a complete, undamaged corpus at `out` that was made in exactly this way, else None.

    Args:
        but_for: an entry of `made_by` that is not compared.
        defaults: of the options; one that an older version did not have yet had this value.
        verified: read all of it to see that it is whole.
    """
    try:
        manifest = read_manifest(out)
        made = {key: value for key, value in manifest["made_by"].items() if key != but_for}
        if defaults and isinstance(made.get("options"), dict):
            made["options"] = json.loads(json.dumps(defaults, default=dataclasses.asdict)) | made["options"]
        if _identity(made) != _identity(json.loads(json.dumps(made_by))):
            return None
        if verified:
            Corpus(out).verify()
    except InputError:
        return None
    return manifest


def _identity(made_by: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `made_by` that decides the samples; the wording of a source's description does not."""
    options = made_by.get("options")
    if not isinstance(options, Mapping):
        return dict(made_by)
    return {**made_by, "options": {key: value for key, value in options.items() if key not in DESCRIPTIVE}}


def leave_empty(out: Path) -> None:
    """Put an empty directory in place of the corpus of a missing data set; an older corpus is removed.

    Raises:
        InputError: `out` exists and is not a corpus.
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / MANIFEST).is_file())):
        raise InputError("the output exists and is not a corpus", str(out), "choose another --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True, exist_ok=True)
