"""Your own questions: a table of images, questions and answers as CSV, TSV, JSON lines or a JSON list.

Layout: one `.csv`, `.tsv`, `.jsonl` or `.json` beside your images, which may lie in any directories below, or
`.parquet` files of the Hugging Face hub that hold their images; several where they are shards or splits of one table:
    image,question,answer            needed; other names by the options `image`, `question`, `answer`
    split,type,id,options            used where they are there; other names by `split`, `type`, `id`, `options`
Multiple choice: where `options` holds a list, or texts with `|` between them; the answer is one of them, or its letter.
With `task=multiple_choice` the questions themselves list their options ("A. … B. …").
Splits: the column `split` (train, val, test); without one the word train, val or test in the file's path; else a stable
hash of the image's key, train 0.8, val 0.1, test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: files are UTF-8; a CSV has a line of names first. A broken line of JSON costs itself; a JSON list that breaks off
stops the reading. Where several such files lie there, choose one (option `file`); give it a name of its own (`name`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from string import ascii_uppercase
from typing import Any, Literal

from geozero.common.errors import BadRecord, InputError
from geozero.sources.base import Ratio, Record, Rejected, Source
from geozero.sources.custom.common import RATIO, ImageKeys, image_of, the_files
from geozero.sources.readers.annotations import text_of
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.rows import IMAGE_COLUMNS, PATH, SUFFIXES, other_delimiter, read_rows
from geozero.sources.readers.splits import split_named, split_of_path
from geozero.sources.readers.tree import Tree


@dataclass(frozen=True, kw_only=True)
class OwnQuestions(Source):
    """Args:
    file: the table's path below the root, where there are several.
    image, question, answer, split, type, id, options: names of the columns.
    task: what is asked where a row has no options.
    delimiter: between the columns of a CSV; a TSV has tabs.
    ratio: shares of the splits where there is no such column.
    """

    tasks = ("vqa", "multiple_choice")
    layout = "<any>.{csv,tsv,jsonl,json,parquet} with image, question, answer; images anywhere below, or inside"
    generic = True

    name: str = "questions"
    title: str = "questions and answers"
    size: str = "your own"
    licence: str = "your own"
    citation: str = "your own"
    file: str = ""
    image: str = "image"
    question: str = "question"
    answer: str = "answer"
    split: str = "split"
    type: str = "type"
    id: str = "id"
    options: str = "options"
    task: Literal["vqa", "multiple_choice"] = "vqa"
    delimiter: str = ","
    ratio: Ratio = RATIO

    def __post_init__(self) -> None:
        if len(self.delimiter) != 1 or self.delimiter in '"\r\n':
            raise InputError(f"delimiter '{self.delimiter}'", hint="one character")

    def find(self, tree: Tree) -> Tree:
        the_files(tree, SUFFIXES, self.file, "table of questions")
        return tree

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images, keys = ImageFiles(tree), ImageKeys(self.name, tree)
        found = the_files(tree, SUFFIXES, self.file, "table of questions")
        for file in found:
            for number, row in read_rows(tree, file, partial(self._check_columns, tree, file), self.delimiter):
                key = f"{file}/{number}"
                try:
                    if isinstance(row, BadRecord):
                        raise row
                    if isinstance(row, dict):
                        row = {self._known(name, row): value for name, value in row.items()}
                    yield self._record(key, row, images, keys, file)
                except BadRecord as bad:
                    yield Rejected(key, bad.reason, bad.detail)

    def _record(self, key: str, row: Any, images: ImageFiles, keys: ImageKeys, file: str) -> Record:
        image = image_of(row, self.image, images, file)
        image_key = keys(row.get(PATH) or image)
        named = row.get(self.split)
        split = split_named(str(named)) if named not in (None, "") else split_of_path(file)
        if named in (None, "") and split is None:
            split = self.ratio.split(image_key)
        if split is None:
            raise BadRecord("split_unknown", str(named)[:40])
        keys.check(row.get(PATH) or image, split)
        kind, number, options = row.get(self.type), row.get(self.id), _options(row.get(self.options))
        return Record(
            task="multiple_choice" if options else self.task,
            split=split,
            key=str(number) if number not in (None, "") else key,
            image=image,
            image_key=image_key,
            text=text_of(row, self.question),
            answer=_answer(row.get(self.answer)),
            question_type=kind if isinstance(kind, str) and kind else None,
            classes=options,
        )

    def _option(self, column: str) -> str:
        """The option that names a column."""
        return next(name for name in ("image", "question", "answer") if getattr(self, name) == column)

    def _known(self, name: str, present: Collection[str]) -> str:
        """A column's name as the options write it, where it differs in its letters' case alone."""
        for known in (self.image, self.question, self.answer, self.split, self.type, self.id, self.options):
            if known not in present and name.casefold() == known.casefold():
                return known
        return name

    def _check_columns(self, tree: Tree, file: str, columns: list[str]) -> None:
        known = {self._known(name, columns) for name in columns}
        missing = [name for name in (self.image, self.question, self.answer) if name not in known]
        if self.image in missing and any(name in known for name in IMAGE_COLUMNS):
            missing.remove(self.image)
        if missing:
            other = other_delimiter(columns)
            raise InputError(
                f"no column '{missing[0]}' (found {', '.join(map(str, columns))[:120] or 'none'})",
                tree.where(file),
                f"give the delimiter, as --set delimiter='{other}'"
                if other
                else f"name it, as --set {self._option(missing[0])}={columns[0] if columns else 'picture'}",
            )


def _options(value: Any) -> tuple[str, ...]:
    """The options of a question: a list, or texts with `|` between them, without letters of their own; none where there
    is nothing."""
    listed = value if isinstance(value, list) else str(value).split("|") if value not in (None, "") else []
    options = [_answer(option) for option in listed]
    marks = [re.match(rf"\(?{k}[.):]+ ?", text) for k, text in zip(ascii_uppercase, options, strict=False)]
    if all(marks):
        options = [text[mark.end() :] for text, mark in zip(options, marks, strict=False) if mark]
    return tuple(options)


def _answer(value: Any) -> str:
    """An answer as text: texts, numbers, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not math.isfinite(value):  # what tables write for nothing
        raise BadRecord("answer_missing", str(value))
    if isinstance(value, str | int | float):
        return " ".join(str(value).split())
    raise BadRecord("answer_malformed", type(value).__name__)
