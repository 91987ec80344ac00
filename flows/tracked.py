"""What a flow leaves in MLflow: its parent run; a stage's parameters, curves, the bytes it read, its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from geozero import lineage
from geozero.corpus import Corpus
from geozero.training.stage import StageResult
from geozero.workspace import Workspace


@contextmanager
def pipeline_run(space: Workspace, name: str) -> Iterator[str]:
    """The id of a new parent run, which ends as the block ends: FAILED after an error, KILLED after an interrupt."""
    tracker = space.tracker
    parent = tracker.open_pipeline(name, space.settings.model_dump())
    try:
        yield parent
    except BaseException as error:
        tracker.finish(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    tracker.finish(parent)


def log_data(space: Workspace, parent: str) -> None:
    """The git commit and DVC's hashes as tags, GeoZero-Raw, -Instruct and -Hard as data sets of the pipeline run."""
    for key, value in lineage.tags(space.root).items():
        space.tracker.client.set_tag(parent, key, value)
    hashes = {path: md5 for outs in lineage.dvc_hashes(space.root).values() for path, md5 in outs.items()}
    for corpus in (space.raw, space.instruct, space.hard):
        digest = hashes.get(corpus.relative_to(space.root).as_posix()) or Corpus(corpus).digest
        space.tracker.log_dataset(parent, corpus, digest, context="data")


def log_training(space: Workspace, parent: str, stage: str, result: StageResult, corpus: Path) -> None:
    """Log a stage as a child of the pipeline run; a reused one is only noted, its run exists already."""
    tracker = space.tracker
    if result.reused and tracker.note_reused(parent, stage, result.directory) is not None:
        return
    with tracker.stage(parent, stage, result.directory) as run:
        tracker.log_params(run, space.settings.model_dump()[stage] | {"fingerprint": result.fingerprint})
        tracker.log_dataset(run, corpus, Corpus(corpus).digest)
        tracker.log_curve(run, curve(result.directory))
        tracker.register_checkpoint(
            run, result.model, f"{stage}-{result.fingerprint}", space.settings.model_dump()[stage]["steps"]
        )
        tracker.log_artifact(run, result.directory / "args.json")


def curve(directory: Path) -> list[dict[str, Any]]:
    """The metrics of a stage, one row a logged step."""
    path = directory / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
