"""One class for each task. It owns all that is the task's; no other room knows a task by its name."""

from __future__ import annotations

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import Sample, TaskName
from geozero.tasks.base import SYSTEM_PROMPT, Task, messages, prompt
from geozero.tasks.caption import Captioning
from geozero.tasks.detection import ObjectDetection
from geozero.tasks.grounding import VisualGrounding
from geozero.tasks.multiple_choice import MultipleChoice
from geozero.tasks.scene import SceneClassification
from geozero.tasks.vqa import VisualQuestionAnswering

TASKS: dict[TaskName, Task] = {
    task.name: task
    for task in (
        SceneClassification(),
        VisualQuestionAnswering(),
        Captioning(),
        VisualGrounding(),
        MultipleChoice(),
        ObjectDetection(),
    )
}
CLOSED_TASKS = tuple(name for name, task in TASKS.items() if task.closed)
# Whether an answer succeeds is known only once its source's median is.
RELATIVE_TASKS = tuple(name for name, task in TASKS.items() if task.success_reward is None)


def get(name: str) -> Task:
    """The task of this name.

    Raises:
        InputError: there is none.
    """
    if name not in TASKS:
        raise InputError(f"unknown task '{name}'", hint=f"one of {', '.join(TASKS)}")
    return TASKS[name]


def validate(sample: Sample) -> Sample:
    """Return the sample, or raise BadRecord naming the first rule that it breaks."""
    if sample.task not in TASKS:
        raise BadRecord("unknown_task", sample.task)
    return TASKS[sample.task].validate(sample)


__all__ = ["CLOSED_TASKS", "RELATIVE_TASKS", "SYSTEM_PROMPT", "TASKS", "Task", "get", "messages", "prompt", "validate"]
