"""Visual grounding: an expression singles out one object, the answer is its box.

Example: question "Locate: the red ship\nAnswer with its bounding box [x1, y1, x2, y2].", box (12, 40, 30, 52) in
an image of 96×96 pixels, target for Qwen3-VL "[125, 417, 312, 542]" (relative 0–1000), reward the IoU.
"""

from __future__ import annotations

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Sample
from geozero.tasks.base import Task
from geozero.tasks.boxes import Convention, format_box, from_model, iou, parse_box, to_model

SUCCESS_IOU = 0.5


class VisualGrounding(Task):
    name = "grounding"
    tag = "[refer]"
    headline = "acc@0.5"
    templates = (
        "Locate: {text}\nAnswer with its bounding box [x1, y1, x2, y2].",
        "Find {text} in the image.\nAnswer with its bounding box [x1, y1, x2, y2].",
        "Give the position of {text}.\nAnswer with its bounding box [x1, y1, x2, y2].",
    )

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        if sample.box is None:
            raise BadRecord("box_missing", sample.id)
        return format_box(to_model(sample.box, sample.width, sample.height, boxes))

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        parsed = parse_box(answer)
        if parsed is None or sample.box is None:
            return 0.0
        return iou(from_model(parsed, sample.width, sample.height, boxes), sample.box)

    def succeeds(self, reward: float) -> bool | None:
        return reward >= SUCCESS_IOU
