"""From a list of scores to what the page shows of them: tables by world and split, and the headline figures.

A difference is marked only where its paired 95 % interval excludes 0, never because two numbers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from markupsafe import Markup

from geozero.evaluation import plots
from geozero.evaluation.report_pairs import Pairs, mark, signed
from geozero.evaluation.report_records import Baseline, Comparison, Score
from geozero.evaluation.scores import OFFICIAL_HEADLINES
from geozero.tasks import TASKS

MODELS = {"base": "Base", "sft": "SFT", "a2grpo": "A²GRPO"}
MODES = {"direct": "direct", "tagged": "tagged", "forced": "answer forced"}
SPLITS = {"test_hard": "Hard test split", "test": "Test split", "val": "Validation split", "": "Scored records"}
WORLDS = {
    "toy": "The rendered toy world",
    "neon": "Real aerial imagery (NEON)",
    "strict": "Benchmarks, strict protocol",
    "official": "Benchmarks, official protocol",
}
TASK_TITLES = {
    "scene_cls": "Scene classification",
    "vqa": "Question answering",
    "caption": "Captioning",
    "grounding": "Visual grounding",
}
HEADLINES = {str(name): (task.headline, OFFICIAL_HEADLINES[name]) for name, task in TASKS.items()}
REASONING, AFTER, BEFORE = "tagged", "a2grpo", ("sft", "base")
METRICS = {
    "thought_words": "words a thought",
    "well_formed": "well formed",
    "mean_iou": "mean IoU",
    "accuracy_percent": "accuracy",
    "precision_percent": "acc@0.5",
}
NONE = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """A score as shown: `text` and `interval` in percent, where the metric is a share.

    `mark` is up or down where it surely differs from the column before it in the same mode, which `said` puts in
    words; `best`: surely above every other column.
    """

    text: str
    interval: str
    strip: Markup | None = None
    best: bool = False
    mark: str = ""
    said: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a table. `kind`: main (the task's headline metric), metric (another one) or detail (a part)."""

    label: str
    metric: str
    kind: str
    n: str
    chance: str
    majority: str
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class TaskRows:
    task: str
    title: str
    rows: list[Row] = field(default_factory=list)
    details: list[Row] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Table:
    """The scores of one split; `columns` are (model, mode) pairs as shown."""

    split: str
    title: str
    columns: list[tuple[str, str]]
    groups: list[TaskRows]


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


@dataclass(frozen=True, slots=True)
class World:
    name: str
    title: str
    headlines: list[Headline]
    tables: list[Table]


def worlds(
    scores: Sequence[Score], baselines: Sequence[Baseline], comparisons: Sequence[Comparison] = ()
) -> list[World]:
    """Every world apart from the others: toy first, then real imagery."""
    found = []
    pairs = Pairs(comparisons)
    for name in _ordered({s.world for s in scores}, WORLDS):
        own = [s for s in scores if s.world == name]
        guesses = [b for b in baselines if b.world == name]
        splits = _ordered({s.split for s in own}, SPLITS)
        tables = [_table(split, [s for s in own if s.split == split], guesses, pairs) for split in splits]
        found.append(World(name, WORLDS.get(name, name), _headlines(own, guesses, splits, pairs), tables))
    return found


def factor(metric: str) -> float:
    """Shares are shown in percent; counts, lengths and what is in percent already as they are."""
    return 1.0 if metric.startswith("n_") or metric.endswith(("words", "tokens", "seconds", "_percent")) else 100.0


def top(metric: str) -> float | None:
    """What a perfect score would be; None for counts and lengths."""
    return 100.0 if metric.endswith("_percent") else 1.0 if factor(metric) > 1 else None


def who(model: str, mode: str) -> str:
    return ", ".join(part for part in (MODELS.get(model, model), MODES.get(mode, mode)) if part)


def main_metric(score: Score) -> str | None:
    """The metric that stands for a score's task under its protocol; None for an unknown task."""
    names = HEADLINES.get(score.task)
    return names[score.protocol == "official"] if names else None


def is_headline(score: Score) -> bool:
    """Whether a score's metric stands for its task; any metric does for an unknown task."""
    return main_metric(score) in (score.metric, None)


def _table(split: str, scores: list[Score], baselines: Sequence[Baseline], pairs: Pairs) -> Table:
    columns = columns_of(scores)
    own = [b for b in baselines if b.split == split]
    groups = []
    for task in _ordered({s.task for s in scores}, TASK_TITLES):
        group = TaskRows(task, TASK_TITLES.get(task, task))
        of_task = [s for s in scores if s.task == task]
        overall = any(s.source is None for s in of_task)
        keys = {(s.source, s.question_type, s.metric) for s in of_task}
        for source, question_type, metric in sorted(keys, key=lambda key: _row_order(main_metric(of_task[0]), *key)):
            picked = [s for s in of_task if (s.source, s.question_type, s.metric) == (source, question_type, metric)]
            row = _row(picked, _baseline(own, of_task, picked[0]), columns, pairs, overall)
            (group.rows if row.kind != "detail" else group.details).append(row)
        if not group.rows:  # no overall score was given: the parts are all there is
            group.rows.extend(group.details)
            group.details.clear()
        groups.append(group)
    return Table(split, SPLITS.get(split, split), [(MODELS.get(m, m), MODES.get(o, o)) for m, o in columns], groups)


def _row(
    scores: list[Score], baseline: Baseline | None, columns: list[tuple[str, str]], pairs: Pairs, overall: bool
) -> Row:
    """A row of one metric and part; `overall`: the task has scores over all sources, so those of one are parts."""
    first = scores[0]
    whole = first.question_type is None and (first.source is None or not overall)
    main = whole and is_headline(first)
    marks = _marks(baseline)
    full = top(first.metric)
    highest = max([full or 0.0, *(v for s in scores for v in (s.value, s.high) if v is not None)])
    by_column = {(s.model, s.mode): s for s in scores if s.value is not None}
    best = _best(list(by_column.values()), pairs) if main else None
    cells: list[Cell | None] = []
    for model, mode in columns:
        score = by_column.get((model, mode))
        if score is None or score.value is None:
            cells.append(None)
            continue
        drawn = plots.strip(_estimate(score, ""), marks, highest) if main and full else None
        earlier = [by_column[c] for c in columns[: columns.index((model, mode))] if c[1] == mode and c in by_column]
        cell = shown_cell(score, earlier[-1] if earlier and whole else None, pairs)
        cells.append(replace(cell, strip=drawn, best=score is best))
    sizes = sorted({s.n for s in scores})
    metric = METRICS.get(first.metric, first.metric)
    place = " · ".join(p for p in (first.source, first.question_type) if p)
    return Row(
        label=f"{place} · {metric}" if place and whole else place or metric,
        metric=metric,
        kind="main" if main else "metric" if whole else "detail",
        n=f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}",
        chance=_shown(baseline.chance if baseline else None, first.metric),
        majority=_shown(baseline.majority if baseline else None, first.metric),
        cells=cells,
    )


def shown_cell(score: Score, before: Score | None, pairs: Pairs) -> Cell:
    """A score as shown, marked where it surely differs from `before`."""
    kind, said = _marked(pairs.between(before, score), before) if before is not None else ("", "")
    return Cell(_shown(score.value, score.metric), _interval(score), mark=kind, said=said)


def _best(scores: list[Score], pairs: Pairs) -> Score | None:
    """The score that is above every other one by a paired interval without 0; None where there is no such score."""
    if len(scores) < 2:
        return None
    best = max(scores, key=lambda s: s.value or 0.0)
    found = [pairs.between(other, best) for other in scores if other is not best]
    return best if all(c is not None and c.low is not None and c.low > 0 for c in found) else None


def _marked(found: Comparison | None, before: Score) -> tuple[str, str]:
    """Up, down or nothing, and the difference in words."""
    kind = mark(found)
    return kind, f"{signed(found)} against {who(before.model, before.mode)}" if kind and found is not None else ""


def _headlines(scores: list[Score], baselines: Sequence[Baseline], splits: list[str], pairs: Pairs) -> list[Headline]:
    """One figure a task; where no score goes over all sources, one a task and source."""
    found = []
    for task in _ordered({s.task for s in scores}, TASK_TITLES):
        for split in splits:
            of_split = [s for s in scores if s.task == task and s.split == split and s.value is not None]
            own = [b for b in baselines if b.split == split]
            main = [s for s in of_split if is_headline(s)]
            separate = main and all(s.source is not None for s in main)
            for group in _by_source(main) if separate else [main]:
                rows = _overall(group)
                if rows:
                    found.append(_headline(rows, _baseline(own, of_split, rows[0]), pairs))
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
    marks = {name: value / unit for name, value in _marks(baseline).items()}
    return Headline(
        title=" · ".join(p for p in (TASK_TITLES.get(shown.task, shown.task), shown.source) if p),
        split=SPLITS.get(shown.split, shown.split),
        metric=METRICS.get(shown.metric, shown.metric),
        n=f"{shown.n:,}",
        value=_shown(shown.value, shown.metric),
        interval=_interval(shown),
        who=who(shown.model, shown.mode),
        change=change,
        against=who(before.model, before.mode) if before is not None else "",
        verdict=verdict,
        difference=difference,
        plot=plots.forest([_estimate(s, _short(s), unit) for s in rows], marks, scale * unit),
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


def _baseline(baselines: Sequence[Baseline], of_task: Sequence[Score], score: Score) -> Baseline | None:
    """The baseline of the same samples: of the same source, or of all where the task has but one source."""
    same = [
        b for b in baselines if (b.task, b.metric, b.question_type) == (score.task, score.metric, score.question_type)
    ]
    exact = next((b for b in same if b.source == score.source), None)
    if exact is None and len({s.source for s in of_task if s.source}) <= 1:
        exact = next((b for b in same), None)
    return exact


def columns_of(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Models and modes in the order of training, then by name."""
    pairs = {(s.model, s.mode) for s in scores}
    return in_order(pairs)


def in_order(pairs: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """(Model, mode) pairs in the order of training, then by name."""
    models = _ordered({m for m, _ in pairs}, MODELS)
    modes = _ordered({o for _, o in pairs}, MODES)
    return [(m, o) for m in models for o in modes if (m, o) in pairs]


def _row_order(main: str | None, source: str | None, question_type: str | None, metric: str) -> tuple[object, ...]:
    whole = source is None and question_type is None
    return (
        not whole,
        question_type is not None,
        source or "",
        question_type or "",
        metric != main,
        metric,
    )


def _ordered(names: set[str], known: dict[str, str]) -> list[str]:
    """Known names in their own order, then the others by alphabet."""
    return [n for n in known if n in names] + sorted(names - known.keys())


def _marks(baseline: Baseline | None) -> dict[str, float]:
    values = {"chance": baseline.chance, "majority": baseline.majority} if baseline else {}
    return {name: value for name, value in values.items() if value is not None}


def _estimate(score: Score, label: str, unit: float = 1.0) -> plots.Estimate:
    value, low, high = (None if v is None else v / unit for v in (score.value, score.low, score.high))
    return plots.Estimate(label, value or 0.0, low, high, _tone(score.model))


def _tone(model: str) -> str:
    return {"base": "base", "sft": "before", "a2grpo": "after"}.get(model, "other")


def _shown(value: float | None, metric: str) -> str:
    return NONE if value is None else f"{value * factor(metric):,.1f}"


def _interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return ""
    scale = factor(score.metric)
    return f"{score.low * scale:.1f}–{score.high * scale:.1f}"
