"""What models, splits, tasks and metrics are called on the page, in which order they stand and in which unit."""

from __future__ import annotations

from collections.abc import Sequence

from geozero.evaluation.report.schema import Score
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
TASK_TITLES = {name: task.title for name, task in TASKS.items()}
METRICS = {
    "thought_words": "words a thought",
    "well_formed": "well formed",
    "mean_iou": "mean IoU",
    "accuracy_percent": "accuracy",
    "precision_percent": "acc@0.5",
}
NONE = "–"


def factor(metric: str) -> float:
    """Shares are shown in percent; counts, lengths and what is in percent already as they are."""
    return 1.0 if metric.startswith("n_") or metric.endswith(("words", "tokens", "seconds", "_percent")) else 100.0


def top(metric: str) -> float | None:
    """What a perfect score would be; None for counts and lengths."""
    return 100.0 if metric.endswith("_percent") else 1.0 if factor(metric) > 1 else None


def model_label(model: str, mode: str) -> str:
    return ", ".join(part for part in (MODELS.get(model, model), MODES.get(mode, mode)) if part)


def main_metric(score: Score) -> str | None:
    """The metric that stands for a score's task under its protocol; None for an unknown task."""
    return TASKS[score.task].main_metric(score.protocol) if score.task in TASKS else None


def is_headline(score: Score) -> bool:
    """Whether a score's metric stands for its task; any metric does for an unknown task."""
    return main_metric(score) in (score.metric, None)


def columns_of(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Models and modes in the order of training, then by name."""
    pairs = {(s.model, s.mode) for s in scores}
    return in_order(pairs)


def in_order(pairs: set[tuple[str, str]]) -> list[tuple[str, str]]:
    """(Model, mode) pairs in the order of training, then by name."""
    models = ordered({m for m, _ in pairs}, MODELS)
    modes = ordered({o for _, o in pairs}, MODES)
    return [(m, o) for m in models for o in modes if (m, o) in pairs]


def ordered(names: set[str], known: dict[str, str]) -> list[str]:
    """Known names in their own order, then the others by alphabet."""
    return [n for n in known if n in names] + sorted(names - known.keys())
