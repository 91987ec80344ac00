"""Several workers of one machine: what each is told, whose lines come back, and how a failure of one ends."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from geozero.cli.difficulty import app as cli
from geozero.common import process
from geozero.common.errors import InputError
from geozero.difficulty.workers import run_workers

STAND_IN = """#!{python}
import json, os, sys, time
words = sys.argv[1:]
shard = int(words[-1].split("/")[0])
with open(os.environ["SEEN"] + words[-1].replace("/", "of"), "w") as file:
    json.dump(words, file)
with open(os.environ["SEEN"].replace("seen", "gpu") + str(shard), "w") as file:
    file.write(os.environ.get("CUDA_VISIBLE_DEVICES", "all"))
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


def gpus(seen: Path) -> list[str]:
    """What each worker's environment says of the GPUs that it may use."""
    return [path.read_text() for path in sorted(seen.glob("gpu-*"))]


def run_sample(seen: Path, *words: str) -> Any:
    given = [f"--corpus={seen}", f"--model={seen}", f"--out={seen}", *words]
    return CliRunner().invoke(cli, ["sample", *given], catch_exceptions=True)


@pytest.mark.parametrize(
    ("mask", "words", "found"),
    [
        ("0,1,2,3,4,5,6,7", ["--workers", "auto"], list("01234567")),
        ("4,GPU-aaaa,MIG-1111", ["--workers", "auto"], ["4", "GPU-aaaa", "MIG-1111"]),
        ("0,1,2,3", ["--workers", "2"], ["0", "1"]),
        ("0,1", ["--workers", "2", "--engine=server", "--url=http://a"], ["0,1", "0,1"]),  # the GPUs are the servers'
    ],
)
def test_each_worker_sees_its_own_gpu_alone(
    seen: Path, monkeypatch: pytest.MonkeyPatch, mask: str, words: list[str], found: list[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", mask)
    result = run_sample(seen, *words)
    assert result.exit_code == 0, result.output
    assert gpus(seen) == found and len(told(seen)) == len(found)


def test_more_workers_than_gpus_are_refused(seen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    result = run_sample(seen, "--workers", "3")
    assert isinstance(result.exception, InputError) and "3 workers, but 2 visible GPUs" in str(result.exception)
    assert run_sample(seen, "--workers", "many").exit_code == 2 and not told(seen)


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
