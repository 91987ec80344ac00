"""`geozero runs list|compare|promote|send`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from geozero.common.terminal import PARAMS, draw_table, echo

if TYPE_CHECKING:
    from geozero.tracking import Tracker
    from geozero.tracking.compare_runs import ComparedRow

app = typer.Typer(help="Runs in MLflow: list, compare, promote the best.", no_args_is_help=True)

ParamsFile = Annotated[Path, typer.Option("--params", help="Its tracking section says where the runs are.")]
Store = Annotated[str | None, typer.Option("--tracking", help="sqlite:///FILE or http://HOST:PORT instead.")]
AnyRun = Annotated[str, typer.Argument(help="A run's id, the beginning of it, its name, or `latest`.")]


@app.command("list")
def list_runs(params: ParamsFile = PARAMS, tracking: Store = None) -> None:
    """List all pipeline runs, the newest first: id, name, state, start.

    Example: geozero runs list
    """
    from geozero.tracking.runs import label, pipelines, require_store

    tracker = open_tracker(params, tracking)
    require_store(tracker)
    for run in pipelines(tracker):
        echo("\t".join((*label(run).split(" ", 1), run.info.status)))


@app.command()
def compare(
    a: AnyRun,
    b: AnyRun,
    everything: Annotated[bool, typer.Option("--all", help="Include equal rows.")] = False,
    params: ParamsFile = PARAMS,
    tracking: Store = None,
) -> None:
    """Show the differences between two runs: parameters, data, code, scores.

    Example: geozero runs compare 63311b7d latest
    """
    from geozero.tracking import compare_runs as comparing
    from geozero.tracking.runs import facts, label, resolve

    tracker = open_tracker(params, tracking)
    first, second = resolve(tracker, a), resolve(tracker, b)
    rows = comparing.compare(facts(tracker, first), facts(tracker, second), everything)
    _show(rows, label(first), label(second))
    echo(f"side by side\t{tracker.compare_address([first.info.run_id, second.info.run_id])}", err=True)


@app.command()
def promote(
    run: AnyRun,
    force: Annotated[bool, typer.Option("--force", help="Move the alias even if the rule says no.")] = False,
    params: ParamsFile = PARAMS,
    tracking: Store = None,
) -> None:
    """Make a pipeline run's model the registered model's `best`, if the rule says so, as each run does at its end.

    Example: geozero runs promote latest
    """
    from geozero.tracking.model_promotion import promote as move
    from geozero.tracking.runs import label, resolve

    tracker = open_tracker(params, tracking)
    found = resolve(tracker, run)
    verdict = move(tracker, found, force)
    echo(f"{label(found)}\t{'best' if verdict.moves else 'unchanged'}\t{verdict.reason}")


@app.command()
def send(params: ParamsFile = PARAMS, tracking: Store = None) -> None:
    """Send the entries in runs/tracking that wait for the tracking server; the next run does so too.

    Example: geozero runs send
    """
    from geozero.common.errors import InputError
    from geozero.tracking.outbox import FOLDER, Outbox

    tracker = open_tracker(params, tracking)
    folder = params.absolute().parent / "runs" / FOLDER
    if not folder.is_dir():
        echo("0 sent\t0 waiting")
        return
    box = Outbox(tracker, folder, lambda line: echo(line, err=True))
    before = box.waiting()
    left = box.close()
    echo(f"{before - left} sent\t{left} waiting")
    if left:
        raise InputError("the tracking server does not accept them", tracker.uri, "try again when it answers")


def open_tracker(params: Path, store: str | None) -> Tracker:
    """The given store, or that of the parameter file, or mlflow.db here."""
    from geozero.params import load
    from geozero.tracking import Tracker
    from geozero.tracking.mlflow_store import configured_uri

    root = params.absolute().parent
    settings = load(params).tracking if params.is_file() or (params != PARAMS and store is None) else None
    experiment = settings.experiment if settings else Tracker.experiment
    return Tracker(store or configured_uri(settings.uri if settings else Tracker.uri), experiment, root)


def _show(rows: list[ComparedRow], first: str, second: str) -> None:
    if not sys.stdout.isatty():
        echo(f"run\t\t{first}\t{second}\t")
        for row in rows:
            gain = "" if row.change is None else f"{row.change:+.6g}"
            echo("\t".join((row.section, row.name, row.a, row.b, gain)))
    elif not rows:
        echo("nothing differs")
    else:
        sections = ["", *(row.section for row in rows)]
        draw_table(
            ("", "", first, second, "change"),
            [
                (
                    (row.section if row.section != before else "", "bold"),
                    *(row.name, row.a, row.b),
                    ("" if row.change is None else f"{row.change:+.4g}", _colour(row)),
                )
                for before, row in zip(sections, rows, strict=False)
            ],
        )


def _colour(row: ComparedRow) -> str:
    """Green for a better score, red for a worse one; a score is named `source/task/metric`."""
    from geozero.evaluation.metric_names import metric_format

    lower_is_better = metric_format(row.name.rpartition("/")[2]).lower_is_better
    return "green" if ((row.change or 0) < 0) is lower_is_better else "red"
