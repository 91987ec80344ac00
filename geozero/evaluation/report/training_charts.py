"""From training logs and difficulty histograms to the charts of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from geozero.evaluation.report import charts
from geozero.evaluation.report.names import MODELS, TASK_TITLES
from geozero.evaluation.report.schema import Difficulty, Timing
from geozero.tasks import RELATIVE_TASKS

# What belongs into one chart: title, [(key, label, tone)], note, whether it is a share
CURVES: tuple[tuple[str, tuple[tuple[str, str, str], ...], str, bool], ...] = (
    (
        "Reward",
        (
            ("reward", "total", "ink"),
            ("answer_reward", "answer", "after"),
            ("thinking_reward", "thinking", "other"),
        ),
        "mean per completion",
        False,
    ),
    ("Answer KL", (("answer_kl", "answer KL", "after"),), "to the reference model, on answer tokens", False),
    ("Thought length", (("thought_words", "words", "after"),), "words before the answer", False),
    (
        "Form and groups",
        (("well_formed", "well formed", "after"), ("dropped_groups", "dropped groups", "base")),
        "dropped: all answers of a group are equally good",
        True,
    ),
    ("Loss", (("loss", "loss", "after"),), "", False),
)
BANDS = {
    "easy": "easy → Instruct",
    "hard_learnable": "hard, learnable",
    "hard_unsolved": "hard, unsolved",
    "suspect": "suspect label",
    "unused": "unused",
}
MANY_EXTRAS = 12  # further logged values beyond this are left to MLflow


@dataclass(frozen=True, slots=True)
class DifficultyPlot:
    title: str
    total: str
    histogram: Markup | None
    bar: Markup | None
    bands: list[tuple[str, str, str]]  # name, label, count


@dataclass(frozen=True, slots=True)
class Duration:
    stage: str
    text: str
    share: float  # of the longest stage


def curve_charts(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[charts.Chart]:
    """The charts of all trained stages: the known curves in their own order, then what else was logged."""
    found: list[charts.Chart] = []
    for name in [*(n for n in MODELS if n in curves), *(n for n in curves if n not in MODELS)]:
        rows, stage, drawn = curves[name], MODELS.get(name, name), {"step", "epoch", "learning_rate"}
        for title, keys, note, share in CURVES:
            tones = {"after": "before"} if name == "sft" else {}
            series = [charts.Series(label, _points(rows, key), tones.get(tone, tone)) for key, label, tone in keys]
            drawn.update(key for key, _, _ in keys)
            if any(s.points for s in series):
                found.append(charts.line_chart(title, series, stage, note, share))
        extras = list(dict.fromkeys(key for row in rows for key in row if key not in drawn))
        for key in extras[:MANY_EXTRAS]:
            series = [charts.Series(key, _points(rows, key), "ink")]
            found.append(charts.line_chart(key.replace("_", " "), series, stage))
    return found


def difficulties(parts: Mapping[str, Difficulty]) -> list[DifficultyPlot]:
    """One card a task: the histogram of the pass rate and how the samples were divided by it."""
    order = [*(t for t in TASK_TITLES if t in parts), *(t for t in parts if t not in TASK_TITLES)]
    cards = []
    for task in order:
        part = parts[task]
        bands = {name: part.bands[name] for name in [*BANDS, *part.bands] if name in part.bands}
        by_reward = task in RELATIVE_TASKS and part.edges and part.edges[-1] != 1
        label = "caption reward" if by_reward else "pass rate"
        cards.append(
            DifficultyPlot(
                title=TASK_TITLES.get(task, task),
                total=f"{sum(part.counts) or sum(bands.values()):,}",
                histogram=charts.histogram(part.edges, part.counts, label) if part.counts else None,
                bar=charts.stacked_bar(bands) if bands else None,
                bands=[(name, BANDS.get(name, name.replace("_", " ")), f"{count:,}") for name, count in bands.items()],
            )
        )
    return cards


def durations(timings: Sequence[Timing]) -> list[Duration]:
    longest = max((t.seconds for t in timings), default=0.0) or 1.0
    return [Duration(t.stage, duration(t.seconds), t.seconds / longest) for t in timings]


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[key])) for row in rows if key in row]
