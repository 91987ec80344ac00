"""dvc.yaml names the code that each stage runs: all of it, and nothing else. Run as a script, it writes these lines.

`PYTHONPATH=. .venv/bin/python tests/test_stage_deps.py`
"""

from __future__ import annotations

import inspect
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from geozero.cli import app
from geozero.common import import_closure
from geozero.curation.ingest.stage_inputs import write_code
from geozero.params import Data, load
from geozero.sources import SOURCES, modules

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "dvc.yaml"
PROGRAM = ["python3", "-m", "geozero.cli"]
BY_FILES = "data/stages/adapters/"  # the stages that ingest depend on one of these, which the stage `adapters` writes
READ_BY_NAME = ("adapters", "locate")  # they import the adapters of all data sets by their names


def stages() -> dict[str, Any]:
    found = yaml.safe_load(FILE.read_text())["stages"]
    return {name: stage.get("do", stage) for name, stage in found.items()}


def commands(stage: dict[str, Any]) -> Iterator[list[str]]:
    """The words behind the program of each command of a stage."""
    for line in [stage["cmd"]] if isinstance(stage["cmd"], str) else stage["cmd"]:
        words = shlex.split(line)
        assert words[:3] == PROGRAM
        yield words[3:]


def rests_on(name: str, stage: dict[str, Any]) -> set[str]:
    """The files of geozero that a stage runs."""
    files = set()
    for words in commands(stage):
        command: Any = typer.main.get_command(app.app)
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        function = inspect.unwrap(command.callback)
        files |= import_closure.command(function.__module__.rpartition(".")[2], function.__name__)
    if name in READ_BY_NAME:
        files |= import_closure.closure(*(module for source in SOURCES for module in modules(source)))
    if name == "adapters":  # it hashes the code of `ingest`, too
        files |= import_closure.command("data", "ingest")
    return files


def folded(files: set[str]) -> list[str]:
    """The same with a folder in place of its files, where all that is in it is named."""
    found, waiting = [], [ROOT / "geozero"]
    while waiting:
        place = waiting.pop()
        inside = {path.relative_to(ROOT).as_posix() for path in below(place)}
        if inside and inside <= files:
            found.append(place.relative_to(ROOT).as_posix())
        elif place.is_dir():
            waiting += [path for path in place.iterdir() if path.name != "__pycache__"]
    return sorted(found)


def below(place: Path) -> list[Path]:
    paths = place.rglob("*") if place.is_dir() else [place]
    return [path for path in paths if path.is_file() and path.suffix != ".pyc"]


def code_of(stage: dict[str, Any]) -> list[str]:
    return [path for path in stage["deps"] if path.startswith("geozero/")]


@pytest.mark.parametrize("name", sorted(set(stages())))
def test_a_stage_depends_on_the_code_that_it_runs_and_on_no_other(name: str) -> None:
    stage = stages()[name]
    if any(path.startswith(BY_FILES) for path in stage["deps"]):
        assert code_of(stage) == []
    else:
        hint = "run `PYTHONPATH=. .venv/bin/python tests/test_stage_deps.py`"
        assert code_of(stage) == folded(rests_on(name, stage)), hint


def test_nothing_that_somebody_writes_into_params_yaml_stands_in_a_command() -> None:
    """DVC pastes values into a shell's line as they are: `data/x; touch PWNED ;` would run."""
    assert {name for name, stage in stages().items() if "${" in str(stage["cmd"])} == set()


def test_an_ingest_depends_on_its_own_adapter(tmp_path: Path) -> None:
    data = load(ROOT / "params.yaml").data
    whole = {source: import_closure.closure(*modules(source)) for source in data.places}
    assert "geozero/sources/scenes/aid.py" in whole["toy_aid"] & whole["toy_aid_hard"]
    assert "geozero/sources/boxes/dior_rsvg.py" not in whole["toy_aid"]
    assert "geozero/sources/toy.py" in whole["toy_rsicd"]
    write_code(data, tmp_path)
    written = {source: json.loads((tmp_path / f"{source}.json").read_text()) for source in data.places}
    shared = import_closure.command("data", "ingest")
    assert not any(file.startswith("geozero/sources/scenes/") and "__init__" not in file for file in shared)
    for source, files in whole.items():
        assert written[source] == {"code": import_closure.digest(shared | files)}
        assert "geozero/curation/ingest/checks.py" in shared
    assert written["toy_aid"] == written["toy_aid_hard"] != written["toy_rsicd"]


def test_options_of_a_data_set_are_part_of_what_it_is_made_by(tmp_path: Path) -> None:
    place = {"path": "x", "source": "coco", "options": {"questions": "presence"}}
    data = {"root": "x", "eval_root": "x", "sources": ["aid"], "paths": {"ships": place}}
    write_code(Data.model_validate(data), tmp_path)
    written = json.loads((tmp_path / "ships.json").read_text())
    assert written.keys() == {"code", "source", "options"} and written["options"] == {"questions": "presence"}


def test_what_a_child_or_a_template_is_named_by_counts_as_imported() -> None:
    card, training = import_closure.closure("geozero.curation.card.inspect"), import_closure.command("training", "sft")
    assert {"geozero/curation/card/templates/card.md.j2", "geozero/curation/card/templates/inspect.html.j2"} <= card
    assert {"geozero/training/launcher/launch.py", "geozero/training/dataset.py"} <= training
    assert "geozero/cli/stack.py" not in training and "geozero/cli/training.py" in training


@pytest.mark.parametrize("words", [["data", "ingest"], ["data", "raw"], ["difficulty", "select"], ["toy", "toy_world"]])
def test_whatever_python_has_loaded_is_in_the_closure(words: list[str]) -> None:
    """The closure is read from the sources; this compares it with what the imports of a command really load."""
    files = import_closure.command(*words)
    names = [f[: -len(".py")].replace("/", ".").removesuffix(".__init__") for f in files if f.endswith(".py")]
    below_cli = sorted(name for name in names if not name.startswith("geozero.cli"))
    code = (
        f"import importlib, sys\nfor name in {below_cli!r}: importlib.import_module(name)\n"
        "print(*(m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'geozero'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = {Path(file).relative_to(ROOT).as_posix() for file in done.stdout.split()}
    assert loaded and loaded <= files


def rewrite() -> None:
    """Put the code that each stage runs behind the other things that it depends on."""
    lines: list[str] = []
    wanted = {
        name: folded(rests_on(name, stage))
        for name, stage in stages().items()
        if not any(path.startswith(BY_FILES) for path in stage["deps"] or ())
    }
    name, inside = "", False
    for line in FILE.read_text().splitlines():
        if line.startswith("  ") and line[2] != " " and line.endswith(":"):
            name = line.strip(" :")
        if inside and not line.startswith("      - "):
            lines += [f"      - {path}" for path in wanted.get(name, ())]
            inside = False
        inside = inside or line == "    deps:"
        if not (inside and line.startswith("      - geozero/")):
            lines.append(line)
    FILE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    rewrite()
