"""Conflicts: records that ask the same of one picture and answer differently, told while they stream by."""

from __future__ import annotations

from geozero.sample import Sample
from geozero.seen import Seen
from geozero.tasks.text import normalise

ONE_ANSWER = ("scene_cls", "vqa")  # of captions many are right, and boxes of one thing differ by pixels


class Conflicts:
    """Remembers questions and answers as hashes, some 40 bytes a sample.

    Two records are in conflict where picture (by content), task and bare question are the same and the answers are
    not, letters' case, punctuation and spaces apart. The first that comes is nobody's conflict: which of them is right
    is not known. [ours]
    """

    def __init__(self) -> None:
        self._asked, self._answered = Seen(), Seen()

    def add(self, sample: Sample, text: str) -> bool:
        """Remember a sample, `text` being its question before any template; whether one before it answers otherwise."""
        if sample.task not in ONE_ANSWER:
            return False
        question = "\x1f".join((sample.image_id, sample.task, normalise(text).strip()))
        new_question = self._asked.add(question)
        new_answer = self._answered.add(f"{question}\x1f{normalise(sample.answer).strip()}")
        return new_answer and not new_question
