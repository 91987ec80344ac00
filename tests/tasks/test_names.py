"""A task is known by its name in its own file alone: every other room asks the task."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from geozero.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
MAY_NAME = ("geozero/tasks/", "geozero/sources/")  # a data set says which tasks it is for


def named_in(source: str) -> list[tuple[int, str]]:
    """Line and name of every string that is a task's name."""
    nodes = ast.walk(ast.parse(source))
    return [(n.lineno, n.value) for n in nodes if isinstance(n, ast.Constant) and n.value in tuple(TASKS)]


def test_no_other_room_names_a_task() -> None:
    paths = [p for room in ("geozero", "flows") for p in sorted((ROOT / room).rglob("*.py"))]
    assert len(paths) > 200
    places = {path.relative_to(ROOT).as_posix(): path for path in paths}
    others = {name: path for name, path in places.items() if not name.startswith(MAY_NAME)}
    assert [
        f"{name}:{line}: {task}" for name, path in others.items() for line, task in named_in(path.read_text())
    ] == []


@pytest.mark.parametrize("source", ['if x == "vqa": y', 'x: Literal["a", "vqa"]', '{"vqa": 1}', 'f(task="vqa")'])
def test_the_scan_sees_a_name(source: str) -> None:
    assert named_in(source) == [(1, "vqa")]


def test_the_scan_passes_over_other_words() -> None:
    assert named_in('"""About vqa."""\nvqa = "captions"') == []
