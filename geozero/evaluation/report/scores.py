"""All scores of a page, each once, and what every two models differ in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from geozero.evaluation.metric_names import MetricFormat, metric_format
from geozero.evaluation.report import charts, details
from geozero.evaluation.report.schema import CHOOSING, Baseline, Comparison, Place, ReportInputs, Score
from geozero.evaluation.report.tables import (
    MODELS,
    MODES,
    SPLITS,
    TASK_TITLES,
    WORLDS,
    Cell,
    Column,
    Group,
    Pairs,
    Row,
    Table,
    Where,
    in_order,
    interval,
    is_small,
    joined,
    mark,
    model_label,
    ordered,
    place_label,
    points,
    printed,
    probability,
    sample_link,
    sizes,
    verdict,
)
from geozero.evaluation.statistics import MIN_MARKED
from geozero.tasks import TASKS

MAX_PAIRS = 400  # pairs of models that the page holds
ORDERS: tuple[tuple[int, Iterable[str]], ...] = ((0, WORLDS), (1, SPLITS), (3, TASK_TITLES))


class Pair(NamedTuple):
    """Two models: what they differ in, in words and as a table. `first` and `second` number `models`."""

    first: int
    second: int
    lead: str
    better: list[str]
    worse: list[str]
    open: list[str]
    guessing: list[str]  # test sets on which neither is clearly better than guessing
    note: str
    table: Table


class Sheet:
    """The scores of a page, each once: a test set of one source stands for its whole, too."""

    def __init__(self, inputs: ReportInputs) -> None:
        self.models = in_order(
            {(s.model, s.mode) for s in inputs.scores}
            | {(o.model, o.mode) for item in inputs.gallery for o in item.outputs if o.model}
        )
        self._baselines = inputs.baselines
        self.cards = details.cards(inputs.details, self.models)
        sources: dict[tuple[str, ...], set[str | None]] = defaultdict(set)
        for s in inputs.scores:
            sources[s.world, s.split, s.protocol, s.task].add(s.source)
        self.single = {key: found - {None} for key, found in sources.items() if len(found - {None}) == 1}
        self.pairs = Pairs(inputs.comparisons, self.single)
        self.rows: dict[tuple[Where, str | None, str], dict[Column, Score]] = defaultdict(dict)
        for s in inputs.scores:
            repeats = s.source is None and (s.world, s.split, s.protocol, s.task) in self.single
            own = self.rows[self._named(s), s.question_type, s.metric]
            if s.value is not None and not (repeats and (s.model, s.mode) in own):
                own[s.model, s.mode] = s.model_copy(update={"source": self._named(s)[4]})

    def _named(self, p: Place) -> Where:
        (name,) = self.single.get((p.world, p.split, p.protocol, p.task), {p.source})
        return p.world, p.split, p.protocol, p.task, p.source or name

    def headline(self, place: Where) -> str:
        """The metric that stands for a test set; of an unknown task any."""
        metrics = list(dict.fromkeys(metric for at, kind, metric in self.rows if at == place and kind is None))
        main = TASKS[place[3]].main_metric(place[2]) if place[3] in TASKS else ""
        return main if main in metrics or not metrics else metrics[0]

    def places(self) -> list[Where]:
        """All test sets: worlds apart, the hard split first, the split that chooses last, both protocols together."""
        found = list(dict.fromkeys(place for place, *_ in self.rows))
        orders = [ordered((name for place in found if (name := place[i]) is not None), known) for i, known in ORDERS]
        worlds, splits, tasks = orders

        def order(place: Where) -> tuple[object, ...]:
            world, split, protocol, task, source = place
            at = worlds.index(world) if WORLDS.get(world, world) else -1
            return split == CHOOSING, at, splits.index(split), tasks.index(task), source or "", protocol == "official"

        return sorted(found, key=order)

    def wholes(self) -> list[Where]:
        """The test sets that are no part of another one."""
        found = self.places()
        return [p for p in found if p[4] is None or (*p[:4], None) not in found]

    def behind(self, score: Score) -> str:
        """The address of what stands behind a score."""
        labels, known = {place_label(score), place_label(score.model_copy(update={"source": None}))}, list(self.cards)
        return next((f"#behind-{i}" for i, label in enumerate(known) if label in labels), "")

    def guess(self, score: Score) -> Baseline | None:
        """Guessing on the same samples: of the same source, or of all where the task has but one source."""
        key = score.world, score.split, score.protocol, score.task, score.metric, score.question_type
        same = [
            b
            for b in self._baselines
            if (b.world, b.split, b.protocol, b.task, b.metric, b.question_type) == key
            if b.source == score.source or key[:4] in self.single
        ]
        return same[0] if same else None


def score_table(sheet: Sheet) -> Table:
    """Every score once: a row per test set and metric, a column per model. Other metrics than the headline's, sources
    and question types are folded away."""
    head: list[tuple[str, ...]] = [("Test set",), ("Metric",), ("n",), ("Chance",), ("Majority",)]
    head += [(MODELS.get(model, model), MODES.get(mode, mode)) for model, mode in sheet.models]
    wholes, groups = set(sheet.wholes()), dict[tuple[str, str], Group]()
    for place in sheet.places():
        world, split, _, task, source = place
        main = sheet.headline(place)
        title = joined(WORLDS.get(world, world), SPLITS.get(split, split)) or "Scored records"
        group = groups.setdefault((title, split), Group(title[0].upper() + title[1:], [], split == CHOOSING))
        own = [(kind, metric) for at, kind, metric in sheet.rows if at == place and sheet.rows[at, kind, metric]]
        for kind, metric in sorted(own, key=lambda key: (key[0] is not None, key[1] != main, *map(str, key))):
            whole = place in wholes and kind is None and metric == main
            label = Cell(
                kind or joined(TASK_TITLES.get(task, task), source),
                f"{place[2]} protocol" if world in ("strict", "official") and kind is None else "",
                link=sample_link(task=task, source=source, kind=kind, split=split),
            )
            group.rows.append(_score_row(sheet, place, label, (kind, metric), "" if whole else "detail"))
    return Table("Scores in percent with 95 % intervals", head, list(groups.values()))


def _score_row(sheet: Sheet, place: Where, label: Cell, key: tuple[str | None, str], kind: str) -> Row:
    scores = sheet.rows[place, *key]
    first, metric = next(iter(scores.values())), metric_format(key[1])
    guess = sheet.guess(first)
    guesses = (None if guess is None else guess.chance, None if guess is None else guess.majority)
    best = _best(list(scores.values()), sheet.pairs)
    cells: list[Cell | None] = [
        Cell(
            metric.label, "lower is better" if metric.lower_is_better else "", link="" if kind else sheet.behind(first)
        ),
        Cell(sizes(scores.values()), value=first.n),
        *(Cell(printed(value, key[1]), value=value) for value in guesses),
    ]
    for column in sheet.models:
        s = scores.get(column)
        if s is None:
            cells.append(None)
            continue
        bounds, tone = interval(s.low, s.high, metric.factor), "guess" if is_guessing(s, sheet.guess(s)) else ""
        cells.append(Cell(printed(s.value, s.metric), bounds, s.value, tone, best=s is best))
    return Row(label, cells, kind)


def _direction(metric: MetricFormat) -> str:
    return "lower is better" if metric.lower_is_better else ""


def is_guessing(score: Score, guess: Baseline | None) -> bool:
    """Whether a score's interval reaches down to what guessing gets: chance or the most common answer."""
    known = [] if guess is None else [v for v in (guess.chance, guess.majority) if v is not None]
    return bool(known) and score.low is not None and score.low <= max(known)


def _best(scores: Sequence[Score], pairs: Pairs) -> Score | None:
    """The score that is significantly better than every other one of its row, if there is one."""
    found = [s for s in scores if all(mark(pairs.between(o, s)) == "better" for o in scores if o is not s)]
    return found[0] if found and len(scores) > 1 else None


# --- two models -------------------------------------------------------------------------------------------


def pairs_of_models(sheet: Sheet) -> list[Pair]:
    """Every two models. The page opens with the first pair: what RL trained and the model before it in its mode, else
    the two with most significant wins."""
    models = sheet.models
    pairs = [_pair(sheet, *pair) for pair in list(combinations(range(len(models)), 2))[:MAX_PAIRS]]
    ranked = [i for i, *_ in ranking(pairs)]
    first = set(ranked[:2])
    if ("a2grpo", "tagged") in models:
        last = models.index(("a2grpo", "tagged"))
        first = {last, *[i for i in range(last) if models[i][1] == "tagged"][-1:]}
    return sorted(pairs, key=lambda pair: {pair.first, pair.second} != first)


def ranking(pairs: Iterable[Pair]) -> list[tuple[int, int, int]]:
    """Every model (by number) with its significant wins and losses over all others and test sets, most wins first."""
    found: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for pair in pairs:
        for i, wins, losses in ((pair.first, pair.worse, pair.better), (pair.second, pair.better, pair.worse)):
            found[i][0] += len(wins)
            found[i][1] += len(losses)
    return sorted(
        ((i, wins, losses) for i, (wins, losses) in found.items()), key=lambda row: (row[2] - row[1], -row[1], row[0])
    )


def _pair(sheet: Sheet, first: int, second: int) -> Pair:
    names = [model_label(*sheet.models[i]) for i in (first, second)]
    groups: dict[str, Group] = {}
    found: dict[str, list[str]] = {"better": [], "worse": [], "": []}
    guessing: list[str] = []
    n_unknown, n_few, wholes = 0, 0, sheet.wholes()
    for place in wholes:
        world, split, protocol, task, source = place
        metric = sheet.headline(place)
        kinds = dict.fromkeys(kind for at, kind, name in sheet.rows if at == place and name == metric)
        for kind in kinds:
            scores = sheet.rows[place, kind, metric]
            a, b = (scores.get(sheet.models[i]) for i in (first, second))
            if a is None or b is None:
                continue
            c = sheet.pairs.between(a, b)
            title = joined(WORLDS.get(world, world), SPLITS.get(split, split))
            group = groups.setdefault(title, Group(title[0].upper() + title[1:], [], split == CHOOSING))
            group.rows.append(_pair_row(place, a, b, c, (first, second)))
            again = protocol == "official" and (split, "strict", task, source) in {p[1:] for p in wholes}
            if kind is None and split != CHOOSING and not again:  # the same answers by other rules count once
                what = joined(TASK_TITLES.get(task, task), source, SPLITS.get(split, split) if split else "")
                what += f" ({protocol} protocol)" if world in ("strict", "official") else ""
                if all(is_guessing(s, sheet.guess(s)) for s in (a, b)):
                    guessing.append(what)
                if c is None or c.difference is None or c.low is None or c.high is None:
                    n_unknown += 1
                    continue
                if is_small(c):
                    n_few += 1
                    continue
                bounds = f"95 % interval {points(c.low, metric)} to {points(c.high, metric)}"
                found[mark(c)].append(f"{what}: {points(c.difference, metric)} points ({bounds})")
    better, worse, n = found["better"], found["worse"], sum(map(len, found.values()))
    sets = f"{n} test set{'' if n == 1 else 's'}"
    if better:
        lead = f"{names[1]} is significantly better than {names[0]} on {len(better)} of {sets}"
        lead += f", and significantly worse on {len(worse)}." if worse else "."
    elif worse:
        lead = f"{names[1]} is significantly worse than {names[0]} on {len(worse)} of {sets}."
    elif n:
        lead = f"There is no significant difference between {names[1]} and {names[0]} on {sets}."
    elif n_few:
        lead = f"Too few questions to tell {names[1]} from {names[0]}."
    else:
        lead = f"{names[1]} and {names[0]} were not compared question by question."
    notes = [f"{n_few} more have too few questions to tell (fewer than {MIN_MARKED})."] if n_few and n else []
    notes += [f"On {n_unknown} more only the scores are known, not who answered what."] if n_unknown else []
    head = [("Test set",), ("Metric",), (names[0],), (names[1],), ("Difference", "95 % interval")]
    head += [("Verdict",), ("p", "corrected"), ("n",)]
    table = Table(f"{names[1]} compared with {names[0]}", head, list(groups.values()))
    return Pair(first, second, lead, better, worse, found[""], guessing, " ".join(notes), table)


def _pair_row(place: Where, a: Score, b: Score, c: Comparison | None, pair: tuple[int, int]) -> Row:
    _, split, protocol, task, source = place
    metric, whole = metric_format(b.metric), b.question_type is None
    link = sample_link(task=task, source=source, split=split, kind=b.question_type, pair="-".join(map(str, pair)))
    small = f"{protocol} protocol" if place[0] in ("strict", "official") and whole else ""
    label = Cell(b.question_type or joined(TASK_TITLES.get(task, task), source), small, link=link)
    cells: list[Cell | None] = [
        Cell(metric.label, _direction(metric)),
        *(Cell(printed(s.value, s.metric), interval(s.low, s.high, metric.factor), s.value) for s in (a, b)),
    ]
    if c is None or c.difference is None or c.low is None or c.high is None:
        difference = (b.value or 0.0) - (a.value or 0.0)
        cells += [Cell(points(difference, b.metric), value=difference), Cell(verdict(None)), None, Cell(f"{b.n:,}")]
        return Row(label, cells, "" if whole else "detail")
    bounds = f"{points(c.low, c.metric)} to {points(c.high, c.metric)}"
    plot = charts.difference_strip(c.difference, c.low, c.high, (metric.best or 0.0) * 0.3)
    found = mark(c) if whole else ""
    p_value = c.p_corrected if whole else c.p_value
    cells.append(Cell(points(c.difference, c.metric), bounds, c.difference, found, plot=plot))
    cells.append(Cell(verdict(c) if whole else "question types are not tested", mark=found))
    cells.append(Cell(probability(p_value), "" if whole else "uncorrected", p_value))
    units = f"{c.units:,} images" if c.units is not None and c.units < c.n else ""
    cells.append(Cell(f"{c.n:,}", units, c.n))
    return Row(label, cells, "" if whole else "detail")


def headline_places(sheet: Sheet) -> Iterator[tuple[str, Mapping[Column, Score], Baseline | None]]:
    """Title, scores and guesses of every test set that is no part of another one, and does not choose."""
    for place in sheet.wholes():
        scores = sheet.rows[place, None, sheet.headline(place)]
        if place[1] != CHOOSING and scores:
            first = next(iter(scores.values()))
            yield place_label(first), scores, sheet.guess(first)
