"""Model families: one adapter holds everything that the code knows about one kind of vision-language model.

`family_of(model_type)` and `family_at(checkpoint)` find it; a type without an adapter is refused in one line. A new
base model is a new entry in `FAMILIES` (CONTRIBUTING.md, "A base model").
"""

from __future__ import annotations

from pathlib import Path

from geozero.common.errors import InputError
from geozero.engines.checkpoint import loading, resolve
from geozero.engines.families.base import Family, ImageLimits
from geozero.engines.families.qwen_vl import QWEN2_5_VL, QWEN3_VL, QWEN3_VL_MOE
from geozero.engines.trust import read_object
from geozero.params import Model
from geozero.tasks.boxes import Convention

FAMILIES: dict[str, Family] = {family.model_type: family for family in (QWEN3_VL, QWEN3_VL_MOE, QWEN2_5_VL)}


def family_of(model_type: str, where: str = "model.model_type") -> Family:
    """The adapter of a model type.

    Raises:
        InputError: there is none.
    """
    if model_type not in FAMILIES:
        hint = f"known: {', '.join(FAMILIES)}; CONTRIBUTING.md says what a new base model needs"
        raise InputError(f"no adapter for the model type '{model_type}'", where, hint)
    return FAMILIES[model_type]


def family_at(path: Path) -> Family:
    """The adapter of a checkpoint, by the `model_type` in its config.json.

    Raises:
        InputError: there is none for it.
    """
    config = path / "config.json"
    return family_of(str(read_object(config).get("model_type")), str(config))


def family_for(model: Model) -> Family:
    """The adapter for a profile's base model.

    Raises:
        InputError: there is none, the template is another family's, or the box convention is left to a default that is
            not this family's.
    """
    family = family_of(model.model_type)
    check_template(family, model.template)
    if "boxes" not in model.model_fields_set and model.boxes != family.boxes:
        what = f"model.boxes is not set, and {model.model_type} is pre-trained with {family.boxes}, not {model.boxes}"
        raise InputError(what, "model.boxes", "set the one that training should teach")
    return family


def default_boxes(model: Path | str) -> Convention:
    """The box convention of a model about which nothing else is known: what its family is pre-trained with."""
    try:
        return family_at(resolve(model)).boxes
    except InputError:
        return "norm1000"  # an engine says what is wrong with such a model


def limits_at(path: Path, max_pixels: int, min_pixels: int | None = None) -> ImageLimits | None:
    """The image limits of a checkpoint; None where it is not here or its files do not say: an engine refuses that."""
    try:
        with loading(path):
            return family_at(path).limits(path, max_pixels, min_pixels)
    except (InputError, OSError):
        return None


def recorded_min_pixels(path: Path, max_pixels: int, min_pixels: int | None) -> int | None:
    """The minimum image size of a checkpoint as fingerprints of answers record it; None where it is what it was before
    it could be chosen."""
    limits = limits_at(path, max_pixels, min_pixels)
    return None if limits is None or limits.legacy else limits.min_pixels


def check_template(family: Family, template: str) -> None:
    """Refuse a template of ms-swift that would show the model other images, or other tokens, than the engines do.

    Raises:
        InputError: it is not one of the family's.
    """
    if template not in family.templates:
        hint = f"one of {', '.join(family.templates)}"
        raise InputError(f"the template '{template}' is not for {family.model_type}", "model.template", hint)
