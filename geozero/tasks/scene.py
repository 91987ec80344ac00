"""Scene classification: one image, one class of the source's own label set.

Example: question "What is the scene category of this image? Choose from: airport, bare land, ….",
answer "bare land", reward 1 on normalised equality, else 0.
"""

from __future__ import annotations

from geozero.corpus.sample import Sample
from geozero.tasks.base import Task
from geozero.tasks.boxes import Convention
from geozero.tasks.text import same_answer


class SceneClassification(Task):
    name = "scene_cls"
    tag = "[cls]"
    headline = "accuracy"
    templates = (
        "Classify the image into one of these classes: {classes}.\nAnswer with one class name.",
        "Which of the following classes fits this image: {classes}?\nAnswer with one class name.",
        "Choose the scene class of the image from: {classes}.\nAnswer with one class name.",
    )

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        return sample.answer

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        return float(same_answer(answer, sample.answer))
