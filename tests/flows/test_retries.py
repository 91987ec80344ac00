"""Which failed tasks are tried again."""

from __future__ import annotations

import subprocess
import sys
import threading
import urllib.error
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from flows.runtime import retries
from flows.runtime.retries import is_transient, retry_condition
from geozero.common import process
from geozero.common.errors import InputError
from geozero.common.process import ChildFailed

DVC = "ERROR: failed to reproduce"


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (InputError("no such model"), False),
        (ValueError("a fault of ours"), False),
        (ChildFailed(["x"], 1, ["Traceback", "KeyError: 'a'"]), False),
        (ChildFailed(["x"], 2, []), False),
        (ChildFailed(["x"], -9, []), True),  # the kernel's, out of memory
        (ChildFailed(["x"], 137, []), True),
        (
            ChildFailed(["dvc"], 255, ["ValueError: bug", f"{DVC} 'raw': failed to run: geozero raw, exited with 1"]),
            False,
        ),
        (ChildFailed(["dvc"], 255, ["ERROR: lock file is corrupted"]), False),  # and 255 is no signal
        (ChildFailed(["dvc"], 255, [f"{DVC} 'raw': failed to run: geozero raw, exited with -9"]), True),
        (ChildFailed(["dvc"], 255, [f"{DVC} 'raw': failed to run: geozero raw, exited with 137", "more"]), True),
        (ChildFailed(["x"], 1, ["RuntimeError: CUDA error: an illegal access", "more"]), True),
        (ChildFailed(["x"], 1, ["RuntimeError: CUDA error: device-side assert triggered"]), False),
        (ChildFailed(["x"], 1, ["RuntimeError: CUDA error: no kernel image is available"]), False),
        (ChildFailed(["x"], 134, ["terminate called", "  what(): CUDA error: x", "CUDA error: unspecified"]), True),
        (ChildFailed(["x"], 1, ["[rank1]: torch.distributed.DistBackendError: NCCL error in: x", "end"]), True),
        (ChildFailed(["x"], 1, ["torch.distributed.DistBackendError: NCCL error in: x, invalid usage"]), False),
        (ChildFailed(["x"], 1, ["    sock.connect()", "ConnectionRefusedError: [Errno 111] Connection refused"]), True),
        (ChildFailed(["x"], 1, ["requests.exceptions.ReadTimeout: HTTPSConnectionPool(host='a')"]), True),
        (ChildFailed(["x"], 1, ["OSError: [Errno 116] Stale file handle: '/data'"]), True),
        (ChildFailed(["x"], 1, ["OSError: [Errno 28] No space left on device"]), False),
        # words of such faults in a bug's own lines
        (ChildFailed(["x"], 1, ["Connection to 4 workers", "    raise Timeout", "KeyError: 'Connection'"]), False),
        (ChildFailed(["x"], 1, ["ValueError: no class 'Timeout'", "Connections: 3", "NCCL_DEBUG=WARN"]), False),
        (ChildFailed(["x"], 1, ["ConnectionResetError: reset", "During handling", "TypeError: not a number"]), False),
        (ChildFailed(["dvc"], 255, ["ConnectionError: no", f"{DVC} 'raw': failed to run: g, exited with 2"]), False),
        (ChildFailed(["dvc"], 255, ["ERROR: Connection to remote is not configured"]), False),
        *((ChildFailed(["x"], code, []), False) for code in (-11, 139, -6, 134, -8, 132)),  # native code's own faults
        *((ChildFailed(["x"], code, []), True) for code in (-15, 143, 130, 129)),
        (OSError(5, "Input/output error"), True),
        (OSError(28, "No space left on device"), False),
        (OSError("cannot identify image file"), False),
        (IsADirectoryError("x"), False),
        (urllib.error.HTTPError("http://x", 404, "no", Message(), None), False),
        (urllib.error.HTTPError("http://x", 503, "busy", Message(), None), True),
        (requests.ConnectionError("no route"), True),
        (ConnectionError("reset"), True),
        (FileNotFoundError("x"), False),
        (TimeoutError("too long"), False),
    ],
)
def test_only_what_may_pass_is_tried_again(error: Exception, again: bool) -> None:
    state = SimpleNamespace(result=lambda raise_on_failure: error)
    assert retry_condition(None, None, state) is is_transient(error) is again


def test_nothing_is_tried_again_in_a_flow_that_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends its children itself, and their ends look like kills from outside."""
    monkeypatch.setattr(retries, "leaving", threading.Event())
    state = SimpleNamespace(result=lambda raise_on_failure: ChildFailed(["x"], -15, []))
    assert retry_condition(None, None, state)
    retries.leaving.set()
    assert not retry_condition(None, None, state)


def test_prefect_tries_again_what_may_pass_and_nothing_else() -> None:
    """The tasks carry the condition, and not only at one place."""
    from flows.a2grpo import run_preflight, train_a2grpo
    from flows.data import build_data
    from flows.evaluate import answer
    from flows.sft import train_sft

    for task in (run_preflight, train_a2grpo, build_data, answer, train_sft):
        assert (task.retries, task.retry_condition_fn) == (2, retry_condition)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "again"), [("raise ValueError", False), ("import os; os.kill(os.getpid(), 9)", True)]
)
def test_dvc_says_how_a_stage_ended(command: str, again: bool, tmp_path: Path) -> None:
    """Its own exit code is 255 for a bug and for a kill."""
    (tmp_path / "dvc.yaml").write_text(f"stages: {{a: {{cmd: '{sys.executable} -c \"{command}\"'}}}}")
    environment = {"DVC_SITE_CACHE_DIR": str(tmp_path / "site")}
    subprocess.run([sys.executable, "-m", "dvc", "init", "-q", "--no-scm"], cwd=tmp_path, check=True)
    with pytest.raises(ChildFailed) as failed:
        process.run([sys.executable, "-m", "dvc", "repro"], cwd=tmp_path, env=environment)
    assert failed.value.code == 255
    assert is_transient(failed.value) is again
