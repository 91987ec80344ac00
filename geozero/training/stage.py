"""A trained stage: typed parameters in, a directory with model, logs and `DONE` out; reused, resumed, never redone.

`runs/<name>-<fingerprint>/` holds `stage.json` (what it was made of), `args.json` and `logging.jsonl` (ms-swift's),
`metrics.jsonl`, `train.log`, `checkpoint-N/`, `model/` (a plain Hugging Face checkpoint) and `DONE`, written last.
"""

from __future__ import annotations

import fcntl
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from geozero.common import process
from geozero.common.atomic import replacing, write_json
from geozero.common.errors import InputError
from geozero.corpus.store import MANIFEST
from geozero.params import Mark, Params
from geozero.training import arguments, checkpoints
from geozero.training.dataset import Replay
from geozero.training.estimate.dry_run import base_of
from geozero.training.estimate.dry_run import lines as plan_lines
from geozero.training.grpo import rollout_backend
from geozero.training.grpo.collapse_monitor import VIOLATIONS, CollapseMonitor, Violation
from geozero.training.launcher import multi_node, retry, watchdog
from geozero.training.launcher.multi_node import LeaderLaunch, Node
from geozero.training.launcher.retry import CACHE, LAUNCHER, LOG
from geozero.training.metrics import SOURCE, TARGET, Curve, read
from geozero.training.stage_spec import PROBE_ROWS, ROWS, VAL_ROWS, StageSpec, digest

MODEL, DONE, STAGE = "model", "DONE", "stage.json"

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
        dry_run: start nothing, write nothing; `on_line` takes the plan, the result says what would run.
        force: train anew in a directory of its own, even if there is a finished one.
        on_line: takes each line of the child's output, the command first.
        on_metrics: takes each logged step once, in order.

    Raises:
        InputError: parameters, corpus or base model do not fit.
        ChildFailed: the training ended with an error.
    """
    recipe = StageSpec(name, "sft", "sft", params, corpus, base_of(base, dry_run), out_root, replay=tuple(replay))
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
    recipe = StageSpec(f"filter-{fold}", "sft", "filter", params, corpus, base_of(base, dry_run), out_root, fold=fold)
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

    at_once = 1 if process.has_gpu() else min(params.filter.folds, process.cores())
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
    val: Sequence[Path] = (),
    dry_run: bool = False,
    force: bool = False,
    on_line: Tell | None = None,
    on_metrics: OnMetrics | None = None,
) -> StageResult:
    """A²GRPO on GeoZero-Hard in tagged mode, from `base` (the SFT model), which is also the frozen reference.

    Arguments and errors as `run_sft`; `params.a2grpo` says how.

    Args:
        val: corpora whose val split chooses the checkpoint, where `params.a2grpo.keep` is `best`.

    Raises:
        collapse_monitor.CollapseStop: a collapse guard ended the training, now or when it ran before.
    """
    recipe = StageSpec(name, "grpo", "a2grpo", params, corpus, base_of(base, dry_run), out_root, val=tuple(val))
    return _run(recipe, dry_run, force, on_line, on_metrics)


def look_up(recipe: StageSpec, force: bool = False) -> StageResult:
    """A stage's directory and command, and whether it is finished; starts nothing, writes nothing."""
    fingerprint = digest(recipe.identity())
    # Absolute: neither the child nor a resumed run depends on the directory it is started from.
    directory = _directory((recipe.out_root / f"{recipe.name}-{fingerprint}").resolve(), force)
    command = retry.launch_command(recipe.kind, recipe.arguments(directory), recipe.params.hardware)
    return StageResult(directory, directory / MODEL, fingerprint, (directory / DONE).is_file(), tuple(command))


def _run(
    recipe: StageSpec, dry_run: bool, force: bool, on_line: Tell | None, on_metrics: OnMetrics | None
) -> StageResult:
    tell = on_line or (lambda line: None)
    if dry_run:
        return _dry(recipe, force, tell)
    result = look_up(recipe, force)
    if result.reused:
        return result
    hardware = recipe.params.hardware
    arguments.check_hardware(hardware)
    node, directory = multi_node.this_node(hardware), result.directory
    directory.mkdir(parents=True, exist_ok=True)
    if not node.leads:
        _follow(recipe, directory, node, tell)
        return result
    with _only_one(directory, tell):
        if (directory / DONE).is_file():  # whoever held the lock has finished it
            return replace(result, reused=True)
        _train(recipe, directory, node, tell, on_metrics)
        write_json(directory / DONE, {"fingerprint": result.fingerprint, "steps": recipe.settings.steps})
    return result


def _dry(recipe: StageSpec, force: bool, tell: Tell) -> StageResult:
    """Tell the plan; where model or data are not there yet, the stage has no fingerprint."""
    there = recipe.base.is_dir() and (recipe.corpus / MANIFEST).is_file()
    nowhere = recipe.out_root / f"{recipe.name}-unknown"
    result = look_up(recipe, force) if there else StageResult(nowhere, nowhere / MODEL, "", False, ())
    for line in plan_lines(recipe, result.directory):
        tell(line)
    return result


def _follow(recipe: StageSpec, directory: Path, node: Node, tell: Tell) -> None:
    """Train along on a node that is not the first: start what that one starts until it has finished."""
    command = [sys.executable, *multi_node.torchrun(node, arguments.devices(recipe.params.hardware)), "-m", LAUNCHER]

    def start(launch: LeaderLaunch) -> None:
        watch = retry.supervisor(recipe.params.hardware, directory / f"train-{node.rank}.log", tell)
        steps = multi_node.Heartbeat(directory / SOURCE)  # node 0 logs them, for all

        def over() -> str:
            if steps.changed():
                watch.alive()
            return launch.over()

        watch.over = over
        watch.run([*command, *launch.words], retry.environment(directory), tell)
        if watch.left:
            tell(f"node {node.rank}: left; node 0 writes the checkpoint")
            raise watchdog.Preempted

    def attempt(launch: LeaderLaunch) -> None:
        try:
            start(launch)
        except (process.ChildFailed, watchdog.HangDetected, watchdog.OutOfMemory) as error:
            code = f"a process ended with code {error.code}" if isinstance(error, process.ChildFailed) else ""
            if not launch.over():  # else node 0 knows, or has ended it
                launch.fail(f"node {node.rank}: {code or error}")
            tell(f"node {node.rank}: {error}; node 0 decides what follows")

    multi_node.follow_leader(directory, directory / DONE, attempt, 60 * recipe.params.hardware.stall_minutes)


def _train(recipe: StageSpec, directory: Path, node: Node, tell: Tell, on_metrics: OnMetrics | None) -> None:
    if recipe.kind == "grpo":
        rollout_backend.wait_until_ready(recipe.settings, tell)
    rows = recipe.write_rows(directory / ROWS)
    if rows.rejected:
        tell(f"left out: {', '.join(f'{n} {reason}' for reason, n in rows.rejected.most_common())}")
    if recipe.kind == "grpo" and rows.n < recipe.settings.prompts_per_step:
        raise InputError(
            f"{rows.n} samples are fewer than the {recipe.settings.prompts_per_step} prompts of one step",
            str(recipe.corpus),
            "select more, or lower a2grpo.prompts_per_step",
        )
    planned = recipe.arguments(directory)
    identity = recipe.identity()
    record = {
        **identity,
        "settings": recipe.settings.model_dump(exclude=recipe.settings.marked(Mark.NOT_TRAINING)),
        "corpus": str(recipe.corpus),
        "base": str(recipe.base),
        "corpus_digest": identity["corpus"],
        "base_hash": identity["base"],
        "rows": {"n": rows.n, "rejected": dict(rows.rejected)},  # asdict() makes a Counter of pairs from a Counter
        "hardware": recipe.params.hardware.model_dump(),
        "command": retry.launch_command(recipe.kind, planned, recipe.params.hardware, node),
        "retries": [],
    }
    write_json(directory / STAGE, record)
    watch = (
        CollapseMonitor(recipe.settings.guards, directory, read(directory / TARGET)) if recipe.kind == "grpo" else None
    )
    fresh: list[Violation] = []

    def annotate(step: int, values: Mapping[str, float]) -> Mapping[str, float]:
        if watch is None:
            return {}
        n, crossings = watch.see(step, values)
        fresh.extend(crossings)
        return {VIOLATIONS: n} if n else {}

    curve = Curve(directory, annotate)

    def pass_on() -> bool:
        """Hand on what was logged since; whether there was anything."""
        came = False
        for step, values in curve.fresh():
            came = True
            if on_metrics is not None:
                on_metrics(step, values)
        for crossing in fresh:
            tell(f"guard: {crossing.reason}")
        if watch is not None:
            watch.refuse(fresh)
        fresh.clear()
        return came

    def on_retry(reason: str) -> None:
        record["retries"].append(reason)
        write_json(directory / STAGE, record)

    last = retry.train_with_retries(recipe, directory, node, planned, on_retry, tell, pass_on)
    pass_on()  # what came after the last line, or what a kill kept from being passed on
    chosen = checkpoints.best(directory, arguments.BEST_METRIC) if recipe.validates else None
    if chosen is not None:
        tell(f"{chosen.path.name} answers val best and becomes the model")
    write_json(directory / STAGE, {**record, "model_step": (chosen or last).step})
    _finish(recipe, directory, (chosen or last).path, tell)


def _finish(recipe: StageSpec, directory: Path, weights: Path, tell: Tell) -> None:
    """Make the plain model of a checkpoint and clear away what only the training needed."""
    if recipe.settings.tuner == "lora":
        adapter = weights
        weights = directory / "merged"
        shutil.rmtree(weights, ignore_errors=True)
        words = arguments.flatten(arguments.export(recipe.base, adapter, recipe.params.model, weights))
        process.run(
            [sys.executable, "-m", LAUNCHER, "export", *words],
            log=directory / LOG,
            env=retry.environment(directory),
            on_line=tell,
        )
    checkpoints.assemble(weights, recipe.base, directory / MODEL)
    for name in (CACHE, "merged"):
        shutil.rmtree(directory / name, ignore_errors=True)
    for name in (ROWS, VAL_ROWS, PROBE_ROWS):
        (directory / name).unlink(missing_ok=True)


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
