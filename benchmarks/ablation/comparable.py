"""That all results of a directory belong to one comparison: made over weeks, they must differ in arm and seed alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from geozero.common.atomic import make_parent, write_json
from geozero.common.errors import InputError
from geozero.corpus.sample import digest
from geozero.corpus.store import Corpus
from geozero.workspace import Workspace

ABOUT = "about.json"


def check_same(workspace: Workspace, out: Path, model: Path, limit: int | None) -> None:
    """Note what the first run there compares, and refuse a later one that compares something else.

    Raises:
        InputError: model, data, number of questions or parameters are others.
    """
    settings = workspace.settings
    asked = dict.fromkeys([*workspace.val_corpora, *workspace.corpora_with("test")])
    kept = {name: getattr(settings, name).model_dump(mode="json") for name in ("model", "sft", "a2grpo", "evaluation")}
    about: dict[str, Any] = {
        "model": str(model.resolve()),
        "limit": limit,
        "questions": [Corpus(path).digest for path in asked],
        "samples": [Corpus(path).digest for path in (workspace.instruct, workspace.hard)],
        "parameters": digest(json.dumps(kept, sort_keys=True).encode()),
    }
    file = out / ABOUT
    if not file.is_file():
        make_parent(file)
        write_json(file, about)
        return
    found = json.loads(file.read_text())
    other = [name for name, value in about.items() if found.get(name) != value]
    if other:
        raise InputError(f"the results there are of other {', '.join(other)}", str(out), "give another --out")
