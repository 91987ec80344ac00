"""The parameters of trained stages: passed by name, read by somebody, and fingerprinted as ever."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
import yaml
from paths import ROOT
from training_stage import make_params, spec_of

from geozero.common.errors import InputError
from geozero.params import METHOD, A2grpo, Argument, Filter, Guards, Mark, Params, Section, Sft, load, swift
from geozero.training import arguments, stage_spec
from geozero.training.grpo.collapse_monitor import GUARDED_METRICS
from geozero.training.stage_spec import StageSpec, digest

STAGES = {"filter": Filter, "sft": Sft, "a2grpo": A2grpo}

# -- fingerprints ------------------------------------------------------------------------------------------------

# Written down with the first release's code; a change trains finished runs again.
FINGERPRINTS = {
    "cpu-toy": {"filter": "d227ad62037c", "sft": "75cebd267887", "a2grpo": "cffb2249b005"},
    "qwen3-vl-2b-1gpu": {"filter": "3902066a97c9", "sft": "8cff570610c2", "a2grpo": "2ffd9bc04fbf"},
    "qwen3-vl-8b-8gpu": {"filter": "318e0afb4fab", "sft": "17cba16eceeb", "a2grpo": "2c6657a86f0f"},
}


@pytest.fixture
def fingerprint(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The fingerprint of a stage over a corpus and a base model that are only named."""

    class Named:
        digest = "corpus"

        def __init__(self, path: Path) -> None: ...

    monkeypatch.setattr(stage_spec, "Corpus", Named)
    monkeypatch.setattr(stage_spec.models, "content_hash", lambda path: "base")

    def of(params: Params, section: Any) -> str:
        fold, val = (0 if section == "filter" else None), ((Path("v"),) if section == "a2grpo" else ())
        return digest(StageSpec(section, section, params, Path("c"), Path("b"), Path("r"), fold, (), val).identity())

    return of


@pytest.mark.parametrize("profile", list(FINGERPRINTS))
def test_finished_runs_keep_their_fingerprints(profile: str, fingerprint: Any) -> None:
    params = load(ROOT / "profiles" / f"{profile}.yaml")
    for section in ("filter", "sft"):  # a profile of the first release did not sort
        unsorted = getattr(params, section).model_copy(update={"group_by_length": False})
        params = params.model_copy(update={section: unsorted})
    found = {section: fingerprint(params, section) for section in STAGES}
    drawing = found.pop("a2grpo")  # what `resample` draws has changed since; without it nothing has
    kept = params.model_copy(update={"a2grpo": params.a2grpo.model_copy(update={"resample": 0})})
    expected = dict(FINGERPRINTS[profile])
    assert (drawing == expected.pop("a2grpo")) == (params.a2grpo.resample == 0)
    assert (drawing == fingerprint(kept, "a2grpo")) == (params.a2grpo.resample == 0)
    assert found == expected


def test_a_file_of_an_earlier_version_loads_with_the_same_fingerprint(fingerprint: Any, tmp_path: Path) -> None:
    values = yaml.safe_load((ROOT / "profiles/cpu-toy.yaml").read_text())
    values["a2grpo"] |= {"support": "none", "diversity": "wanted"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    old = load(tmp_path / "params.yaml")
    assert fingerprint(old, "a2grpo") == FINGERPRINTS["cpu-toy"]["a2grpo"]
    other = old.model_copy(update={"a2grpo": old.a2grpo.model_copy(update={"thinking_score": "length"})})
    assert fingerprint(other, "a2grpo") != FINGERPRINTS["cpu-toy"]["a2grpo"]


# -- passed by name ----------------------------------------------------------------------------------------------


def another(annotation: Any, value: Any) -> Any:
    """Another value of a field's type."""
    if get_origin(annotation) is Literal:
        return next(choice for choice in get_args(annotation) if choice != value)
    if isinstance(value, bool):
        return not value
    return "length" if isinstance(value, str) else 2 * value or 1


ARGUMENTS = {
    name: [argument for mark in field.metadata if isinstance(mark, Argument) for argument in mark.names or (name,)]
    for name, field in A2grpo.model_fields.items()
}


@pytest.mark.parametrize("name", [name for name, names in ARGUMENTS.items() if names])
def test_every_argument_of_a2grpo_reaches_the_command(name: str, tmp_path: Path) -> None:
    value = another(A2grpo.model_fields[name].annotation, getattr(make_params().a2grpo, name))
    params = make_params(a2grpo={name: value})
    made = arguments.grpo(spec_of(params, "a2grpo"), tmp_path)
    assert [made[argument] for argument in ARGUMENTS[name]] == [value] * len(ARGUMENTS[name])


def test_a_form_of_the_thinking_score_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    params = make_params(a2grpo={"thinking_score": "beauty"})
    with pytest.raises(
        InputError,
        match=r"no form 'beauty' of S_t in a2grpo.thinking_score \(one of product, length, coverage, novelty\)",
    ):
        arguments.grpo(spec_of(params, "a2grpo"), tmp_path)


# -- read by somebody --------------------------------------------------------------------------------------------


@cache
def names_read() -> frozenset[str]:
    """Every attribute that geozero and the flows read of a stage's parameters, under the names these go by."""
    found = set()
    for path in [*(ROOT / "geozero").rglob("*.py"), *(ROOT / "flows").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())) if path.name != "params.py" else ():
            if isinstance(node, ast.Attribute):
                holder = getattr(node.value, "attr", getattr(node.value, "id", ""))
                if holder in ("settings", "args", *STAGES):
                    found.add(node.attr)
    return frozenset(found)


def unread(section: type[Section]) -> set[str]:
    """The fields that neither ms-swift takes by name nor any code reads."""
    passed = {
        name
        for name, field in section.model_fields.items()
        if any(isinstance(mark, Argument) and not mark.of_method for mark in field.metadata)
    }
    return section.model_fields.keys() - passed - names_read()


@pytest.mark.parametrize("section", STAGES.values())
def test_every_parameter_is_read(section: type[Section]) -> None:
    assert unread(section) == set()


def test_a_parameter_that_nothing_reads_is_found() -> None:
    class More(A2grpo):
        forgotten: Annotated[int, Mark.NOT_TRAINING] = 1
        forgotten_by_the_trainer: Annotated[int, METHOD] = 1
        taken_by_ms_swift: Annotated[int, swift()] = 1

    assert unread(More) == {"forgotten", "forgotten_by_the_trainer"}


def test_every_guard_watches_a_metric() -> None:
    assert Guards.model_fields.keys() - {"window"} == GUARDED_METRICS.keys()
