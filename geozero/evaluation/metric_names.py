"""How metrics are printed: one table of labels and units. A metric without an entry is a share under its own name."""

from __future__ import annotations

from typing import Any, NamedTuple


class MetricFormat(NamedTuple):
    """A value is printed times `factor`. `best` is the value of a perfect score; None, for counts, lengths and errors,
    means that no bar is drawn. With `lower_is_better` a fall is shown as the improvement."""

    label: str
    factor: float = 100.0
    best: float | None = 1.0
    lower_is_better: bool = False


METRICS = {
    "thought_words": MetricFormat("words per thought", 1.0, None),
    "well_formed": MetricFormat("well formed"),
    "mean_iou": MetricFormat("mean IoU"),
    "f1": MetricFormat("F1@0.5"),
    "mean_f1": MetricFormat("mean F1@0.5"),
    "AP_nc": MetricFormat("AP without confidences"),
    "mAP_nc": MetricFormat("mAP without confidences"),
    "accuracy_mean_of_types": MetricFormat("accuracy, mean of question types"),
    "accuracy_without_counts": MetricFormat("accuracy without counts"),
    "accuracy_mean_of_types_without_counts": MetricFormat("accuracy without counts, mean of question types"),
    "count_accuracy": MetricFormat("counts, exact"),
    "count_within_10_percent": MetricFormat("counts within 10 %"),
    "count_mae": MetricFormat("counts, mean absolute error", 1.0, None, lower_is_better=True),
    "CIDEr-D": MetricFormat("CIDEr"),  # what pycocoevalcap, the official protocol and papers call CIDEr
    "accuracy_percent": MetricFormat("accuracy", 1.0, 100.0),
    "precision_percent": MetricFormat("acc@0.5", 1.0, 100.0),
}

# What the metrics that stand for a task say, in words.
MEANINGS = {
    "accuracy": "share of answers that are right",
    "accuracy_percent": "share of answers that are right by the published rules",
    "acc@0.5": "share of objects whose box overlaps the true one by half or more (IoU ≥ 0.5)",
    "precision_percent": "share of objects whose box overlaps the true one by half or more (IoU ≥ 0.5)",
    "ROUGE-L": "longest sequence of words shared with a reference sentence",
    "CIDEr-D": "agreement with the reference sentences, rare words counting more; may exceed 100",
    "CIDEr": "agreement with the reference sentences, rare words counting more; may exceed 100",
    "f1": "how many boxes are found, and how many of those written are right",
    "mean_f1": "mean over images of how many boxes are found and how many of those written are right",
    "well_formed": "share of completions with exactly one answer block",
}


def metric_format(metric: str) -> MetricFormat:
    """The format of a metric; without an entry in `METRICS` its unit follows from its name."""
    if metric in METRICS:
        return METRICS[metric]
    if is_count(metric):
        return MetricFormat(metric, 1.0, None)
    return MetricFormat(metric, 1.0, 100.0) if metric.endswith("_percent") else MetricFormat(metric)


def is_count(metric: Any) -> bool:
    """Whether a metric counts records, by the published names of counts."""
    return str(metric).startswith("n_") or str(metric).endswith(("_count", "_correct", "_samples"))
