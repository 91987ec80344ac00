"""A password in the tracking address, in a server's and in `extra`: nowhere in what a flow writes, shows or starts."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from flows_checkout import checkout, python, settings
from ports import free_port

SECRET = "hunter2-planted"
# What a flow does around its stages: the parent run, its origin, data, a stage with its record, links.
FLOW = """
from prefect import flow
from flows.runtime import tracking
from geozero.workspace import Workspace

workspace = Workspace.open("params.yaml")

@flow(name="planted")
def planted():
    with tracking.pipeline_run(workspace, "planted") as parent:
        tracking.log_data(workspace, parent)
        box = tracking.outbox(workspace)
        with box.stage(parent, "sft", workspace.runs / "sft-0a1b") as child:
            box.log_params(child, workspace.settings.model_dump())
            box.log_table(child, "servers", [{"address": str(workspace.settings.sampling.urls)}])
        box.set_tag(parent, "note", f"sampled by {workspace.settings.sampling.urls}")
        print(workspace.settings.tracking.uri.partition("@")[2], workspace.tracker.address(parent))

planted()
"""

pytestmark = pytest.mark.slow


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A tracking server; whoever sends it a user and a password is let in like anyone."""
    port, place = free_port(), tmp_path / "server"
    place.mkdir()
    words = [
        "mlflow",
        "server",
        "--workers",
        "1",
        "--port",
        str(port),
        "--backend-store-uri",
        f"sqlite:///{place}/mlflow.db",
    ]
    words += ["--artifacts-destination", str(place / "artifacts"), "--serve-artifacts"]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen([sys.executable, "-m", *words], stdout=log, stderr=subprocess.STDOUT, cwd=place)
    end = time.monotonic() + 300
    while time.monotonic() < end:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2).close()
            break
        time.sleep(0.5)
    yield port
    server.terminate()
    server.wait(30)


def test_nothing_that_a_flow_leaves_holds_a_planted_password(port: int, tmp_path: Path) -> None:
    uri = f"http://me:{SECRET}@127.0.0.1:{port}"
    extra = {"swanlab_token": SECRET, "swanlab_webhook_url": f"https://me:{SECRET}@hook.example"}
    servers = {"fold-0": [f"http://me:{SECRET}@10.0.0.1:8000"]}
    params = settings(tracking={"uri": uri}, sft={"extra": extra}, sampling={"urls": servers})
    path = checkout(tmp_path / "checkout", params)
    git = ["git", "-C", str(path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    (path / "profiles").mkdir()
    (path / "profiles/mine.yaml").write_text(yaml.safe_dump(params))  # a change that is kept as a patch
    (path / "planted.py").write_text(FLOW)
    done = python(path, "planted")
    assert done.returncode == 0, done.stderr[-3000:]
    compared = python(path, "geozero.cli", "runs", "list")
    assert "planted" in compared.stdout, compared.stderr[-2000:]
    traced = python(path, "geozero.cli", "trace", "planted")
    rebuilt = python(path, "geozero.cli", "trace", "planted", "--rebuild")
    assert traced.returncode == rebuilt.returncode == 0, traced.stderr + rebuilt.stderr
    assert "parameter\tsft.extra.swanlab_token\t***" in traced.stdout
    shown = "".join(one.stdout + one.stderr for one in (done, compared, traced, rebuilt))
    assert SECRET not in shown
    given = {path / "params.yaml", path / "profiles/mine.yaml"}
    kept = [file for file in tmp_path.rglob("*") if file.is_file() and ".git" not in file.parts and file not in given]
    assert {"params.yaml", "changes.patch", "mlflow.db"} <= {file.name for file in kept}
    assert [file for file in kept if re.search(SECRET.encode(), file.read_bytes())] == []
