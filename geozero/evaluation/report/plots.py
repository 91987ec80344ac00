"""The plots of the page: which figures stand in which section, and what they are drawn from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from geozero.evaluation.report.charts import Figure, Series, histogram, line_chart, stacked_bar
from geozero.evaluation.report.schema import Difficulty, ReportInputs
from geozero.evaluation.report.tables import MODELS, TASK_TITLES, ordered
from geozero.tasks import RELATIVE_TASKS

MANY_OTHERS = 12  # further logged values beyond this are left to MLflow
BY_SOURCE = "answer_reward/"  # of each source apart
TONES = ("after", "before", "other", "good", "bad", "base", "ink")


class Curve(NamedTuple):
    """One chart: title with unit, [(logged key, label)], what to know of it, whether it is a share."""

    title: str
    keys: tuple[tuple[str, str], ...]
    note: str = ""
    share: bool = False


REWARDS = (("reward", "total"), ("answer_reward", "answer reward"), ("thinking_reward", "thinking reward"))
FORM = (("well_formed", "exactly one answer block"), ("completions/clipped_ratio", "cut off at the token limit"))
GROUPS = (("dropped_groups", "without a training signal"), ("frac_reward_zero_std", "whole rewards equal, too"))
CURVES = (
    Curve("Reward per completion", REWARDS, "mean of a step; answer and thinking reward are at most 1"),
    Curve("Share of completions", FORM, share=True),
    Curve("Words per thought", (("thought_words", "words"),), "words before the answer"),
    Curve("Tokens per completion", (("completions/mean_length", "tokens"),)),
    Curve("Share of groups", GROUPS, "no signal: all answers to a question are equally good", share=True),
    Curve("KL divergence on answer tokens (nats per token)", (("answer_kl", "to the reference model"),)),
    Curve("Spread of rewards within a group", (("reward_std", "standard deviation"),)),
    Curve("Distinct completions", (("distinct", "share of a step's completions"),), share=True),
    Curve("Validation", (("eval_loss", "loss"), ("eval_answer_reward", "answer reward"), ("eval_reward", "reward"))),
    Curve("Cross-entropy loss (nats per token)", (("loss", "loss"), ("eval_loss", "validation loss"))),
    Curve("Tokens predicted correctly", (("token_acc", "training"), ("eval_token_acc", "validation")), share=True),
    Curve("Gradient norm", (("grad_norm", "before clipping"),)),
    Curve("Guard bounds crossed", (("guards_crossed", "at a step"),)),
)
# Without a curve of their own: what a policy gradient's loss is, what other curves say, and how time passes.
HIDDEN = ("epoch", "learning_rate", "step", "step_time", "train_speed(s/it)", "kl", "memory(GiB)")
HIDDEN_PREFIXES = ("clip_ratio/", "completions/", "rewards/", "eval_")
BANDS = {
    "easy": "easy → Instruct",
    "hard_learnable": "hard, learnable",
    "hard_unsolved": "hard, unsolved",
    "suspect": "suspect label",
    "unused": "unused",
}


def curve_figures(inputs: ReportInputs) -> Iterator[Figure]:
    """The curves of every trained stage: those of `CURVES`, the answer reward of each source, then other logged values.
    A curve that is 0 throughout is not drawn."""
    for name in ordered(set(inputs.curves), MODELS):
        rows, stage = inputs.curves[name], MODELS.get(name, name)
        logged = list(dict.fromkeys(key for row in rows for key in row))
        policy = "answer_reward" in logged  # whose loss says nothing
        curves = [c for c in CURVES if not (policy and c.keys[0][0] == "loss")]
        sources = tuple((key, key.removeprefix(BY_SOURCE)) for key in logged if key.startswith(BY_SOURCE))
        curves[1:1] = [Curve("Answer reward by source", sources, "mean of a step")] if sources else []
        known = {key for c in curves for key, _ in c.keys} | set(HIDDEN) | ({"loss"} if policy else set())
        others = [key for key in logged if key not in known and not key.startswith(HIDDEN_PREFIXES)]
        curves += [Curve(key.replace("_", " "), ((key, "as logged"),)) for key in others[:MANY_OTHERS]]
        for c in curves:
            points = [(label, _points(rows, key)) for key, label in c.keys]
            shown = [(label, found) for label, found in points if any(y for _, y in found)]
            series = [Series(label, found, TONES[i % len(TONES)]) for i, (label, found) in enumerate(shown)]
            if series:
                yield line_chart(c.title, series, stage, c.note, c.share)


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
        aside=f"{sum(part.counts) or sum(bands.values()):,} samples",
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
