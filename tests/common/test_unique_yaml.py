"""A key that stands twice is refused, at any depth."""

from __future__ import annotations

from pathlib import Path

import pytest

from geozero.common import unique_yaml
from geozero.common.errors import InputError
from geozero.params import load


@pytest.mark.parametrize("text", ["a: 1\nb: 2\na: 3\n", "x:\n- {a: 1, a: 1}\n", 'a: 1\n"a": 2\n', "x: {1: a, 1: b}\n"])
def test_twice_is_refused_with_its_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(
        InputError, match=r"not YAML: the key '.' stands twice, first in line \d, line \d, column \d+"
    ) as bad:
        load(tmp_path / "params.yaml")
    assert "\n" not in str(bad.value)


def test_all_else_is_as_ever() -> None:
    merged = "base: &b {x: 1, y: 2}\nmore:\n  <<: *b\n  x: 3\n1: a\n'1': b\n"
    assert unique_yaml.safe_load(merged) == {
        "base": {"x": 1, "y": 2},
        "more": {"x": 3, "y": 2},
        1: "a",
        "1": "b",
    }
