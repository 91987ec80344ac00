"""Which samples A²GRPO trains on, and when: a curriculum by the filtering model's pass rate [ours]."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from geozero.common.errors import InputError
from geozero.corpus.sample import Sample, stable_unit

RATES = "pass_rates.parquet"  # `geozero select` writes it beside GeoZero-Hard

Order = Literal["easy_first", "hard_first"]


def rates_file(corpus: Path) -> Path:
    """Where the pass rates of a selected corpus are.

    Raises:
        InputError: nowhere.
    """
    path = corpus.with_name(RATES)
    if not path.is_file():
        hint = "run `geozero select` again, or set a2grpo.order to shuffled"
        raise InputError("no pass rates to order by", str(path), hint)
    return path


def read_rates(path: Path) -> dict[str, float]:
    """Sample id → pass rate in [0, 1], of the samples that have one.

    Raises:
        InputError: the file is no table of pass rates.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(path, columns=["id", "p"]).to_pylist()
    except (OSError, KeyError, pa.ArrowException):
        raise InputError("no readable table of pass rates", str(path), "run `geozero select` again") from None
    return {row["id"]: float(row["p"]) for row in rows if row["p"] is not None}


def some(samples: Iterable[Sample], n: int) -> list[Sample]:
    """The first `n` samples in the order of a stable hash of their ids."""
    return sorted(samples, key=_place)[:n]


def ordered(
    samples: Iterable[Sample], rates: Mapping[str, float], order: Order, n: int, spare: int = 0
) -> list[Sample]:
    """At most `n` samples by pass rate, ties in the order of a stable hash; then `spare` more, likewise.

    A run shorter than its data takes samples of all rates first and orders these; otherwise it would only meet one end.
    The spare ones, which `resample` draws from, lie evenly between them. A sample without a pass rate counts as the
    hardest.
    """
    sign = -1.0 if order == "easy_first" else 1.0
    found = sorted(some(samples, n + spare), key=lambda s: (sign * rates.get(s.id, 0.0), _place(s)))
    own, total = min(n, len(found)), len(found)
    is_own = [(i + 1) * own // total > i * own // total for i in range(total)]
    return [s for s, mine in zip(found, is_own, strict=True) if mine] + [
        s for s, mine in zip(found, is_own, strict=True) if not mine
    ]


@dataclass(frozen=True)
class Resampling:
    """Which prompts a step samples in place of zero-std groups.

    They depend on the step and the draw only, so that a resumed run draws what it would have drawn.

    Attributes:
        rows: number of rows of the training data; in a run with an order, those after its own steps' rows are spare.
        prompts: number of prompts per step.
        steps: number of steps of the run.
        draws: how often a step may draw at most.
        shuffled: whether the run is shuffled; a run with an order draws prompts about as hard as the step's own.
        seed: the run's seed; a shuffled run draws in another permutation than it trains in.
    """

    rows: int
    prompts: int
    steps: int
    draws: int
    shuffled: bool
    seed: int

    def drawn(self, step: int, draw: int) -> list[int]:
        """The rows that step `step` (from 0) may take in its draw `draw` (from 1), as many as it has prompts.

        A draw samples the first of them, one for each group that is to be replaced.
        """
        if self.shuffled:
            rows = random.Random(self.seed + 1).sample(range(self.rows), self.rows)
            start = (step * self.draws + draw - 1) * self.prompts
        else:
            own = min(self.rows, self.steps * self.prompts)
            rows = list(range(own, self.rows)) or list(range(self.rows))  # none to spare: the next steps' prompts
            epoch = max(1, own // self.prompts)
            start = step % epoch * len(rows) // epoch + (draw if own == self.rows else draw - 1) * self.prompts
        return [rows[(start + i) % len(rows)] for i in range(self.prompts)]


def _place(sample: Sample) -> float:
    return stable_unit(sample.id, salt="curriculum")
