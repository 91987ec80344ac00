"""Samples of each task, and corpora of them, for the tests of release formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from build_world import stored

from geozero.corpus.sample import Sample
from geozero.corpus.store import CorpusWriter

AREA = "What is the area covered by residential buildings?"


def sample(number: int, task: Any, key: str, **changes: Any) -> Sample:
    image = stored(number)
    values: dict[str, Any] = {"id": f"{number:032x}", "task": task, "source": key.partition("/")[0], "split": "train"}
    values |= {"image_id": image.image_id, "image_key": key, "width": image.width, "height": image.height}
    return Sample(**{**values, "question": "Is a road present?", "answer": "yes", **changes})


SAMPLES = [
    sample(1, "vqa", "rsvqa_hr/Data/8766", question=AREA, answer="1934m2", question_type="area"),
    sample(2, "vqa", "rsvqa_hr/Data/8767"),
    sample(
        3,
        "scene_cls",
        "aid/Pond/pond_1",
        question="Choose: pond, lake.\nOne class.",
        answer="pond",
        classes=("lake", "pond"),
    ),
    sample(4, "caption", "rsicd/00001", question="Describe it.", answer="a pond .", references=("a pond .", "water .")),
    sample(
        5,
        "grounding",
        "dior_rsvg/JPEGImages/00001",
        question="Locate: the dam",
        answer="[8, 16, 24, 32]",
        box=(8, 16, 24, 32),
    ),
]
TESTED = [
    sample(11, "vqa", "rsvqa_hr/Data/9", split="test", question_type="presence"),
    sample(
        12, "caption", "rsicd/00002", split="test", question="Describe it.", answer="a .", references=("a .", "b .")
    ),
    sample(
        13,
        "grounding",
        "dior_rsvg/JPEGImages/00002",
        split="test",
        question="Locate: x",
        answer="[1, 2, 3.5, 4]",
        box=(1, 2, 3.5, 4),
    ),
    sample(14, "scene_cls", "aid/Pond/pond_2", split="val", question="Which?", answer="pond"),
]


def corpus(path: Path, samples: list[Sample]) -> Path:
    with CorpusWriter(path, {"command": "test"}) as writer:
        for one in samples:
            writer.add_image(stored(int(one.id, 16)), one.image_key)
            assert writer.add(one)
    return path
