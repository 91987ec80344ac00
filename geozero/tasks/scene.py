"""Scene classification: one image, one class of the source's own label set.

Example: question "What is the scene category of this image? Choose from: airport, bare land, ….",
answer "bare land", reward 1 on normalised equality, else 0.
"""

from __future__ import annotations

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Sample
from geozero.tasks.closed import ClosedTask


class SceneClassification(ClosedTask):
    name = "scene_cls"
    title = "Scene classification"
    tags = ("cls", "scene_cls", "sc")
    hub_category = "image-classification"
    answers_are_classes = True
    templates = (
        "Classify the image into one of these classes: {classes}.\nAnswer with one class name.",
        "Which of the following classes fits this image: {classes}?\nAnswer with one class name.",
        "Choose the scene class of the image from: {classes}.\nAnswer with one class name.",
    )

    def validate(self, sample: Sample) -> Sample:
        super().validate(sample)
        if sample.classes and sample.answer not in sample.classes:
            raise BadRecord("answer_not_in_classes", sample.answer)
        return sample
