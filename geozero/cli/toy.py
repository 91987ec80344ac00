"""`geozero toy`: render the world and build the tiny Qwen3-VL of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from geozero.common.errors import InputError
from geozero.common.progress import Progress
from geozero.common.terminal import PARAMS, ParamsFile, echo

app = typer.Typer(help="The rendered world and the tiny Qwen3-VL of the demo.", no_args_is_help=True)


@app.command("world")
def toy_world(
    out: Annotated[Path, typer.Option(help="Directory to write the four data sets to.")] = Path("data/toy"),
    params: ParamsFile = PARAMS,
    hard: Annotated[bool, typer.Option("--hard", help="The harder world, all of it test.")] = False,
) -> None:
    """Render the toy world in the layouts of AID, RSVQA-LR, RSICD and DIOR-RSVG; with `toy.suite` also the suite.

    Example: geozero toy world --out data/toy
    """
    from geozero.params import load
    from geozero.toy.world.layouts import SUITE_SETS

    settings = load(params)
    if settings.toy is None:
        raise InputError(
            "the profile has no toy world", str(params), "add a section `toy`, or use profiles/cpu-toy.yaml"
        )
    world = settings.toy
    sizes: dict[str, dict[str, int]]
    sizes = {name: {"train": n, "val": world.val[name], "test": world.test[name]} for name, n in world.train.items()}
    if world.suite:
        sizes |= dict.fromkeys(SUITE_SETS, world.suite.model_dump())
    _write(out, sizes, settings.seed, world.size, hard)


@app.command("suite")
def toy_suite(
    out: Annotated[Path, typer.Option(help="Directory to write the two data sets to.")],
    hard: Annotated[bool, typer.Option("--hard", help="The harder world, all of it test.")] = False,
    train: Annotated[int, typer.Option(min=1, help="Questions of each type to learn from.")] = 400,
    val: Annotated[int, typer.Option(min=1, help="Questions of each type to choose with.")] = 100,
    test: Annotated[int, typer.Option(min=1, help="Questions of each type to report.")] = 400,
    size: Annotated[int, typer.Option(min=96, max=256, help="Side of an image in pixels.")] = 96,
    seed: Annotated[int, typer.Option(min=0, help="The world; worlds of different seeds share no scene.")] = 7,
) -> None:
    """Render the suite alone: questions in several steps (SUITE_VQA) and expressions in two hops (SUITE_VG).

    `geozero ingest` reads them as toy_suite_vqa and toy_suite_vg, the harder world's with `_hard` behind.
    With `toy.suite` in the parameters they are part of `geozero toy world`.

    Example: geozero toy suite --out data/toy-suite
    """
    from geozero.toy.world.layouts import SUITE_SETS

    _write(out, {name: {"train": train, "val": val, "test": test} for name in SUITE_SETS}, seed, size, hard)


def _write(out: Path, sizes: dict[str, dict[str, int]], seed: int, size: int, hard: bool) -> None:
    from geozero.toy.world.layouts import write_world

    with Progress(f"render {out}", unit="scene", write=echo) as bar:

        def on_scene(done: int, total: int) -> None:
            bar.total = total
            bar.at(done)

        write_world(out, seed=seed, sizes=sizes, size=size, hard=hard, progress=on_scene)


@app.command("model")
def toy_model(
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = Path("models/tiny-qwen3-vl"),
) -> None:
    """Build and pre-train a tiny Qwen3-VL (two hours on one core, resumable; a finished one is in the repository).

    Stages and progress are kept beside it, in OUT.stages: run it again to resume.

    Example: geozero toy model --out /tmp/tiny
    """
    from geozero.toy.model.pretrain import pretrain

    echo(str(pretrain(out, log=echo)))
