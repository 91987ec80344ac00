"""The house's floors (docs/decisions.md): who may import whom, and that nothing heavy is imported unasked."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GROUND, SECOND, THIRD, TOP = 0, 1, 2, 3
FLOORS = {
    **dict.fromkeys(("common", "corpus", "params", "tracking", "doctor"), GROUND),
    **dict.fromkeys(("metrics", "tasks", "sources", "engines", "inference", "workspace", "stack"), SECOND),
    **dict.fromkeys(("curation", "difficulty", "training", "evaluation", "toy", "build"), THIRD),
    "cli": TOP,
}
MOST_FILES = 16  # in one folder
MOST_AT_THE_TOP = 5
HEAVY = {"torch", "torchvision", "swift", "vllm", "transformers", "mlflow", "prefect", "dvc"}
# Modules that are torch through and through, or subclass a trainer's or an engine's class: imported in functions only.
MAY_LOAD = {
    "engines/families/image_dedup.py": {"torch"},
    "engines/seeded_sampler.py": {"torch", "transformers"},
    "engines/vllm_sampler.py": {"torch", "vllm"},
    "training/grpo/rewards.py": HEAVY,
    "training/grpo/trainer.py": HEAVY,
    "training/grpo/callbacks.py": {"torch", "transformers"},
    "training/grpo/group_batching.py": {"torch", "swift"},  # part of the trainer
    "training/launcher/launch.py": HEAVY,
    "training/grpo/objective.py": {"torch"},
    "training/objective.py": {"torch"},  # its public name
    "toy/model/build.py": HEAVY,
}
MODULES = sorted((ROOT / "geozero").rglob("*.py"))


def name_of(path: Path) -> str:
    return path.relative_to(ROOT / "geozero").as_posix()


def room_of(path: Path) -> str:
    """The first part of a module's place below geozero/: a package, or a module's own name."""
    return path.relative_to(ROOT / "geozero").with_suffix("").parts[0]


def imports(tree: ast.AST, package: str) -> Iterator[str]:
    """Every module named by an import anywhere in the tree, `from a import b` as `a.b`; relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1] + ([node.module] if node.module else []))
            yield from (f"{base}.{alias.name}" for alias in node.names)


def at_import(statements: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported: not those in functions, nor those for type checkers."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.dump(statement.test):
            yield from at_import(statement.orelse)
            continue
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield statement
        for block in ("body", "orelse", "finalbody"):
            yield from at_import(getattr(statement, block, []))
        for handler in getattr(statement, "handlers", []):
            yield from at_import(handler.body)


def package_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts[:-1])


def rooms_used(path: Path) -> set[str]:
    """The rooms of geozero that a module imports from, its own left out."""
    found = set()
    for name in imports(ast.parse(path.read_text()), package_of(path)):
        parts = name.split(".")
        if parts[0] == "geozero" and len(parts) > 1:
            found.add(parts[1])
    return found & {room_of(p) for p in MODULES} - {room_of(path)}


def faults(path: Path) -> list[str]:
    """What a module imports against the floors."""
    room = room_of(path)
    if room == "__init__":
        return [
            f"geozero/__init__.py imports {r}: importing geozero must load nothing" for r in sorted(rooms_used(path))
        ]
    floor, found = FLOORS[room], []
    for used in sorted(rooms_used(path) - {"__init__"}):
        above = FLOORS[used] > floor
        beside = FLOORS[used] == floor == THIRD and room != "build"  # an old name of curation's
        if above or beside:
            found.append(f"{name_of(path)} (floor {floor}) imports {used} (floor {FLOORS[used]})")
    return found


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(path) for path in MODULES} - FLOORS.keys() - {"__init__"} == set()


def test_folders_stay_small() -> None:
    files: dict[str, int] = {}
    for path in [*MODULES, *(ROOT / "flows").rglob("*.py")]:
        files[path.parent.relative_to(ROOT).as_posix()] = files.get(path.parent.relative_to(ROOT).as_posix(), 0) + 1
    assert {folder: n for folder, n in files.items() if n > MOST_FILES} == {}
    assert len([path for path in MODULES if path.parent == ROOT / "geozero"]) <= MOST_AT_THE_TOP


def test_a_room_imports_only_from_floors_below() -> None:
    assert [fault for path in MODULES for fault in faults(path)] == []


def test_rooms_of_one_floor_do_not_import_each_other_in_a_circle() -> None:
    graph: dict[str, set[str]] = {}
    for path in MODULES:
        room = room_of(path)
        if room != "__init__":
            same = {used for used in rooms_used(path) - {"__init__"} if FLOORS[used] == FLOORS[room]}
            graph.setdefault(room, set()).update(same)
    while True:
        leaves = [room for room, used in graph.items() if not used & graph.keys()]
        if not leaves:
            break
        for room in leaves:
            del graph[room]
    assert graph == {}


def test_geozero_never_imports_prefect_nor_the_flows() -> None:
    found = [
        f"{name_of(path)}: {name}"
        for path in MODULES
        for name in imports(ast.parse(path.read_text()), package_of(path))
        if name.split(".")[0] in {"prefect", "flows"}
    ]
    # the command line may start flows that lie beside the package, on request
    assert [f for f in found if not f.startswith("cli/app.py: flows")] == []


def test_no_heavy_package_is_imported_with_a_module() -> None:
    found = []
    for path in MODULES:
        heavy = HEAVY - MAY_LOAD.get(name_of(path), set())
        for statement in at_import(ast.parse(path.read_text()).body):
            names = {name.split(".")[0] for name in imports(statement, package_of(path))}
            found += [f"{name_of(path)}:{statement.lineno} imports {name}" for name in sorted(names & heavy)]
    assert found == []


def test_importing_the_command_line_or_any_other_module_loads_nothing_heavy() -> None:
    names = [package_of(p) + f".{p.stem}" for p in MODULES if name_of(p) not in MAY_LOAD and p.stem != "__init__"]
    ordered = sorted(names, key=lambda name: name != "geozero.cli")
    code = (
        "import importlib, sys\n"
        f"for name in {ordered!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = sorted({HEAVY!r} & sys.modules.keys())\n"
        "    if loaded: sys.exit(f'{name} loads {loaded}')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_every_exception_is_a_module() -> None:
    assert MAY_LOAD.keys() - {name_of(path) for path in MODULES} == set()


@pytest.mark.parametrize(
    ("source", "heavy"),
    [
        ("import torch", {"torch"}),
        ("try:\n    import vllm.engine\nexcept ImportError:\n    import swift", {"vllm", "swift"}),
        ("class A:\n    from transformers import x", {"transformers"}),
        ("def f():\n    import torch", set()),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\nelse:\n    import mlflow", {"mlflow"}),
    ],
)
def test_the_reader_of_imports_sees_what_runs_at_import(source: str, heavy: set[str]) -> None:
    found = {name.split(".")[0] for s in at_import(ast.parse(source).body) for name in imports(s, "geozero.x")}
    assert found & HEAVY == heavy


def test_the_reader_of_imports_resolves_relative_ones() -> None:
    tree = ast.parse("from . import a\nfrom ..tasks import boxes\nfrom .. import corpus")
    assert list(imports(tree, "geozero.build")) == ["geozero.build.a", "geozero.tasks.boxes", "geozero.corpus"]
