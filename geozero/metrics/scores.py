"""Scores: a protocol's result as per-record statistics, so that groups and intervals come from the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Finish = Callable[[Floats], dict[str, Floats]]


@dataclass
class Scores:
    """What a protocol makes of n records.

    `statistics` (n, k) are per-record values whose sums over any set of records give the metrics of that set:
    `finish` maps sums (…, k) to metrics (…). `counts` are whole-list counts reported beside them, `missing` metrics
    that could not be computed with the reason, `per_record` columns (n,) in record order, `groups` names to score
    records by (n,), `correct` which answers are right (n,), None where the task knows no right and wrong, `diagnosis`
    and `notes` what a reader should know, `aggregates` metrics of the whole list that are no function of sums, such as
    means over question types; they have no interval.
    """

    statistics: Floats
    finish: Finish
    counts: dict[str, int] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    per_record: dict[str, Any] = field(default_factory=dict)
    groups: dict[str, NDArray[np.object_]] = field(default_factory=dict)
    correct: Bools | None = None
    diagnosis: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    aggregates: dict[str, float] = field(default_factory=dict)

    def rates(self, chosen: Bools | None = None) -> dict[str, float]:
        """The metrics of all records, or of the chosen ones; NaN where undefined."""
        rows = self.statistics if chosen is None else self.statistics[chosen]
        return {name: float(value) for name, value in self.finish(rows.sum(axis=0)).items()}

    def metrics(self) -> dict[str, float | int | None]:
        """Metrics and counts under their published names; None where undefined or missing."""
        values: dict[str, float | int | None] = {**finite(self.rates() | self.aggregates), **self.counts}
        return values | dict.fromkeys(self.missing)


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """NaN and infinities as None: JSON knows neither."""
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """Element-wise quotient, NaN where the denominator is 0."""
    with np.errstate(all="ignore"):
        return np.where(denominator > 0, np.asarray(numerator, dtype=np.float64) / denominator, np.nan)
