"""Provenance of a run: the git commit of the code and DVC's hashes of the data."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import yaml

COMMIT_TAG = "mlflow.source.git.commit"  # the tag that MLflow's page shows as a run's version
CHANGED_TAG = "git.changed"
LOCK = "dvc.lock"
SHOWN, DIGEST_LENGTH = 5, 8  # files that are named; hex digits of the hash of the changes


def git_state(project: Path) -> dict[str, str]:
    """`{"commit": …, "dirty": "true"|"false"}` of the checkout; empty outside a git repository.

    Where files differ from the commit, `changed` names some of them, with a hash of the changes that tells two runs of
    one commit apart. `dvc.lock` does not count: runs write it, and its hashes are recorded on their own.
    """

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.rstrip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if not commit:
        return {}
    but_lock = ("--", ".", f":(exclude,top){LOCK}")
    changed = [line[3:] for line in (git("status", "--porcelain", *but_lock) or "").splitlines()]
    if not changed:
        return {"commit": commit, "dirty": "false"}
    named = ", ".join(changed[:SHOWN]) + (f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else "")
    changes = "\n".join([*changed, git("diff", "HEAD", *but_lock) or ""])
    digest = hashlib.sha256(changes.encode()).hexdigest()[:DIGEST_LENGTH]
    return {"commit": commit, "dirty": "true", "changed": f"{named} ({digest})"}


def committed(file: Path) -> str | None:
    """The text of a file as committed; None where git does not know it."""
    words = ["git", "-C", str(file.parent), "show", f"HEAD:./{file.name}"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=30)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def hashes(project: Path) -> dict[str, str]:
    """`{output path: md5}` of all data stages, as `dvc.lock` records them; empty where there is no readable lock."""
    try:
        lock = yaml.safe_load((project / LOCK).read_text())
        stages = (lock.get("stages") or {}).values()
        outs = [out for stage in stages for out in (stage or {}).get("outs") or []]
        return {str(out["path"]): str(out["md5"]) for out in outs if "path" in out and "md5" in out}
    except (OSError, yaml.YAMLError, ValueError, RecursionError, AttributeError, TypeError):
        return {}


def code_tags(project: Path) -> dict[str, str]:
    """Tags of any run: the git commit, and the differences from it."""
    git = git_state(project)
    if not git:
        return {}
    return {COMMIT_TAG: git["commit"], "git.dirty": git["dirty"], CHANGED_TAG: git.get("changed", "nothing")}


def data_tags(project: Path) -> dict[str, str]:
    """Tags of a run that reads data: `dvc.<path>` per output of a data stage."""
    return {f"dvc.{path}": md5 for path, md5 in hashes(project).items()}
