"""From a list of scores to what the page shows of them: tables by world and split, and the headline figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from geozero.evaluation import plots
from geozero.evaluation.report_inputs import Baseline, Score
from geozero.tasks import TASKS

MODELS = {"base": "Base", "sft": "SFT", "a2grpo": "A²GRPO"}
MODES = {"direct": "direct", "tagged": "tagged"}
SPLITS = {"test_hard": "Hard test split", "test": "Test split", "val": "Validation split"}
WORLDS = {"toy": "The rendered toy world", "neon": "Real aerial imagery (NEON)"}
TASK_TITLES = {
    "scene_cls": "Scene classification",
    "vqa": "Question answering",
    "caption": "Captioning",
    "grounding": "Visual grounding",
}
HEADLINES = {str(name): task.headline for name, task in TASKS.items()}
REASONING, AFTER, BEFORE = "tagged", "a2grpo", ("sft", "base")
METRICS = {"well_formed": "well formed", "mean_iou": "mean IoU"}
NONE = "–"


@dataclass(frozen=True, slots=True)
class Cell:
    """A score as shown: `text` and `interval` in percent, where the metric is a share."""

    text: str
    interval: str
    strip: Markup | None = None
    best: bool = False


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
    verdict: str  # up, down or level: whether the two intervals lie apart
    plot: Markup


@dataclass(frozen=True, slots=True)
class World:
    name: str
    title: str
    headlines: list[Headline]
    tables: list[Table]


def worlds(scores: Sequence[Score], baselines: Sequence[Baseline]) -> list[World]:
    """Every world apart from the others: toy first, then real imagery."""
    found = []
    for name in _ordered({s.world for s in scores}, WORLDS):
        own = [s for s in scores if s.world == name]
        guesses = [b for b in baselines if b.world == name]
        splits = _ordered({s.split for s in own}, SPLITS)
        tables = [_table(split, [s for s in own if s.split == split], guesses) for split in splits]
        found.append(World(name, WORLDS.get(name, name), _headlines(own, guesses, splits), tables))
    return found


def factor(metric: str) -> float:
    """Shares are shown in percent; counts and lengths as they are."""
    return 1.0 if metric.startswith("n_") or metric.endswith(("words", "tokens", "seconds")) else 100.0


def who(score: Score) -> str:
    return f"{MODELS.get(score.model, score.model)}, {MODES.get(score.mode, score.mode)}"


def _table(split: str, scores: list[Score], baselines: Sequence[Baseline]) -> Table:
    columns = _columns(scores)
    own = [b for b in baselines if b.split == split]
    groups = []
    for task in _ordered({s.task for s in scores}, TASK_TITLES):
        group = TaskRows(task, TASK_TITLES.get(task, task))
        of_task = [s for s in scores if s.task == task]
        keys = {(s.source, s.question_type, s.metric) for s in of_task}
        for source, question_type, metric in sorted(keys, key=lambda key: _row_order(task, *key)):
            picked = [s for s in of_task if (s.source, s.question_type, s.metric) == (source, question_type, metric)]
            row = _row(picked, _baseline(own, of_task, picked[0]), columns)
            (group.rows if row.kind != "detail" else group.details).append(row)
        if not group.rows:  # no overall score was given: the parts are all there is
            group.rows.extend(group.details)
            group.details.clear()
        groups.append(group)
    return Table(split, SPLITS.get(split, split), [(MODELS.get(m, m), MODES.get(o, o)) for m, o in columns], groups)


def _row(scores: list[Score], baseline: Baseline | None, columns: list[tuple[str, str]]) -> Row:
    first = scores[0]
    whole = first.source is None and first.question_type is None
    main = whole and first.metric == HEADLINES.get(first.task, first.metric)
    marks = _marks(baseline)
    top = max([1.0, *(v for s in scores for v in (s.value, s.high) if v is not None)])
    values = [s.value for s in scores if s.value is not None]
    best = max(values) if len(values) > 1 and max(values) > min(values) else None
    cells: list[Cell | None] = []
    for model, mode in columns:
        score = next((s for s in scores if (s.model, s.mode) == (model, mode)), None)
        if score is None or score.value is None:
            cells.append(None)
            continue
        drawn = plots.strip(_estimate(score, ""), marks, top) if main and factor(first.metric) > 1 else None
        cells.append(Cell(_shown(score.value, score.metric), _interval(score), drawn, score.value == best and main))
    sizes = sorted({s.n for s in scores})
    return Row(
        label=" · ".join(p for p in (first.source, first.question_type) if p)
        or METRICS.get(first.metric, first.metric),
        metric=METRICS.get(first.metric, first.metric),
        kind="main" if main else "metric" if whole else "detail",
        n=f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,}–{sizes[-1]:,}",
        chance=_shown(baseline.chance if baseline else None, first.metric),
        majority=_shown(baseline.majority if baseline else None, first.metric),
        cells=cells,
    )


def _headlines(scores: list[Score], baselines: Sequence[Baseline], splits: list[str]) -> list[Headline]:
    found = []
    for task in _ordered({s.task for s in scores}, TASK_TITLES):
        for split in splits:
            of_split = [s for s in scores if s.task == task and s.split == split and s.value is not None]
            rows = _overall([s for s in of_split if s.metric == HEADLINES.get(task, s.metric)])
            if rows:
                own = [b for b in baselines if b.split == split]
                found.append(_headline(rows, _baseline(own, of_split, rows[0])))
                break
    return found


def _headline(rows: list[Score], baseline: Baseline | None) -> Headline:
    shown = next((s for s in rows if (s.model, s.mode) == (AFTER, REASONING)), rows[-1])
    before = next((s for m in BEFORE for s in rows if (s.model, s.mode) == (m, shown.mode) and s is not shown), None)
    scale = factor(shown.metric)
    change, verdict = "", "level"
    if before is not None and before.value is not None and shown.value is not None:
        change = f"{(shown.value - before.value) * scale:+.1f}".replace("-", "−")
        if shown.low is not None and before.high is not None and shown.low > before.high:
            verdict = "up"
        elif shown.high is not None and before.low is not None and shown.high < before.low:
            verdict = "down"
    return Headline(
        title=TASK_TITLES.get(shown.task, shown.task),
        split=SPLITS.get(shown.split, shown.split),
        metric=shown.metric,
        n=f"{shown.n:,}",
        value=_shown(shown.value, shown.metric),
        interval=_interval(shown),
        who=who(shown),
        change=change,
        against=who(before) if before is not None else "",
        verdict=verdict,
        plot=plots.forest(
            [_estimate(s, f"{MODELS.get(s.model, s.model)} {s.mode}") for s in rows], _marks(baseline), scale
        ),
    )


def _overall(scores: list[Score]) -> list[Score]:
    """The scores over everything; where none was given, those of the part with most samples."""
    whole = [s for s in scores if s.source is None and s.question_type is None]
    if not whole and scores:
        largest = max(scores, key=lambda s: (s.question_type is None, s.n))
        whole = [s for s in scores if (s.source, s.question_type) == (largest.source, largest.question_type)]
    order = _columns(whole)
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


def _columns(scores: Sequence[Score]) -> list[tuple[str, str]]:
    pairs = {(s.model, s.mode) for s in scores}
    models = _ordered({m for m, _ in pairs}, MODELS)
    modes = _ordered({o for _, o in pairs}, MODES)
    return [(m, o) for m in models for o in modes if (m, o) in pairs]


def _row_order(task: str, source: str | None, question_type: str | None, metric: str) -> tuple[object, ...]:
    whole = source is None and question_type is None
    return (
        not whole,
        question_type is not None,
        source or "",
        question_type or "",
        metric != HEADLINES.get(task),
        metric,
    )


def _ordered(names: set[str], known: dict[str, str]) -> list[str]:
    """Known names in their own order, then the others by alphabet."""
    return [n for n in known if n in names] + sorted(names - known.keys())


def _marks(baseline: Baseline | None) -> dict[str, float]:
    values = {"chance": baseline.chance, "majority": baseline.majority} if baseline else {}
    return {name: value for name, value in values.items() if value is not None}


def _estimate(score: Score, label: str) -> plots.Estimate:
    return plots.Estimate(label, score.value or 0.0, score.low, score.high, _tone(score.model))


def _tone(model: str) -> str:
    return {"base": "base", "sft": "before", "a2grpo": "after"}.get(model, "other")


def _shown(value: float | None, metric: str) -> str:
    return NONE if value is None else f"{value * factor(metric):,.1f}"


def _interval(score: Score) -> str:
    if score.low is None or score.high is None:
        return ""
    scale = factor(score.metric)
    return f"{score.low * scale:.1f}–{score.high * scale:.1f}"
