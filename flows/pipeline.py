"""The whole of GeoZero: data, SFT, gate, A²GRPO, evaluation, page. `make demo` runs `python -m flows.pipeline`."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows import publish
from flows.a2grpo import check_gate, train_a2grpo
from flows.data import build_data, check_stages
from flows.evaluate import answer
from flows.runtime.flow_parameters import Hours, form, seconds
from flows.runtime.monitoring import StageTimer
from flows.runtime.shell import start
from flows.runtime.tracking import log_data, pipeline_run
from flows.sft import train_sft
from geozero.workspace import Workspace


@form
@flow(name="geozero-pipeline", task_runner=ThreadPoolTaskRunner(max_workers=2))
def pipeline(params: Path = Path("params.yaml"), hours: Hours | None = None) -> Path:
    """The whole of GeoZero: what is finished with the same parameters, data and code is reused. Returns the page.

    Args:
        params: The params.yaml of the checkout, beside dvc.yaml; profiles/ holds more to copy over it.
        hours: Time limit of each training, above 0, at most 2,160. The run fails when it is over; the next one goes on
            from its checkpoint.
    """
    space, limit = Workspace.open(params), seconds(hours)
    check_stages(space)
    times, both = StageTimer(space.runs / "times.json"), ("direct", "tagged")
    with pipeline_run(space, space.settings.profile) as parent:
        with times.measure("data") as spent:
            spent.reused = not build_data(space)
        log_data(space, parent, *space.made)
        # the base model needs no training: it answers while SFT runs on the other core
        base = answer.submit(space, "base", space.base, both, space.runs / "answers-base")
        with times.measure("sft") as spent:
            sft = train_sft.with_options(timeout_seconds=limit)(space, parent)
            spent.reused = sft.reused
        with times.measure("gate") as spent:
            gate = check_gate(space, sft.model)
            spent.reused = sft.reused
        taught = answer.submit(space, "sft", sft.model, both, sft.directory / "answers")
        with times.measure("a2grpo") as spent:
            rl = train_a2grpo.with_options(timeout_seconds=limit)(space, sft.model, parent)
            spent.reused = rl.reused
        with times.measure("evaluation") as spent:
            reasoned = answer.submit(space, "a2grpo", rl.model, ("tagged", "direct"), rl.directory / "answers")
            answered = [base.result(), taught.result(), reasoned.result()]
            spent.reused = rl.reused
        with times.measure("page"):
            goals = publish.publish(space, parent, answered, gate, sft, rl, times)
    publish.print_goals(goals, times)
    return space.reports / "index.html"


if __name__ == "__main__":
    start(pipeline, check=check_stages)
