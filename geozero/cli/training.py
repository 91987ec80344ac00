"""`geozero filter`, `sft`, `a2grpo` and `export`: train models, and export them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from geozero.cli.trust import TrustCheckpoint
from geozero.common.errors import InputError
from geozero.common.terminal import PARAMS, DryRun, ParamsFile, echo

app = typer.Typer()


@app.command("filter")
def train_filter(
    params: ParamsFile = PARAMS,
    corpus: Annotated[Path | None, typer.Option(help="GeoZero-Raw; if left out, data/geozero-raw.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for fold-0, fold-1, …")] = Path("models/filter"),
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Train the data filtering models on GeoZero-Raw, one per fold, each on the other folds' samples.

    Example: geozero filter --params params.yaml --out models/filter
    """
    from geozero.training.stage import run_filters
    from geozero.workspace import Workspace

    workspace = Workspace.open(params)
    given = (workspace.settings, corpus or workspace.raw, workspace.base, workspace.runs, out)
    for result in run_filters(*given, on_line=_on_line(False)):
        _trained(result, dry_run=False)


@app.command()
def sft(params: ParamsFile = PARAMS, dry_run: DryRun = False, trust_checkpoint: TrustCheckpoint = False) -> None:
    """Fine-tune the base model on GeoZero-Instruct: direct answers, no reasoning anywhere.

    Example: geozero sft --params params.yaml --dry-run
    """
    from geozero.training.replay import collect
    from geozero.training.stage import run_sft
    from geozero.workspace import Workspace

    workspace = Workspace.open(params)
    replay: list[Any] = []
    if workspace.settings.sft.replay_share and not dry_run:
        replay = collect(workspace.settings, workspace.base, workspace.instruct, workspace.runs, echo)
    options: dict[str, Any] = {"replay": replay, "dry_run": dry_run, "on_line": _on_line(dry_run)}
    _trained(run_sft(workspace.settings, workspace.instruct, workspace.base, workspace.runs, **options), dry_run)
    if workspace.settings.sft.replay_share and dry_run:
        echo("note: the replay is sampled before the training; with it the directory gets another name", err=True)


@app.command()
def a2grpo(
    params: ParamsFile = PARAMS,
    model: Annotated[Path | None, typer.Option(help="The SFT checkpoint; the newest one in runs/ if left out.")] = None,
    dry_run: DryRun = False,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Train with A²GRPO on GeoZero-Hard, from the SFT checkpoint.

    Example: geozero a2grpo --params params.yaml --dry-run
    """
    from geozero.training.stage import run_a2grpo
    from geozero.workspace import Workspace

    workspace, start = Workspace.open(params), model
    if start is None:
        try:
            start = workspace.newest("sft")
        except InputError:
            if not dry_run:
                raise
            start = workspace.base  # a dry run may come before SFT
    options: dict[str, Any] = {"val": workspace.val_corpora, "dry_run": dry_run, "on_line": _on_line(dry_run)}
    _trained(run_a2grpo(workspace.settings, workspace.hard, start, workspace.runs, **options), dry_run)


@app.command()
def follow(params: ParamsFile = PARAMS) -> None:
    """On every node but the first of `hardware.nodes`: join each training that node 0 starts in this checkout.

    Node 0 runs what it likes: `dvc repro`, a flow, a worker, `geozero sft`. Ends when it is ended. Needs NODE_RANK and
    MASTER_ADDR, as for any command of several nodes.

    Example: geozero follow --params params.yaml
    """
    from geozero.training.launcher.retry import follow_all
    from geozero.workspace import Workspace

    workspace = Workspace.open(params)
    follow_all(workspace.settings, workspace.runs, lambda line: echo(line, err=True))


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="runs/STAGE-…, a checkpoint in it, or a model's directory.")],
    out: Annotated[Path, typer.Option(help="Directory of the plain checkpoint to write.")],
    scores: Annotated[
        list[Path] | None, typer.Option(help="What `evaluate` wrote, for the card: a file or directory; repeatable.")
    ] = None,
    check: Annotated[bool, typer.Option(help="Load it in transformers and vLLM and compare their answers.")] = True,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Export a model: LoRA merged, a plain Hugging Face checkpoint with its card, checked in both engines.

    Example: geozero export runs/a2grpo-0123456789ab --out models/mine --scores scores
    """
    from geozero.training.export.export import export as write

    made = write(model, out, scores=scores or [], checked=check, log=lambda line: echo(line, err=True))
    echo(f"{made}\texported")


def _on_line(dry_run: bool) -> Callable[[str], None]:
    """Returns a printer of a stage's lines: all of them in a dry run, else only the progress of the training."""
    from geozero.training.launcher.log_filter import format_progress_line, is_progress_line

    def progress(line: str) -> None:
        if is_progress_line(line):
            echo(format_progress_line(line))

    return echo if dry_run else progress


def _trained(result: Any, dry_run: bool) -> None:
    state = "would train" if dry_run else "reused" if result.reused else "trained"
    echo(f"{result.directory}\t{state}")
