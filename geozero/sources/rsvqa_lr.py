"""RSVQA-LR: questions about 772 Sentinel-2 pictures of 256×256 px at 10 m.

Layout: `Images_LR/<id>.tif` (RGB) beside `LR_split_{train,val,test}_{questions,answers,images}.json`; each file is an
object with one list. The archive of the pictures, `Images_LR.zip`, may lie there packed.
    images     {"id": 0, …, "active": true}
    questions  {"id": 0, "img_id": 0, "type": "presence", "question": "…", "answers_ids": [0], "active": true}
    answers    {"id": 0, "question_id": 0, "answer": "yes", "active": true}
Splits, official: 572/100/100 pictures, 57,223/10,005/10,004 questions; types comp, count, presence, rural_urban.
Licence: CC-BY-4.0. Citation: Lobry et al., "RSVQA: Visual Question Answering for Remote Sensing Data",
IEEE TGRS 2020, arXiv 2003.07333.
Traps: the ids index the lists of the whole set, so each split's lists hold inactive placeholders that are only
`{"id": n, "active": false}`; counts are raw integers, the bins of the papers exist only in their code. Papers report
presence, comp and rural_urban and leave out count.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from geozero.errors import BadRecord, InputError
from geozero.sample import SPLITS, Split
from geozero.sources.annotations import int_of, json_items, list_of, text_of
from geozero.sources.base import Record, Rejected, Source
from geozero.sources.tree import Tree

KINDS = ("questions", "answers", "images")
# upper edge of a bin and its name, as the authors' code bins counts
COUNT_BINS = ((0, "0"), (10, "between 0 and 10"), (100, "between 10 and 100"), (1000, "between 100 and 1000"))
COUNT_ABOVE = "more than 1000"
_MOST_DIGITS = 9


@dataclass(frozen=True, kw_only=True)
class RsvqaLr(Source):
    """Args:
    answers: `raw` keeps counts as integers, `binned` puts them into the five bins of the authors' code.
    """

    tasks = ("vqa",)
    layout = "Images_LR/<id>.tif, LR_split_{train,val,test}_{questions,answers,images}.json"
    pictures: ClassVar[str] = "Images_LR"
    prefix: ClassVar[str] = "LR_split"
    suffixes: ClassVar[tuple[str, ...]] = (".tif", ".png", ".jpg")
    required = (pictures,)
    any_of = tuple(f"LR_split_{split}_questions.json" for split in SPLITS)
    folders = ("RSVQA_LR", "RSVQA-LR")

    name: str = "rsvqa_lr"
    title: str = "RSVQA-LR"
    licence: str = "CC-BY-4.0"
    citation: str = "Lobry et al., IEEE TGRS 2020, arXiv 2003.07333"
    answers: Literal["raw", "binned"] = "raw"

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        for split in SPLITS:
            files = {kind: f"{self.prefix}_{split}_{kind}.json" for kind in KINDS}
            missing = [file for file in files.values() if file not in tree]
            if len(missing) == len(KINDS):
                yield Rejected(f"{self.prefix}_{split}", "split_missing", "no files of this split", split)
            elif missing:
                raise InputError(f"file missing: {missing[0]}", tree.where(), "a split needs all three of its lists")
            else:
                yield from self._read_split(tree, split, files)

    def _read_split(self, tree: Tree, split: Split, files: dict[str, str]) -> Iterator[Record | Rejected]:
        images = {number for number, _ in self._active(tree, files["images"], "images")}
        answers: dict[int, tuple[int, str]] = {}  # answer id → question id, text; few texts, each stored once
        for number, item in self._active(tree, files["answers"], "answers"):
            try:
                answers[number] = (int_of(item, "question_id"), sys.intern(text_of(item, "answer")))
            except BadRecord as bad:
                yield Rejected(f"{split}/answer/{number}", bad.reason, bad.detail, split)
        for number, item in self._active(tree, files["questions"], "questions"):
            try:
                yield self._record(tree, split, number, item, answers, images)
            except BadRecord as bad:
                yield Rejected(f"{split}/{number}", bad.reason, bad.detail, split)

    @staticmethod
    def _active(tree: Tree, file: str, kind: str) -> Iterator[tuple[int, Any]]:
        """Active items with their ids; one that gives none has its place in the list."""
        for place, item in enumerate(json_items(tree, file, kind)):
            if isinstance(item, dict) and item.get("active") is True:
                number = item.get("id", place)
                yield (number if isinstance(number, int) else place), item

    def _record(
        self, tree: Tree, split: Split, number: int, item: Any, answers: dict[int, tuple[int, str]], images: set[int]
    ) -> Record:
        image_id, kind, text = int_of(item, "img_id"), text_of(item, "type"), text_of(item, "question")
        if image_id not in images:
            raise BadRecord("image_not_in_split", str(image_id))
        found = [answers[i] for i in list_of(item, "answers_ids") if isinstance(i, int) and i in answers]
        if not found:
            raise BadRecord("answer_missing", str(item["answers_ids"])[:80])
        asked, answer = found[0]
        if asked != number:
            raise BadRecord("answer_of_another_question", f"question {asked}")
        candidates = [f"{self.pictures}/{image_id}{suffix}" for suffix in self.suffixes]
        return Record(
            task="vqa",
            split=split,
            key=f"{split}/{number}",
            image=next((name for name in candidates if name in tree), candidates[0]),
            image_key=f"{self.name}/{self.pictures}/{image_id}",
            text=text,
            answer=self._answer(kind, answer),
            question_type=kind,
        )

    def _answer(self, kind: str, answer: str) -> str:
        return count_bin(answer) if self.answers == "binned" and kind == "count" else answer


def count_bin(answer: str) -> str:
    """The bin of a raw count.

    Raises:
        BadRecord: not a count.
    """
    if not (answer.isascii() and answer.isdigit() and len(answer) <= _MOST_DIGITS):
        raise BadRecord("answer_not_a_count", answer[:40])
    count = int(answer)
    return next((name for most, name in COUNT_BINS if count <= most), COUNT_ABOVE)
