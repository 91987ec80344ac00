"""A trained stage: typed parameters in, a directory with model, logs and `DONE` out; reused, resumed, never redone.

`runs/<name>-<fingerprint>/` holds `stage.json` (what it was made of), `args.json` and `logging.jsonl` (ms-swift's),
`metrics.jsonl`, `train.log`, `checkpoint-N/`, `model/` (a plain Hugging Face checkpoint) and `DONE`, written last.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from geozero import process
from geozero.atomic import replacing
from geozero.corpus import write_json
from geozero.engines import checkpoint as models
from geozero.errors import InputError
from geozero.params import Params
from geozero.training import arguments, checkpoints
from geozero.training.data import Replay
from geozero.training.launch import PARENT, REFUSAL
from geozero.training.metrics import Curve
from geozero.training.recipe import ROWS, Recipe, digest

MODEL, DONE, STAGE, CACHE, LOG = "model", "DONE", "stage.json", "cache", "train.log"

Tell = Callable[[str], None]
OnMetrics = Callable[[int, Mapping[str, float]], None]


@dataclass(frozen=True)
class StageResult:
    """A finished stage (after a dry run: what it would be).

    Attributes:
        directory: the stage's own directory.
        model: the plain model in it.
        fingerprint: hash of parameters, data, base model and method version.
        reused: it was finished already.
        command: what trains, word by word.
    """

    directory: Path
    model: Path
    fingerprint: str
    reused: bool
    command: tuple[str, ...]


def run_sft(
    params: Params,
    corpus: Path,
    base: Path,
    out_root: Path,
    name: str = "sft",
    *,
    replay: Sequence[Replay] = (),
    dry_run: bool = False,
    force: bool = False,
    on_line: Tell | None = None,
    on_metrics: OnMetrics | None = None,
) -> StageResult:
    """SFT on GeoZero-Instruct in direct mode; `params.sft` says how.

    Args:
        corpus: GeoZero-Instruct; its train split is learned from.
        base: directory of the base model.
        out_root: where stages live, `runs/`.
        replay: the base model's own completions, mixed in by `params.sft.replay_share`.
        dry_run: start nothing, write nothing; the result says what would run.
        force: train anew in a directory of its own, even if there is a finished one.
        on_line: takes each line of the child's output, the command first.
        on_metrics: takes each logged step once, in order.

    Raises:
        InputError: parameters, corpus or base model do not fit.
        ChildFailed: the training ended with an error.
    """
    recipe = Recipe(name, "sft", "sft", params, corpus, models.resolve(base), out_root, replay=tuple(replay))
    return _run(recipe, dry_run, force, on_line, on_metrics)


def run_filter(
    params: Params,
    corpus: Path,
    base: Path,
    out_root: Path,
    fold: int = 0,
    *,
    dry_run: bool = False,
    force: bool = False,
    on_line: Tell | None = None,
    on_metrics: OnMetrics | None = None,
) -> StageResult:
    """The data filtering model for `fold`, trained on every other fold of GeoZero-Raw (on all of it if there is one).

    Arguments and errors as `run_sft`; `params.filter` says how.
    """
    if not 0 <= fold < params.filter.folds:
        raise InputError(f"no fold {fold} of {params.filter.folds}", "filter.folds", "folds count from 0")
    recipe = Recipe(f"filter-{fold}", "sft", "filter", params, corpus, models.resolve(base), out_root, fold=fold)
    return _run(recipe, dry_run, force, on_line, on_metrics)


def run_filters(
    params: Params,
    corpus: Path,
    base: Path,
    out_root: Path,
    out: Path,
    *,
    on_line: Tell | None = None,
    on_metrics: OnMetrics | None = None,
) -> list[StageResult]:
    """All filtering models, copied to `out/fold-0`, `out/fold-1`, …; `out` is replaced as a whole.

    A model that fits a GPU has it to itself; on CPUs, where each training keeps to one core, folds train side by side.
    """

    def train(fold: int) -> StageResult:
        return run_filter(params, corpus, base, out_root, fold, on_line=on_line, on_metrics=on_metrics)

    at_once = 1 if process.has_gpu() else min(params.filter.folds, os.cpu_count() or 1)
    with ThreadPoolExecutor(at_once) as pool:
        results = list(pool.map(train, range(params.filter.folds)))
    with replacing(out) as temporary:
        for fold, result in enumerate(results):
            shutil.copytree(result.model, temporary / f"fold-{fold}")
    return results


def run_a2grpo(
    params: Params,
    corpus: Path,
    base: Path,
    out_root: Path,
    name: str = "a2grpo",
    *,
    dry_run: bool = False,
    force: bool = False,
    on_line: Tell | None = None,
    on_metrics: OnMetrics | None = None,
) -> StageResult:
    """A²GRPO on GeoZero-Hard in tagged mode, from `base` (the SFT model), which is also the frozen reference.

    Arguments and errors as `run_sft`; `params.a2grpo` says how.
    """
    recipe = Recipe(name, "grpo", "a2grpo", params, corpus, models.resolve(base), out_root)
    return _run(recipe, dry_run, force, on_line, on_metrics)


def _run(recipe: Recipe, dry_run: bool, force: bool, on_line: Tell | None, on_metrics: OnMetrics | None) -> StageResult:
    identity = recipe.identity()
    fingerprint = digest(identity)
    # Absolute: neither the child nor a resumed run depends on the directory it is started from.
    directory = _directory((recipe.out_root / f"{recipe.name}-{fingerprint}").resolve(), force)
    planned = recipe.arguments(directory)
    command = launch_command(recipe.kind, planned)
    result = StageResult(directory, directory / MODEL, fingerprint, (directory / DONE).is_file(), tuple(command))
    if dry_run or result.reused:
        return result
    directory.mkdir(parents=True, exist_ok=True)
    tell = on_line or (lambda line: None)
    with _only_one(directory, tell):
        if (directory / DONE).is_file():  # whoever held the lock has finished it
            return replace(result, reused=True)
        _train(recipe, directory, identity, planned, tell, on_metrics)
        write_json(directory / DONE, {"fingerprint": fingerprint, "steps": planned["max_steps"]})
    return result


def _train(
    recipe: Recipe,
    directory: Path,
    identity: Mapping[str, Any],
    planned: dict[str, Any],
    tell: Tell,
    on_metrics: OnMetrics | None,
) -> None:
    steps = planned["max_steps"]
    last = checkpoints.newest(directory, tell)
    rows = recipe.write_rows(directory / ROWS)
    if recipe.kind == "grpo" and rows.n < recipe.settings.prompts_per_step:
        raise InputError(
            f"{rows.n} samples are fewer than the {recipe.settings.prompts_per_step} prompts of one step",
            str(recipe.corpus),
            "select more, or lower a2grpo.prompts_per_step",
        )
    command = launch_command(recipe.kind, planned)
    curve = Curve(directory)

    def pass_on() -> None:
        for step, values in curve.fresh():
            if on_metrics is not None:
                on_metrics(step, values)

    def on_line(line: str) -> None:
        tell(line)
        pass_on()

    inputs = {"corpus": str(recipe.corpus), "base": str(recipe.base)}
    write_json(directory / STAGE, {**identity, **inputs, "rows": asdict(rows), "command": command})
    if last is None or last.step < steps:
        if last is not None:
            tell(f"resumed from {last.path.name} of {steps} steps")
            command = launch_command(recipe.kind, planned | {"resume_from_checkpoint": last.path})
        tell(f"$ {shlex.join(command)}")
        _start(command, directory, on_line)
        last = checkpoints.newest(directory, tell)
    pass_on()  # what came after the last line, or what a kill kept from being passed on
    if last is None or last.step < steps:
        raise RuntimeError(f"the training ended without its last checkpoint, {steps}; see {directory / LOG}")
    _finish(recipe, directory, last.path, tell)


def _finish(recipe: Recipe, directory: Path, weights: Path, tell: Tell) -> None:
    """Make the plain model of the last checkpoint and clear away what only the training needed."""
    if recipe.settings.tuner == "lora":
        adapter = weights
        weights = directory / "merged"
        shutil.rmtree(weights, ignore_errors=True)
        merge = launch_command("export", arguments.export(recipe.base, adapter, recipe.params.model, weights))
        _start(merge, directory, tell)
    checkpoints.assemble(weights, recipe.base, directory / MODEL)
    for name in (CACHE, "merged"):
        shutil.rmtree(directory / name, ignore_errors=True)
    (directory / ROWS).unlink()


def _start(command: Sequence[str], directory: Path, on_line: Tell) -> None:
    """Run the child; what its launcher refused becomes the InputError that it was."""
    environment = {"MODELSCOPE_CACHE": str(directory / CACHE), PARENT: str(os.getpid())}
    try:
        process.run(command, log=directory / LOG, env=environment, on_line=on_line)
    except process.ChildFailed as failed:
        refusals = [line.removeprefix(REFUSAL) for line in failed.tail if line.startswith(REFUSAL)]
        if refusals:
            raise InputError(refusals[-1]) from None
        raise


def launch_command(kind: str, planned: Mapping[str, Any]) -> list[str]:
    """The child's command line: our launcher, under torchrun where several processes train."""
    n = arguments.devices() if kind != "export" else 1
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(n)] if n > 1 else []
    return [sys.executable, *torchrun, "-m", "geozero.training.launch", kind, *arguments.flatten(planned)]


def _directory(wanted: Path, force: bool) -> Path:
    """The stage's directory; a forced second run gets the next free number behind its name."""
    if not force or not (wanted / DONE).is_file():
        return wanted
    number = 2
    while (wanted.with_name(f"{wanted.name}-{number}") / DONE).is_file():
        number += 1
    return wanted.with_name(f"{wanted.name}-{number}")


@contextmanager
def _only_one(directory: Path, tell: Tell) -> Iterator[None]:
    """Hold the stage's lock: of two that want to train the same thing, one waits and then finds it done."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            tell(f"another process trains in {directory}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
