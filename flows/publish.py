"""The end of the pipeline: scores, baselines, goals and gallery go to `reports/`, MLflow and Prefect's artifacts."""

from __future__ import annotations

import base64
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect.artifacts import create_image_artifact, create_markdown_artifact

from flows.runtime.monitoring import StageTimer
from flows.runtime.progress import leave_artifact
from flows.runtime.score_logging import log_scores, tested_sources
from flows.runtime.tracking import curve, leave_links, outbox
from geozero.common.atomic import write_json
from geozero.common.redaction import redacted
from geozero.evaluation.gallery_items import gallery, probe_rows
from geozero.evaluation.goals import Goal, method_goals, resource_goals
from geozero.evaluation.report.build import report
from geozero.evaluation.result_sets import ModelAnswers, eval_slices
from geozero.evaluation.score_rows import evaluation_parts
from geozero.tracking import lineage
from geozero.training.grpo import probe_log
from geozero.training.grpo.preflight import PreflightResult
from geozero.training.stage import StageResult
from geozero.workspace import Workspace

TABLES = ("scores", "comparisons", "reasoning")
IMAGE_BYTES = 300_000
PACKAGES = ("torch", "transformers", "ms-swift", "trl", "prefect", "dvc", "mlflow", "pyarrow")


def publish(
    workspace: Workspace,
    parent: str,
    answered: Sequence[ModelAnswers],
    gate: PreflightResult,
    sft: StageResult,
    rl: StageResult,
    times: StageTimer,
) -> list[Goal]:
    """Write `reports/data/*.json` and the page, log scores to MLflow's parent run, leave two artifacts in Prefect."""
    settings, corpora = workspace.settings, workspace.corpora
    boxes = settings.model.boxes
    parts: dict[str, Any] = evaluation_parts(list(eval_slices(answered, tested_sources(workspace), boxes)))
    scores = parts["scores"]
    goals = [*method_goals(scores, parts["baselines"]), *resource_goals(times.seconds, times.peak_bytes)]
    probes = ((probe.sample, probe.texts) for probe in probe_log.read(rl.directory))
    parts |= {
        "goals": [asdict(goal) for goal in goals],
        "difficulty": _json(workspace, "selection.json").get("histogram", {}),
        "curves": {"sft": curve(sft.directory), "a2grpo": curve(rl.directory)},
        "probes": list(probe_rows(probes, corpora, boxes)),
        "gallery": list(gallery(answered, corpora, boxes, settings.evaluation.gallery)),
        "lineage": _lineage(workspace, parent, gate, sft, rl),
        "timings": [{"stage": stage, "seconds": seconds} for stage, seconds in times.seconds.items()],
    }
    data = workspace.reports / "data"
    for name, value in parts.items():
        write_json(data / f"{name}.json", value)
    files = report(data, workspace.reports / "index.html")
    log_scores(workspace, parent, scores)
    box = outbox(workspace)
    for path in (*files, data / "scores.json", data / "details.json"):
        box.log_artifact(parent, path, "plots" if path.suffix == ".svg" else None)
    for name in TABLES:
        box.log_table(parent, name, parts[name])
    box.promote(parent)
    for goal in goals:
        box.set_tag(parent, f"goal.{goal.key}", f"{goal.ok}: {goal.reached}")
    leave_links(workspace, parent)
    leave_artifact(
        create_markdown_artifact,
        markdown=_goals_markdown(goals),
        key="goals",
        description="Goals, required and reached",
    )
    _show_image(workspace.reports / "difficulty.png")
    return goals


def _show_image(path: Path) -> None:
    """Leave a small image as an artifact, with its bytes inside: Prefect's pages cannot read local files."""
    if path.is_file() and path.stat().st_size < IMAGE_BYTES:
        address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        leave_artifact(
            create_image_artifact, image_url=address, key="difficulty", description="Pass rates of the filtering models"
        )


def print_goals(goals: Iterable[Goal], times: StageTimer) -> None:
    """Print the figures at the end of a run, one plain line each."""
    print("\n".join(f"{stage:12s} {seconds:7.1f} s" for stage, seconds in times.seconds.items()))
    for goal in goals:
        mark = {True: "met", False: "MISSED", None: "not measured"}[goal.ok]
        print(f"{mark:12s} {goal.name}: required {goal.wanted}, reached {goal.reached}  {goal.note}")


def _lineage(
    workspace: Workspace, parent: str, gate: PreflightResult, sft: StageResult, rl: StageResult
) -> dict[str, Any]:
    return {
        "profile": workspace.settings.profile,
        "seed": workspace.settings.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **lineage.git_state(workspace.root),
        "mlflow_run": parent,
        "gate": asdict(gate),
        "runs": {"sft": sft.directory.name, "a2grpo": rl.directory.name},
        "data": lineage.hashes(workspace.root),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "parameters": redacted(workspace.settings.model_dump()),
    }


def _goals_markdown(goals: Iterable[Goal]) -> str:
    lines = [f"| {g.name} | {g.wanted} | {g.reached} | {g.ok} |" for g in goals]
    return "\n".join(["| goal | required | reached | met |", "|---|---|---|---|", *lines])


def _json(workspace: Workspace, name: str) -> dict[str, Any]:
    path = workspace.reports / name
    value: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return value
