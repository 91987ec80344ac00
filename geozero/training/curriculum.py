"""Which samples A²GRPO meets, and when: a curriculum by the filtering model's pass rate [ours]."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from geozero.errors import InputError
from geozero.sample import Sample, stable_unit

RATES = "pass_rates.parquet"  # `geozero select` writes it beside GeoZero-Hard

Order = Literal["easy_first", "hard_first"]


def rates_file(corpus: Path) -> Path:
    """Where the pass rates of a selected corpus stand.

    Raises:
        InputError: nowhere.
    """
    path = corpus.with_name(RATES)
    if not path.is_file():
        raise InputError(
            "no pass rates to order by", str(path), "run `geozero select` again, or set a2grpo.order to shuffled"
        )
    return path


def read_rates(path: Path) -> dict[str, float]:
    """Sample id → pass rate in [0, 1], of those that were asked.

    Raises:
        InputError: the file is no table of pass rates.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, columns=["id", "p"])
    except (OSError, KeyError, pa.ArrowException):
        raise InputError("no readable table of pass rates", str(path), "run `geozero select` again") from None
    rows = zip(table["id"].to_pylist(), table["p"].to_pylist(), strict=True)
    return {name: float(rate) for name, rate in rows if rate is not None}


def some(samples: Iterable[Sample], n: int) -> list[Sample]:
    """The `n` samples whose ids come first by stable hash, in that order."""
    return sorted(samples, key=_place)[:n]


def ordered(samples: Iterable[Sample], rates: Mapping[str, float], order: Order, n: int) -> list[Sample]:
    """At most `n` samples by pass rate, those of one rate in the order of a stable hash.

    A run that sees fewer samples than there are takes them from all rates first and orders these: else it would only
    ever meet one end. A sample without a pass rate counts as the hardest.
    """
    sign = -1.0 if order == "easy_first" else 1.0
    return sorted(some(samples, n), key=lambda s: (sign * rates.get(s.id, 0.0), _place(s)))


def _place(sample: Sample) -> float:
    return stable_unit(sample.id, salt="curriculum")
