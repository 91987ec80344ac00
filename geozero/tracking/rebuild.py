"""How to make a run again: the commands; and whether its data comes out the same, bit for bit, in a clean clone."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from geozero.common import process
from geozero.common.errors import InputError
from geozero.common.redaction import redact
from geozero.tracking import PARENT_TAG, Tracker
from geozero.tracking.lineage import CHANGED_TAG, COMMIT_TAG, LOCK, hashes
from geozero.tracking.origin import FOLDER, PARAMS, PATCH
from geozero.tracking.trace import MODEL_PATH, SCORES, Fact

if TYPE_CHECKING:
    from mlflow.entities import Run

Log = Callable[[str], object]
TRAINED = ("sft", "a2grpo")  # commands that train, in their order
STORE = "grows"  # an answer store, whose hash says nothing
EVALUATE = "evaluate-"  # begins the name of a run that only evaluates


def pipeline_of(tracker: Tracker, run: Run) -> Run:
    """The pipeline run that a stage or a set of scores belongs to; the run itself where it is one."""
    return tracker.run(run.data.tags.get(PARENT_TAG, "")) or run


def commands(tracker: Tracker, run: Run, clone: str = "geozero-rebuilt") -> Iterator[str]:
    """Shell commands that make a run again from the checkout's repository, one line each.

    Raises:
        InputError: the run recorded no commit.
    """
    run = pipeline_of(tracker, run)
    run_id, tags, commit = run.info.run_id, run.data.tags, _commit(run)
    kept = set(_origin(tracker, run_id))
    yield f"git clone {shlex.quote(str(tracker.project.resolve()))} {clone} && cd {clone}"
    yield f"git checkout --detach {commit}"
    yield "make env"
    if kept:
        store = shlex.quote(redact(tracker.store))
        yield f"MLFLOW_TRACKING_URI={store} .venv/bin/mlflow artifacts download -r {run_id} -a {FOLDER} -d ."
    if PATCH in kept:
        yield f"git apply --binary {FOLDER}/{PATCH}"
    elif tags.get("git.dirty") == "true":
        yield f"# its checkout differed from the commit, and the changes were not recorded: {tags.get(CHANGED_TAG)}"
    for name in (PARAMS, LOCK):
        if name in kept:
            yield f"cp {FOLDER}/{name} {name}"
    yield ".venv/bin/dvc pull || .venv/bin/dvc repro    # the remote's copy of the data, or the data made again"
    stages = {str(stage.info.run_name) for stage in tracker.stages(run)}
    for stage in TRAINED:
        if stage in stages:
            yield f".venv/bin/geozero {stage} --params {PARAMS}"
    name = str(run.info.run_name)
    if name.startswith(EVALUATE):
        yield f".venv/bin/python -m flows.evaluate {shlex.quote(tags.get(MODEL_PATH, 'MODEL'))} --params {PARAMS}"
    elif any(stage.startswith(SCORES) for stage in stages):
        yield ".venv/bin/python -m flows.pipeline    # evaluation and page; what is trained already is reused"


def check(tracker: Tracker, run: Run, clone: Path, log: Log) -> list[Fact]:
    """Make the data of a run again in a clean clone, and compare the hashes of all outputs with the recorded ones.

    Inputs that are not in git (downloads, base models) are linked from this checkout.

    Args:
        clone: where the clone goes; nothing may lie there.
        log: called with each line of git and DVC.

    Returns:
        One fact per output: `same`, `other`, `missing` or `STORE`, its path, and both hashes.

    Raises:
        InputError: the run recorded no commit, no parameters or no hashes; the commit is not in this repository; a
            stage failed.
    """
    run = pipeline_of(tracker, run)
    recorded = {k.removeprefix("dvc."): v for k, v in run.data.tags.items() if k.startswith("dvc.")}
    commit, project, kept = _commit(run), tracker.project.resolve(), _origin(tracker, run.info.run_id)
    if not recorded:
        raise InputError("the run recorded no data", run.info.run_id, "trace the pipeline run that made it")
    if clone.exists() and any(clone.iterdir()):
        raise InputError("the directory is not empty", str(clone), "choose another --into")
    _git(project, log, "clone", "--quiet", "--no-checkout", str(project), str(clone))
    _git(clone, log, "checkout", "--quiet", "--detach", commit)
    for name, file in kept.items():
        if name == PATCH:
            _git(clone, log, "apply", "--binary", str(file))
        elif name == PARAMS:
            shutil.copyfile(file, clone / PARAMS)
    lock = _yaml(kept.get(LOCK, project / LOCK))
    link_inputs(project, clone, lock)
    tail: list[str] = []

    def on_line(line: str) -> None:
        tail.append(line)
        log(line)

    search = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # the stages call `python3`
    try:
        process.run(
            [sys.executable, "-m", "dvc", "repro"], cwd=clone, env={"PATH": search, "PYTHONPATH": ""}, on_line=on_line
        )
    except process.ChildFailed:
        wrong = next(
            (line for line in reversed(tail) if line.startswith(("geozero: ", "ERROR: "))), tail[-1] if tail else ""
        )
        raise InputError(f"the data stages failed: {wrong}", str(clone), "its lines above say why") from None
    made, stores = hashes(clone), _stores(clone)

    def kind(path: str, value: str) -> str:
        if path not in made:
            return "missing"
        return "same" if made[path] == value else STORE if path in stores else "other"

    return [Fact(kind(path, value), path, f"{value}\t{made.get(path, '-')}") for path, value in recorded.items()]


def _stores(checkout: Path) -> set[str]:
    """The outputs that grow (`persist`): the names of their files are random, so their hashes always differ; what is
    computed from them is compared."""
    stages = (_yaml(checkout / "dvc.yaml").get("stages") or {}).values()
    outs = [out for stage in stages for out in stage.get("outs") or [] if isinstance(out, dict)]
    return {path for out in outs for path, flags in out.items() if isinstance(flags, dict) and flags.get("persist")}


def link_inputs(project: Path, clone: Path, lock: dict[str, Any]) -> None:
    """Link what the stages of a lock read, no stage makes and git does not hold, from one checkout into another."""
    stages = [stage for stage in (lock.get("stages") or {}).values() if isinstance(stage, dict)]
    made = [Path(out["path"]) for stage in stages for out in stage.get("outs") or []]
    for path in sorted({Path(dep["path"]) for stage in stages for dep in stage.get("deps") or []}):
        is_made = any(path.is_relative_to(out) or out.is_relative_to(path) for out in made)
        if path.is_absolute() or ".." in path.parts or is_made or (clone / path).exists():
            continue
        if (project / path).exists():
            (clone / path).parent.mkdir(parents=True, exist_ok=True)
            (clone / path).symlink_to(project / path)


def _commit(run: Run) -> str:
    commit = run.data.tags.get(COMMIT_TAG)
    if not commit:
        raise InputError("the run recorded no commit", run.info.run_id, "it ran outside a git repository")
    return str(commit)


def _origin(tracker: Tracker, run_id: str) -> dict[str, Path]:
    """The files that a run kept of its origin, downloaded; empty for runs of earlier versions."""
    names = [Path(file.path).name for file in tracker.client.list_artifacts(run_id, FOLDER)]
    return {name: Path(tracker.client.download_artifacts(run_id, f"{FOLDER}/{name}")) for name in names}


def _git(place: Path, log: Log, *words: str) -> None:
    done = subprocess.run(["git", "-C", str(place), *words], capture_output=True, text=True)
    for line in done.stderr.splitlines():
        log(line)
    if done.returncode:
        raise InputError(f"git {words[0]} failed: {done.stderr.strip().splitlines()[-1:]}", str(place))


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
