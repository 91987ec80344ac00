"""A task is known by its name in its own file alone: every other room asks the task."""

from __future__ import annotations

import ast
from collections.abc import Iterable
from pathlib import Path

import pytest

from geozero.tasks import TASKS

ROOT = Path(__file__).resolve().parents[2]
MAY_NAME = ("geozero/tasks/", "geozero/sources/")  # a data set says which tasks it is for
OTHER_MEANING = "# not a task"  # on the line of a word that means something else, such as a column or a kind of chart


def faults(source: str, tasks: Iterable[str] = tuple(TASKS)) -> list[tuple[int, str]]:
    """Line and name of every string that is a task's name, and of every mark on a line that has none.

    A marked line is passed over, unless it mentions tasks itself: there the word cannot mean anything else.
    """
    tasks, lines = tuple(tasks), source.splitlines()
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant) and node.value in tasks]
    marked = {number for number, line in enumerate(lines, 1) if line.rstrip().endswith(OTHER_MEANING)}
    excused = {n for n in marked if "task" not in lines[n - 1].removesuffix(OTHER_MEANING).lower()}
    found = [(node.lineno, str(node.value)) for node in nodes if node.lineno not in excused]
    return found + [(number, OTHER_MEANING) for number in sorted(marked - {node.lineno for node in nodes})]


def test_no_other_room_names_a_task() -> None:
    paths = [p for room in ("geozero", "flows") for p in sorted((ROOT / room).rglob("*.py"))]
    assert len(paths) > 200
    places = {path.relative_to(ROOT).as_posix(): path for path in paths}
    others = {name: path for name, path in places.items() if not name.startswith(MAY_NAME)}
    found = [f"{name}:{line}: {word}" for name, path in others.items() for line, word in faults(path.read_text())]
    hint = f"ask the task instead; where the word means something else, end the line with `{OTHER_MEANING}`:"
    assert not found, "\n".join([hint, *found])


@pytest.mark.parametrize("source", ['if x == "vqa": y', 'x: Literal["a", "vqa"]', '{"vqa": 1}', 'f(task="vqa")'])
def test_the_scan_sees_a_name(source: str) -> None:
    assert faults(source) == [(1, "vqa")]


def test_the_scan_passes_over_other_words() -> None:
    assert faults('"""About vqa."""\nvqa = "captions"') == []


def test_a_word_with_another_meaning_is_marked_where_it_stands() -> None:
    source = 'heads["count"](tokens)'
    assert faults(source, ["count"]) == [(1, "count")]
    assert faults(f"{source}  {OTHER_MEANING}", ["count"]) == []
    assert faults(f'f("count")  {OTHER_MEANING}\nf("count")', ["count"]) == [(2, "count")]


def test_a_mark_excuses_no_task_and_goes_with_its_word() -> None:
    assert faults(f'if sample.task == "count": y  {OTHER_MEANING}', ["count"]) == [(1, "count")]
    assert faults(f'f("count")  {OTHER_MEANING}', ["vqa"]) == [(1, OTHER_MEANING)]
