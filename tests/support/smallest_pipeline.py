"""The smallest pipeline run, and the MLflow runs that it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows_checkout import settings

SCENES = {"aid": 8, "rsvqa_lr": 4, "rsicd": 48, "dior_rsvg": 6}


FEW = dict.fromkeys(SCENES, 4)


def smallest() -> dict[str, Any]:
    """Two steps a stage. A random model is never right, but some of its captions beat the median of all: they are
    what is easy, everything else is hard."""
    two_steps = {"steps": 2, "batch_size": 4, "micro_batch_size": 4}
    return settings(
        toy={"train": SCENES, "val": FEW, "test": FEW},
        data={"samples": []},  # a thousand questions about real imagery: half a minute more
        model={"path": "models/tiny-random"},
        filter={"folds": 1, **two_steps},
        sampling={"engine": "transformers", "k": 2, "max_tokens": 16, "workers": 1},
        select={"easy": 0.5, "hard": 0.25, "unsolved_share": 1.0, "hard_size": 8},
        sft={"replay_share": 0.0, **two_steps},
        a2grpo={
            "steps": 2,
            "group_size": 2,
            "prompts_per_step": 2,
            "micro_batch_size": 4,
            "max_completion_tokens": 16,
            "min_well_formed": 0.0,
            "min_mixed_groups": 0.0,
        },
        evaluation={"max_tokens": 16, "limit": 6, "gallery": 6, "forced": 2},
    )


def mlflow_runs(path: Path) -> list[tuple[Any, list[Any]]]:
    """Every parent run with its children, the oldest first."""
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{path / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "geozero"]
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    return [(p, [r for r in runs if r.data.tags.get("mlflow.parentRunId") == p.info.run_id]) for p in parents]
