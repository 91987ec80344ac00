"""The end of the line: scores, baselines, goals and gallery into `reports/`, MLflow and Prefect's artifacts."""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from flows.tracked import curve, leave_links, outbox
from flows.watching import Times
from geozero import lineage
from geozero.best import TEST_DATA
from geozero.corpus import Corpus, write_json
from geozero.evaluation.differences import comparison_rows, detail_rows, reasoning_rows, whole
from geozero.evaluation.goals import Goal, method_goals, resource_goals
from geozero.evaluation.guessing import guesses as guesses_of
from geozero.evaluation.parts import Answered, parts
from geozero.evaluation.report import report
from geozero.evaluation.summary import by_source, gallery, headline_mean, probe_rows, rows_of
from geozero.outbox import FOLDER
from geozero.training import thoughts
from geozero.training.gate import GateResult
from geozero.training.stage import StageResult
from geozero.workspace import Workspace

TABLES = ("scores", "comparisons", "reasoning")
PICTURE_BYTES = 300_000
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
    scored = list(parts(answered, sources, boxes))
    rows = list(rows_of(scored))
    first = (answered[0].model, answered[0].modes[0])
    guessed_on = [p for p in scored if (p.model, p.mode) == first and p.source is not None]
    guesses = [row for part in guessed_on for row in guesses_of(part)]
    goals = [*method_goals(rows, guesses), *resource_goals(times.seconds, times.peak_bytes)]
    data = space.reports / "data"
    data.mkdir(parents=True, exist_ok=True)
    held_out = list(gallery(by_name["sft"], by_name["a2grpo"], space.corpora, boxes, space.settings.evaluation.gallery))
    written: dict[str, Any] = {
        "scores": rows,
        "baselines": guesses,
        "comparisons": list(comparison_rows(whole(scored))),
        "reasoning": list(reasoning_rows(whole(scored))),
        "details": list(detail_rows(whole(scored))),
        "goals": [asdict(g) for g in goals],
        "difficulty": _json(space, "selection.json").get("histogram", {}),
        "curves": {"sft": curve(sft.directory), "a2grpo": curve(rl.directory)},
        "probes": list(probe_rows(((p.sample, p.texts) for p in thoughts.read(rl.directory)), space.corpora, boxes)),
        "gallery": held_out,
        "lineage": _lineage(space, parent, gate, sft, rl),
        "timings": [{"stage": stage, "seconds": seconds} for stage, seconds in times.seconds.items()],
    }
    for name, value in written.items():
        write_json(data / f"{name}.json", value)
    files = report(data, space.reports / "index.html")
    _log(space, parent, rows, goals, [*files, *(data / f"{name}.json" for name in ("scores", "details"))])
    leave_links(space, parent)
    create_table_artifact(table=_table(rows), key="scores", description="Strict scores, headline metric of each task")
    create_markdown_artifact(markdown=_goals_markdown(goals), key="goals", description="Goals, wanted and reached")
    _show_picture(space.reports / "difficulty.png")
    return goals


def _show_picture(path: Path) -> None:
    """A small picture as an artifact, its bytes inside: the pages of Prefect reach no file of this machine."""
    if path.is_file() and path.stat().st_size < PICTURE_BYTES:
        address = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
        create_image_artifact(image_url=address, key="difficulty", description="Pass rates of the filtering models")


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


def _log(
    space: Workspace, parent: str, rows: Sequence[dict[str, Any]], goals: Sequence[Goal], files: Sequence[Path]
) -> None:
    """Scores, tables, plots and page to MLflow; a run for each model and way of asking, all with the same names of
    metrics and parameters, so that they can be compared."""
    box = outbox(space)
    box.log_metrics(parent, headline_scores(rows))
    asked = list(dict.fromkeys((row["model"], row["mode"]) for row in rows))
    runs = []
    for model, mode in asked:
        own = [row for row in rows if (row["model"], row["mode"]) == (model, mode)]
        name = f"scores-{model}-{mode}"
        # a directory for each pipeline run: the scores of an earlier one stay with it
        with box.stage(parent, name, space.runs / FOLDER / parent / name) as run:
            box.log_params(run, {"model": model, "mode": mode})
            box.log_metrics(run, {_metric(r): r["value"] for r in by_source(own) if r["question_type"] is None})
            means = headline_scores(own)
            box.log_metrics(run, {f"mean/{key.split('/', 2)[2]}": value for key, value in means.items()})
            runs.append(run)
    for path in files:
        box.log_artifact(parent, path, "plots" if path.suffix == ".svg" else None)
    for name in TABLES:
        box.log_table(parent, name, json.loads((space.reports / "data" / f"{name}.json").read_text()))
    box.compare(parent, runs)
    box.set_tag(parent, TEST_DATA, _test_digest(space))
    box.put("promote", parent)
    for goal in goals:
        box.set_tag(parent, f"goal.{goal.key}", f"{goal.ok}: {goal.reached}")


def _test_digest(space: Workspace) -> str:
    """Hash of everything that was asked: scores of two runs can be compared where it is the same."""
    asked = [f"{path.name} {Corpus(path).digest}" for path in space.corpora_with("test")]
    return hashlib.sha256("\n".join([*asked, str(space.settings.evaluation.limit)]).encode()).hexdigest()[:16]


def headline_scores(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Mean over tasks of each model, mode, world and split, in percent: what the runs table of MLflow shows."""
    places = {(r["model"], r["mode"], r["world"], r["split"]) for r in rows}
    return {
        f"{model}/{mode}/{world}/{split}": headline_mean(rows, model=model, mode=mode, world=world, split=split)
        for model, mode, world, split in sorted(places)
    }


def _metric(row: Mapping[str, Any]) -> str:
    return "/".join((row["source"], row["task"], row["metric"]))


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
