"""One class per task; reward and score read the same parser and the same comparator."""

from __future__ import annotations

from geozero.common.errors import InputError
from geozero.corpus.sample import TaskName
from geozero.tasks.base import SYSTEM_PROMPT, Task, messages
from geozero.tasks.caption import Captioning
from geozero.tasks.grounding import VisualGrounding
from geozero.tasks.scene import SceneClassification
from geozero.tasks.vqa import VisualQuestionAnswering

TASKS: dict[TaskName, Task] = {
    task.name: task for task in (SceneClassification(), VisualQuestionAnswering(), Captioning(), VisualGrounding())
}


def get(name: str) -> Task:
    """The task of this name.

    Raises:
        InputError: there is none.
    """
    for key, task in TASKS.items():
        if key == name:
            return task
    raise InputError(f"unknown task '{name}'", hint=f"one of {', '.join(TASKS)}")


__all__ = ["SYSTEM_PROMPT", "TASKS", "Task", "get", "messages"]
