"""The deployments and their forms: names, help, bounds; and what a form's values do to the parameters."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from flows_checkout import ROOT

from flows import checkout
from flows.forms import opened, seconds
from geozero.errors import InputError
from geozero.stack.parts import POOLS

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
BY_NAME = {deployment["name"]: deployment for deployment in DEPLOYMENTS}


def schema(name: str) -> dict[str, Any]:
    from prefect.utilities.callables import parameter_schema

    path, function = BY_NAME[name]["entrypoint"].split(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    found: dict[str, Any] = parameter_schema(getattr(module, function).fn).model_dump()
    return found


def bounds(field: dict[str, Any]) -> dict[str, Any]:
    """The part of an optional field that says what a value must be."""
    choices = [one for one in field.get("anyOf", [field]) if one.get("type") != "null"]
    return dict(choices[0])


def test_what_the_line_needs_is_deployed() -> None:
    assert set(BY_NAME) >= {"pipeline", "data", "difficulty", "sft", "a2grpo", "evaluate"}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_deployment_is_limited_tagged_unscheduled_and_checked(name: str) -> None:
    deployment = BY_NAME[name]
    assert deployment["work_pool"]["name"] in POOLS
    assert deployment["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment["schedules"] == []
    assert deployment["enforce_parameter_schema"] is True
    assert {"geozero", deployment["work_pool"]["name"]} <= set(deployment["tags"])
    assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert deployment["description"].endswith(".")


@pytest.mark.parametrize("name", BY_NAME)
def test_every_field_of_a_form_has_help_and_a_type(name: str) -> None:
    for field, values in schema(name)["properties"].items():
        assert values.get("description"), f"{name}: {field} has no help"
        assert bounds(values).get("type") or "enum" in bounds(values) or "$ref" in bounds(values), (name, field)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_checkout_has_the_code_that_a_deployment_names(name: str) -> None:
    checkout.require_code(ROOT, BY_NAME[name]["entrypoint"])


def test_a_run_without_its_code_or_with_an_unknown_field_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text("def line(): pass\n")
    (tmp_path / "broken.py").write_text("def line(:\n")
    for entrypoint, said in (
        ("gone.py:line", "no gone.py"),
        ("flow.py:other", "no flow 'other'"),
        ("broken.py:line", "no Python"),
        ("", "no "),
    ):
        with pytest.raises(InputError, match=said):
            checkout.require_code(tmp_path, entrypoint)
    with pytest.raises(InputError, match="not on this machine"):
        checkout.require_directory(tmp_path / "gone")
    with pytest.raises(InputError, match=r"no field stepz \(its fields are params, steps\)"):
        checkout.require_fields({"stepz": 3}, ["params", "steps"], "sft")
    checkout.require_fields({"steps": 3}, ["params", "steps"], "sft")


def test_fields_have_bounds_and_choices() -> None:
    fields = schema("a2grpo")["properties"]
    assert bounds(fields["steps"])["minimum"] == 1
    assert (bounds(fields["group_size"])["minimum"], bounds(fields["group_size"])["maximum"]) == (2, 64)
    assert bounds(fields["learning_rate"])["exclusiveMinimum"] == 0
    assert bounds(schema("evaluate")["properties"]["modes"])["enum"] == ["both", "direct", "tagged"]
    assert bounds(schema("data")["properties"]["last"])["enum"][0] == "select"
    assert schema("evaluate")["required"] == ["model"]
    shards = schema("difficulty")["properties"]
    assert (bounds(shards["shards"])["minimum"], bounds(shards["shards"])["maximum"]) == (1, 4096)
    assert bounds(shards["gpus"])["items"]["minimum"] == bounds(shards["only"])["items"]["minimum"] == 0
    assert bounds(shards["engine"])["enum"] == ["auto", "vllm", "transformers", "server"]


def test_a_form_s_values_take_the_place_of_the_file_s(tmp_path: Path) -> None:
    params = Path(shutil.copy(ROOT / "params.yaml", tmp_path))
    before, after = opened(params, "sft"), opened(params, "sft", seed=3, steps=5, learning_rate=None)
    assert (after.settings.seed, after.settings.sft.steps) == (3, 5)
    assert after.settings.sft.learning_rate == before.settings.sft.learning_rate
    assert after.settings.a2grpo == before.settings.a2grpo
    assert after.root == before.root == tmp_path
    with pytest.raises(InputError, match="steps"):
        opened(params, "sft", steps=0)
    with pytest.raises(InputError, match="no such parameter file"):
        opened(tmp_path / "other.yaml", "sft")


def test_a_limit_in_hours_is_one_in_seconds() -> None:
    assert (seconds(None), seconds(0.5)) == (None, 1800.0)
