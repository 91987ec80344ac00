"""The registered model `geozero` and its alias `best`, which one stated rule moves.

The rule [ours]: a pipeline run's A²GRPO model becomes `best` when
1. the run holds A²GRPO's scores in tagged mode, one per world and split of the test data;
2. `best` was measured on the same test data, by the same worlds and splits (or there is no `best` yet);
3. the mean of these scores is higher than that of `best` by more than `MARGIN` points.
Otherwise the alias stays. To move it by hand (`geozero runs promote RUN --force`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from geozero.common.errors import InputError
from geozero.tracking import REUSED_TAG, Tracker
from geozero.tracking.mlflow_store import NOT_THERE

if TYPE_CHECKING:
    from mlflow.entities import Run

MODEL, ALIAS = "geozero", "best"
MARGIN = 1.0  # points: the noise in the mean of a few thousand questions (docs/experiments.md)
SCORES = "a2grpo/tagged/"  # prefix of the metrics that count
TEST_DATA = "test.digest"  # tag: hash of all test questions
STAGE = "a2grpo"


@dataclass(frozen=True)
class Verdict:
    """Whether the alias moves, and why; one line."""

    moves: bool
    reason: str


def judge(scores: Mapping[str, float], data: str, best: Mapping[str, float] | None, best_data: str) -> Verdict:
    """The rule, without MLflow.

    Args:
        scores: the metrics of the run, percent by `a2grpo/tagged/WORLD/SPLIT`; others are ignored.
        data: hash of the test data.
        best: the metrics of the present best; None if there is none.
        best_data: hash of the test data of these metrics.
    """
    mine = {name: value for name, value in scores.items() if name.startswith(SCORES)}
    if not mine:
        return Verdict(False, f"the run holds no scores {SCORES}…")
    if not math.isfinite(_mean(mine)):
        return Verdict(False, f"a score {SCORES}… is not a number")
    if best is None:
        return Verdict(True, f"the first with scores: {_mean(mine):.2f}")
    theirs = {name: value for name, value in best.items() if name.startswith(SCORES)}
    if data != best_data or mine.keys() != theirs.keys():
        return Verdict(False, "not comparable: the best was measured on other test data")
    gain = _mean(mine) - _mean(theirs)
    against = f"{_mean(mine):.2f} against {_mean(theirs):.2f}"
    if gain > MARGIN:
        return Verdict(True, f"better: {against}")
    return Verdict(False, f"not better by more than {MARGIN:g} point: {against}")


def promote(tracker: Tracker, run: Run, force: bool = False) -> Verdict:
    """Register the A²GRPO model of a pipeline run, and move the alias if the rule says so, or by `force`.

    The checkpoint is copied into MLflow's artifacts, so that `models:/geozero@best` can be downloaded anywhere.

    Raises:
        InputError: the run has no A²GRPO model, or its checkpoint is gone.
    """
    holder = best_run(tracker)
    verdict = judge(
        run.data.metrics,
        run.data.tags.get(TEST_DATA, ""),
        holder.data.metrics if holder else None,
        holder.data.tags.get(TEST_DATA, "") if holder else "",
    )
    if holder is not None and holder.info.run_id == run.info.run_id:
        return Verdict(False, "it is the best already")
    if not (verdict.moves or force):
        return verdict
    client = tracker.client
    model_id = _model_of(tracker, run)
    if not any(model.name == MODEL for model in client.search_registered_models(f"name = '{MODEL}'")):
        client.create_registered_model(MODEL, description="Models of GeoZero's pipeline runs; `best`: see its rule")
    # by its place, not as models:/ID: MLflow's own database would look that up in the process's default store
    source = tracker.upload_checkpoint(model_id)
    version = client.create_model_version(
        MODEL,
        source,
        run.info.run_id,
        tags={"model_id": model_id},  # MLflow's database forgets the argument
        description=verdict.reason,
        model_id=model_id,
    )
    client.set_registered_model_alias(MODEL, ALIAS, version.version)
    client.set_tag(run.info.run_id, "best", f"version {version.version}: {verdict.reason}")
    return Verdict(True, verdict.reason if verdict.moves else f"by hand ({verdict.reason})")


def best_run(tracker: Tracker) -> Run | None:
    """The pipeline run whose model is `best`; None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        version: Any = tracker.client.get_model_version_by_alias(MODEL, ALIAS)
    except MlflowException as error:
        if error.error_code not in NOT_THERE:
            raise
        return None
    return tracker.run(str(version.run_id))


def _model_of(tracker: Tracker, run: Run) -> str:
    """The logged model of the run's A²GRPO stage."""
    for stage in tracker.stages(run):
        named = stage.info.run_name == STAGE or stage.info.run_id == run.data.tags.get(REUSED_TAG + STAGE)
        outputs = stage.outputs.model_outputs if stage.outputs else []
        if named and outputs:
            return str(outputs[-1].model_id)
    raise InputError("the run has no A²GRPO model", run.info.run_id, "name a finished pipeline run")


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)
