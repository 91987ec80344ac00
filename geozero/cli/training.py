"""`geozero filter`, `sft`, `a2grpo` and `export`: models trained, and handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from geozero.common.errors import InputError
from geozero.common.terminal import PARAMS, DryRun, ParamsFile
from geozero.training.launcher.log_filter import format_progress_line, is_progress_line
from geozero.workspace import Workspace

app = typer.Typer()


@app.command("filter")
def train_filter(
    params: ParamsFile = PARAMS,
    corpus: Annotated[Path | None, typer.Option(help="GeoZero-Raw; if left out, data/geozero-raw.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for fold-0, fold-1, …")] = Path("models/filter"),
) -> None:
    """Train the data filtering models on GeoZero-Raw, one a fold, each on the other folds' samples.

    Example: geozero filter --params params.yaml --out models/filter
    """
    from geozero.training.stage import run_filters

    workspace = Workspace.open(params)
    for result in run_filters(
        workspace.settings, corpus or workspace.raw, workspace.base, workspace.runs, out, on_line=_training_line
    ):
        typer.echo(f"{result.directory}\t{'reused' if result.reused else 'trained'}")


@app.command()
def sft(params: ParamsFile = PARAMS, dry_run: DryRun = False) -> None:
    """Fine-tune the base model on GeoZero-Instruct: direct answers, no reasoning anywhere.

    Example: geozero sft --params params.yaml --dry-run
    """
    from geozero.training.replay import collect
    from geozero.training.stage import run_sft

    workspace = Workspace.open(params)
    replay: list[Any] = []
    if workspace.settings.sft.replay_share and not dry_run:
        replay = collect(workspace.settings, workspace.base, workspace.instruct, workspace.runs, typer.echo)
    log = typer.echo if dry_run else _training_line
    result = run_sft(
        workspace.settings,
        workspace.instruct,
        workspace.base,
        workspace.runs,
        replay=replay,
        dry_run=dry_run,
        on_line=log,
    )
    _trained(result, dry_run)
    if workspace.settings.sft.replay_share and dry_run:
        typer.echo("note: the replay is sampled before the training; with it the directory gets another name", err=True)


@app.command()
def a2grpo(
    params: ParamsFile = PARAMS,
    model: Annotated[Path | None, typer.Option(help="The SFT checkpoint; the newest one in runs/ if left out.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Reinforce on GeoZero-Hard with A²GRPO, from the SFT checkpoint.

    Example: geozero a2grpo --params params.yaml --dry-run
    """
    from geozero.training.stage import run_a2grpo

    workspace = Workspace.open(params)
    val, start, log = workspace.val_corpora, model, typer.echo if dry_run else _training_line
    if start is None:
        try:
            start = workspace.newest("sft")
        except InputError:
            if not dry_run:
                raise
            start = workspace.base  # a plan may come before SFT
    _trained(
        run_a2grpo(workspace.settings, workspace.hard, start, workspace.runs, val=val, dry_run=dry_run, on_line=log),
        dry_run,
    )


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="runs/STAGE-…, a checkpoint in it, or a model's directory.")],
    out: Annotated[Path, typer.Option(help="Directory of the plain checkpoint to write.")],
    scores: Annotated[
        list[Path] | None, typer.Option(help="What `evaluate` wrote, for the card: a file or directory; repeatable.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Load it in transformers and vLLM and compare their answers.")] = True,
) -> None:
    """Hand a model on: LoRA merged, a plain Hugging Face checkpoint with its card, checked in both engines.

    Example: geozero export runs/a2grpo-0123456789ab --out models/mine --scores scores
    """
    from geozero.training.export.export import export as write

    def log(line: str) -> None:
        typer.echo(line, err=True)

    typer.echo(f"{write(model, out, scores=scores or [], checked=check, log=log)}\texported")


def _training_line(line: str) -> None:
    if is_progress_line(line):
        typer.echo(format_progress_line(line))


def _trained(result: Any, dry_run: bool) -> None:
    state = "would train" if dry_run else "reused" if result.reused else "trained"
    typer.echo(f"{result.directory}\t{state}")
