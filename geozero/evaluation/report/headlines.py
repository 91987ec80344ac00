"""The headline figures: a task's score after RL, drawn beside what came before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from geozero.evaluation.report import charts
from geozero.evaluation.report.cells import baseline_of, bounds_of, estimate_of, marks_of, printed
from geozero.evaluation.report.names import (
    METRICS,
    MODELS,
    SPLITS,
    TASK_TITLES,
    columns_of,
    factor,
    is_headline,
    model_label,
    ordered,
    top,
)
from geozero.evaluation.report.pairs import Pairs, mark, signed
from geozero.evaluation.report.schema import Baseline, Score

REASONING, AFTER, BEFORE = "tagged", "a2grpo", ("sft", "base")


@dataclass(frozen=True, slots=True)
class Headline:
    """One task's figure: the model after RL beside what came before, drawn and in words."""

    title: str
    split: str
    metric: str
    n: str
    value: str
    interval: str
    who: str
    change: str
    against: str
    verdict: str  # up, down, level (the interval of the difference holds 0) or unknown (not compared pair by pair)
    difference: str  # the interval of the difference
    plot: Markup


def headlines(scores: list[Score], baselines: Sequence[Baseline], splits: list[str], pairs: Pairs) -> list[Headline]:
    """One figure a task; where no score goes over all sources, one a task and source."""
    found = []
    for task in ordered({s.task for s in scores}, TASK_TITLES):
        for split in splits:
            of_split = [s for s in scores if s.task == task and s.split == split and s.value is not None]
            own = [b for b in baselines if b.split == split]
            main = [s for s in of_split if is_headline(s)]
            separate = main and all(s.source is not None for s in main)
            for group in _by_source(main) if separate else [main]:
                rows = _overall(group)
                if rows:
                    found.append(_headline(rows, baseline_of(own, of_split, rows[0]), pairs))
            if main:
                break
    return found


def _by_source(scores: list[Score]) -> list[list[Score]]:
    sources = sorted({s.source or "" for s in scores})
    return [[s for s in scores if s.source == source and s.question_type is None] for source in sources]


def _headline(rows: list[Score], baseline: Baseline | None, pairs: Pairs) -> Headline:
    shown = next((s for s in rows if (s.model, s.mode) == (AFTER, REASONING)), rows[-1])
    earlier = [s for s in rows[: rows.index(shown)] if s.mode == shown.mode]
    before = next((s for m in BEFORE for s in rows if (s.model, s.mode) == (m, shown.mode) and s is not shown), None)
    before = before or (earlier[-1] if earlier else None)
    scale = factor(shown.metric)
    change, verdict, difference = "", "unknown", ""
    if before is not None and before.value is not None and shown.value is not None:
        change = f"{(shown.value - before.value) * scale:+.1f}".replace("-", "−")
        compared = pairs.between(before, shown)
        if compared is not None and compared.low is not None and compared.high is not None:
            verdict = mark(compared) or "level"
            difference = signed(compared)
    unit = top(shown.metric) or 1.0
    marks = {name: value / unit for name, value in marks_of(baseline).items()}
    return Headline(
        title=" · ".join(p for p in (TASK_TITLES.get(shown.task, shown.task), shown.source) if p),
        split=SPLITS.get(shown.split, shown.split),
        metric=METRICS.get(shown.metric, shown.metric),
        n=f"{shown.n:,}",
        value=printed(shown.value, shown.metric),
        interval=bounds_of(shown),
        who=model_label(shown.model, shown.mode),
        change=change,
        against=model_label(before.model, before.mode) if before is not None else "",
        verdict=verdict,
        difference=difference,
        plot=charts.forest([estimate_of(s, _short(s), unit) for s in rows], marks, scale * unit),
    )


def _short(score: Score) -> str:
    return " ".join(p for p in (MODELS.get(score.model, score.model), score.mode) if p)


def _overall(scores: list[Score]) -> list[Score]:
    """The scores over everything; where none was given, those of the part with most samples."""
    whole = [s for s in scores if s.source is None and s.question_type is None]
    if not whole and scores:
        largest = max(scores, key=lambda s: (s.question_type is None, s.n))
        whole = [s for s in scores if (s.source, s.question_type) == (largest.source, largest.question_type)]
    order = columns_of(whole)
    return sorted(whole, key=lambda s: order.index((s.model, s.mode)))
