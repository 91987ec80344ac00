"""Inputs that a reader once failed on stay fixed, and what `benchmarks.fuzz` watches for is seen."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from paths import FIXTURES, ROOT

from benchmarks.fuzz.mutations import mutated

CORPUS = FIXTURES / "fuzz"
# One process for all: its audit hook cannot be taken off again.
WATCHED = """
import sys
from pathlib import Path
from benchmarks.fuzz.__main__ import Guard, Reader, scratch, verdict

def write_outside(place, out):
    (place.parents[1] / "stray").write_text("x")

def more_lines(place, out):
    from geozero.common.errors import InputError
    error = InputError("one")
    error.args = ("one\\ntwo",)
    raise error

def refuse(place, out):
    from geozero.common.errors import InputError
    raise InputError((place / "a").read_text())

CASES = {
    "reads": lambda place, out: (place.parents[1] / "outside").read_text(),
    "writes": write_outside,
    "subprocess.Popen": lambda place, out: __import__("subprocess").run(["true"]),
    "ZeroDivisionError": lambda place, out: 1 / 0,
    "took more": lambda place, out: [None for _ in iter(int, 1)],
    "more than one line": more_lines,
    "": refuse,
}
guard, room = Guard(), scratch()
for expected, read in CASES.items():
    found = verdict(Reader("r", read, []), {"a": b"x"}, guard, room, 0.3)
    assert found.startswith(expected) and bool(found) == bool(expected), (expected, found)
print("seen")
"""


def python(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    return subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )


def test_inputs_that_once_failed_are_read_or_refused() -> None:
    done = python("-m", "benchmarks.fuzz", "--again", "tests/fixtures/fuzz")
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert f"{len(list(CORPUS.glob('*/*')))} inputs read again" in done.stdout


def test_what_must_not_happen_is_seen() -> None:
    done = python("-c", WATCHED)
    assert done.stdout == "seen\n", done.stderr[-2000:]


def test_the_same_numbers_make_the_same_input() -> None:
    seeds = [{"a.json": b'{"x": [1, 2, {"y": "z"}]}', "b.bin": bytes(range(256)), "c.txt": b"some words, 12\n"}]
    made = [[mutated(random.Random(f"{n}"), seeds[0], seeds) for n in range(200)] for _ in range(2)]
    assert made[0] == made[1] and len({str(sorted(files.items())) for files in made[0]}) > 150


@pytest.mark.slow
def test_fresh_inputs(tmp_path: Path) -> None:
    done = python("-m", "benchmarks.fuzz", "--inputs", "1000", "--seed", "3", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout[-3000:]
