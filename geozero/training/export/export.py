"""Hand a model on: a plain Hugging Face checkpoint with its card, LoRA merged, checked in both engines."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from geozero.common.atomic import replacing, write_text
from geozero.common.errors import InputError
from geozero.engines import checkpoint as models
from geozero.engines.families import family_at, limits_at
from geozero.params import Model
from geozero.training import arguments, checkpoints
from geozero.training.export import engine_agreement
from geozero.training.export.model_card import card, read_scores
from geozero.training.stage import MODEL
from geozero.training.stage_spec import STAGE

CARD = "README.md"
LEFT_OUT = ("*.part-*", ".*", CARD)


def export(
    source: Path,
    out: Path,
    *,
    scores: Sequence[Path] = (),
    checked: bool = True,
    log: Callable[[str], None] = print,
) -> Path:
    """Write the model of a stage, of one of its checkpoints, or a plain checkpoint to `out`, with its card.

    Args:
        source: `runs/<stage>-<fingerprint>`, a `checkpoint-N` in it, or the directory of a model.
        scores: files or directories of what `geozero evaluate` wrote, for the card.
        checked: load it in transformers and vLLM and compare their answers first; a model that fails is not written.

    Raises:
        InputError: no model there, `out` is in use, scores that are none, or the engines do not agree.
    """
    listed = read_scores(scores)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError("the directory is not empty", str(out), "give another --out, or remove it")
    if not source.is_dir():
        raise InputError("no such directory", str(source), "give runs/STAGE-…, a checkpoint in it, or a model")
    record: dict[str, Any] = {}  # what the stage wrote about itself: beside the model, or in the directory above
    for place in (source.parent, source):
        if (place / STAGE).is_file():
            record = json.loads((place / STAGE).read_text())
    with replacing(out) as temporary:
        _assemble(source, record, temporary, log)
        models.resolve(temporary)
        _write_limits(temporary, record)
        agreement = engine_agreement.check(str(temporary), _dtype(temporary, record), log=log) if checked else None
        write_text(temporary / CARD, card(out.name, record, listed, agreement))
    return out


def _assemble(source: Path, record: dict[str, Any], out: Path, log: Callable[[str], None]) -> None:
    if (source / STAGE).is_file():
        if not (source / MODEL).is_dir():
            hint = "finish it, or export one of its checkpoint-N"
            raise InputError("the stage has no finished model", str(source), hint)
        source = source / MODEL
    if checkpoints.step_of(source) < 0:
        models.resolve(source)
        shutil.copytree(source, out, ignore=shutil.ignore_patterns(*LEFT_OUT))
        return
    fault = checkpoints.fault(source)
    if fault is not None or not record:
        raise InputError(f"no whole checkpoint of a stage: {fault or f'{STAGE} is missing'}", str(source))
    base = models.resolve(record["base"])
    log(f"assembling the model of {source.name} on {base}")
    checkpoints.assemble_model(source, base, Model(path=str(base), **record["model"]), out)


def _write_limits(out: Path, record: dict[str, Any]) -> None:
    """Let any server fit images as the training did."""
    model = record.get("model", {})
    if "max_pixels" in model:
        limits = limits_at(out, model["max_pixels"], model.get("min_pixels"))
        if limits is not None:
            family_at(out).write_limits(out, limits)


def _dtype(model: Path, record: dict[str, Any]) -> str:
    """The number type of the weights, as the checkpoint or else the training's record gives it."""
    config = json.loads((model / "config.json").read_text())
    places = ((config, "dtype"), (config, "torch_dtype"), (config.get("text_config", {}), "dtype"))
    found = [place.get(key) for place, key in (*places, (record.get("model", {}), "dtype"))]
    return next((str(name) for name in found if name in arguments.MIXED_DTYPES), "auto")
