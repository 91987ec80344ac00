"""Visual question answering: a closed or numeric question about one image.

Example: question "Is a ship present in the image?\nAnswer with a single word or phrase.", answer "yes",
reward 1 on normalised equality, else 0.
"""

from __future__ import annotations

from geozero.corpus.sample import Sample
from geozero.tasks.base import Task
from geozero.tasks.boxes import Convention
from geozero.tasks.text import same_answer


class VisualQuestionAnswering(Task):
    name = "vqa"
    tag = "[vqa]"
    headline = "accuracy"
    templates = (
        "{text}\nAnswer with a single word or phrase.",
        "{text}\nGive a single word or phrase.",
        "{text}\nReply with one word or short phrase.",
    )

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        return sample.answer

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        return float(same_answer(answer, sample.answer))
