"""Visual question answering: a closed or numeric question about one image.

Example: question "Is a ship present in the image?\nAnswer with a single word or phrase.", answer "yes",
reward 1 on normalised equality, else 0.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from geozero.tasks.closed import ClosedTask

_YES_NO = re.compile(r"\W*(?:yes|no)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\W*\d[\d.,]*\s*(?:m2|m²|km2|km²|square \w+|%)?\W*", re.IGNORECASE)
_SAYS_YES_OR_NO = re.compile(r"\b(?:yes or no|yes/no)\b", re.IGNORECASE)
_ASKS_YES_OR_NO = re.compile(r"(?:is|are|was|were|does|do|can|has|have)\b(?!.*\bor\b)[^\n]*\?", re.IGNORECASE)
_ASKS_A_NUMBER = re.compile(
    r"(?:how many|how much|what is the (?:number|amount|area|total area)(?! .*\bor\b))\b", re.IGNORECASE
)


class VisualQuestionAnswering(ClosedTask):
    name = "vqa"
    title = "Question answering"
    tags = ("vqa",)
    hub_category = "visual-question-answering"
    reported = ("accuracy", "accuracy_mean_of_types")
    by_question_type = True
    official_draws = True
    official_substrings = True
    templates = (
        "{text}\nAnswer with a single word or phrase.",
        "{text}\nGive a single word or phrase.",
        "{text}\nReply with one word or short phrase.",
    )

    def contradicts(self, question: str, answer: str) -> bool:
        """A number or an area to a question for yes or no, or yes or no to a question for a number or an area.
        Careful: what is not plainly wrong is right."""
        yes_no = _YES_NO.match(answer) is not None
        if _SAYS_YES_OR_NO.search(question):
            return not yes_no
        if _ASKS_YES_OR_NO.match(question):
            return _NUMBER.fullmatch(answer) is not None
        return _ASKS_A_NUMBER.match(question) is not None and yes_no and len(answer.split()) == 1

    def official_warnings(self, records: Sequence[Mapping[str, Any]], drawn: bool) -> list[str]:
        what = "the official protocol counts an empty vqa prediction as right: fix what failed before using it"
        return [what] if any("error" in record for record in records) else []
