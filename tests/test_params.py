"""params.yaml: what is wrong in it is one line that names the key, and nothing wrong gets in."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from geozero.common.errors import InputError
from geozero.params import Params, load

ROOT = Path(__file__).resolve().parents[1]
WHOLE = yaml.safe_load((ROOT / "params.yaml").read_text())


def changed(path: Path, key: str, value: Any) -> Path:
    """A copy of params.yaml with one dotted key set; `...` removes it."""
    path.write_text(yaml.safe_dump(with_key(key, value)))
    return path


def with_key(key: str, value: Any) -> dict[str, Any]:
    values: dict[str, Any] = copy.deepcopy(WHOLE)
    *sections, name = key.split(".")
    place = values
    for section in sections:
        place = place.setdefault(section, {})
    if value is ...:
        del place[name]
    else:
        place[name] = value
    return values


def fault(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("path", ["params.yaml", *(f"profiles/{p.name}" for p in (ROOT / "profiles").glob("*.yaml"))])
def test_what_the_repository_holds_is_right(path: str) -> None:
    assert load(ROOT / path).profile


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("sampling.kk", 8, "unknown parameter 'sampling.kk'"),
        ("samplng", {}, "unknown parameter 'samplng'"),
        ("toy.train.ucm", 5, "parameter 'toy.train.ucm.[key]': Input should be 'aid'"),
        ("sampling.k", 0, "parameter 'sampling.k': Input should be greater than or equal to 1, not 0"),
        ("sampling.top_p", 0, "parameter 'sampling.top_p': Input should be greater than 0, not 0"),
        ("select.easy", 1.01, "parameter 'select.easy': Input should be less than or equal to 1, not 1.01"),
        ("filter.folds", 11, "parameter 'filter.folds': "),
        ("a2grpo.group_size", 1, "parameter 'a2grpo.group_size': "),
        ("a2grpo.beta", -0.1, "parameter 'a2grpo.beta': "),
        ("a2grpo.beta", float("nan"), "parameter 'a2grpo.beta': "),
        ("select.hard", float("nan"), "parameter 'select.hard': "),
        ("sft.learning_rate", float("inf"), "parameter 'sft.learning_rate': "),
        ("sft.learning_rate", 0, "parameter 'sft.learning_rate': "),
        ("sft.steps", "many", "parameter 'sft.steps': Input should be a valid integer, "),
        ("sft.steps", 2.5, "parameter 'sft.steps': "),
        ("sft.steps", None, "parameter 'sft.steps': "),
        ("data.sources", "aid", "parameter 'data.sources': Input should be a valid list, not 'aid'"),
        ("model", "tiny", "parameter 'model': "),
        (
            "model.dtype",
            "int8",
            "parameter 'model.dtype': Input should be 'float32', 'bfloat16' or 'float16', not 'int8'",
        ),
        (
            "a2grpo.support",
            "times",
            "parameter 'a2grpo.support' was removed: delete the line; 'a2grpo.thinking_score' takes its place",
        ),
        ("a2grpo.diversity", "ignored", "parameter 'a2grpo.diversity' was removed: delete the line"),
        ("sft", ..., "parameter 'sft' is missing"),
        ("model.path", ..., "parameter 'model.path' is missing"),
        ("toy.val", {"aid": 5}, "train, val and test have to name the same sets"),
    ],
)
def test_one_line_names_the_key(key: str, value: Any, message: str, tmp_path: Path) -> None:
    assert message in fault(changed(tmp_path / "p.yaml", key, value))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it holds no parameters"),
        ("- profile\n- seed\n", "it holds no parameters"),
        ("profile: [\n\n", "not YAML: "),
        ("profile: !!python/object/apply:os.getcwd []\n", "not YAML: "),
        ("profile: x\n", "parameter 'data' is missing"),
        ("1: x\n", "parameter 'profile' is missing"),
    ],
)
def test_what_is_no_parameter_file(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    assert message in fault(tmp_path / "p.yaml")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert "no such parameter file" in fault(tmp_path / "nowhere.yaml")
    assert "no such parameter file" in fault(tmp_path)
    (tmp_path / "p.yaml").write_bytes(b"profile: \xff\n")
    assert "not YAML" in fault(tmp_path / "p.yaml")


def test_a_learning_rate_as_people_write_it(tmp_path: Path) -> None:
    """YAML reads `1e-4` as text, because the point is missing."""
    assert load(changed(tmp_path / "p.yaml", "sft.learning_rate", "1e-4")).sft.learning_rate == 1e-4


def numbers(section: Any, path: str = "") -> Iterator[tuple[str, float]]:
    for name, value in section:
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{path}{name}", value
        elif hasattr(value, "model_dump"):
            yield from numbers(value, f"{path}{name}.")


def test_no_number_of_a_section_may_be_absurd() -> None:
    keys = [key for key, _ in numbers(Params.model_validate(WHOLE)) if key != "seed"]
    assert len(keys) > 40
    for key in keys:
        for absurd in (-1, float("nan"), float("inf")):
            with pytest.raises(ValidationError) as caught:
                Params.model_validate(with_key(key, absurd))
            assert [".".join(map(str, e["loc"])) for e in caught.value.errors()] == [key]
