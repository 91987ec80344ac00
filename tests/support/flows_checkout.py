"""A checkout of its own for tests that run the stages or the flows: the code copied, a small parameter file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from paths import ROOT

CODE = ("geozero", "flows", "data/samples", "dvc.yaml", "pyproject.toml", ".dvc/config", ".dvcignore", ".gitignore")


def settings(**changes: Mapping[str, Any]) -> dict[str, Any]:
    """The demo's parameters with other values in some sections."""
    values: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    for section, change in changes.items():
        values[section] = {**values[section], **change}
    return values


def checkout(path: Path, params: Mapping[str, Any]) -> Path:
    """Copy what a run needs, write params.yaml, make it a git repository (DVC wants one)."""
    for name in CODE:
        source, target = ROOT / name, path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, target)
    write_params(path, params)
    subprocess.run(["git", "init", "-q", str(path)], check=True)
    return path


def write_params(path: Path, params: Mapping[str, Any]) -> None:
    (path / "params.yaml").write_text(yaml.safe_dump(dict(params), sort_keys=False))


def python(
    path: Path, *words: str, timeout: float = 900, code: Path | None = None, first_in_path: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m words…` in a checkout with its own code, or that of `code`; nothing is kept outside it."""
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(first_in_path or Path(sys.executable).parent), os.environ["PATH"]]),
        "PYTHONPATH": str(code or path),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(path / ".dvc/site"),
        "PREFECT_HOME": str(path / ".prefect"),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "300",  # a test machine may be busy with others
    }
    return subprocess.run(
        [sys.executable, "-m", *words], cwd=path, env=environment, capture_output=True, text=True, timeout=timeout
    )
