"""The whole of GeoZero: data, SFT, gate, A²GRPO, evaluation, page. `make demo` runs `python -m flows.pipeline`."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows import publish
from flows.a2grpo import run_preflight, train_a2grpo
from flows.data import build_data, check_stages
from flows.evaluate import answer
from flows.runtime.flow_parameters import Hours, form, seconds
from flows.runtime.monitoring import StageTimer
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, pipeline_run
from flows.sft import train_sft
from geozero.tasks.text import Mode
from geozero.training.arguments import check_hardware, check_masters
from geozero.workspace import Workspace


def check_all(workspace: Workspace) -> None:
    """Raises InputError where any of the stages could not train here: found now, not after the hours before it."""
    check_stages(workspace)
    for section in ("filter", "sft", "a2grpo"):
        check_masters(workspace.settings, section)
    check_hardware(workspace.settings.hardware)


@form
@flow(name="geozero-pipeline", task_runner=ThreadPoolTaskRunner(max_workers=2))  # type: ignore[arg-type]  # Prefect's type is invariant
def pipeline(params: Path = Path("params.yaml"), hours: Hours | None = None) -> Path:
    """The whole of GeoZero: what is finished with the same parameters, data and code is reused. Returns the page.

    Args:
        params: The params.yaml of the checkout, beside dvc.yaml; profiles/ holds more to copy over it.
        hours: Time limit of each training, above 0, at most 2,160. The run fails when it is over; the next one resumes
            from its checkpoint.
    """
    workspace, limit = Workspace.open(params), seconds(hours)
    check_all(workspace)
    times = StageTimer(workspace.runs / "times.json")
    direct_first: tuple[Mode, ...] = ("direct", "tagged")
    tagged_first: tuple[Mode, ...] = ("tagged", "direct")
    with pipeline_run(workspace, workspace.settings.profile) as parent:
        with times.measure("data") as timed:
            timed.reused = not build_data(workspace)
        log_data(workspace, parent, *workspace.output_corpora)
        # the base model needs no training, so it answers while SFT runs on the other core
        base_answers = answer.submit(workspace, "base", workspace.base, direct_first, workspace.runs / "answers-base")
        with times.measure("sft") as timed:
            sft = train_sft.with_options(timeout_seconds=limit)(workspace, parent)
            timed.reused = sft.reused
        with times.measure("gate") as timed:
            gate = run_preflight(workspace, sft.model)
            timed.reused = sft.reused
        sft_answers = answer.submit(workspace, "sft", sft.model, direct_first, sft.directory / "answers")
        with times.measure("a2grpo") as timed:
            rl = train_a2grpo.with_options(timeout_seconds=limit)(workspace, sft.model, parent)
            timed.reused = rl.reused
        with times.measure("evaluation") as timed:
            rl_answers = answer.submit(workspace, "a2grpo", rl.model, tagged_first, rl.directory / "answers")
            all_answers = [base_answers.result(), sft_answers.result(), rl_answers.result()]
            timed.reused = rl.reused
        with times.measure("page"):
            goals = publish.publish(workspace, parent, all_answers, gate, sft, rl, times)
    publish.print_goals(goals, times)
    return workspace.reports / "index.html"


if __name__ == "__main__":
    start(pipeline, check=check_all)
