"""The plots of the page: which figures stand in which section, and what they are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from geozero.evaluation.report.charts import Figure, Series, histogram, line_chart, stacked_bar
from geozero.evaluation.report.schema import Difficulty, ReportInputs
from geozero.evaluation.report.tables import MODELS, TASK_TITLES, ordered
from geozero.tasks import RELATIVE_TASKS

MANY_EXTRAS = 12  # further logged values beyond this are left to MLflow
# What belongs into one chart: title, [(key, label, tone)], note, whether it is a share
CURVES: tuple[tuple[str, tuple[tuple[str, str, str], ...], str, bool], ...] = (
    (
        "Reward",
        (("reward", "total", "ink"), ("answer_reward", "answer", "after"), ("thinking_reward", "thinking", "other")),
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


def curve_figures(inputs: ReportInputs) -> Iterator[Figure]:
    """The curves of every trained stage: those of `CURVES` in their order, then the other logged values."""
    for name in ordered(set(inputs.curves), MODELS):
        rows, stage, drawn = inputs.curves[name], MODELS.get(name, name), {"step", "epoch", "learning_rate"}
        for title, keys, note, share in CURVES:
            tones = {"after": "before"} if name == "sft" else {}
            series = [Series(label, _points(rows, key), tones.get(tone, tone)) for key, label, tone in keys]
            drawn.update(key for key, _, _ in keys)
            if any(s.points for s in series):
                yield line_chart(title, series, stage, note, share)
        extras = list(dict.fromkeys(key for row in rows for key in row if key not in drawn))
        for key in extras[:MANY_EXTRAS]:
            yield line_chart(key.replace("_", " "), [Series(key, _points(rows, key), "ink")], stage)


def difficulty_figures(inputs: ReportInputs) -> Iterator[Figure]:
    """One figure per task: the histogram of the pass rate, and how the samples were divided by it."""
    for task in ordered(set(inputs.difficulty), TASK_TITLES):
        yield _difficulty(task, inputs.difficulty[task])


def _difficulty(task: str, part: Difficulty) -> Figure:
    bands = {name: part.bands[name] for name in [*BANDS, *part.bands] if name in part.bands}
    by_reward = task in RELATIVE_TASKS and part.edges and part.edges[-1] != 1
    label = "caption reward" if by_reward else "pass rate"
    drawn = [histogram(part.edges, part.counts, label)] if part.counts else []
    return Figure(
        TASK_TITLES.get(task, task),
        Markup("\n").join([*drawn, *([stacked_bar(bands)] if bands else [])]),
        aside=f"{sum(part.counts) or sum(bands.values()):,}",
        bands=[(f"band-{n}", BANDS.get(n, n.replace("_", " ")), f"{count:,}") for n, count in bands.items()],
    )


# The figures of a section, in order. A new plot is a function here; its values are written in flows/publish.py and read
# as a field of `ReportInputs` (schema.py).
PLOTS: dict[str, tuple[Callable[[ReportInputs], Iterator[Figure]], ...]] = {
    "difficulty": (difficulty_figures,),
    "training": (curve_figures,),
}


def figures(inputs: ReportInputs) -> dict[str, list[Figure]]:
    """Every section's figures."""
    return {section: [figure for draw in plots for figure in draw(inputs)] for section, plots in PLOTS.items()}


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[key])) for row in rows if key in row]
