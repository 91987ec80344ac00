"""The model card that travels with an exported checkpoint: what it was made of, how it scores, under which licences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geozero import __version__
from geozero.common.errors import InputError
from geozero.corpus.layout import MANIFEST, read_manifest
from geozero.sources import SOURCES
from geozero.training.export.engine_agreement import Agreement

TEMPLATE = Path(__file__).with_suffix(".md.j2")
STAGES = {
    "sft": "Supervised fine-tuning on direct answers",
    "grpo": "A²GRPO (Answer-Anchored Group Relative Policy Optimization)",
}
PAPER = "https://arxiv.org/abs/2511.22645"


def card(name: str, record: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], agreement: Agreement | None) -> str:
    """A README.md as model hubs read it.

    Args:
        record: the stage's `stage.json`; empty for a model that no stage of ours has made.
        scores: what `geozero evaluate` wrote, one mapping per file.
        agreement: None where it was not checked.
    """
    from jinja2 import Environment

    front = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["remote-sensing", "geozero", *(["a2grpo"] if record.get("kind") == "grpo" else [])],
        **({"base_model": str(record["base"])} if "base" in record else {}),
    }
    parameters = {key: record[key] for key in ("settings", "model", "seed") if key in record}
    template = Environment().from_string(TEMPLATE.read_text())
    return template.render(
        name=name,
        version=__version__,
        paper=PAPER,
        stage=STAGES.get(record.get("kind", "")),
        front=yaml.safe_dump(front, sort_keys=False),
        parameters=yaml.safe_dump(parameters, sort_keys=False),
        licences=_licences(record),
        record=record,
        scores=scores,
        agreement=agreement,
    )


def read_scores(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Score files of `geozero evaluate`, each with its name; a directory stands for the JSON files below it.

    Raises:
        InputError: a file is none.
    """
    files = [file for path in paths for file in (sorted(path.rglob("*.json")) if path.is_dir() else [path])]
    found = []
    for file in files:
        try:
            values = json.loads(file.read_text())
            found.append({key: values[key] for key in ("task", "protocol", "n", "metrics")} | {"name": file.stem})
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError("no scores that `geozero evaluate` wrote", str(file), "leave it out of --scores") from None
    return found


def _licences(record: Mapping[str, Any]) -> dict[str, str]:
    """The corpus's sources and their licences; empty where the corpus is gone."""
    corpus = Path(str(record.get("corpus", "")))
    if not (corpus / MANIFEST).is_file():
        return {}
    names = sorted({row["source"] for row in read_manifest(corpus)["counts"]})
    return {name: SOURCES[name].licence if name in SOURCES else "unknown" for name in names}
