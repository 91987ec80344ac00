"""A trained stage: typed parameters in, a directory with model, logs and `DONE` out; reused, resumed, never redone.

`runs/<name>-<fingerprint>/` holds `stage.json` (what it was made of), `args.json` and `logging.jsonl` (ms-swift's),
`metrics.jsonl`, `train.log`, `checkpoint-N/`, `model/` (a plain Hugging Face checkpoint) and `DONE`, written last.
"""

from __future__ import annotations

import fcntl
import itertools
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from geozero.common import process
from geozero.common.atomic import replacing, write_json
from geozero.common.errors import InputError
from geozero.corpus.store import MANIFEST
from geozero.engines import checkpoint as models
from geozero.params import Params
from geozero.training import arguments, checkpoints
from geozero.training.dataset import Replay
from geozero.training.estimate import cost, dry_run, model_size
from geozero.training.grpo import rollout_backend
from geozero.training.launcher import multi_node, retry
from geozero.training.launcher.multi_node import Node
from geozero.training.metrics import MetricsForwarder, OnMetrics
from geozero.training.stage_spec import PROBE_ROWS, ROWS, VAL_ROWS, Log, StageSpec, digest

MODEL, DONE = "model", "DONE"


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


class Options(TypedDict, total=False):
    """What every stage takes besides its data.

    Attributes:
        dry_run: start nothing, write nothing; `on_line` gets the plan, the result says what would run.
        force: train anew in a directory of its own, even if there is a finished one.
        on_line: called with each line of the trainer's output and of the stage's own log, the command first.
        on_metrics: called with each logged step once, in order.
    """

    dry_run: bool
    force: bool
    on_line: Log | None
    on_metrics: OnMetrics | None


def run_sft(
    params: Params,
    corpus: Path,
    base: Path,
    out_root: Path,
    name: str = "sft",
    *,
    replay: Sequence[Replay] = (),
    **options: Unpack[Options],
) -> StageResult:
    """SFT on GeoZero-Instruct in direct mode; `params.sft` says how.

    Args:
        corpus: GeoZero-Instruct; its train split is learned from.
        base: directory of the base model.
        out_root: where stages live, `runs/`.
        replay: the base model's own completions, mixed in by `params.sft.replay_share`.

    Raises:
        InputError: parameters, corpus or base model do not fit.
        NonFiniteStop: a metric of a training step is NaN or infinite; the checkpoints are kept.
        ChildFailed: the training ended with an error.
    """
    return _run(StageSpec(name, "sft", params, corpus, base, out_root, replay=tuple(replay)), **options)


def run_filter(
    params: Params, corpus: Path, base: Path, out_root: Path, fold: int = 0, **options: Unpack[Options]
) -> StageResult:
    """The data filtering model for `fold`, trained on every other fold of GeoZero-Raw (on all of it if there is one).

    Arguments and errors as `run_sft`; `params.filter` says how.
    """
    if not 0 <= fold < params.filter.folds:
        raise InputError(f"no fold {fold} of {params.filter.folds}", "filter.folds", "folds count from 0")
    return _run(StageSpec(f"filter-{fold}", "filter", params, corpus, base, out_root, fold=fold), **options)


def run_filters(
    params: Params, corpus: Path, base: Path, out_root: Path, out: Path, **options: Unpack[Options]
) -> list[StageResult]:
    """All filtering models, copied to `out/fold-0`, `out/fold-1`, …; `out` is replaced as a whole.

    On a GPU, or on several nodes, they train one after the other; on CPUs, where each training uses one core, side by
    side. Of several nodes the first one writes `out`.
    """
    node = multi_node.this_node(params.hardware)
    at_once = 1 if process.has_gpu() or node.n > 1 else min(params.filter.folds, process.cores())
    with ThreadPoolExecutor(at_once) as pool:
        train = partial(run_filter, params, corpus, base, out_root, **options)
        results = list(pool.map(train, range(params.filter.folds)))
    if not node.leads:
        return results
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
    **options: Unpack[Options],
) -> StageResult:
    """A²GRPO on GeoZero-Hard in tagged mode, from `base` (the SFT model), which is also the frozen reference.

    Arguments and errors as `run_sft`; `params.a2grpo` says how.

    Args:
        val: corpora whose val split selects the checkpoint, where `params.a2grpo.keep` is `best`.

    Raises:
        collapse_monitor.CollapseStop: a collapse guard stopped the training, now or when it ran before.
    """
    return _run(StageSpec(name, "a2grpo", params, corpus, base, out_root, val=tuple(val)), **options)


def _run(
    spec: StageSpec,
    dry_run: bool = False,
    force: bool = False,
    on_line: Log | None = None,
    on_metrics: OnMetrics | None = None,
) -> StageResult:
    log = on_line or _discard
    if dry_run:
        return _plan(spec, force, log)
    spec = replace(spec, base=models.resolve(spec.base))
    result = look_up(spec, force)
    if result.reused:
        return result
    arguments.check_masters(spec.params, spec.section)
    arguments.check_hardware(spec.params.hardware)
    shape = model_size.read(spec.base)
    if shape is not None and process.has_gpu():
        planned = arguments.of_stage(spec, result.directory)
        cost.check_host_memory(shape, spec.params, spec.settings, planned)
    node, directory = multi_node.this_node(spec.params.hardware), result.directory
    directory.mkdir(parents=True, exist_ok=True)
    if not node.leads:
        retry.follow_leader(spec, directory, node, directory / DONE, log)
        return result
    with _lock(directory, log):
        if (directory / DONE).is_file():  # whoever held the lock has finished it
            return replace(result, reused=True)
        _train(spec, directory, node, log, on_metrics)
        write_json(directory / DONE, {"fingerprint": result.fingerprint, "steps": spec.settings.steps})
    return result


def _train(spec: StageSpec, directory: Path, node: Node, log: Log, on_metrics: OnMetrics | None) -> None:
    """The recipe: rows, the training however often it has to be started, the checkpoint that becomes the model."""
    if spec.kind == "grpo":
        rollout_backend.wait_until_ready(spec.settings, log)
    rows = spec.write_rows(directory / ROWS)
    if rows.rejected:
        log(f"left out: {', '.join(f'{n} {reason}' for reason, n in rows.rejected.most_common())}")
    planned = arguments.of_stage(spec, directory)
    command = arguments.launch_command(spec.kind, planned, spec.params.hardware, node)
    if spec.kind == "sft" and (spec.settings.group_by_length or planned["per_device_train_batch_size"] > 1):
        share = rows.useful_share(planned["per_device_train_batch_size"], arguments.world(spec.params.hardware))
        order = "steps sorted by length" if spec.settings.group_by_length else "sft.group_by_length is off"
        log(f"padding: {share:.0%} of the tokens of all forward passes are useful, by estimate ({order})")
    record = spec.record(rows, command)
    guards = spec.settings.guards if spec.kind == "grpo" else None
    metrics = MetricsForwarder(directory, guards, on_metrics, log, scales_loss=bool(planned["fp16"]))
    run = retry.TrainingRun(spec, directory, node, record, metrics, log)
    run.update_record()
    last = retry.train_with_retries(run, planned)
    metrics.forward()  # what came after the last line, or what a kill kept from being forwarded
    best = checkpoints.best(directory, arguments.BEST_METRIC) if spec.validates else None
    if best is not None:
        log(f"selected {best.path.name} (best validation answer reward)")
    chosen = best or last
    run.update_record(model_step=chosen.step)
    options = {"log": directory / retry.LOG, "env": retry.environment(directory), "on_line": log}
    checkpoints.assemble_model(chosen.path, spec.base, spec.params.model, directory / MODEL, **options)
    shutil.rmtree(directory / retry.CACHE, ignore_errors=True)
    for name in (ROWS, VAL_ROWS, PROBE_ROWS):
        (directory / name).unlink(missing_ok=True)


def look_up(spec: StageSpec, force: bool = False) -> StageResult:
    """A stage's directory and command, and whether it is finished; starts nothing, writes nothing.

    Args:
        force: a finished stage's directory gets the next free number behind its name.
    """
    fingerprint = digest(spec.identity())
    # Absolute: neither the child nor a resumed run depends on the directory it is started from.
    own = directory = (spec.out_root / f"{spec.name}-{fingerprint}").resolve()
    numbers = itertools.count(2)
    while force and (directory / DONE).is_file():
        directory = own.with_name(f"{own.name}-{next(numbers)}")
    command = arguments.launch_command(spec.kind, arguments.of_stage(spec, directory), spec.params.hardware)
    return StageResult(directory, directory / MODEL, fingerprint, (directory / DONE).is_file(), tuple(command))


def _plan(spec: StageSpec, force: bool, log: Log) -> StageResult:
    """Log the plan; where model or data are missing, the stage has no fingerprint yet."""
    spec = replace(spec, base=dry_run.resolve_base(spec.base))
    if spec.base.is_dir() and (spec.corpus / MANIFEST).is_file():
        result = look_up(spec, force)
    else:
        nowhere = spec.out_root / f"{spec.name}-unknown"
        result = StageResult(nowhere, nowhere / MODEL, "", False, ())
    if not result.reused:
        arguments.check_masters(spec.params, spec.section)
    for line in dry_run.lines(spec, result.directory):
        log(line)
    return result


@contextmanager
def _lock(directory: Path, log: Log) -> Iterator[None]:
    """Hold the stage's lock: of two that are to train the same thing, one waits and then finds it done."""
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            log(f"another process is training in {directory}; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _discard(line: str) -> None:
    """The log where the caller gives none."""
