"""Conflicts: records with the same question about the same image but different answers, found while streaming."""

from __future__ import annotations

from geozero import tasks
from geozero.common.hash_set import HashSet64
from geozero.corpus.sample import Sample


class Conflicts:
    """Remembers questions and their first answers as hashes, some 40 bytes a question.

    A record is in conflict where one before it asks the same (image by content, task and bare question), and the
    first that did so has another answer, letters' case, punctuation and spaces apart. The first itself is nobody's
    conflict: which of them is right is not known. [ours]
    """

    def __init__(self) -> None:
        self._asked, self._first = HashSet64(), HashSet64()

    def add(self, sample: Sample, text: str) -> bool:
        """Remember a sample, `text` being its question before any template; whether it is in conflict."""
        key = tasks.get(sample.task).conflict_key(sample, text)
        if key is None:  # of captions many are right, and boxes of one thing differ by pixels
            return False
        question = "\x1f".join((sample.image_id, sample.task, key[0]))
        answer = f"{question}\x1f{key[1]}"
        if self._asked.add(question):
            self._first.add(answer)
            return False
        return answer not in self._first
