"""What a run of the demo has to show, measured: goals on the method and on time and memory, met or missed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geozero import tasks
from geozero.evaluation.score_rows import by_source, headline_mean

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


def method_goals(rows: Sequence[Mapping[str, Any]], guesses: Sequence[Mapping[str, Any]]) -> list[Goal]:
    """Goals on the toy world under the strict protocol; points are percentage points."""
    return [
        _margin("base", "base, direct: above chance", rows, guesses, "base", "chance", BASE_ABOVE_CHANCE),
        _margin(
            "sft",
            "SFT, direct: above the majority answer",
            rows,
            guesses,
            "sft",
            "majority",
            SFT_ABOVE_MAJORITY,
        ),
        _gain("rl", "A²GRPO, tagged, over SFT, tagged; test_hard", rows, ("sft", "tagged"), RL_ABOVE_SFT),
        _gain("rl_over_direct", "A²GRPO, tagged, over SFT, direct; test_hard", rows, ("sft", "direct"), 0.0),
        _share("well_formed", "A²GRPO, tagged: well-formed answers", rows, "well_formed", 100.0, WELL_FORMED, "%"),
        _share(
            "thought_words",
            "A²GRPO, tagged: words a thought",
            rows,
            "thought_words",
            1.0,
            THOUGHT_WORDS,
            " words",
        ),
    ]


def resource_goals(seconds: Mapping[str, float], peak_bytes: int) -> list[Goal]:
    """Goals on time and memory of the whole job."""
    minutes, gigabytes = sum(seconds.values()) / 60, peak_bytes / 1e9
    return [
        Goal("minutes", "time of the job", f"≤ {MINUTES:g} min", f"{minutes:.1f} min", minutes <= MINUTES),
        Goal(
            "memory",
            "peak memory of all processes",
            f"≤ {GIGABYTES:g} GB",
            f"{gigabytes:.1f} GB",
            gigabytes <= GIGABYTES,
        ),
    ]


def _margin(
    key: str,
    name: str,
    rows: Sequence[Mapping[str, Any]],
    guesses: Sequence[Mapping[str, Any]],
    model: str,
    beside: str,
    bound: float,
) -> Goal:
    """The worst margin over question types: `base` must stay within the bound of chance, SFT must clear it."""
    margins = list(_margins(rows, guesses, model, beside))
    at_most = beside == "chance"
    if not margins:
        return Goal(key, name, f"{bound:g} points", "–", None)
    margin, place = max(margins) if at_most else min(margins)
    ok = margin <= bound if at_most else margin >= bound
    listed = ", ".join(f"{where} {_signed(value)}" for value, where in sorted(margins, key=lambda m: m[1]))
    note = f"{'largest' if at_most else 'smallest'} of {len(margins)} margins: {place}. All: {listed}"
    return Goal(key, name, f"{'≤' if at_most else '≥'} {bound:g} points", f"{_signed(margin)} points", ok, note)


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def _margins(
    rows: Sequence[Mapping[str, Any]], guesses: Sequence[Mapping[str, Any]], model: str, beside: str
) -> Iterator[tuple[float, str]]:
    found = {(g["source"], g["question_type"]): g[beside] for g in guesses if tasks.get(g["task"]).closed}
    for row in by_source(rows):
        wanted = row["model"] == model and row["mode"] == "direct" and row["world"] == "toy" and row["headline"]
        task, kind = tasks.get(row["task"]), row["question_type"]
        if not wanted or not task.closed:
            continue
        if kind not in CLOSED_TYPES or (kind is None and task.by_question_type):
            continue
        baseline = found.get((row["source"], kind))
        if baseline is not None:
            yield 100 * (row["value"] - baseline), f"{kind or 'scene'} {row['split']}"


def _gain(key: str, name: str, rows: Sequence[Mapping[str, Any]], beside: tuple[str, str], bound: float) -> Goal:
    """A²GRPO in tagged mode against another model and mode, mean over the tasks of the harder test split."""
    pairs = (beside, ("a2grpo", "tagged"))
    before, after = (
        headline_mean(rows, model=model, mode=mode, world="toy", split="test_hard") for model, mode in pairs
    )
    gain = after - before
    if math.isnan(gain):
        return Goal(key, name, f"≥ {bound:+g} points", "–", None)
    note = f"mean over tasks {before:.1f} → {after:.1f}"
    return Goal(key, name, f"≥ {bound:+g} points", f"{_signed(gain)} points", gain >= bound, note)


def _share(
    key: str, name: str, rows: Sequence[Mapping[str, Any]], metric: str, scale: float, bound: float, unit: str
) -> Goal:
    values = [
        (row["value"], row["n"])
        for row in by_source(rows)
        if row["model"] == "a2grpo" and row["mode"] == "tagged" and row["world"] == "toy" and row["metric"] == metric
    ]
    if not values:
        return Goal(key, name, f"≥ {bound:g}{unit}", "–", None)
    mean = scale * sum(v * n for v, n in values) / sum(n for _, n in values)
    return Goal(key, name, f"≥ {bound:g}{unit}", f"{mean:.1f}{unit}", mean >= bound)
