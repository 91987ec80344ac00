"""The model card that travels with an exported checkpoint: what it was made of, how it scores, under which licences."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from geozero import __version__
from geozero.common.errors import InputError
from geozero.corpus.store import MANIFEST
from geozero.sources import SOURCES
from geozero.training.export.engine_agreement import Agreement

STAGES = {
    "sft": "supervised fine-tuning on direct answers",
    "grpo": "A²GRPO (Answer-Anchored Group Relative Policy Optimization)",
}
PAPER = "https://arxiv.org/abs/2511.22645"


def card(name: str, record: Mapping[str, Any], scores: Sequence[Mapping[str, Any]], agreement: Agreement | None) -> str:
    """A README.md as model hubs read it.

    Args:
        record: the stage's `stage.json`; empty for a model that no stage of ours has made.
        scores: what `geozero evaluate` wrote, one mapping a file.
        agreement: None where it was not checked.
    """
    sources = _sources(record)
    front = {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "tags": ["remote-sensing", "geozero", *(["a2grpo"] if record.get("kind") == "grpo" else [])],
        "base_model": str(record["base"]) if "base" in record else None,
    }
    parts = ["---", yaml.safe_dump({k: v for k, v in front.items() if v is not None}, sort_keys=False).strip(), "---"]
    parts += [f"# {name}", "", _origin(record), ""]
    parts += ["## Scores", "", *_score_lines(scores), ""]
    parts += ["## Data", "", *_data_lines(record, sources), ""]
    parts += [
        "## Licences",
        "",
        "The weights are under the base model's licence and the data's, whichever asks more.",
        "",
    ]
    parts += [f"- {source}: {licence}" for source, licence in sources.items()] or ["- data: unknown"]
    parts += ["", "## Loading", "", *_check_lines(agreement), ""]
    if record:
        settings = {key: record[key] for key in ("settings", "model", "seed") if key in record}
        parts += ["## Parameters", "", "```yaml", yaml.safe_dump(settings, sort_keys=False).strip(), "```", ""]
    return "\n".join(parts)


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


def _origin(record: Mapping[str, Any]) -> str:
    if not record:
        return f"Exported by GeoZero {__version__}; no record says how it was trained."
    steps = record.get("model_step", record["settings"]["steps"])
    what = STAGES[record["kind"]]
    return (
        f"{what[0].upper()}{what[1:]}, {steps} steps from `{record['base']}`, by GeoZero {__version__}. "
        f"The method: [GeoZero]({PAPER}); what the paper leaves open is our choice and stands below as a parameter."
    )


def _score_lines(scores: Sequence[Mapping[str, Any]]) -> list[str]:
    if not scores:
        return ["None were given (`geozero export --scores`)."]
    lines = ["| records | task | protocol | n | metric | value |", "|---|---|---|---|---|---|"]
    for score in scores:
        for metric, value in score["metrics"].items():
            shown = f"{value:.4f}" if isinstance(value, float) else str(value)
            lines.append(
                f"| {score['name']} | {score['task']} | {score['protocol']} | {score['n']} | {metric} | {shown} |"
            )
    return lines


def _data_lines(record: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    if "corpus_digest" not in record:
        return ["Unknown."]
    rows = record.get("rows", {}).get("n")
    lines = [
        f"- corpus: BLAKE2b `{record['corpus_digest']}`, {rows} rows trained on",
        f"- base model: BLAKE2b `{record['base_hash']}`",
    ]
    if record.get("val"):
        lines.append(f"- checkpoint chosen on: {', '.join(f'`{digest}`' for digest in record['val'])} (val split)")
    return [*lines, f"- sources: {', '.join(sources) or 'unknown'}"]


def _check_lines(agreement: Agreement | None) -> list[str]:
    if agreement is None:
        return ["Not checked."]
    if agreement.alike is None:
        return [f"transformers loads it and answers; vLLM was not asked: {agreement.reason}."]
    return [
        f"transformers and vLLM load it; {agreement.alike:.0%} of the probe questions were answered alike (greedy)."
    ]


def _sources(record: Mapping[str, Any]) -> dict[str, str]:
    """The corpus's sources and their licences; empty where the corpus is gone."""
    manifest = Path(str(record.get("corpus", ""))) / MANIFEST
    if not manifest.is_file():
        return {}
    names = sorted({row["source"] for row in json.loads(manifest.read_text())["counts"]})
    return {name: SOURCES[name].licence if name in SOURCES else "unknown" for name in names}
