"""What a run needs to be made again: its parameters, the changes since its commit, DVC's lock; artifacts of its run."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from geozero.common.atomic import write_text
from geozero.common.redaction import HIDDEN, redact, redacted
from geozero.tracking.lineage import LOCK

FOLDER = "origin"  # of the run's artifacts
PARAMS, PATCH = "params.yaml", "changes.patch"
SETTINGS = (".yaml", ".yml", ".json", ".toml", ".ini", ".cfg", ".env")
_ASSIGNED = re.compile(
    r"(?i)([\w-]*(?:password|passwd|pwd|secret|token|api[_-]?key|access[_-]?key)['\"]?\s*[:=]\s*['\"]?)[^\s'\",#]+"
)
PATCH_BYTES = 10_000_000  # larger changes are not kept; the run's tag names the files


def write_origin(project: Path, file: Path, settings: Mapping[str, Any], given: Mapping[str, Any], out: Path) -> Path:
    """Write the parameters and the changes of the checkout into `out`, without passwords; returns `out`.

    Args:
        file: the parameter file.
        settings: what the run uses, nested.
        given: what the file says, read alike; where `settings` differ from it, they count.
    """
    text = file.read_text()
    values = yaml.safe_load(text)
    changed = _merge(values, _difference(given, settings)) if settings != given else values
    safe = redacted(changed)
    write_text(out / PARAMS, text if safe == values else yaml.safe_dump(safe, sort_keys=False, allow_unicode=True))
    patch = changes(project, file)
    if patch and len(patch) <= PATCH_BYTES:
        write_text(out / PATCH, _without_secrets(patch.decode(errors="replace")))
    if (project / LOCK).is_file():
        shutil.copyfile(project / LOCK, out / LOCK)
    return out


def changes(project: Path, *but: Path) -> bytes:
    """The difference of a checkout from its commit as a patch for `git apply`, new files included.

    Args:
        but: files to leave out, as `dvc.lock` is, which is recorded on its own.
    """
    left_out = [project / LOCK, *but]
    names = [path.relative_to(project).as_posix() for path in left_out if path.is_relative_to(project)]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "GIT_INDEX_FILE": str(Path(scratch, "index"))}  # the user's own stays as it is
        git = ["git", "-C", str(project)]
        paths = ["--", ".", *(f":(exclude){name}" for name in names)]
        options: dict[str, Any] = {"env": environment, "capture_output": True, "timeout": 120}
        try:
            for words in (["read-tree", "HEAD"], ["add", "-A", *paths]):
                if subprocess.run([*git, *words], **options).returncode:
                    return b""
            return bytes(subprocess.run([*git, "diff", "--cached", "--binary", "HEAD", *paths], **options).stdout)
        except (OSError, subprocess.TimeoutExpired):
            return b""


def _without_secrets(patch: str) -> str:
    """A patch whose added lines hold no password: of addresses anywhere, of names such as `hub_token` in settings."""
    lines, settings = [], False
    for line in patch.splitlines(keepends=True):
        if line.startswith("diff --git "):
            settings = line.rstrip().endswith(SETTINGS)
        if line.startswith("+") and not line.startswith("+++"):
            line = redact(line)
            line = _ASSIGNED.sub(rf"\1{HIDDEN}", line) if settings else line
        lines.append(line)
    return "".join(lines)


def _difference(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `b` that differ from those of `a`."""
    return {
        key: _difference(a[key], value) if isinstance(value, Mapping) and isinstance(a.get(key), Mapping) else value
        for key, value in b.items()
        if key not in a or a[key] != value
    }


def _merge(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **a,
        **{k: _merge(a[k], v) if isinstance(v, Mapping) and isinstance(a.get(k), Mapping) else v for k, v in b.items()},
    }
