"""`geozero evaluate`: score one list of records under one protocol and write everything a reader of the score needs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geozero import tasks
from geozero.common.atomic import write_json
from geozero.common.errors import InputError
from geozero.corpus.sample import digest
from geozero.evaluation.comparison import compare
from geozero.evaluation.scored import PROTOCOLS, ScoredRecords
from geozero.evaluation.statistics import RESAMPLES, SEED
from geozero.metrics.records import read_records
from geozero.tasks.boxes import CONVENTIONS


def evaluate(
    task: str,
    protocol: str,
    records: Path | str | Sequence[Any],
    out: Path | str | None = None,
    boxes: str = "norm1000",
    resamples: int = RESAMPLES,
    seed: int = SEED,
    against: Path | str | Sequence[Any] | None = None,
) -> dict[str, Any]:
    """Score `records` (a JSON file or a list) and return the result; written to `out` where given.

    The result holds `task`, `protocol`, `n`, `metrics` (names and units of the golden files) and, beside them,
    `n_well_formed`, `intervals`, `groups`, `baselines`, `confusion`, `reasoning`, `diagnosis`, `problems`, `missing`,
    `notes` and where the records came from; with several answers per question `self_consistency`, and with `against`,
    another model's answers to the same questions, `comparison` (these records minus those). `boxes` is the convention
    of predicted boxes under `strict`; `official` always reads the published one.

    Raises:
        InputError: unknown task, protocol or convention, unreadable records, records on which the published rules
            themselves stop, or an `against` with other questions.
    """
    settings = (_known(protocol, PROTOCOLS, "protocol"), _known(boxes, CONVENTIONS, "coordinate convention"))
    scored = ScoredRecords(tasks.get(task), read_records(records), *settings)
    for i, name in enumerate(scored.records.tasks):
        if name is not None and name != task:
            scored.records.report(i, "other_task", f"the record says {name}; scored as {task}")
    result = scored.result(resamples, seed)
    result["records"] = _origin(records, len(scored.records))
    if against is not None:
        other = ScoredRecords(scored.task, read_records(against), *settings)
        difference = compare(other, scored, resamples=resamples, seed=seed)
        result["comparison"] = {"against": _origin(against, len(other.records)), **difference}
    if out is not None:
        write_json(Path(out), result)
    return result


def _origin(given: Path | str | Sequence[Any], n: int) -> dict[str, Any]:
    """Which records were scored, so that a score can be traced back to its bytes."""
    if not isinstance(given, Path | str):
        return {"n": n}
    return {"n": n, "path": str(given), "blake2b": digest(Path(given).read_bytes())}


def _known(value: str, known: tuple[Any, ...], what: str) -> Any:
    if value not in known:
        raise InputError(f"unknown {what} '{value}'", hint=f"one of {', '.join(known)}")
    return value
