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
from flows.runtime.flow_parameters import opened, seconds
from geozero.common.errors import InputError
from geozero.stack.services import POOLS

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
BY_NAME = {deployment["name"].partition("@")[0]: deployment for deployment in DEPLOYMENTS}
TOGETHER = ("difficulty", "evaluate")  # what may run on several machines at once, in one checkout


def schema(name: str) -> dict[str, Any]:
    from prefect.utilities.callables import parameter_schema

    path, function = BY_NAME[name]["entrypoint"].split(":")
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    found: dict[str, Any] = parameter_schema(getattr(module, function)).model_dump()  # as `prefect deploy` does
    return found


def test_what_the_line_needs_is_deployed() -> None:
    assert set(BY_NAME) >= {"pipeline", "data", "difficulty", "sft", "a2grpo", "evaluate"}


@pytest.mark.parametrize("name", BY_NAME)
def test_a_deployment_is_limited_tagged_unscheduled_and_checked(name: str) -> None:
    deployment = BY_NAME[name]
    assert deployment["work_pool"]["name"] in POOLS
    assert deployment["name"] == f"{name}@{{{{ checkout.name }}}}"
    one = None if name in TOGETHER else {"limit": 1, "collision_strategy": "ENQUEUE"}
    assert deployment.get("concurrency_limit") == one
    queue = "{{ checkout.name }}" if one and deployment["work_pool"]["name"] == "gpu" else None
    assert deployment["work_pool"].get("work_queue_name") == queue  # else two trainings of a checkout take two machines
    assert deployment["schedules"] == []
    assert deployment["enforce_parameter_schema"] is True
    assert {"geozero", deployment["work_pool"]["name"]} <= set(deployment["tags"])
    assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == "30"
    assert deployment["description"].endswith(".")


@pytest.mark.parametrize("name", BY_NAME)
def test_every_field_of_a_form_has_help_and_a_type(name: str) -> None:
    for field, values in schema(name)["properties"].items():
        assert values.get("description"), f"{name}: {field} has no help"
        assert isinstance(values.get("type"), str), (name, field)  # of a union the page draws a switch, not a field
        assert values.get("default", "") is not None, (name, field)  # the page would send it, and the server refuse it
        of = values.get("items", values)
        for key in ("minimum", "exclusiveMinimum", "maximum"):
            bound = f"{of[key]:,}" if key in of else ""
            assert bound in values["description"], f"{name}: {field} does not tell its {key}"


@pytest.mark.parametrize("name", BY_NAME)
def test_the_checkout_has_the_code_that_a_deployment_names(name: str) -> None:
    checkout.require_code(ROOT, BY_NAME[name]["entrypoint"])


def test_a_run_without_its_code_or_with_an_unknown_field_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text("def line(): pass\n")
    (tmp_path / "broken.py").write_text("def line(:\n")
    for entrypoint, said in (
        ("gone.py:line", "no gone.py"),
        ("flow.py:other", "no flow 'other'"),
        ("broken.py:line", "not Python"),
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
    assert fields["steps"]["minimum"] == 1
    assert (fields["group_size"]["minimum"], fields["group_size"]["maximum"]) == (2, 64)
    assert fields["learning_rate"]["exclusiveMinimum"] == 0
    assert schema("evaluate")["properties"]["modes"]["enum"] == ["both", "direct", "tagged"]
    assert schema("data")["properties"]["last"]["enum"][0] == "select"
    assert schema("evaluate")["required"] == ["model"]
    shards = schema("difficulty")["properties"]
    assert (shards["shards"]["minimum"], shards["shards"]["maximum"]) == (1, 4096)
    assert shards["gpus"]["items"]["minimum"] == shards["only"]["items"]["minimum"] == 0
    assert shards["engine"]["enum"] == ["auto", "vllm", "transformers", "server"]


@pytest.mark.parametrize(
    ("value", "said"),
    [(0, "0 is less than the minimum of 2"), (65, "65 is greater than the maximum of 64"), (None, ""), (8, "")],
)
def test_the_server_says_of_a_field_which_bound_was_passed_and_takes_an_empty_one(value: int | None, said: str) -> None:
    from prefect.utilities.schema_tools.validation import validate

    wrong = [error.message for error in validate({"group_size": value}, schema("a2grpo"))]
    assert wrong == ([said] if said else [])


def test_a_form_leaves_the_flow_itself_as_it_is() -> None:
    import inspect

    from flows.sft import sft

    assert inspect.signature(sft.fn).parameters["steps"].default is None
    taken = sft.validate_parameters({"steps": None, "seed": 3})
    assert (taken["steps"], taken["seed"], taken["hours"]) == (None, 3, None)
    with pytest.raises(Exception, match="greater than or equal to 1"):
        sft.validate_parameters({"steps": 0})


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
