"""`geozero sources`, `ingest`, `raw`, `inspect`, `pack`, `tile`, `release`: from data sets to corpora to releases."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from geozero.cli.options import task_option
from geozero.common.errors import Ambiguous, InputError, Missing
from geozero.common.terminal import echo, summary
from geozero.corpus.store import MANIFEST

app = typer.Typer()
Split = Literal["train", "val", "test"]
Checks = Annotated[list[str] | None, typer.Option("--check", help="NAME=VALUE, a requirement on records; repeatable.")]
release = typer.Typer(help="The official JSON and tar formats: write them, read them.", no_args_is_help=True)
app.add_typer(release, name="release")

Boxes = Annotated[
    Literal["norm1000", "pixels", "norm100"], typer.Option(help="What coordinates in training answers mean.")
]


@app.command()
def sources(
    root: Annotated[Path | None, typer.Option(help="Directory to look for data sets in; if left out, data.")] = None,
    params: Annotated[Path | None, typer.Option(help="The parameter file that --code and --files go by.")] = None,
    code: Annotated[Path | None, typer.Option(help="Write hashes of what reads each data set (for DVC).")] = None,
    files: Annotated[Path | None, typer.Option(help="Write hashes of each data set's files (for DVC).")] = None,
) -> None:
    """List the sources: tasks, whether they are present under --root, licence, size, layout, page.

    Example: geozero sources --root ~/archives
    """
    from geozero.curation.ingest.stage_inputs import write_code, write_files
    from geozero.params import checkout_of, load
    from geozero.sources import SOURCES, Source, Tree, open_tree
    from geozero.sources.catalogue import catalogue

    if code or files:
        if params is None:
            raise InputError("no parameter file", "--code, --files", "add --params params.yaml")
        data = load(params).data
        if code:
            write_code(data, code)
        if files:
            write_files(data, checkout_of(params), files)
        return
    pages = {name: entry.page for name, entry in catalogue().items()}

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

    def show(tree: Tree | None) -> None:
        gap = "\n\t" if sys.stdout.isatty() else "; "
        for name, source in SOURCES.items():
            titled = f"{source.title}: {source.size}"
            columns = (name, ", ".join(source.tasks), state(source, tree), source.licence, titled)
            layout = gap.join(source.layout.splitlines()) + (gap if sys.stdout.isatty() else "\t") + pages.get(name, "")
            echo("\t".join(columns) + ("\n\t" if sys.stdout.isatty() else "\t") + layout)

    if root is None and not Path("data").is_dir():
        show(None)
    else:
        with open_tree(root or Path("data")) as tree:
            show(tree)


@app.command()
def ingest(
    source: Annotated[str | None, typer.Argument(help="A name that `geozero sources` lists.")] = None,
    root: Annotated[
        Path | None, typer.Option(help="The directory that holds the data set, its tree, or an archive of it.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The corpus to write.")] = None,
    split: Annotated[Literal["train", "val", "test", "all"], typer.Option(help="Which split to keep.")] = "all",
    options: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an option of the data set; repeatable.")
    ] = None,
    checks: Checks = None,
    optional: Annotated[
        bool, typer.Option("--optional", help="Leave --out empty, with a message, if the data set is not there.")
    ] = False,
    follow: Annotated[
        list[Path] | None, typer.Option(help="A directory into which symbolic links may lead; repeatable.")
    ] = None,
    images: Annotated[
        Literal["copy", "link"],
        typer.Option(help="Copy the images into the corpus, or leave those that are kept as they are where they lie."),
    ] = "copy",
    params: Annotated[
        Path | None, typer.Option(help="Take --root, --out, --set and --optional of a data set from this file.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(help="i/n: only decode part i (from 0) of n of the images, for the ingest that follows."),
    ] = None,
) -> None:
    """Read one data set and write it as a corpus.

    Example: geozero ingest aid --root ~/archives/AID.zip --out data/corpus/aid
    """
    from geozero.curation.ingest.checks import with_checks
    from geozero.curation.ingest.ingest import ingest as make
    from geozero.curation.reuse import leave_empty
    from geozero.sources import get, with_options

    adapter, settings = source, list(options or [])
    if params is not None:
        from geozero.curation.ingest.stage_inputs import stage_source
        from geozero.params import CORPORA, load

        source, data, base = source or stage_source(), load(params).data, _base(params)
        if source not in data.places:
            named = f"no data set '{source}' in the section data" if source else "no data set named"
            raise InputError(named, str(params), f"one of {', '.join(data.places)}")
        place = data.places[source]
        root, out = root or base / place.path, out or base / CORPORA / source
        optional = optional or source in data.optional
        follow = [*map(Path, place.follow), *(follow or [])]
        adapter, settings = place.source or source, [*place.settings, *settings]
        settings += [f"name={source}"] if place.source else []
    needed = ("argument 'source'", adapter), ("option '--root'", root), ("option '--out'", out)
    for what, value in needed:
        if value is None:
            raise InputError(f"Missing {what}", hint="see `geozero ingest --help`")
    assert adapter is not None and root is not None and out is not None
    chosen = with_options(get(adapter), settings)
    try:
        if shard is not None:
            from geozero.corpus.sample import parse_shard
            from geozero.curation.ingest.decoded import decode_shard

            n = decode_shard(chosen, root, out, *parse_shard(shard), with_checks(checks or []), follow or [])
            echo(f"{out}\t{n} images decoded\tshard {shard}")
            return
        summary(make(chosen, root, out, split, with_checks(checks or []), follow or [], images), out)
    except Missing as missing:
        if not optional:
            raise
        if shard is None:
            leave_empty(out)
        echo(f"{out}\tskipped\t{missing}")


@app.command()
def raw(
    out: Annotated[Path, typer.Option(help="The corpus to write.")],
    inputs: Annotated[
        list[Path] | None, typer.Option("--in", help="A corpus, or a directory of corpora, to train on; repeatable.")
    ] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A corpus whose images must not be trained on; repeatable.")
    ] = None,
    metrics: Annotated[Path | None, typer.Option(help="Also write the counts as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page: leaks, shared images, licences.")] = None,
    params: Annotated[
        Path | None, typer.Option(help="Take --in and --eval from this file: the data sets that it names.")
    ] = None,
) -> None:
    """Merge corpora into GeoZero-Raw: training samples without duplicates and without images of evaluation sets.

    Example: geozero raw --in data/corpus/aid --in data/corpus/rsicd --eval data/corpus/ucm --out data/geozero-raw
    """
    from geozero.curation.decontamination.merge import raw as make

    if inputs is None and params is None:
        raise InputError("Missing option '--in'", hint="see `geozero raw --help`")
    train, held_out = _corpora(inputs or []), _corpora(evals or [])
    if params is not None:
        from geozero.params import CORPORA, load

        data, place = load(params).data, _base(params) / CORPORA
        corpora = {name: place / name for name in sorted(data.places) if name not in data.optional}
        corpora |= {name: place / name for name in data.optional if (place / name / MANIFEST).is_file()}
        held_out += [corpora[name] for name in sorted(corpora)]
        train += [corpora[name] for name in sorted(corpora) if name in data.trained]
        for corpus in sorted(set(_corpora([place])) - {place, *corpora.values()}):
            echo(f"{corpus}\tleft out\t{params} does not name it")
    summary(make(train, held_out, out, metrics=metrics, html=html), out)


@app.command()
def inspect(
    corpus: Annotated[Path, typer.Argument(help="A corpus.")],
    n: Annotated[int, typer.Option(min=0, help="Samples to show.")] = 8,
    html: Annotated[Path | None, typer.Option(help="Write a page with the images.")] = None,
    card: Annotated[Path | None, typer.Option(help="Write the data card, README.md, into this directory.")] = None,
) -> None:
    """Show counts, reasons of refusal, and some samples.

    Example: geozero inspect data/geozero-raw --n 24 --html look.html
    """
    from geozero.curation.card.inspect import inspect as look

    echo(look(corpus, n, html, card))


@app.command()
def pack(
    corpus: Annotated[Path, typer.Argument(help="A corpus.")],
    out: Annotated[Path, typer.Option(help="The corpus to write.")],
) -> None:
    """Write a corpus with its images inside, so that it can be moved alone; others refer to where images lie.

    Example: geozero pack data/geozero-hard --out ~/geozero-hard
    """
    from geozero.corpus.packing import pack as make

    summary(make(corpus, out), out)


@release.command("export")
def export_release(
    out: Annotated[Path, typer.Option(help="Directory to write; an older export there is replaced.")],
    raw: Annotated[Path | None, typer.Option(help="The corpus that becomes GeoZero-Raw.json.")] = None,
    instruct: Annotated[Path | None, typer.Option(help="The corpus that becomes GeoZero-Instruct.json.")] = None,
    hard: Annotated[Path | None, typer.Option(help="The corpus that becomes GeoZero-Hard.json.")] = None,
    evals: Annotated[
        list[Path] | None, typer.Option("--eval", help="A corpus whose test samples become eval/*.json; repeatable.")
    ] = None,
    boxes: Boxes = "norm1000",
    split: Annotated[Split, typer.Option(help="Which split of --eval is written.")] = "test",
    format: Annotated[
        Literal["official", "hf", "llamafactory", "swift"],
        typer.Option(help="The authors' files; Parquet for the Hugging Face hub; JSON lines of a trainer."),
    ] = "official",
) -> None:
    """Write corpora as the authors release them, for the Hugging Face hub, or for another trainer. Says what is lost.

    Nothing is uploaded.

    Example: geozero release export --raw data/geozero-raw --hard data/geozero-hard --out release
    """
    from geozero.curation.release.exporting import Kind, export
    from geozero.curation.release.hub_parquet import export_hub
    from geozero.curation.release.trainer_json import export_trainer

    given: dict[Kind, Path | None] = {"raw": raw, "instruct": instruct, "hard": hard}
    train, tested = {kind: path for kind, path in given.items() if path}, evals or []
    if format == "official":
        written = export(out, train, tested, boxes, split)
    elif format == "hf":
        written = export_hub(out, train, tested, split)
    else:
        written = export_trainer(out, format, train, tested, boxes, split)
    for line in written.lines():
        echo(line)


@release.command("import")
def import_release(
    root: Annotated[Path, typer.Argument(help="The release's directory, or an archive of it.")],
    out: Annotated[Path, typer.Option(help="The corpus to write.")],
    file: Annotated[str, typer.Option(help="Name of the JSON list, or of the hub's part, if there are several.")] = "",
    boxes: Boxes = "norm1000",
    task: Annotated[str | None, task_option("Of an evaluation JSON that does not say it.")] = None,
    split: Annotated[Split, typer.Option(help="Of an evaluation JSON.")] = "test",
    checks: Checks = None,
) -> None:
    """Read GeoZero-Raw, -Instruct, -Hard, an evaluation JSON, or an export for the hub as a corpus.

    Example: geozero release import ~/GeoZero_Train --file GeoZero-Hard.json --out data/hard
    """
    from geozero.curation.ingest.checks import with_checks
    from geozero.curation.release.hub_parquet import DATA, import_hub
    from geozero.curation.release.importing import import_release as read

    if any(root.glob(f"{DATA}/*/*.parquet")):
        summary(import_hub(root, out, file=file, checks=with_checks(checks or [])), out)
        return
    options: dict[str, Any] = {"file": file, "boxes": boxes, "task": task, "split": split}
    summary(read(root, out, checks=with_checks(checks or []), **options), out)


@app.command()
def tile(
    scenes: Annotated[list[Path], typer.Argument(help="Images; GeoTIFF too (`pip install 'geozero\\[geo]'`).")],
    out: Annotated[Path, typer.Option(help="Directory to write; an older one of the same scenes is replaced.")],
    annotations: Annotated[Path | None, typer.Option(help="Their boxes: COCO's detection JSON.")] = None,
    side: Annotated[int, typer.Option(min=1, help="Pixels of a tile.")] = 512,
    overlap: Annotated[
        int | None, typer.Option(min=0, help="Pixels that neighbours share at least; if left out, a quarter.")
    ] = None,
    bands: Annotated[str, typer.Option(help="As red, green and blue, from 1, such as 4,3,2.")] = "",
    stretch: Annotated[
        Literal["percentile", "range", "none"], typer.Option(help="What --low and --high mean.")
    ] = "percentile",
    low: Annotated[float, typer.Option(help="This value or percentile becomes black.")] = 2.0,
    high: Annotated[float, typer.Option(help="This value or percentile becomes white.")] = 98.0,
    joint: Annotated[bool, typer.Option("--joint", help="One stretch for all bands.")] = False,
) -> None:
    """Cut scenes, 16-bit and many-banded ones too, into 8-bit RGB tiles that `geozero ingest coco` reads.

    Example: geozero tile harbour.tif --bands 4,3,2 --annotations harbour.json --out tiles
    """
    from geozero.corpus.raster import Stretch
    from geozero.curation.tiling.tile import tile_scenes

    numbers = [part.strip() for part in bands.split(",") if part.strip()]
    if not all(part.isascii() and part.isdecimal() for part in numbers):
        raise InputError(f"bands '{bands}'", "--bands", "numbers from 1, separated by commas")
    chosen, look = tuple(map(int, numbers)), Stretch(stretch, low, high, joint)
    made = tile_scenes(scenes, out, annotations, side=side, overlap=overlap, bands=chosen, stretch=look)
    echo(f"{out}\t{made.tiles} tiles\t{made.objects} objects\t{made.vague} cut off")


def _corpora(paths: list[Path]) -> list[Path]:
    """Corpora as given; a directory of corpora means all of them, in the order of their names."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(p.parent for p in path.glob(f"*/{MANIFEST}") if not p.parent.name.startswith("."))
        found += inside if inside and not (path / MANIFEST).is_file() else [path]
    return found


def _base(params: Path) -> Path:
    """What paths in a parameter file are relative to: its checkout, as seen from here."""
    from geozero.params import checkout_of

    checkout = checkout_of(params)
    return Path() if checkout == Path.cwd() else checkout
