"""A²GRPO on GeoZero-Hard as a flow, behind the gate on format and mixed groups: `python -m flows.a2grpo`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

from flows.command import start
from flows.tracked import log_training, pipeline_run
from flows.watching import TRAINING, bounded
from geozero.corpus import write_json
from geozero.evaluation.inference import Job, records_path, run_in_child
from geozero.training import gate
from geozero.training.stage import StageResult, run_a2grpo
from geozero.workspace import Workspace

GATE_LIMIT = 40  # validation questions a source: with 8 rollouts each, shares are known to a few points


@task(name="gate", cache_policy=NO_CACHE)
def check_gate(space: Workspace, model: Path) -> gate.GateResult:
    """Measure on `val` whether RL can start from this model; stop the line where it cannot."""
    settings = space.settings.a2grpo
    out = model.parent / "gate"
    corpora = [str(p) for p in space.corpora_with("val") if p.name in space.trained_sources]
    job = Job(
        model=str(model),
        corpora=tuple(corpora),
        out=str(out),
        modes=("tagged",),
        split="val",
        max_tokens=settings.max_completion_tokens,
        samples=settings.group_size,
        temperature=settings.temperature,
        seed=space.settings.seed,
        limit=GATE_LIMIT,
        boxes=space.settings.model.boxes,
        engine=space.engine,
    )
    run_in_child(job, space.log("gate"), bounded(get_run_logger().info))
    records = [
        record
        for corpus in corpora
        for record in json.loads(records_path(out, "tagged", Path(corpus).name).read_text())
    ]
    result = gate.measure(records)
    write_json(out / "gate.json", asdict(result))
    gate.require(result, settings.min_well_formed, settings.min_mixed_groups)
    return result


@task(name="a2grpo", cache_policy=NO_CACHE)
def train_a2grpo(space: Workspace, model: Path, parent: str | None) -> StageResult:
    """Reinforce on GeoZero-Hard in tagged mode; a finished run with the same fingerprint is reused."""
    corpus, tell = space.hard, bounded(get_run_logger().info, TRAINING)
    result = run_a2grpo(space.settings, corpus, model, space.runs, on_line=tell)
    if parent is not None:
        log_training(space, parent, "a2grpo", result, corpus)
    return result


@flow(name="geozero-a2grpo")
def a2grpo(model: Path, params: Path = Path("params.yaml")) -> Path:
    """A²GRPO alone, from a checkpoint of SFT."""
    space = Workspace.open(params)
    with pipeline_run(space, "a2grpo") as parent:
        check_gate(space, model)
        return train_a2grpo(space, model, parent).model


if __name__ == "__main__":
    start(a2grpo, model=True)
