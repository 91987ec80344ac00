"""DVC as docs/orchestration.md tells it: a remote carries data to another clone, a queue compares two thresholds."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest
import yaml
from difficulty_world import Opener, by_number, make_corpus, make_model, sample
from flows_checkout import ROOT, checkout, python, settings

IDENTITY = ("-c", "user.name=a tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")


def git(path: Path, *words: str) -> str:
    done = subprocess.run(["git", "-C", str(path), *IDENTITY, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def dvc(path: Path, *words: str) -> str:
    done = python(path, "dvc", *words, code=ROOT)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_thresholds_are_compared_by_the_queue_in_a_clone_that_pulled_its_data(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    checkout(first, settings(select={"hard": 0.5, "hard_size": None, "unsolved_share": 1.0}))
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    given = {"cmd": "false", "outs": ["data/geozero-raw", "data/difficulty"]}  # stands for all stages before
    (first / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"given": given, "select": stages["select"]}}))
    corpus = make_corpus(first / "data/geozero-raw", 18)
    sample(corpus, [make_model(tmp_path / "model")], first / "data/difficulty", k=8, open_engine=Opener(by_number))
    dvc(first, "commit", "-f", "given")
    dvc(first, "repro")
    dvc(first, "remote", "add", "-d", "shared", str(tmp_path / "remote"))
    dvc(first, "push")
    git(first, "add", "-A", "--", ".", ":!.dvc/site")  # where these tests keep what DVC shares between projects
    git(first, "commit", "-qm", "data")

    subprocess.run(["git", "clone", "-q", str(first), str(second)], check=True)
    dvc(second, "pull")
    assert json.loads(dvc(second, "status", "--json")) == {}  # metrics and plots came along
    for name in ("data/geozero-hard/manifest.json", "reports/selection.json", "reports/difficulty.png"):
        assert (second / name).read_bytes() == (first / name).read_bytes()

    before = json.loads((second / "reports/selection.json").read_text())
    for hard in ("0.3", "0.7"):
        dvc(second, "exp", "run", "--queue", "-S", f"select.hard={hard}", "-n", f"hard-{hard[-1]}")
    code = second / "geozero/difficulty/selection/bands.py"
    original = code.read_text()
    code.write_text(original + '\nprint("changed code")\n')
    dvc(second, "exp", "run", "--queue", "-n", "other-code")
    code.write_text(original)  # the queue runs what was queued, not what stands here when it starts
    dvc(second, "queue", "start")
    end = time.monotonic() + 400
    while dvc(second, "queue", "status").count("Success") < 3 and time.monotonic() < end:
        time.sleep(0.5)
    assert json.loads((second / "reports/selection.json").read_text()) == before  # the checkout is as it was
    assert "changed code" in dvc(second, "queue", "logs", "other-code")
    assert yaml.safe_load((second / "params.yaml").read_text())["select"]["hard"] == 0.5
    assert git(second, "status", "--porcelain", "-uno") == ""
    change = json.loads(dvc(second, "metrics", "diff", "--json", "hard-3", "hard-7"))["reports/selection.json"]
    assert change["bands.hard_learnable"]["diff"] > 0
    dvc(second, "plots", "diff", "hard-3", "hard-7", "--targets", "reports/difficulty.png")
    assert len(list((second / "dvc_plots/static").glob("hard-*_reports_difficulty.png"))) == 2
    shown = dvc(second, "exp", "show", "--csv", "--only-changed")
    assert "hard-3" in shown and "hard-7" in shown and "!" not in shown  # a metric that is not there shows as "!"
    dvc(second, "exp", "apply", "hard-7")
    assert yaml.safe_load((second / "params.yaml").read_text())["select"]["hard"] == 0.7
    assert json.loads(dvc(second, "status", "--json")) == {}
    assert (second / "data/geozero-hard/manifest.json").read_bytes() != (
        first / "data/geozero-hard/manifest.json"
    ).read_bytes()
    for forked in ("mlflow.db", "mlruns", ".prefect", ".geozero"):  # the queue's stages write to neither
        assert not (second / forked).exists()
        assert list((second / ".dvc/tmp").rglob(forked)) == []
    assert git(second, "status", "--porcelain", "--", "dvc_plots") == ""
