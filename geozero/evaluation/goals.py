"""The goals of a demo run, on the method and on time and memory: met, missed or not measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geozero.evaluation.score_rows import by_source, headline_mean
from geozero.tasks import CLOSED_TASKS, TASKS

Rows = Sequence[Mapping[str, Any]]
CLOSED_TYPES = (None, "presence", "comp", "rural_urban")  # None: scene classification; counts are not closed
BASE_ABOVE_CHANCE = 5.0  # points
SFT_ABOVE_MAJORITY = 25.0
RL_ABOVE_SFT = 3.0
WELL_FORMED = 98.0  # percent
THOUGHT_WORDS = 8.0
MINUTES = 12.0
GIGABYTES = 6.0


@dataclass(frozen=True)
class Goal:
    """One figure. `ok` None: could not be measured."""

    key: str
    name: str
    wanted: str
    reached: str
    ok: bool | None
    note: str = ""


def method_goals(rows: Rows, guesses: Rows) -> list[Goal]:
    """Goals on the toy world under the strict protocol; points are percentage points."""
    base, sft = _margins(rows, guesses, "base", "chance"), _margins(rows, guesses, "sft", "majority")
    return [
        _margin("base", "base, direct: margin over chance", base, BASE_ABOVE_CHANCE, largest=True),
        _margin("sft", "SFT, direct: margin over the majority answer", sft, SFT_ABOVE_MAJORITY, largest=False),
        _gain("rl", "A²GRPO, tagged, over SFT, tagged; test_hard", rows, "tagged", RL_ABOVE_SFT),
        _gain("rl_over_direct", "A²GRPO, tagged, over SFT, direct; test_hard", rows, "direct", 0.0),
        _mean("well_formed", "A²GRPO, tagged: well-formed answers", rows, 100.0, WELL_FORMED, "%"),
        _mean("thought_words", "A²GRPO, tagged: words per thought", rows, 1.0, THOUGHT_WORDS, " words"),
    ]


def resource_goals(seconds: Mapping[str, float], peak_bytes: int) -> list[Goal]:
    """Goals on time and memory of the whole job."""
    minutes, gigabytes = sum(seconds.values()) / 60, peak_bytes / 1e9
    memory = "peak memory of all processes"
    return [
        Goal("minutes", "time of the job", f"≤ {MINUTES:g} min", f"{minutes:.1f} min", minutes <= MINUTES),
        Goal("memory", memory, f"≤ {GIGABYTES:g} GB", f"{gigabytes:.1f} GB", gigabytes <= GIGABYTES),
    ]


def _margin(key: str, name: str, margins: list[tuple[float, str]], bound: float, largest: bool) -> Goal:
    """The largest margin over question types must stay within the bound, or the smallest one must clear it."""
    if not margins:
        return Goal(key, name, f"{bound:g} points", "–", None)
    margin, place = max(margins) if largest else min(margins)
    ok, sign, worst = (margin <= bound, "≤", "largest") if largest else (margin >= bound, "≥", "smallest")
    listed = ", ".join(f"{where} {_signed(value)}" for value, where in sorted(margins, key=lambda m: m[1]))
    note = f"{worst} of {len(margins)} margins: {place}. All: {listed}"
    return Goal(key, name, f"{sign} {bound:g} points", f"{_signed(margin)} points", ok, note)


def _margins(rows: Rows, guesses: Rows, model: str, beside: str) -> list[tuple[float, str]]:
    """Points above a baseline in direct mode, and where, for each source and closed question type."""
    baselines = {(g["source"], g["question_type"]): g[beside] for g in guesses if g["task"] in CLOSED_TASKS}
    found = []
    for row in _of(rows, model, "direct"):
        task, kind = TASKS[row["task"]], row["question_type"]
        if row["headline"] and task.closed and kind in CLOSED_TYPES and not (kind is None and task.by_question_type):
            baseline = baselines.get((row["source"], kind))
            if baseline is not None:
                found.append((100 * (row["value"] - baseline), f"{kind or 'scene'} {row['split']}"))
    return found


def _gain(key: str, name: str, rows: Rows, sft_mode: str, bound: float) -> Goal:
    """A²GRPO in tagged mode minus SFT in another mode: the mean over the tasks of the harder test split."""
    where = {"world": "toy", "split": "test_hard"}
    before = headline_mean(rows, model="sft", mode=sft_mode, **where)
    after = headline_mean(rows, model="a2grpo", mode="tagged", **where)
    gain = after - before
    if math.isnan(gain):
        return Goal(key, name, f"≥ {bound:+g} points", "–", None)
    note = f"mean over tasks {before:.1f} → {after:.1f}"
    return Goal(key, name, f"≥ {bound:+g} points", f"{_signed(gain)} points", gain >= bound, note)


def _mean(metric: str, name: str, rows: Rows, scale: float, bound: float, unit: str) -> Goal:
    """A metric of A²GRPO in tagged mode, averaged over records."""
    values = [(row["value"], row["n"]) for row in _of(rows, "a2grpo", "tagged") if row["metric"] == metric]
    if not values:
        return Goal(metric, name, f"≥ {bound:g}{unit}", "–", None)
    mean = scale * sum(v * n for v, n in values) / sum(n for _, n in values)
    return Goal(metric, name, f"≥ {bound:g}{unit}", f"{mean:.1f}{unit}", mean >= bound)


def _of(rows: Rows, model: str, mode: str) -> Iterator[Mapping[str, Any]]:
    """The rows of a model and mode on the toy world."""
    return (r for r in by_source(rows) if (r["model"], r["mode"], r["world"]) == (model, mode, "toy"))


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
