"""Lineage: the commit and the data hashes that a run is tagged with."""

from __future__ import annotations

import subprocess
from pathlib import Path

from geozero.tracking import Tracker, flatten, lineage

LOCK = """
schema: '2.0'
stages:
  raw:
    cmd: geozero raw
    deps: [{path: data/corpus/toy_aid, hash: md5, md5: aaaa.dir}]
    outs:
    - {path: data/geozero-raw, hash: md5, md5: 1f2e.dir, size: 10, nfiles: 3}
  frozen: {cmd: 'true'}
  difficulty:
    cmd: geozero sample
    outs:
    - {path: data/difficulty, hash: md5, md5: 77aa.dir}
"""


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], check=True
    )


def test_commit_and_dirty_flag_follow_the_checkout(tmp_path: Path) -> None:
    assert lineage.git_state(tmp_path) == {}
    git(tmp_path, "init", "-q")
    (tmp_path / "a").write_text("1")
    git(tmp_path, "add", "a")
    git(tmp_path, "commit", "-qm", "one")
    clean = lineage.git_state(tmp_path)
    assert len(clean["commit"]) == 40 and clean["dirty"] == "false"
    (tmp_path / "a").write_text("2")
    dirty = lineage.git_state(tmp_path)
    assert (dirty["commit"], dirty["dirty"], dirty["changed"][:3]) == (clean["commit"], "true", "a (")
    (tmp_path / "a").write_text("3")
    assert lineage.git_state(tmp_path)["changed"] != dirty["changed"]  # two changes of one file are told apart
    for i in range(7):
        (tmp_path / f"new{i}").touch()
    assert ", new3 and 3 more (" in lineage.git_state(tmp_path)["changed"]


def test_what_a_run_makes_does_not_make_the_checkout_dirty(tmp_path: Path) -> None:
    """`dvc.lock` is untracked until somebody adds it, and changed by the next run; its hashes are noted one by one."""
    git(tmp_path, "init", "-q")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/a").write_text("1")
    git(tmp_path, "add", "inner")
    git(tmp_path, "commit", "-qm", "one")
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert lineage.git_state(tmp_path)["dirty"] == "false"
    git(tmp_path, "add", "dvc.lock")
    git(tmp_path, "commit", "-qm", "two")
    (tmp_path / "dvc.lock").write_text(LOCK.replace("1f2e", "2f2e"))
    clean = lineage.code_tags(tmp_path)
    assert (clean["git.dirty"], clean["git.changed"]) == ("false", "nothing")
    (tmp_path / "inner/a").write_text("2")
    assert lineage.code_tags(tmp_path)["git.changed"].startswith("inner/a (")


def test_dvc_hashes_are_those_of_the_stages_outputs(tmp_path: Path) -> None:
    assert lineage.hashes(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text(LOCK)
    assert lineage.hashes(tmp_path) == {"data/geozero-raw": "1f2e.dir", "data/difficulty": "77aa.dir"}
    assert lineage.data_tags(tmp_path) == {"dvc.data/geozero-raw": "1f2e.dir", "dvc.data/difficulty": "77aa.dir"}
    assert lineage.code_tags(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("{not yaml: [")
    assert lineage.hashes(tmp_path) == {}


def test_a_relative_sqlite_store_lies_in_the_project(tmp_path: Path) -> None:
    assert Tracker("sqlite:///mlflow.db", project=tmp_path).store == f"sqlite:///{tmp_path}/mlflow.db"
    for uri in ("sqlite:////srv/mlflow.db", "http://127.0.0.1:5000", "sqlite:///:memory:"):
        assert Tracker(uri, project=tmp_path).store == uri


def test_flatten_joins_with_dots() -> None:
    assert flatten({"a": {"b": 1, "c": {}}, "d": [1]}) == {"a.b": 1, "a.c": {}, "d": [1]}
