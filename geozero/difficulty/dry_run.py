"""Estimate what sampling would take from a short measured warm-up; its answers are discarded and nothing is written."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from geozero import engines
from geozero.corpus.sample import parse_shard, stable_unit
from geozero.corpus.store import Corpus
from geozero.difficulty import answer_store
from geozero.difficulty.answer_store import ANSWER_SCHEMA
from geozero.difficulty.rollout_worker import RolloutRequest, answer_row, part_of
from geozero.difficulty.settings import SamplingSettings
from geozero.difficulty.work_list import WorkList, build_work_list, stored_answers
from geozero.engines.base import Engine

WARM_UP_SAMPLES = 4  # sampled first and not timed: libraries compile and allocate


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """The work to do, and what it takes on this machine."""

    n_samples: int  # of this worker
    n_stored: int  # answers in the store
    n_missing: int  # answers to sample; an upper bound where sampling is adaptive
    adaptive: bool
    measured: int = 0  # answers of the warm-up
    tokens: int = 0  # estimated
    seconds: float = 0.0  # estimated, starting the engine included
    bytes: int = 0  # estimated growth of the store
    free: int = 0  # bytes on its disk
    engine: str = ""
    reason: str = ""

    def lines(self) -> list[str]:
        """Plain text, one line per item."""
        most = "at most " if self.adaptive else ""
        found = [
            f"samples\t{self.n_samples:,}",
            f"answers\t{most}{self.n_missing:,} to sample	{self.n_stored:,} stored",
        ]
        if not self.n_missing:
            return [*found, "nothing is missing"]
        hours, minutes = divmod(round(self.seconds / 60), 60)
        return [
            *found,
            f"engine\t{self.engine}\t{self.reason}",
            f"tokens\t{most}about {self.tokens:,}",
            f"time\t{most}about {hours} h {minutes:02d} min for this worker\tmeasured on {self.measured:,} answers",
            f"disk\t{most}about {self.bytes / 1e6:,.1f} MB\t{self.free / 1e9:,.1f} GB free",
        ]


def plan_sampling(
    corpus: Path,
    models: Sequence[Path | str],
    out: Path,
    settings: SamplingSettings,
    *,
    shard: str = "0/1",
    limit: int | None = None,
    open_engine: Callable[..., Engine] = engines.open_supervised,
) -> SamplingPlan:
    """Count the answers that `sampling.sample` would sample with these arguments, and time one chunk of them.

    Raises:
        InputError: as `sampling.sample`.
    """
    source, (number, of) = Corpus(corpus), parse_shard(shard)
    k, adaptive = settings.k, settings.adaptive
    paths, fingerprints = settings.models(models)
    work, _ = build_work_list(source, len(models), number, of, limit, adaptive, settings.boxes)
    missing = np.zeros((len(work.ids), k), bool)
    for fold, fingerprint in enumerate(fingerprints):
        there = stored_answers(out, fingerprint, work, fold, k, True).present
        missing |= (work.in_shard & (work.folds == fold))[:, None] & ~there
    n_missing = int(missing.sum())
    n_samples = int(work.in_shard.sum())
    counts = SamplingPlan(n_samples, n_samples * k - n_missing, n_missing, adaptive is not None)
    if not n_missing:
        return counts
    fold = int(work.folds[missing.any(axis=1).argmax()])
    n_models = len(set(work.folds[missing.any(axis=1)].tolist()))
    chunk = settings.chunk_of(n_missing)
    first_ids = _spread(work, missing.any(axis=1) & (work.folds == fold), WARM_UP_SAMPLES + max(1, chunk // k))
    place = {name: number for number, name in enumerate(first_ids)}
    chosen = sorted((s for s in source.samples() if s.id in place), key=lambda s: place[s.id])
    batch = [RolloutRequest(s, source.image_bytes(s.image_id), 0, k) for s in chosen]
    start = time.monotonic()
    opened = open_engine(settings.engine, paths[fold], **settings.engine_options(paths[fold], fold, len(paths)))
    try:
        params = settings.draws
        requests = [rollouts.request(settings.seed) for rollouts in batch]
        first, timed = requests[:WARM_UP_SAMPLES], requests[WARM_UP_SAMPLES:] or requests
        opened.generate(first, params)
        ready = time.monotonic()
        answers = opened.generate(timed, params)
        seconds = time.monotonic() - ready
    finally:
        opened.close()
    timed_rollouts = batch[-len(timed) :]
    model = fingerprints[fold].model
    table = [
        answer_row(rollouts.sample, i, completion, settings.boxes, model, answer_store.prompt_hash(rollouts.sample))
        for rollouts, row in zip(timed_rollouts, answers, strict=True)
        for i, completion in enumerate(row)
    ]
    share = n_missing / len(table)
    return SamplingPlan(
        n_samples,
        counts.n_stored,
        n_missing,
        adaptive is not None,
        measured=len(table),
        tokens=round(share * sum(row["n_tokens"] for row in table)),
        seconds=(ready - start) * n_models + share * seconds,
        bytes=round(share * _bytes(table, part_of(chunk))),
        free=shutil.disk_usage(_existing(out)).free,
        engine=opened.name,
        reason=opened.reason,
    )


def _spread(work: WorkList, candidates: npt.NDArray[np.bool_], n: int) -> list[str]:
    """Ids of n of these samples, each kind in proportion, because a caption costs more than a yes or no.

    They are ordered by stable hash, so that any first few are in proportion as well.
    """
    rows = np.flatnonzero(candidates).tolist()
    ids = {row: str(work.ids[row].as_py()) for row in rows}
    rows.sort(key=lambda row: (str(work.kinds[row]), stable_unit(ids[row], "plan")))
    n = min(n, len(rows))
    chosen = [ids[rows[(2 * i + 1) * len(rows) // (2 * n)]] for i in range(n)]
    return sorted(chosen, key=lambda name: stable_unit(name, "plan"))


def _bytes(rows: Sequence[dict[str, Any]], part: int) -> int:
    """Size of these answers in the store, in files of `part` answers."""
    total = 0
    for start in range(0, len(rows), part):
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(list(rows[start : start + part]), schema=ANSWER_SCHEMA)
        pq.write_table(table, sink, compression="zstd")
        total += sink.getvalue().size
    return total


def _existing(path: Path) -> Path:
    """The path, or its nearest parent that exists."""
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.exists())
