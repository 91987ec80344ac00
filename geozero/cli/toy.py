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
    """Render the toy world in the layouts of AID, RSVQA-LR, RSICD and DIOR-RSVG.

    Example: geozero toy world --out data/toy
    """
    from geozero.params import load
    from geozero.toy.world.layouts import write_world

    settings = load(params)
    if settings.toy is None:
        raise InputError(
            "the profile has no toy world", str(params), "add a section `toy`, or use profiles/cpu-toy.yaml"
        )
    world = settings.toy
    sizes: dict[str, dict[str, int]]
    sizes = {name: {"train": n, "val": world.val[name], "test": world.test[name]} for name, n in world.train.items()}
    with Progress(f"render {out}", unit="scene", write=echo) as bar:

        def on_scene(done: int, total: int) -> None:
            bar.total = total
            bar.at(done)

        write_world(out, seed=settings.seed, sizes=sizes, size=world.size, hard=hard, progress=on_scene)


@app.command("model")
def toy_model(
    out: Annotated[Path, typer.Option(help="Directory of the checkpoint.")] = Path("models/tiny-qwen3-vl"),
) -> None:
    """Build and pre-train the tiny Qwen3-VL (about half an hour on one core; a finished one is in the repository).

    Example: geozero toy model --out /tmp/tiny
    """
    from geozero.toy.model.pretrain import pretrain

    echo(str(pretrain(out, log=echo)))
