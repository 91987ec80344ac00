"""Evaluation as a flow: every model and prompt mode on both test splits: `python -m flows.evaluate`."""

from __future__ import annotations

from pathlib import Path

from prefect import flow, get_run_logger, task

from flows.runtime.flow_parameters import Limit, Modes, Name, Seed, form, opened
from flows.runtime.locks import gpu
from flows.runtime.monitoring import rate_limited
from flows.runtime.retries import TASK_OPTIONS
from flows.runtime.score_logging import log_scores, tested_sources
from flows.runtime.shell import start
from flows.runtime.tracking import leave_links, log_data, log_model, pipeline_run
from geozero.evaluation.result_sets import ModelAnswers, eval_slices
from geozero.evaluation.score_rows import rows_of
from geozero.inference.corpus_job import CorpusJob, run_in_child
from geozero.tasks.text import Mode
from geozero.workspace import Workspace


@task(name="answer", task_run_name="answer-{name}", **TASK_OPTIONS)
def answer(workspace: Workspace, name: str, model: Path, modes: tuple[Mode, ...], out: Path) -> ModelAnswers:
    """Greedy answers of one model to every test sample; existing answers are kept."""
    settings = workspace.settings
    job = CorpusJob(
        model=str(model),
        corpora=tuple(map(str, workspace.corpora_with("test"))),
        out=str(out),
        modes=modes,
        max_tokens=settings.evaluation.max_tokens,
        seed=settings.seed,
        limit=settings.evaluation.limit,
        boxes=settings.model.boxes,
        engine=workspace.engine,
        prefilled=settings.evaluation.forced,
        swapped=settings.evaluation.swapped,
    )
    with gpu():
        run_in_child(job, workspace.log(f"answer-{name}"), rate_limited(get_run_logger().info))
    return ModelAnswers(name, out, job.prompt_modes)


@form
@flow(name="geozero-evaluate")
def evaluate(
    model: Path,
    name: Name = "model",
    modes: Modes = "both",
    limit: Limit | None = None,
    seed: Seed | None = None,
    params: Path = Path("params.yaml"),
) -> Path:
    """The answers of one checkpoint to every test question, and their strict scores. Returns the answers' directory.

    It may run while a training runs in the same checkout.

    Args:
        model: Directory of the checkpoint.
        name: Under which the answers are kept, runs/answers-NAME: letters, digits, _ - and dots, at most 60.
        modes: Answer directly, with a thought before the answer, or both.
        limit: Questions per benchmark, 1 or more, chosen by stable hash; if empty, as many as the parameter file says.
        seed: Of the engine; 0 to 2,147,483,647.
        params: The parameter file, seen from the checkout; profiles/ holds more.
    """
    workspace = opened(params, "evaluation", seed, limit=limit)
    prompt_modes: tuple[Mode, ...] = ("direct", "tagged") if modes == "both" else (modes,)
    with pipeline_run(workspace, f"evaluate-{name}", checkout="free") as parent:
        log_data(workspace, parent, *workspace.corpora_with("test"))
        log_model(workspace, parent, model)
        answered = answer(workspace, name, model, prompt_modes, workspace.runs / f"answers-{name}")
        slices = eval_slices([answered], tested_sources(workspace), workspace.settings.model.boxes)
        log_scores(workspace, parent, list(rows_of(slices)))
        leave_links(workspace, parent)
        return answered.out


if __name__ == "__main__":
    start(evaluate, model=True)
