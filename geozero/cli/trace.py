"""`geozero trace RUN`: where a score comes from, and how to make it again."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from geozero.cli.runs import ParamsFile, Store, open_tracker
from geozero.common.errors import InputError
from geozero.common.terminal import PARAMS, echo

app = typer.Typer()


@app.command()
def trace(
    run: Annotated[
        str,
        typer.Argument(
            help="A run's id, the beginning of it, its name, `latest`, or a Prefect run's id; or a page, a checkpoint, "
            "a corpus, a hash or a commit, for the runs that it belongs to."
        ),
    ],
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Print the commands that make it again.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Make its data again in a clean clone and compare all hashes.")
    ] = False,
    into: Annotated[Path | None, typer.Option(help="Where --check puts the clone; it stays there.")] = None,
    params: ParamsFile = PARAMS,
    tracking: Store = None,
) -> None:
    """Follow a score to its flow run, parameters, code, data, corpora and checkpoints, or any of these to its runs.

    Example: geozero trace reports/index.html
    """
    from geozero.tracking import rebuild as rebuilding
    from geozero.tracking.runs import label
    from geozero.tracking.trace import find
    from geozero.tracking.trace import trace as facts

    tracker = open_tracker(params, tracking)
    found = find(tracker, run)
    if not (rebuild or check):
        if len(found) > 1:
            for one in found:
                echo(f"used by\t{label(one)}\t{one.info.run_id}")
            return
        for fact in facts(tracker, found[0]):
            echo(f"{fact.kind}\t{fact.name}\t{fact.value}")
        return
    if len(found) > 1:
        raise InputError(f"'{run}' belongs to {len(found)} runs", tracker.uri, f"name one, such as {label(found[0])}")
    if rebuild:
        for line in rebuilding.commands(tracker, found[0]):
            echo(line)
    if not check:
        return
    clone = into or Path(tempfile.mkdtemp(prefix="geozero-rebuilt-"))
    results = rebuilding.check(tracker, found[0], clone, lambda line: echo(line, err=True))
    for fact in results:
        echo(f"{fact.kind}\t{fact.name}\t{fact.value}")
    wrong = [fact.name for fact in results if fact.kind not in ("same", rebuilding.STORE)]
    if wrong:
        what = f"{len(wrong)} of {len(results)} outputs are not what the run had: {', '.join(wrong)}"
        raise InputError(
            what, str(clone), "compare them there; other packages or another machine may round differently"
        )
    same = sum(fact.kind == "same" for fact in results)
    echo(f"{same} outputs are the same, bit for bit" + (f"; {len(results) - same} grow" if same < len(results) else ""))
    if into is None:
        shutil.rmtree(clone)
