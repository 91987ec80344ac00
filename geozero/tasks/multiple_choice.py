"""Multiple choice: the question lists options, the answer is the letter of one, or its text.

Example: question "What crosses the river?\nA. a road\nB. a bridge\nAnswer with the letter of the right option.",
answer "B"; "(B)", "b.", "**B**", "The answer is B", "B: a bridge" and "A bridge" are right too, "A or B", "B: a road"
and "not B" are wrong. Where several options are right, the answer is all of their letters: "A C", "A, C" or "A and C".
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from string import ascii_uppercase

from geozero.common.errors import BadRecord
from geozero.corpus.sample import Sample
from geozero.metrics.records import RecordList
from geozero.tasks.boxes import Convention
from geozero.tasks.closed import ClosedTask
from geozero.tasks.text import normalise, unwrapped

_MARK = re.compile(r"(?<!\S)(?:\(([A-Z])\)[.:]?|([A-Z])[.:)])\s*(?=\S)")  # of an option in a question
_LETTER = re.compile(r"(?:\(([A-Za-z])\)[.:]?|([A-Za-z])[.:)]?)\s*")
_LETTER_AND_TEXT = re.compile(r"(?:\(([A-Za-z])\)[.:]?|([A-Za-z])[.:)])\s*(\S.*)", re.DOTALL)

_LETTERS = re.compile(r"\(?[A-Z]\)?(?:(?:\s*[,;&]\s*|\s+)(?:and\s+)?\(?[A-Z]\)?)+\.?")
_LEAD = re.compile(
    r"(?:the )?(?:(?:correct|right|best|final) )?(?:answer|option|choice)\b(?: is\b)?[\s:*]*"
    r"(?:option\s+)?(?=\(?[A-Z]\b)",
    re.IGNORECASE,
)
_MARKUP = '*`"\u201c\u201d[]{}$!\u3002 \t\r\n'


class MultipleChoice(ClosedTask):
    name = "multiple_choice"
    title = "Multiple choice"
    tags = ("multiple_choice", "mcq")
    hub_category = "visual-question-answering"
    official_headline = None
    unread = ("n_no_choice_pred", "n_no_choice_label")
    templates = (
        "{text}\nAnswer with the letter of the right option.",
        "{text}\nGive the letter of the right option.",
        "{text}\nReply with the letter of the right option.",
    )

    def question(self, sample_id: str, text: str = "", classes: Sequence[str] = ()) -> str:
        """The question with its options, which `classes` holds unless the text lists them already."""
        listed = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, classes, strict=False)]
        return super().question(sample_id, "\n".join([text.strip(), *listed]))

    def validate(self, sample: Sample) -> Sample:
        super().validate(sample)
        options = options_of(sample.question)
        if len(options) < 2 or (sample.classes and tuple(options.values()) != sample.classes):
            raise BadRecord("options_unreadable", sample.question[:80])
        letter = choice(sample.answer, options)
        if not letter or choice(letter, options) != letter:  # an option whose text is another's letter
            raise BadRecord("answer_not_an_option", sample.answer[:80])
        return sample

    def conflict_key(self, sample: Sample, text: str) -> tuple[str, str] | None:
        options = options_of(sample.question)
        asked = "\n".join([text.split("\n")[0], *sorted(options.values())])
        return normalise(asked), normalise(options.get(choice(sample.answer, options), ""))

    def target(self, sample: Sample, boxes: Convention = "norm1000") -> str:
        return choice(sample.answer, options_of(sample.question))

    def shown_truth(self, sample: Sample, boxes: Convention) -> str:
        options = options_of(sample.question)
        letters = choice(sample.answer, options).split()
        return ", ".join(f"{letter}. {options[letter]}" for letter in letters) or sample.answer

    def answer_reward(self, answer: str, sample: Sample, boxes: Convention = "norm1000") -> float:
        options = options_of(sample.question)
        chosen = choice(answer, options)
        return float(bool(chosen) and chosen == choice(sample.answer, options))

    def readings(self, records: RecordList, texts: Sequence[str]) -> list[str]:
        return [choice(text, options_of(asked)) for text, asked in zip(texts, records.questions, strict=True)]

    def says_the_same(self, answer: str, truth: str) -> bool:
        return bool(answer) and answer == truth

    def chances(self, records: RecordList) -> list[float] | None:
        counts = [len(options_of(asked)) for asked in records.questions]
        return [1 / n for n in counts] if all(counts) else None


@lru_cache(maxsize=4096)
def options_of(question: str) -> dict[str, str]:
    """Letter → option of the last list "A. … B. …", "(A) … (B) …" or "A) … B) …" in a question; empty without one."""
    runs: list[list[re.Match[str]]] = []
    for mark in _MARK.finditer(question):
        place = ascii_uppercase.index(mark[1] or mark[2])
        if place == 0:
            runs.append([mark])
        elif runs and place == len(runs[-1]):
            runs[-1].append(mark)
    marks = next((run for run in reversed(runs) if len(run) > 1), [])
    ends = [mark.start() for mark in marks[1:]] + [len(question)]
    spans = [question[mark.end() : end] for mark, end in zip(marks, ends, strict=False)]
    return {letter: span.partition("\n")[0].strip() for letter, span in zip(ascii_uppercase, spans, strict=False)}


def choice(answer: str, options: dict[str, str]) -> str:
    """The letter of the one option that an answer names, by letter, by its text, or by both, or the sorted letters of
    several that it lists; "" for none, or where it leaves open which.

    Where the options are not known a letter stands for itself, and any other text for its normalised form.
    """
    answer = _LEAD.sub("", unwrapped(answer).strip(_MARKUP).rstrip("."), count=1).strip(_MARKUP)
    plain, found = normalise(answer).strip(), set()
    if alone := _LETTER.fullmatch(answer):
        found.add((alone[1] or alone[2]).upper())
    if both := _LETTER_AND_TEXT.fullmatch(answer):
        letter = (both[1] or both[2]).upper()
        if (not options and not _MARK.search(both[3])) or normalise(options.get(letter, "")).strip() == normalise(
            both[3]
        ).strip():
            found.add(letter)
    if _LETTERS.fullmatch(answer) and (listed := set(re.findall(r"\b[A-Z]\b", answer))) <= (options.keys() or listed):
        found = {" ".join(sorted(listed))}
        if len(listed) > 1:
            return found.pop()
    if not options:
        return found.pop() if found else plain
    found = (found & options.keys()) | {k for k, text in options.items() if plain and normalise(text).strip() == plain}
    return found.pop() if len(found) == 1 else ""
