"""Lists in JSON files and JSON lines, as people and models write them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from geozero.common.errors import InputError
from geozero.common.lenient_json import read_list


@pytest.mark.parametrize(
    ("text", "name", "rows"),
    [
        ('[{"a": 1}]', "x.json", [{"a": 1}]),
        ('{"a": 1}\n{"a": 2}\n', "x.json", [{"a": 1}, {"a": 2}]),
        ('{"a": 1}\n\n{broken\n{"a": 2}', "x.jsonl", [{"a": 1}, "{broken", {"a": 2}]),
        ('{"a": 1}', "x.jsonl", [{"a": 1}]),
        ("[]", "x.jsonl", []),
    ],
)
def test_lists_and_json_lines(text: str, name: str, rows: list[Any], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert read_list(tmp_path / name, "records", "") == rows


@pytest.mark.parametrize("text", ['{"a": 1}', "{broken\n{}", "", "3"])
def test_what_is_neither_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError):
        read_list(tmp_path / "x.json", "records", "")
