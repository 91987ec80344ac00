"""The reader of the RSVQA sets: lists of images, questions and answers that refer to each other by id.

    images     {"id": 0, …, "active": true}
    questions  {"id": 0, "img_id": 0, "type": "presence", "question": "…", "answers_ids": [0], "active": true}
    answers    {"id": 0, "question_id": 0, "answer": "yes", "active": true}

The lists are streamed; of a split's answers two numbers and a shared text each stay in memory.
"""

from __future__ import annotations

import re
import sys
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

from geozero.common.errors import BadRecord, InputError
from geozero.corpus.sample import SPLITS, Split
from geozero.sources.base import Record, Rejected, Source
from geozero.sources.readers.annotations import int_of, json_items, list_of, text_of
from geozero.sources.readers.tree import Tree

KINDS = ("questions", "answers", "images")
COUNT_EDGES, AREA_EDGES = (0, 10, 100, 1000), (0, 10, 100, 1000)  # as the authors' code bins; areas in m²
_AREA = re.compile(r"(\d{1,12}(?:\.\d+)?) ?m2")
_MOST_DIGITS = 9
_MOST_ID = 50_000_000  # ids index lists; the largest list of the field has about 1.07 million items


@dataclass(frozen=True, kw_only=True)
class Rsvqa(Source):
    """Args:
    answers: `raw` keeps counts and areas as they are, `binned` puts them into the bins of the authors' code.
    """

    tasks = ("vqa",)
    prefix: ClassVar[str]  # of the lists' names
    suffixes: ClassVar[tuple[str, ...]]  # of images, the preferred first
    parts: ClassVar[dict[str, Split]] = {split: split for split in SPLITS}  # in the lists' names → split

    answers: Literal["raw", "binned"] = "raw"

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        for part in self.parts:
            yield from self.read_part(tree, part)

    def read_part(self, tree: Tree, part: str) -> Iterator[Record | Rejected]:
        """What the three lists of one part hold.

        Raises:
            InputError: some of them are missing, or one is no list.
        """
        files = {kind: f"{self.prefix}_{part}_{kind}.json" for kind in KINDS}
        missing = [file for file in files.values() if file not in tree]
        if len(missing) == len(KINDS):
            yield Rejected(f"{self.prefix}_{part}", "split_missing", "no files of this split", self.parts[part])
        elif missing:
            raise InputError(f"file missing: {missing[0]}", tree.where(), "a split needs all three of its lists")
        else:
            yield from self._read_lists(tree, part, self.parts[part], files)

    def _read_lists(self, tree: Tree, part: str, split: Split, files: dict[str, str]) -> Iterator[Record | Rejected]:
        images = {number for number, _ in _active(tree, files["images"], "images")}
        answers, folder = _Answers(), tree.directory(*self.image_folders)
        for number, item in _active(tree, files["answers"], "answers"):
            try:
                answers.add(number, int_of(item, "question_id"), text_of(item, "answer"))
            except BadRecord as bad:
                yield Rejected(f"{part}/answer/{number}", bad.reason, bad.detail, split)
        for number, item in _active(tree, files["questions"], "questions"):
            try:
                image_id, kind, text = int_of(item, "img_id"), text_of(item, "type"), text_of(item, "question")
                if image_id not in images:
                    raise BadRecord("image_not_in_split", str(image_id))
                candidates = [f"{folder}/{image_id}{suffix}" for suffix in self.suffixes]
                yield Record(
                    task="vqa",
                    split=split,
                    key=f"{part}/{number}",
                    image=next((name for name in candidates if name in tree), candidates[0]),
                    image_key=f"{self.name}/{self.image_folders[0]}/{image_id}",
                    text=text,
                    answer=self._answer(kind, answers.of(number, list_of(item, "answers_ids"))),
                    question_type=kind,
                )
            except BadRecord as bad:
                yield Rejected(f"{part}/{number}", bad.reason, bad.detail, split)

    def _answer(self, kind: str, answer: str) -> str:
        return answer if self.answers == "raw" else self.binned(kind, answer)

    def binned(self, kind: str, answer: str) -> str:
        """The answer to a question of this type in the bins of the authors' code; most types have none.

        Raises:
            BadRecord: no number where one is expected.
        """
        return answer


class _Answers:
    """Answer id → the question that it answers, and its text; few texts, each stored once."""

    def __init__(self) -> None:
        self._questions = array("q")
        self._texts: list[str | None] = []

    def add(self, number: int, question: int, text: str) -> None:
        if not (0 <= number <= _MOST_ID and abs(question) <= _MOST_ID):
            raise BadRecord("record_malformed", f"id {number}, question {question}"[:80])
        while len(self._texts) <= number:
            self._texts.append(None)
            self._questions.append(-1)
        self._questions[number], self._texts[number] = question, sys.intern(text)

    def of(self, question: int, ids: list[Any]) -> str:
        """The first of these answers that there is.

        Raises:
            BadRecord: there is none, or it answers another question.
        """
        for number in ids:
            if isinstance(number, int) and 0 <= number < len(self._texts):
                text = self._texts[number]
                if text is not None:
                    if self._questions[number] != question:
                        raise BadRecord("answer_of_another_question", f"question {self._questions[number]}")
                    return text
        raise BadRecord("answer_missing", str(ids)[:80])


def _active(tree: Tree, file: str, kind: str) -> Iterator[tuple[int, Any]]:
    """Active items with their ids; in a list without ids, the place is the id.

    Raises:
        InputError: there is no list, no item says whether it is active, or an item without an id stands in a list
            whose ids are not the places.
    """
    count, marked, unnumbered, moved = 0, False, False, False
    for place, item in enumerate(json_items(tree, file, kind)):
        count += 1
        if not isinstance(item, dict):
            continue
        number, marked = item.get("id"), marked or "active" in item
        if isinstance(number, int):
            moved |= number != place
        elif item.get("active") is True:
            unnumbered, number = True, place
        if unnumbered and moved:
            raise InputError(
                f"item {place}: some items have no id, and the ids of others are not their places",
                tree.where(file),
                "an item without an id could be another one's; take the authors' own file",
            )
        if item.get("active") is True and isinstance(number, int):
            yield number, item
    if count and not marked:
        raise InputError(
            f"none of its {count} items says whether it is active", tree.where(file), "take the authors' own file"
        )


def count_bin(answer: str) -> str:
    """The bin of a raw count: "0", "between 0 and 10", …, "more than 1000".

    Raises:
        BadRecord: not a count.
    """
    if not (answer.isascii() and answer.isdigit() and len(answer) <= _MOST_DIGITS):
        raise BadRecord("answer_not_a_count", answer[:40])
    return _bin(int(answer), COUNT_EDGES, "")


def area_bin(answer: str) -> str:
    """The bin of a raw area such as "1934m2": "0m2", "between 0m2 and 10m2", …, "more than 1000m2".

    Raises:
        BadRecord: not an area.
    """
    matched = _AREA.fullmatch(answer)
    if matched is None or not answer.isascii():
        raise BadRecord("answer_not_an_area", answer[:40])
    return _bin(float(matched[1]), AREA_EDGES, "m2")


def _bin(value: float, edges: tuple[int, ...], unit: str) -> str:
    if value <= edges[0]:
        return f"{edges[0]}{unit}"
    for low, high in pairwise(edges):
        if value <= high:
            return f"between {low}{unit} and {high}{unit}"
    return f"more than {edges[-1]}{unit}"
