"""Where a run comes from: the git commit of the code and DVC's hashes of the data."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

COMMIT_TAG = "mlflow.source.git.commit"  # the tag that MLflow's page shows as a run's version


def git_state(project: Path) -> dict[str, str]:
    """`{"commit": …, "dirty": "true"|"false"}` of the checkout; empty outside a git repository."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(project), *arguments], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    return {"commit": commit, "dirty": "true" if git("status", "--porcelain") else "false"} if commit else {}


def dvc_hashes(project: Path) -> dict[str, dict[str, str]]:
    """`{stage: {output path: md5}}` as `dvc.lock` records it; empty where there is no readable lock."""
    try:
        lock = yaml.safe_load((project / "dvc.lock").read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError):
        return {}
    stages = lock.get("stages") if isinstance(lock, dict) else None
    hashes: dict[str, dict[str, str]] = {}
    for stage, entry in (stages or {}).items():
        outs = (entry or {}).get("outs") or []
        hashes[stage] = {out["path"]: str(out["md5"]) for out in outs if "path" in out and "md5" in out}
    return hashes


def tags(project: Path) -> dict[str, str]:
    """Tags of a parent run: git commit, whether the checkout was dirty, and `dvc.<path>` per data set."""
    git = git_state(project)
    found = {COMMIT_TAG: git["commit"], "git.dirty": git["dirty"]} if git else {}
    for outs in dvc_hashes(project).values():
        found.update({f"dvc.{path}": md5 for path, md5 in outs.items()})
    return found
