"""Several workers of one machine: what each is told, whose lines come back, and how a failure of one ends."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from geozero.common import process
from geozero.common.errors import InputError
from geozero.difficulty.workers import run_workers

STAND_IN = """#!{python}
import json, os, sys, time
words = sys.argv[1:]
shard = int(words[-1].split("/")[0])
with open(os.environ["SEEN"] + words[-1].replace("/", "of"), "w") as file:
    json.dump(words, file)
print("sampled", shard, flush=True)
if os.environ.get("FAIL_SHARD") == str(shard):
    print(os.environ["FAIL_LINE"], flush=True)
    sys.exit(int(os.environ["FAIL_CODE"]))
"""


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a small script in the interpreter's place; it writes down what it was told."""
    script = tmp_path / "python"
    script.write_text(STAND_IN.format(python=sys.executable))
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    monkeypatch.setenv("SEEN", str(tmp_path / "seen-"))
    return tmp_path


def told(seen: Path) -> list[list[str]]:
    return [json.loads(path.read_text()) for path in sorted(seen.glob("seen-*"))]


def fail(monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"FAIL_{name.upper()}", str(value))


def test_every_worker_gets_its_own_shard_and_the_same_arguments(seen: Path) -> None:
    lines: list[str] = []
    run_workers(["--corpus=a b", "--out=c"], 3, lines.append)
    assert told(seen) == [
        ["-u", "-m", "geozero.cli", "sample", "--corpus=a b", "--out=c", "--shard", f"{shard}/3"] for shard in range(3)
    ]
    assert sorted(lines) == [f"{shard}/3\tsampled {shard}" for shard in range(3)]


def test_bad_input_of_a_worker_is_one_error_with_its_own_words(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, shard=1, code=2, line="geozero: no such corpus in x (make it)")
    with pytest.raises(InputError) as caught:
        run_workers(["--out=c"], 2, lambda line: None)
    assert str(caught.value) == "no such corpus in x (make it)"
    assert len(told(seen)) == 2


def test_other_failures_keep_their_code_and_last_lines(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fail(monkeypatch, shard=0, code=1, line="RuntimeError: boom")
    with pytest.raises(process.ChildFailed, match="RuntimeError: boom") as caught:
        run_workers(["--out=c"], 2, lambda line: None)
    assert caught.value.code == 1


def test_workers_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    meet = threading.Barrier(3, timeout=10)
    monkeypatch.setattr(process, "run", lambda command, on_line: meet.wait())
    run_workers([], 3, print)


def test_the_real_command_line_refuses_in_one_line(tmp_path: Path) -> None:
    lines: list[str] = []
    with pytest.raises(InputError, match=r"^no such corpus directory in .*missing"):
        run_workers(
            [f"--corpus={tmp_path / 'missing'}", f"--model={tmp_path}", f"--out={tmp_path / 'store'}"],
            1,
            lines.append,
        )
    assert len(lines) == 1
