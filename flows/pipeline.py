"""The whole of GeoZero: data, SFT, gate, A²GRPO, evaluation, page. `make demo` runs `python -m flows.pipeline`."""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.task_runners import ThreadPoolTaskRunner

from flows import page
from flows.a2grpo import check_gate, train_a2grpo
from flows.command import start
from flows.data import build_data, check_stages
from flows.evaluate import answer
from flows.sft import train_sft
from flows.tracked import log_data
from flows.watching import Times
from geozero.workspace import Workspace


@flow(name="geozero-pipeline", task_runner=ThreadPoolTaskRunner(max_workers=2))
def pipeline(params: Path = Path("params.yaml")) -> Path:
    """Returns the page. What is finished with the same parameters, data and code is reused."""
    space, times = Workspace.open(params), Times()
    parent = space.tracker.open_pipeline(space.settings.profile, space.settings.model_dump())
    try:
        with times.measure("data"):
            ran = build_data(space)
        log_data(space, parent)
        # the base model needs no training: it answers while SFT runs on the other core
        both, tagged = ("direct", "tagged"), ("tagged",)
        base = answer.submit(space, "base", space.base, both, space.runs / "answers-base")
        with times.measure("sft"):
            sft = train_sft(space, parent)
        with times.measure("gate"):
            gate = check_gate(space, sft.model)
        taught = answer.submit(space, "sft", sft.model, both, sft.directory / "answers")
        with times.measure("a2grpo"):
            rl = train_a2grpo(space, sft.model, parent)
        with times.measure("evaluation"):
            reasoned = answer.submit(space, "a2grpo", rl.model, (*tagged, "direct"), rl.directory / "answers")
            answered = [base.result(), taught.result(), reasoned.result()]
        old = {"data": not ran, "sft": sft.reused, "gate": sft.reused, "a2grpo": rl.reused, "evaluation": rl.reused}
        times.settle(space.runs / "times.json", [stage for stage, reused in old.items() if reused])
        with times.measure("page"):
            goals = page.publish(space, parent, answered, gate, sft, rl, times)
    except BaseException as error:
        space.tracker.finish(parent, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    space.tracker.finish(parent)
    page.print_goals(goals, times)
    return space.reports / "index.html"


if __name__ == "__main__":
    start(pipeline, check=check_stages)
