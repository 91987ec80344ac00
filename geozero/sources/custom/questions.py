"""Your own questions: a table of images, questions and answers as CSV, TSV, JSON lines or a JSON list.

Layout: one `.csv`, `.tsv`, `.jsonl` or `.json` beside your images, which may lie in any directories below. Columns:
    image,question,answer            needed; other names by the options `image`, `question`, `answer`
    split,type,id,options            used where they are there; other names by `split`, `type`, `id`, `options`
Multiple choice: where `options` holds a list, or texts with `|` between them; the answer is one of them, or its letter.
With `task=multiple_choice` the questions themselves list their options ("A. … B. …").
Splits: the column `split` (train, val, test); without one a stable hash of the image's key, train 0.8, val 0.1,
test 0.1 (option `ratio`).
Licence: yours to say (option `licence`). Citation: option `citation`.
Traps: files are UTF-8; a CSV has a line of names first. A broken line of JSON costs itself; a JSON list that breaks off
stops the reading. Where several such files lie there, choose one (option `file`); give it a name of its own (`name`).
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, Literal

from geozero.common.errors import BadRecord, InputError
from geozero.sources.base import Ratio, Record, Rejected, Source
from geozero.sources.custom.common import RATIO, make_image_key, split_named, the_file
from geozero.sources.readers.annotations import json_items, text_of
from geozero.sources.readers.archives import DAMAGED
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.tree import Tree

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json")
MAX_LINE = 1 << 20  # characters


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
    layout = "<any>.{csv,tsv,jsonl,json} with image, question, answer; images anywhere below"
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
        the_file(tree, SUFFIXES, self.file, "table of questions")
        return tree

    def read(self, tree: Tree) -> Iterator[Record | Rejected]:
        images = ImageFiles(tree)
        file = the_file(tree, SUFFIXES, self.file, "table of questions")
        for number, row in self._rows(tree, file):
            key = f"{file}/{number}"
            try:
                if isinstance(row, BadRecord):
                    raise row
                yield self._record(key, row, images)
            except BadRecord as bad:
                yield Rejected(key, bad.reason, bad.detail)

    def _record(self, key: str, row: Any, images: ImageFiles) -> Record:
        image = images.find(text_of(row, self.image))
        image_key = make_image_key(self.name, image)
        named = row.get(self.split)
        split = split_named(str(named)) if named not in (None, "") else self.ratio.split(image_key)
        if split is None:
            raise BadRecord("split_unknown", str(named)[:40])
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

    def _rows(self, tree: Tree, file: str) -> Iterator[tuple[int, Any]]:
        """The rows with their numbers from 1; one that cannot be read is a BadRecord."""
        if file.lower().endswith(".json"):
            for number, item in enumerate(json_items(tree, file), 1):
                if isinstance(item, dict):
                    item = {self._known(name, item): value for name, value in item.items()}
                self._check_columns(tree, file, number, list(item) if isinstance(item, dict) else [])
                yield number, item
            return
        read = self._read_lines if file.lower().endswith(".jsonl") else self._read_table
        try:
            with tree.open(file) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as text:
                yield from read(tree, file, text)
        except UnicodeDecodeError:
            raise InputError("not UTF-8", tree.where(file), "save it as UTF-8") from None
        except BadRecord as bad:
            raise InputError(bad.reason.replace("_", " "), tree.where(file), "check the file") from None
        except DAMAGED as error:
            raise InputError(f"cannot be read: {error}", tree.where(file), "check the file") from None

    def _read_lines(self, tree: Tree, file: str, text: io.TextIOWrapper) -> Iterator[tuple[int, Any]]:
        number = 0
        while line := text.readline(MAX_LINE):
            number += 1
            if not line.endswith("\n") and len(line) >= MAX_LINE:
                raise InputError(f"line {number} is longer than {MAX_LINE} characters", tree.where(file), "shorten it")
            if not line.strip():
                continue
            try:
                item = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield number, BadRecord("line_malformed", str(error)[:80])
                continue
            if isinstance(item, dict):
                item = {self._known(name, item): value for name, value in item.items()}
            self._check_columns(tree, file, number, list(item) if isinstance(item, dict) else [])
            yield number, item

    def _read_table(self, tree: Tree, file: str, text: io.TextIOWrapper) -> Iterator[tuple[int, Any]]:
        rows = csv.reader(text, delimiter="\t" if file.lower().endswith(".tsv") else self.delimiter, strict=True)
        try:
            names = [name.strip() for name in next(rows, [])]
            columns = [self._known(name, names) for name in names]
            self._check_columns(tree, file, 1, columns)
            for row in rows:
                if not row:
                    continue
                if len(row) != len(columns):
                    bad = BadRecord("columns_wrong", f"{len(row)} values, {len(columns)} columns")
                    yield rows.line_num, bad
                else:
                    yield rows.line_num, dict(zip(columns, row, strict=True))
        except csv.Error as error:
            raise InputError(f"line {rows.line_num}: {error}", tree.where(file), "correct the quotes") from None

    def _known(self, name: str, present: Collection[str]) -> str:
        """A column's name as the options write it, where it differs in its letters' case alone."""
        for known in (self.image, self.question, self.answer, self.split, self.type, self.id, self.options):
            if known not in present and name.casefold() == known.casefold():
                return known
        return name

    def _check_columns(self, tree: Tree, file: str, number: int, columns: list[str]) -> None:
        missing = [name for name in (self.image, self.question, self.answer) if name not in columns]
        if number == 1 and missing:
            raise InputError(
                f"no column '{missing[0]}' (found {', '.join(map(str, columns))[:120] or 'none'})",
                tree.where(file),
                f"name it, as --set image={columns[0] if columns else 'picture'}",
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
    if isinstance(value, str | int | float):
        return " ".join(str(value).split())
    raise BadRecord("answer_malformed", type(value).__name__)
