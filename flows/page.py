"""The end of the line: scores, baselines, goals and gallery into `reports/`, MLflow and Prefect's artifacts."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.tracked import curve
from flows.watching import Times
from geozero import lineage
from geozero.corpus import Corpus, write_json
from geozero.evaluation.goals import Goal, method_goals, resource_goals
from geozero.evaluation.report import report
from geozero.evaluation.summary import Answered, baseline_rows, by_source, gallery, headline_mean, score_rows
from geozero.training.gate import GateResult
from geozero.training.stage import StageResult
from geozero.workspace import Workspace

PACKAGES = ("torch", "transformers", "ms-swift", "trl", "prefect", "dvc", "mlflow", "pyarrow")


def publish(
    space: Workspace,
    parent: str,
    answered: Sequence[Answered],
    gate: GateResult,
    sft: StageResult,
    rl: StageResult,
    times: Times,
) -> list[Goal]:
    """Write `reports/data/*.json` and the page, log scores to MLflow's parent run, leave two artifacts in Prefect."""
    boxes = space.settings.model.boxes
    sources = [sources_of for path in space.corpora for sources_of in _tested_sources(path)]
    by_name = {a.model: a for a in answered}
    rows = list(score_rows(answered, sources, boxes))
    guesses = list(baseline_rows(answered[0], sources, boxes))
    goals = [*method_goals(rows, guesses), *resource_goals(times.seconds, times.peak_bytes)]
    data = space.reports / "data"
    data.mkdir(parents=True, exist_ok=True)
    held_out = list(gallery(by_name["sft"], by_name["a2grpo"], space.corpora, boxes, space.settings.evaluation.gallery))
    parts: dict[str, Any] = {
        "scores": rows,
        "baselines": guesses,
        "goals": [asdict(g) for g in goals],
        "difficulty": _json(space, "selection.json").get("histogram", {}),
        "curves": {"sft": curve(sft.directory), "a2grpo": curve(rl.directory)},
        "gallery": held_out,
        "lineage": _lineage(space, parent, gate, sft, rl),
        "timings": [{"stage": stage, "seconds": seconds} for stage, seconds in times.seconds.items()],
    }
    for name, value in parts.items():
        write_json(data / f"{name}.json", value)
    report(data, space.reports / "index.html")
    _log(space, parent, rows, goals)
    create_table_artifact(table=_table(rows), key="scores", description="Strict scores, headline metric of each task")
    create_markdown_artifact(markdown=_goals_markdown(goals), key="goals", description="Goals, wanted and reached")
    return goals


def print_goals(goals: Iterable[Goal], times: Times) -> None:
    """The figures at the end of a run, one plain line each."""
    print("\n".join(f"{stage:12s} {seconds:7.1f} s" for stage, seconds in times.seconds.items()))
    for goal in goals:
        mark = {True: "met", False: "MISSED", None: "not measured"}[goal.ok]
        print(f"{mark:12s} {goal.name}: wanted {goal.wanted}, reached {goal.reached}  {goal.note}")


def _tested_sources(path: Any) -> list[str]:
    counts = Corpus(path).manifest["counts"]
    return sorted({row["source"] for row in counts if row["split"] == "test"})


def _lineage(space: Workspace, parent: str, gate: GateResult, sft: StageResult, rl: StageResult) -> dict[str, Any]:
    return {
        "profile": space.settings.profile,
        "seed": space.settings.seed,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **lineage.git_state(space.root),
        "mlflow_run": parent,
        "gate": asdict(gate),
        "runs": {"sft": sft.directory.name, "a2grpo": rl.directory.name},
        "data": {path: md5 for outs in lineage.dvc_hashes(space.root).values() for path, md5 in outs.items()},
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "parameters": space.settings.model_dump(),
    }


def _log(space: Workspace, parent: str, rows: Sequence[dict[str, Any]], goals: Sequence[Goal]) -> None:
    tracker = space.tracker
    tracker.headline(parent, headline_scores(rows))
    with tracker.stage(parent, "evaluation", space.runs / "evaluation") as run:
        tracker.log_metrics(run, {_metric(r): r["value"] for r in by_source(rows) if r["question_type"] is None})
        tracker.log_artifact(run, space.reports / "data" / "scores.json")
    tracker.log_artifact(parent, space.reports / "index.html")
    for goal in goals:
        tracker.client.set_tag(parent, f"goal.{goal.key}", f"{goal.ok}: {goal.reached}")


def headline_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean over tasks of each model, mode, world and split, in percent: what the runs table of MLflow shows."""
    places = {(r["model"], r["mode"], r["world"], r["split"]) for r in rows}
    return {
        f"{model}/{mode}/{world}/{split}": headline_mean(rows, model=model, mode=mode, world=world, split=split)
        for model, mode, world, split in sorted(places)
    }


def _metric(row: Mapping[str, Any]) -> str:
    return "/".join((row["model"], row["mode"], row["source"], row["task"], row["metric"]))


def _table(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    shown = [r for r in by_source(rows) if r["headline"] and r["question_type"] is None]
    return [
        {k: r[k] for k in ("model", "mode", "source", "split", "task", "metric", "n")} | {"value": round(r["value"], 4)}
        for r in shown
    ]


def _goals_markdown(goals: Iterable[Goal]) -> str:
    lines = [f"| {g.name} | {g.wanted} | {g.reached} | {g.ok} |" for g in goals]
    return "\n".join(["| goal | wanted | reached | met |", "|---|---|---|---|", *lines])


def _json(space: Workspace, name: str) -> dict[str, Any]:
    path = space.reports / name
    value: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return value
