"""The process that trains, before it hands over to ms-swift."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

# ms-swift is not imported: this is what its `set_default_ddp_config` and its trainer do with one process.
PROCESS = """
import os
from geozero.training.launcher import launch
def run(kind, arguments):
    import torch
    os.environ.update(RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
    os.environ["MASTER_PORT"] = os.environ.get("MASTER_PORT", "29500")
    torch.distributed.init_process_group("gloo")
    print("port", os.environ["MASTER_PORT"], flush=True)
    input()
launch._run = run
launch.main(["sft"])
"""


def test_two_trainings_of_one_process_each_run_on_one_machine() -> None:
    alone = {name: value for name, value in os.environ.items() if name not in ("MASTER_PORT", "RANK", "LOCAL_RANK")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": alone}
    running = [subprocess.Popen([sys.executable, "-c", PROCESS], **pipes) for _ in range(2)]  # type: ignore[call-overload]
    lines = [process.stdout.readline() for process in running]
    for process in running:
        process.communicate("\n", timeout=60)
    assert [process.returncode for process in running] == [0, 0]
    assert all(line.startswith("port ") for line in lines) and lines[0] != lines[1]


@pytest.mark.parametrize(
    ("given", "port"),
    [({"MASTER_PORT": "29777"}, "29777"), ({"RANK": "0", "LOCAL_RANK": "0"}, None)],
    ids=["its own", "torchrun's"],
)
def test_a_port_that_was_given_stays(given: dict[str, str], port: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    from geozero.training.launcher import launch

    for name in ("MASTER_PORT", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    launch._choose_port()
    assert os.environ.get("MASTER_PORT") == port
