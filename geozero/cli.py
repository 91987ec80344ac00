"""The command line: each command parses its words and calls one function. Heavy imports wait until they are needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.exceptions import TyperException

from geozero import __version__
from geozero.build.commands import app as release
from geozero.build.commands import tile
from geozero.corpus import MANIFEST, Corpus
from geozero.errors import Ambiguous, InputError, refusal
from geozero.runs.commands import app as runs
from geozero.stack.commands import app as stack
from geozero.workspace import Workspace

EXIT_BAD_INPUT = 2
# How lines of a training begin that somebody at a terminal wants to see, beside its losses.
TOLD = ("resumed", "another process", "guard:", "no step", "out of memory", "node ", "checkpoint-")

app = typer.Typer(
    name="geozero",
    help="Teach vision-language models to reason about remote sensing images without hand-written reasoning.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
toy = typer.Typer(help="The rendered world and the tiny Qwen3-VL of the demo.", no_args_is_help=True)
app.add_typer(toy, name="toy")
app.add_typer(release, name="release")
app.command("tile")(tile)
app.add_typer(stack, name="stack")
app.add_typer(runs, name="runs")

ParamsFile = Annotated[Path, typer.Option("--params", help="The parameter file; profiles/ holds examples.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the whole plan and stop.")]


@app.callback(invoke_without_command=True)
def _root(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        typer.echo(f"geozero {__version__}")
        raise typer.Exit


@app.command()
def doctor() -> None:
    """What this machine can run, what is missing and how to mend it.

    Example: geozero doctor
    """
    from geozero.doctor import doctor as examine
    from geozero.doctor import render

    render(examine())


@app.command()
def sources(
    root: Annotated[Path | None, typer.Option(help="Where data sets are looked for; if left out, data.")] = None,
) -> None:
    """The sources: tasks, whether they are present under --root, licence, size, layout.

    Example: geozero sources --root ~/archives
    """
    from geozero.sources import SOURCES, Source, Tree, open_tree

    def state(source: Source, tree: Tree | None) -> str:
        try:
            if tree is not None:
                source.find(tree)
                return "could be read" if source.generic else "present"
        except Ambiguous:
            return "present (several places)"
        except InputError:
            pass
        return "not found"

    def tell(tree: Tree | None) -> None:
        gap = "\n\t" if sys.stdout.isatty() else "; "
        for name, source in SOURCES.items():
            titled = f"{source.title}: {source.size}"
            columns = (name, ", ".join(source.tasks), state(source, tree), source.licence, titled)
            layout = gap.join(source.layout.splitlines())
            typer.echo("\t".join(columns) + ("\n\t" if sys.stdout.isatty() else "\t") + layout)

    if root is None and not Path("data").is_dir():
        tell(None)
    else:
        with open_tree(root or Path("data")) as tree:
            tell(tree)


@app.command()
def ingest(
    source: Annotated[str, typer.Argument(help="A name that `geozero sources` lists.")],
    root: Annotated[Path, typer.Option(help="The directory that holds the data set, its tree, or an archive of it.")],
    out: Annotated[Path, typer.Option(help="The corpus to write.")],
    split: Annotated[Literal["train", "val", "test", "all"], typer.Option(help="Which split to keep.")] = "all",
    options: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an option of the data set; repeatable.")
    ] = None,
    checks: Annotated[
        list[str] | None, typer.Option("--check", help="NAME=VALUE, what is asked of records; repeatable.")
    ] = None,
) -> None:
    """Read one data set and write it as a corpus.

    Example: geozero ingest aid --root ~/archives/AID.zip --out data/corpus/aid
    """
    from geozero.build.checks import with_checks
    from geozero.build.ingest import ingest as make
    from geozero.sources import get, with_options

    asked = with_options(get(source), options or [])
    _summary(make(asked, root, out, split, with_checks(checks or [])), out)


@app.command()
def raw(
    inputs: Annotated[
        list[Path], typer.Option("--in", help="A corpus, or a directory of corpora, to train on; repeatable.")
    ],
    out: Annotated[Path, typer.Option(help="The corpus to write.")],
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A corpus whose pictures must not be trained on; repeatable.")
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="Also write the counts as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page: leaks, shared pictures, licences.")] = None,
) -> None:
    """Merge corpora into GeoZero-Raw: training samples alone, no repeats, no picture that an evaluation uses.

    Example: geozero raw --in data/corpus/aid --in data/corpus/rsicd --eval data/corpus/ucm --out data/geozero-raw
    """
    from geozero.build.raw import raw as make

    _summary(make(_corpora(inputs), _corpora(evals or []), out, metrics=metrics, html=html), out)


@app.command()
def inspect(
    corpus: Annotated[Path, typer.Argument(help="A corpus.")],
    n: Annotated[int, typer.Option(min=0, help="Samples to show.")] = 8,
    html: Annotated[Path | None, typer.Option(help="Write a page with the pictures.")] = None,
    card: Annotated[Path | None, typer.Option(help="Write the data card, README.md, into this directory.")] = None,
) -> None:
    """Counts, reasons of refusal, and a look at some samples.

    Example: geozero inspect data/geozero-raw --n 24 --html look.html
    """
    from geozero.build.inspect import inspect as look

    typer.echo(look(corpus, n, html, card))


@app.command()
def sample(
    corpus: Annotated[Path, typer.Option(help="The corpus to ask about.")],
    model: Annotated[list[str], typer.Option(help="A checkpoint, or a directory of fold-*; repeat it, one a fold.")],
    out: Annotated[Path, typer.Option(help="The answer store; what it holds already is not asked again.")],
    engine: Annotated[
        Literal["auto", "vllm", "transformers", "server"] | None, typer.Option(help="What answers.")
    ] = None,
    k: Annotated[int | None, typer.Option(min=1, help="Answers a sample; a store can grow to more.")] = None,
    shard: Annotated[str, typer.Option(help="i/n: this is worker i (from 0) of n that fill one store.")] = "0/1",
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many samples, chosen by stable hash.")] = None,
    params: Annotated[Path | None, typer.Option(help="Take model and sampling settings from this file.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes of this machine that share the work.")] = 1,
    url: Annotated[list[str] | None, typer.Option(help="A server's address (--engine server); repeatable.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure a little, print the plan and stop.")] = False,
) -> None:
    """Difficulty: sample K answers to every sample in direct mode and keep each one.

    Example: geozero sample --corpus data/geozero-raw --model models/filter --engine auto --k 8 --out data/difficulty
    """
    from geozero.difficulty import progress
    from geozero.difficulty.sampling import sample as ask
    from geozero.params import load

    if workers > 1 and not dry_run:
        from geozero.difficulty.workers import run_workers

        given = {"corpus": corpus, "out": out, "engine": engine, "k": k, "limit": limit, "params": params}
        words = [f"--{name}={value}" for name, value in given.items() if value is not None]
        words += [f"--model={name}" for name in model] + [f"--url={address}" for address in url or ()]
        run_workers(words, workers, typer.echo)
        return
    options: dict[str, Any] = {}
    if params is not None:
        settings = load(params)
        options = {name: value for name, value in settings.sampling if name != "workers"}
        options |= {"seed": settings.seed, "thresholds": settings.select}
        for key in ("dtype", "template", "model_type", "max_pixels", "max_length", "boxes"):
            options[key] = getattr(settings.model, key)
    options |= {name: value for name, value in (("engine", engine), ("k", k), ("urls", url)) if value}
    if dry_run:
        from geozero.difficulty.planning import plan

        shard = f"0/{workers}" if workers > 1 else shard
        for line in plan(corpus, _models(model), out, shard=shard, limit=limit, **options).lines():
            typer.echo(line)
        return
    listener = progress.bar() if sys.stdout.isatty() else progress.lines(typer.echo)
    done = ask(corpus, _models(model), out, shard=shard, limit=limit, progress=listener, **options)
    typer.echo(f"{out}\t{done.n_samples} samples\t{done.n_answers} answers\t{done.n_new} new\t{done.seconds:.0f} s")
    for found_engine in done.engines:
        typer.echo(f"engine\t{found_engine.get('engine')}\t{found_engine.get('reason')}")
    if done.n_new:
        speed = done.rate, done.rate * done.tokens / done.n_new
        typer.echo(f"throughput\t{speed[0]:.2f} answers a second\t{speed[1]:.1f} tokens a second")
    if done.adaptive is not None:
        found = done.adaptive
        typer.echo(
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
    metrics: Annotated[Path | None, typer.Option(help="Also write the counts as JSON.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw the pass rates (PNG, SVG or PDF).")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page with histograms and examples.")] = None,
) -> None:
    """Split a sampled corpus by difficulty: what the filtering model can do, and what it cannot.

    Example: geozero select --corpus data/geozero-raw --store data/difficulty --out-instruct easy --out-hard hard
    """
    from geozero.difficulty.selection import select as split
    from geozero.params import load

    thresholds = load(params).select if params else None
    split(corpus, store, out_instruct, out_hard, thresholds, metrics=metrics, plot=plot, html=html)
    for out in (out_instruct, out_hard):
        _summary(Corpus(out).manifest, out)


@app.command("filter")
def train_filter(
    params: ParamsFile = Path("params.yaml"),
    corpus: Annotated[Path | None, typer.Option(help="GeoZero-Raw; if left out, data/geozero-raw.")] = None,
    out: Annotated[Path, typer.Option(help="Directory for fold-0, fold-1, …")] = Path("models/filter"),
) -> None:
    """Train the data filtering models on GeoZero-Raw, one a fold, each on the other folds' samples.

    Example: geozero filter --params params.yaml --out models/filter
    """
    from geozero.training.stage import run_filters

    space = Workspace.open(params)
    for result in run_filters(space.settings, corpus or space.raw, space.base, space.runs, out, on_line=_training_line):
        typer.echo(f"{result.directory}\t{'reused' if result.reused else 'trained'}")


@app.command()
def sft(params: ParamsFile = Path("params.yaml"), dry_run: DryRun = False) -> None:
    """Fine-tune the base model on GeoZero-Instruct: direct answers, no reasoning anywhere.

    Example: geozero sft --params params.yaml --dry-run
    """
    from geozero.training.replay import collect
    from geozero.training.stage import run_sft

    space = Workspace.open(params)
    replay: list[Any] = []
    if space.settings.sft.replay_share and not dry_run:
        replay = collect(space.settings, space.base, space.instruct, space.runs, typer.echo)
    tell = typer.echo if dry_run else _training_line
    result = run_sft(
        space.settings, space.instruct, space.base, space.runs, replay=replay, dry_run=dry_run, on_line=tell
    )
    _trained(result, dry_run)
    if space.settings.sft.replay_share and dry_run:
        typer.echo("note: the replay is sampled before the training; with it the directory gets another name", err=True)


@app.command()
def a2grpo(
    params: ParamsFile = Path("params.yaml"),
    model: Annotated[Path | None, typer.Option(help="The SFT checkpoint; the newest one in runs/ if left out.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Reinforce on GeoZero-Hard with A²GRPO, from the SFT checkpoint.

    Example: geozero a2grpo --params params.yaml --dry-run
    """
    from geozero.training.stage import run_a2grpo

    space = Workspace.open(params)
    val = [path for path in space.corpora_with("val") if path.name in space.trained_sources]
    start, tell = model, typer.echo if dry_run else _training_line
    if start is None:
        unplanned = dry_run and not any(space.runs.glob("sft-*/DONE"))
        start = space.base if unplanned else space.newest("sft")  # a plan may come before SFT
    _trained(run_a2grpo(space.settings, space.hard, start, space.runs, val=val, dry_run=dry_run, on_line=tell), dry_run)


@app.command()
def infer(
    model_path: Annotated[str, typer.Option("--model_path", help="A checkpoint, or a hub name in the local cache.")],
    json_path: Annotated[Path, typer.Option("--json_path", help="The authors' evaluation JSON.")],
    output_path: Annotated[Path, typer.Option("--output_path", help="The records to write, for `geozero evaluate`.")],
    task: Annotated[Literal["scene_cls", "vqa", "caption", "grounding"], typer.Option(help="What is asked.")],
    batchsize: Annotated[int, typer.Option(min=1, help="Questions at a time (transformers engine).")] = 16,
    gpu: Annotated[int | None, typer.Option(min=0, help="Number of the GPU to use.")] = None,
    system: Annotated[str, typer.Option(help="True: ask with the system prompt, so that the model thinks.")] = "False",
    max_new_tokens: Annotated[int, typer.Option("--max_new_tokens", min=1, help="Most tokens an answer.")] = 2048,
    workers: Annotated[int, typer.Option(min=0, help="Threads that read pictures.")] = 1,
    engine: Annotated[Literal["auto", "vllm", "transformers"], typer.Option(help="What answers.")] = "auto",
    sampling: Annotated[
        Literal["greedy", "official"],
        typer.Option(help="official: the published script's temperature, top-p and top-k."),
    ] = "greedy",
    seed: Annotated[int, typer.Option(help="Of the official draws.")] = 42,
) -> None:
    """Answer the authors' evaluation JSON; a killed run goes on where it was.

    Example: geozero infer --model_path models/sft --json_path eval/rsvg.json --output_path rsvg.json --task grounding
    """
    from geozero.evaluation.infer import infer as ask
    from geozero.evaluation.infer import truth_of

    options: dict[str, Any] = {"batchsize": batchsize, "gpu": gpu, "max_new_tokens": max_new_tokens}
    options |= {"workers": workers, "engine": engine, "sampling": sampling, "seed": seed, "system": truth_of(system)}
    done = ask(model_path, json_path, output_path, task, progress=typer.echo, **options)
    failed = f"{len(done.failed)} failed" + (f", listed in {done.failed_path}" if done.failed else "")
    typer.echo(f"{output_path}\t{done.n} records\t{done.n_new} new\t{failed}\t{done.seconds:.0f} s")
    for note in done.notes:
        typer.echo(f"note\t{note}")


def _list_benchmarks(name: str | None) -> str | None:
    """The eager callback of --benchmark: `list` needs no other option."""
    from geozero.evaluation.benchmark import LIST, listing

    if name == LIST:
        for line in listing():
            typer.echo(line)
        raise typer.Exit
    return name


@app.command()
def evaluate(
    task: Annotated[str, typer.Option(help="scene_cls, vqa, caption or grounding.")],
    records: Annotated[Path, typer.Option(help="JSON list of {raw_output, pred, label, image_path, …}.")],
    out: Annotated[Path, typer.Option(help="The JSON file to write.")],
    protocol: Annotated[str, typer.Option(help="strict, or official: the published script's rules.")] = "strict",
    boxes: Annotated[
        str, typer.Option(help="What predicted coordinates mean: norm1000, pixels, resized28 or norm100.")
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
    for name, value in result["metrics"].items():
        typer.echo(f"{name}\t{value}")
    for name, found in result.get("comparison", {}).get("metrics", {}).items():
        numbers = "{difference:+.4f} [{low:+.4f}, {high:+.4f}], p {p_value:.4f}".format(**found)
        typer.echo(f"{name} difference\t{numbers}")
    for reason, n in result["problems"]["reasons"].items():
        typer.echo(f"problem {reason}\t{n}")
    for note in result["notes"]:
        typer.echo(f"note\t{note}")


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
    from geozero.evaluation.report import report as build

    for path in build(data, out, gallery):
        typer.echo(str(path))


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
    from geozero.training.export import export as write

    def tell(line: str) -> None:
        typer.echo(line, err=True)

    typer.echo(f"{write(model, out, scores=scores or [], checked=check, tell=tell)}\texported")


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Pictures; GeoTIFF too (`pip install 'geozero[geo]'`).")],
    model: Annotated[str, typer.Option(help="A checkpoint, or a hub name in the local cache.")],
    question: Annotated[str, typer.Option(help="What is asked about each picture.")] = "Describe this image.",
    engine: Annotated[Literal["auto", "vllm", "transformers"], typer.Option(help="What answers.")] = "auto",
    mode: Annotated[
        Literal["tagged", "direct"], typer.Option(help="tagged: think first; direct: answer alone.")
    ] = "tagged",
    boxes: Annotated[
        Literal["norm1000", "pixels", "resized28", "norm100"], typer.Option(help="What the model's coordinates mean.")
    ] = "norm1000",
    max_tokens: Annotated[int, typer.Option(min=1, help="Most tokens an answer.")] = 1024,
) -> None:
    """Ask a model about one's own pictures.

    Example: geozero predict --model models/mine harbour.tif --question "Where is the largest ship?"
    """
    from geozero import predict as ask
    from geozero.engines import open_engine

    missing = [path for path in images if not path.is_file()]
    if missing:
        raise InputError("no such picture", str(missing[0]), "give files, not directories")
    show = ask.block if sys.stdout.isatty() else ask.line
    answering = open_engine(engine, model)
    found = []
    try:
        for one in ask.predict(answering, images, question, mode, boxes, max_tokens):
            found.append(one)
            if one.error is None or len(images) > 1:
                typer.echo(show(one))
    finally:
        answering.close()
    ask.require_any(found)


@toy.command("world")
def toy_world(
    out: Annotated[Path, typer.Option(help="Directory to write the four data sets to.")] = Path("data/toy"),
    params: ParamsFile = Path("params.yaml"),
    hard: Annotated[bool, typer.Option("--hard", help="The harder world, all of it test.")] = False,
) -> None:
    """Render the toy world in the layouts of AID, RSVQA-LR, RSICD and DIOR-RSVG.

    Example: geozero toy world --out data/toy
    """
    from geozero.params import load
    from geozero.toy.layouts import write_world

    settings = load(params)
    if settings.toy is None:
        raise InputError(
            "the profile has no toy world", str(params), "add a section `toy`, or use profiles/cpu-toy.yaml"
        )
    world = settings.toy
    sizes: dict[str, dict[str, int]]
    sizes = {name: {"train": n, "val": world.val[name], "test": world.test[name]} for name, n in world.train.items()}
    write_world(out, seed=settings.seed, sizes=sizes, size=world.size, hard=hard, progress=_counter(f"render {out}"))


@toy.command("model")
def toy_model(
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = Path("models/tiny-qwen3-vl"),
) -> None:
    """Build and pre-train the tiny Qwen3-VL (about half an hour on one core; a finished one is in the repository).

    Example: geozero toy model --out /tmp/tiny
    """
    from geozero.toy.pretrain import pretrain

    typer.echo(str(pretrain(out, progress=typer.echo)))


def _corpora(paths: list[Path]) -> list[Path]:
    """Corpora as given; a directory that holds corpora stands for all of them, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(p.parent for p in path.glob(f"*/{MANIFEST}") if not p.parent.name.startswith("."))
        found += inside if inside and not (path / MANIFEST).is_file() else [path]
    return found


def _training_line(line: str) -> None:
    if "{'loss'" in line or line.startswith(TOLD):
        typer.echo(line)


def _trained(result: Any, dry_run: bool) -> None:
    state = "would train" if dry_run else "reused" if result.reused else "trained"
    typer.echo(f"{result.directory}\t{state}")


def _models(names: list[str]) -> list[str]:
    """Checkpoints as given; a directory that holds `fold-0`, `fold-1`, … stands for these, in order."""
    found = [(p.name.removeprefix("fold-"), p) for p in Path(names[0]).glob("fold-*")]
    folds = [p for _, p in sorted((int(number), p) for number, p in found if number.isdecimal())]
    return [str(p) for p in folds] if len(names) == 1 and folds else names


def _summary(manifest: dict[str, Any], out: Path) -> None:
    typer.echo(
        f"{out}\t{manifest['n_samples']} samples\t{manifest['n_images']} images\t{manifest['n_rejects']} rejected"
    )
    for row in manifest["rejects"]:
        typer.echo(f"{row['source']}\trejected\t{row['reason']}\t{row['n']}")


def _counter(title: str, every: int = 500) -> Any:
    def step(done: int, total: int) -> None:
        if done % every == 0 or done == total:
            typer.echo(f"{title}\t{done} of {total}")

    return step


def main() -> None:
    """Run the command line: 0 done, 2 wrong use or bad input (one line), 1 our fault (traceback)."""
    try:
        sys.exit(app(prog_name="geozero", standalone_mode=False))
    except InputError as error:
        fault = error
    except TyperException as error:  # wrong use: typer itself would draw a box of several lines
        what = " ".join(error.format_message().split()).rstrip(".").replace("Value error, ", "")
        if not what:  # a command without arguments has shown its help
            sys.exit(error.exit_code)
        context = getattr(error, "ctx", None)
        fault = InputError(what, mend=f"see `{context.command_path if context else 'geozero'} --help`")
    except OSError as error:
        refused = refusal(error)
        if refused is None:
            raise
        fault = refused
    typer.echo(f"geozero: {fault}", err=True)
    sys.exit(EXIT_BAD_INPUT)


if __name__ == "__main__":
    main()
