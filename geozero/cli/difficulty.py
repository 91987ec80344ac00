"""`geozero sample` and `select`: measure how hard each sample is, and split a corpus by it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from geozero.cli.trust import TrustCheckpoint
from geozero.common import process
from geozero.common.errors import InputError
from geozero.common.progress import Progress
from geozero.common.terminal import echo, summary
from geozero.corpus.store import Corpus

if TYPE_CHECKING:
    from geozero.difficulty.settings import SamplingSettings

app = typer.Typer()


def _workers(text: str | None) -> str | None:
    if text not in (None, "auto") and text and not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise typer.BadParameter(f"'{text}' is not in the range x>=1, nor auto")
    return text


@app.command()
def sample(
    corpus: Annotated[Path, typer.Option(help="The corpus with the questions.")],
    model: Annotated[list[str], typer.Option(help="A checkpoint, or a directory of fold-*; repeatable, one per fold.")],
    out: Annotated[Path, typer.Option(help="The answer store; answers that it holds already are kept.")],
    engine: Annotated[
        Literal["auto", "vllm", "transformers", "server"] | None,
        typer.Option(help="The inference engine."),
    ] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Answers per sample; a store can grow to more.")] = None,
    shard: Annotated[str | None, typer.Option(help="i/n: worker i (from 0) of n workers that fill one store.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many samples, chosen by stable hash.")] = None,
    params: Annotated[Path | None, typer.Option(help="Take model and sampling settings from this file.")] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            callback=_workers,
            help="Processes of this machine, each with a GPU of its own; auto: one per GPU; default: --params, or 1.",
        ),
    ] = None,
    url: Annotated[
        list[str] | None,
        typer.Option(help="A server's address, or MODEL=ADDRESS, as fold-0=http://… (--engine server); repeatable."),
    ] = None,
    trust_server_model: Annotated[
        list[str] | None,
        typer.Option(help="Take the served model of this NAME, or MODEL=NAME, for ours, though nothing proves it."),
    ] = None,
    retry: Annotated[Literal["errors"] | None, typer.Option(help="Ask again for the answers that failed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure a little, print the plan and stop.")] = False,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Answer every sample K times in direct mode, and store each answer.

    Example: geozero sample --corpus data/geozero-raw --model models/filter --engine auto --k 8 --out data/difficulty
    """
    from geozero.difficulty.sampling import sample as ask
    from geozero.difficulty.settings import SamplingSettings
    from geozero.engines.serving.served_model import pairs, trusted_models
    from geozero.params import load

    loaded = load(params) if params else None
    settings = SamplingSettings.of(
        loaded,
        engine=engine,
        k=k,
        urls=pairs(url) if url else None,
        trust_server_model=trusted_models(trust_server_model) if trust_server_model else None,
    )
    if workers is None:
        workers = str(loaded.sampling.workers) if loaded and shard is None else "1"
    shard = shard or "0/1"
    gpus = gpus_of(workers, settings)
    if len(gpus) > 1 and not dry_run:
        from geozero.difficulty.workers import run_workers

        given: dict[str, object] = {
            "corpus": corpus,
            "out": out,
            "engine": engine,
            "k": k,
            "limit": limit,
            "params": params,
        }
        given["retry"] = retry
        words = [f"--{name}={value}" for name, value in given.items() if value is not None]
        words += [f"--model={name}" for name in model] + [f"--url={address}" for address in url or ()]
        words += [f"--trust-server-model={name}" for name in trust_server_model or ()]
        run_workers(words, len(gpus), echo, gpus)
        return
    if trust_server_model and settings.engine != "server":
        raise InputError(f"the engine is '{settings.engine}'", "--trust-server-model", "add --engine server")
    if url and settings.engine != "server":
        raise InputError(f"addresses are given, but the engine is '{settings.engine}'", "--url", "add --engine server")
    if dry_run:
        from geozero.difficulty.dry_run import plan_sampling

        shard = f"0/{len(gpus)}" if len(gpus) > 1 else shard
        for line in plan_sampling(corpus, checkpoints(model), out, settings, shard=shard, limit=limit).lines():
            echo(line)
        return
    with Progress(write=None if sys.stdout.isatty() else echo) as bar:
        options: dict[str, Any] = {
            "shard": shard,
            "limit": limit,
            "retry": retry,
            "progress": lambda state: state.show(bar),
        }
        done = ask(corpus, checkpoints(model), out, settings, **options)
    echo(f"{out}\t{done.n_samples} samples\t{done.n_answers} answers\t{done.n_new} new\t{done.seconds:.0f} s")
    for found_engine in done.engines:
        echo(f"engine\t{found_engine.get('engine')}\t{found_engine.get('reason')}")
    if done.n_new:
        speed = done.rate, done.rate * done.tokens / done.n_new
        echo(f"throughput\t{speed[0]:.2f} answers a second\t{speed[1]:.1f} tokens a second")
    if done.adaptive is not None:
        found = done.adaptive
        echo(
            f"adaptive\t{found['saved_share']:.1%} of the answers saved\tbound {found['error_bound']:.1%}\t"
            f"{found['pilot_changed_share']:.1%} of the decisions changed on {found['pilot']} fully sampled samples"
        )


@app.command()
def select(
    corpus: Annotated[Path, typer.Option(help="The corpus that was sampled.")],
    store: Annotated[Path, typer.Option(help="Its answer store.")],
    out_instruct: Annotated[Path, typer.Option(help="Corpus of the easy samples, for SFT.")],
    out_hard: Annotated[Path, typer.Option(help="Corpus of the hard samples, for A²GRPO.")],
    params: Annotated[Path | None, typer.Option(help="Take the thresholds from this file.")] = None,
    k: Annotated[
        int | None, typer.Option(min=1, help="Count the first K answers; default: as many as are complete.")
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="Also write the counts as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the pass rates (PNG, SVG or PDF).")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with histograms and examples.")] = None,
) -> None:
    """Split a sampled corpus by difficulty: what the filtering model answers, and what it does not.

    Example: geozero select --corpus data/geozero-raw --store data/difficulty --out-instruct easy --out-hard hard
    """
    from geozero.difficulty.selection.select import select as split
    from geozero.params import load

    thresholds = load(params).select if params else None
    split(corpus, store, out_instruct, out_hard, thresholds, k=k, metrics=metrics, plot=plot, html=html)
    for out in (out_instruct, out_hard):
        summary(Corpus(out).manifest, out)


def gpus_of(workers: str, settings: SamplingSettings) -> list[str | None]:
    """The GPU of each worker that `--workers` asks for; None where it needs none of its own.

    Raises:
        InputError: more workers than GPUs.
    """
    n = None if workers == "auto" else int(workers)
    if settings.engine == "server" and settings.urls:  # the GPUs are the servers'
        return [None] * (n or 1)
    return process.worker_gpus(n, "--workers")


def checkpoints(names: list[str]) -> list[str]:
    """Checkpoints as given; a directory with `fold-0`, `fold-1`, … means these, in order."""
    found = [(p.name.removeprefix("fold-"), p) for p in Path(names[0]).glob("fold-*")]
    folds = [p for _, p in sorted((int(number), p) for number, p in found if number.isdecimal())]
    return [str(p) for p in folds] if len(names) == 1 and folds else names
