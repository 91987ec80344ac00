"""The end of the line: scores, baselines, goals and gallery into `reports/`, MLflow and Prefect's artifacts."""

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
from flows.runtime.score_logging import log_scores, tested_sources
from flows.runtime.tracking import curve, leave_links, outbox
from geozero.common.atomic import write_json
from geozero.evaluation.comparison_rows import comparison_rows, detail_rows, reasoning_rows, whole
from geozero.evaluation.goals import Goal, method_goals, resource_goals
from geozero.evaluation.guessing import guesses as guesses_of
from geozero.evaluation.report.build import report
from geozero.evaluation.result_sets import ModelAnswers, eval_slices
from geozero.evaluation.score_rows import gallery, probe_rows, rows_of
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
    boxes = workspace.settings.model.boxes
    by_name = {a.model: a for a in answered}
    scored = list(eval_slices(answered, tested_sources(workspace), boxes))
    rows = list(rows_of(scored))
    first = (answered[0].model, answered[0].modes[0])
    guessed_on = [p for p in scored if (p.model, p.mode) == first and p.source is not None]
    guesses = [row for part in guessed_on for row in guesses_of(part)]
    goals = [*method_goals(rows, guesses), *resource_goals(times.seconds, times.peak_bytes)]
    data = workspace.reports / "data"
    data.mkdir(parents=True, exist_ok=True)
    held_out = list(
        gallery(by_name["sft"], by_name["a2grpo"], workspace.corpora, boxes, workspace.settings.evaluation.gallery)
    )
    written: dict[str, Any] = {
        "scores": rows,
        "baselines": guesses,
        "comparisons": list(comparison_rows(whole(scored))),
        "reasoning": list(reasoning_rows(whole(scored))),
        "details": list(detail_rows(whole(scored))),
        "goals": [asdict(g) for g in goals],
        "difficulty": _json(workspace, "selection.json").get("histogram", {}),
        "curves": {"sft": curve(sft.directory), "a2grpo": curve(rl.directory)},
        "probes": list(
            probe_rows(((p.sample, p.texts) for p in probe_log.read(rl.directory)), workspace.corpora, boxes)
        ),
        "gallery": held_out,
        "lineage": _lineage(workspace, parent, gate, sft, rl),
        "timings": [{"stage": stage, "seconds": seconds} for stage, seconds in times.seconds.items()],
    }
    for name, value in written.items():
        write_json(data / f"{name}.json", value)
    files = report(data, workspace.reports / "index.html")
    log_scores(workspace, parent, rows)
    _log(workspace, parent, goals, [*files, *(data / f"{name}.json" for name in ("scores", "details"))])
    leave_links(workspace, parent)
    create_markdown_artifact(markdown=_goals_markdown(goals), key="goals", description="Goals, wanted and reached")
    _show_image(workspace.reports / "difficulty.png")
    return goals


def _show_image(path: Path) -> None:
    """A small image as an artifact, its bytes inside: the pages of Prefect reach no file of this machine."""
    if path.is_file() and path.stat().st_size < IMAGE_BYTES:
        address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        create_image_artifact(image_url=address, key="difficulty", description="Pass rates of the filtering models")


def print_goals(goals: Iterable[Goal], times: StageTimer) -> None:
    """The figures at the end of a run, one plain line each."""
    print("\n".join(f"{stage:12s} {seconds:7.1f} s" for stage, seconds in times.seconds.items()))
    for goal in goals:
        mark = {True: "met", False: "MISSED", None: "not measured"}[goal.ok]
        print(f"{mark:12s} {goal.name}: wanted {goal.wanted}, reached {goal.reached}  {goal.note}")


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
        "parameters": workspace.settings.model_dump(),
    }


def _log(workspace: Workspace, parent: str, goals: Sequence[Goal], files: Sequence[Path]) -> None:
    """Tables, plots, page and goals to MLflow."""
    box = outbox(workspace)
    for path in files:
        box.log_artifact(parent, path, "plots" if path.suffix == ".svg" else None)
    for name in TABLES:
        box.log_table(parent, name, json.loads((workspace.reports / "data" / f"{name}.json").read_text()))
    box.promote(parent)
    for goal in goals:
        box.set_tag(parent, f"goal.{goal.key}", f"{goal.ok}: {goal.reached}")


def _goals_markdown(goals: Iterable[Goal]) -> str:
    lines = [f"| {g.name} | {g.wanted} | {g.reached} | {g.ok} |" for g in goals]
    return "\n".join(["| goal | wanted | reached | met |", "|---|---|---|---|", *lines])


def _json(workspace: Workspace, name: str) -> dict[str, Any]:
    path = workspace.reports / name
    value: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return value
