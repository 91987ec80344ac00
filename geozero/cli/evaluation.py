"""`geozero infer`, `evaluate` and `report`: answers, their scores and a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from geozero.cli.options import task_option
from geozero.cli.trust import TrustCheckpoint
from geozero.common.errors import InputError
from geozero.common.terminal import echo

app = typer.Typer()


@app.command()
def infer(
    model_path: Annotated[str, typer.Option("--model_path", help="A checkpoint, or a hub name in the local cache.")],
    json_path: Annotated[Path, typer.Option("--json_path", help="The authors' evaluation JSON.")],
    output_path: Annotated[Path, typer.Option("--output_path", help="The records to write, for `geozero evaluate`.")],
    task: Annotated[str, task_option("What is asked.")],
    batchsize: Annotated[int, typer.Option(min=1, help="Questions at a time (transformers engine).")] = 16,
    gpu: Annotated[int | None, typer.Option(min=0, help="Number of the GPU to use.")] = None,
    system: Annotated[str, typer.Option(help="True: ask with the system prompt, so that the model thinks.")] = "False",
    max_new_tokens: Annotated[int, typer.Option("--max_new_tokens", min=1, help="Most tokens per answer.")] = 2048,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read images.")] = 1,
    engine: Annotated[Literal["auto", "vllm", "transformers"], typer.Option(help="The inference engine.")] = "auto",
    sampling: Annotated[
        Literal["greedy", "official"],
        typer.Option(help="official: the published script's temperature, top-p and top-k."),
    ] = "greedy",
    seed: Annotated[int, typer.Option(help="Of the official draws.")] = 42,
    max_megapixels: Annotated[
        float, typer.Option("--max_megapixels", min=0, help="A larger image is listed, not asked about.")
    ] = 64.0,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """Answer the authors' evaluation JSON; a killed run resumes when it is started again.

    Example: geozero infer --model_path models/sft --json_path eval/rsvg.json --output_path rsvg.json --task grounding
    """
    from geozero.inference.json_job import infer as answer

    if system.lower() not in ("true", "false"):
        what = f"'{system[:40]}' is neither True nor False"
        raise InputError(what, "--system", "say True for the system prompt")
    done = answer(
        model_path,
        json_path,
        output_path,
        task,
        batchsize=batchsize,
        gpu=gpu,
        system=system.lower() == "true",
        max_new_tokens=max_new_tokens,
        workers=workers,
        engine=engine,
        sampling=sampling,
        seed=seed,
        max_megapixels=max_megapixels,
        progress=echo,
    )
    failed = f"{len(done.failed)} failed" + (f", listed in {done.failed_path}" if done.failed else "")
    echo(f"{output_path}\t{done.n} records\t{done.n_new} new\t{failed}\t{done.seconds:.0f} s")
    for note in done.notes:
        echo(f"note\t{note}")


def _list_benchmarks(name: str | None) -> str | None:
    """The eager callback of --benchmark: `list` needs no other option."""
    from geozero.evaluation.benchmark import LIST, listing

    if name == LIST:
        for line in listing():
            echo(line)
        raise typer.Exit
    return name


@app.command()
def evaluate(
    task: Annotated[str, task_option("What was asked.")],
    records: Annotated[Path, typer.Option(help="JSON list of {raw_output, pred, label, image_path, …}.")],
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    protocol: Annotated[str, typer.Option(help="strict, or official: the published script's rules.")] = "strict",
    boxes: Annotated[
        str,
        typer.Option(help="What predicted boxes mean: norm1000, pixels, resized28, norm100, norm1 or norm1024."),
    ] = "norm1000",
    against: Annotated[
        Path | None, typer.Option(help="Another model's records of the same questions: the paired difference, too.")
    ] = None,
    benchmark: Annotated[
        str | None,
        typer.Option(
            callback=_list_benchmarks, is_eager=True, help="The benchmark that is answered; `list` shows all."
        ),
    ] = None,
) -> None:
    """Score one list of records under one protocol.

    Example: geozero evaluate --task vqa --protocol strict --records answers.json --out scores.json
    """
    from geozero.evaluation.benchmark import evaluate_benchmark
    from geozero.evaluation.evaluate import evaluate as judge

    if benchmark is None:
        result = judge(task, protocol, records, out, boxes, against=against)
    else:
        result = evaluate_benchmark(benchmark, task, protocol, records, out, boxes, against=against)
    missing: dict[str, str] = result.get("missing", {})
    for name, value in result["metrics"].items():
        if name not in missing:
            echo(f"{name}\t{value}")
    echo(f"n\t{result['n']}")
    for name, bounds in result["intervals"].items():
        if bounds is not None:
            echo(f"{name} interval\t[{bounds[0]:.4f}, {bounds[1]:.4f}]")
    for name, why in missing.items():
        echo(f"missing {name}\t{why}")
    for name, found in result.get("comparison", {}).get("metrics", {}).items():
        numbers = "{difference:+.4f} [{low:+.4f}, {high:+.4f}], p {p_value:.4f}".format(**found)
        echo(f"{name} difference\t{numbers}")
    for reason, n in result["problems"]["reasons"].items():
        echo(f"problem {reason}\t{n}")
    for note in result["notes"]:
        echo(f"note\t{note}")


@app.command()
def report(
    data: Annotated[
        Path, typer.Option(help="JSON files of a pipeline run, or what `evaluate` wrote as MODEL/BENCHMARK.json.")
    ] = Path("reports/data"),
    out: Annotated[Path, typer.Option(help="The page to write; scores.md and scores.tex go beside it.")] = Path(
        "reports/index.html"
    ),
    gallery: Annotated[int, typer.Option(min=0, help="Records to look at, of those that `evaluate` scored.")] = 500,
) -> None:
    """One self-contained page: scores with intervals, differences, reasoning, curves and a gallery.

    Example: geozero report --data scores --out report/index.html
    """
    from geozero.evaluation.report.build import report as build

    for path in build(data, out, gallery):
        echo(str(path))
