"""Bands of difficulty and who is chosen: pure functions over arrays, no files.

METHOD, Data; every threshold is our choice. Bands by the pass rate p over a sample's answers (K, or fewer where they
were decided earlier, see `adaptive`):
easy (p ≥ easy), hard_learnable (0 < p ≤ hard), hard_unsolved (p = 0), suspect (p = 0 on a closed question while
all K answers agree with each other: the label may be wrong), unused (in between), unreadable (fewer than half of its
answers were given: the other requests failed).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geozero import params
from geozero.corpus.sample import Sample
from geozero.difficulty.answer_store import FINISH, Answers
from geozero.difficulty.scoring import Truth
from geozero.difficulty.selection.balance import balanced
from geozero.tasks import CLOSED_TASKS, RELATIVE_TASKS
from geozero.tasks.boxes import Convention

BANDS = ("easy", "hard_learnable", "hard_unsolved", "suspect", "unused", "unreadable")
TIE_MARGIN = 0.01  # share of successes that counting ties as such must gain: an odd number of answers has one tie
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Candidates:
    """The samples that may be selected [N], as columns."""

    ids: pa.Array
    prompts: pa.Array
    tasks: npt.NDArray[np.str_]
    sources: npt.NDArray[np.str_]
    folds: npt.NDArray[np.int64]
    order: npt.NDArray[np.float64]  # stable hash: who comes first where not all are wanted
    kinds: npt.NDArray[np.str_]  # see `adaptive.kind_of`
    keys: npt.NDArray[np.int64]  # see `scoring.score_key`
    boxes: Convention
    samples: Callable[[], Iterable[Sample]]  # reads them again
    spots: dict[int, Sample]  # see `scoring.Truth`

    @property
    def truth(self) -> Truth:
        """What the answers are scored against."""
        return Truth(self.ids, self.prompts, self.tasks, self.keys, self.boxes, self.samples, self.spots)

    @property
    def closed(self) -> Bools:
        """Questions with a right answer to be matched word for word."""
        return np.isin(self.tasks, CLOSED_TASKS)


@dataclass(frozen=True, slots=True)
class Difficulty:
    """What the answers say about each candidate [N]."""

    n: npt.NDArray[np.int64]
    n_success: npt.NDArray[np.int64]
    rate: npt.NDArray[np.float64]  # NaN where no answer was given
    mean_reward: npt.NDArray[np.float64]
    distinct: npt.NDArray[np.int64]
    truncated: npt.NDArray[np.int64]
    errors: npt.NDArray[np.int64]
    band: npt.NDArray[np.str_]
    caption_medians: dict[str, float]
    caption_ties: dict[str, int]  # source → rewards that equal its median, where so many do that it matters
    ties_succeed: frozenset[str]  # the sources in which these succeed

    def caption_succeeds(self, source: str, reward: float) -> bool:
        """Whether a caption of this source with this reward is a success."""
        median = np.float32(self.caption_medians.get(source, 0.0))
        return bool(np.float32(reward) >= median if source in self.ties_succeed else np.float32(reward) > median)


def measure(answers: Answers, candidates: Candidates, settings: params.Select) -> Difficulty:
    """Pass rates and bands. A caption succeeds where its reward is above its source's median (our choice).

    Where many rewards equal the median this is a cliff: captions that are all equally good would all fail. So rewards
    that equal it succeed too where that brings the share of successes closer to a half, or where none is above it; but
    never a reward of 0.
    """
    asked = answers.asked
    success = answers.success == 1
    medians, ties, inclusive = dict[str, float](), dict[str, int](), set[str]()
    relative = np.isin(candidates.tasks, RELATIVE_TASKS)
    for source in np.unique(candidates.sources[relative]):
        rows = relative & (candidates.sources == source)
        rewards = answers.reward[rows][asked[rows]]
        if rewards.size:
            name = str(source)
            medians[name] = float(np.median(rewards))
            median = np.float32(medians[name])
            above, equal = float((rewards > median).mean()), int((rewards == median).sum())
            with_ties = above + equal / rewards.size
            if median > 0 and (above == 0 or abs(with_ties - 0.5) < abs(above - 0.5) - TIE_MARGIN):
                ties[name] = equal
                if settings.captions == "balanced":
                    inclusive.add(name)
            success[rows] = answers.reward[rows] >= median if name in inclusive else answers.reward[rows] > median
    n, right = asked.sum(axis=1), (success & asked).sum(axis=1)
    errors = (answers.present & ~asked).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = right / n
        mean_reward = np.where(asked, answers.reward, 0).sum(axis=1, dtype=np.float64) / n
    distinct = answers.distinct()
    agreed = candidates.closed & (n > 1) & (distinct == 1) & ((answers.meaning != 0) | ~asked).all(axis=1)
    band = np.select(
        [errors > n, rate >= settings.easy, (rate > 0) & (rate <= settings.hard), (rate == 0) & agreed, rate == 0],
        ["unreadable", "easy", "hard_learnable", "suspect", "hard_unsolved"],
        "unused",
    )
    truncated = (asked & (answers.finish == FINISH.index("length"))).sum(axis=1)
    return Difficulty(
        n, right, rate, mean_reward, distinct, truncated, errors, band, medians, ties, frozenset(inclusive)
    )


def choose(band: npt.NDArray[np.str_], candidates: Candidates, settings: params.Select) -> tuple[Bools, Bools]:
    """Which candidates GeoZero-Instruct takes and which GeoZero-Hard takes, (n,) each (METHOD, Data; our choice).

    Instruct: the easy ones, the lowest stable hashes where fewer are wanted. Hard: learnable ones first, then
    unsolved ones up to `unsolved_share` of the whole, both balanced by task and then by source.
    """
    easy = np.flatnonzero(band == "easy")
    easy = easy[np.argsort(candidates.order[easy], kind="stable")][: settings.instruct_size]
    cells = list(zip(candidates.tasks.tolist(), candidates.sources.tolist(), strict=True))
    learnable = _by_cell(band == "hard_learnable", cells, candidates.order)
    size = settings.hard_size if settings.hard_size is not None else len(band)
    taken = balanced({cell: len(rows) for cell, rows in learnable.items()}, size)
    n_learnable = sum(taken.values())
    unsolved = _by_cell(band == "hard_unsolved", cells, candidates.order)
    room = min(size - n_learnable, _most_unsolved(n_learnable, settings.unsolved_share, len(band)))
    added = balanced({cell: len(rows) for cell, rows in unsolved.items()}, room, taken)
    instruct, hard = np.zeros(len(band), bool), np.zeros(len(band), bool)
    instruct[easy] = True
    for rows_of, counts in ((learnable, taken), (unsolved, added)):
        for cell, count in counts.items():
            hard[rows_of[cell][:count]] = True
    return instruct, hard


def _most_unsolved(learnable: int, share: float, everything: int) -> int:
    """The most unsolved samples u with u / (learnable + u) ≤ share."""
    return everything if share >= 1 else int(share * learnable / (1 - share) + 1e-9)


def _by_cell(
    wanted: Bools, cells: list[tuple[str, str]], order: npt.NDArray[np.float64]
) -> dict[tuple[str, str], list[int]]:
    """Rows of each (task, source), in the order of their stable hashes."""
    found: dict[tuple[str, str], list[int]] = {}
    rows = np.flatnonzero(wanted)
    for row in rows[np.argsort(order[rows], kind="stable")].tolist():
        found.setdefault(cells[row], []).append(row)
    return found
