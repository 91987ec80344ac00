"""Rows of a table, whatever its form: CSV, TSV, JSON lines, a JSON list, or Parquet with the images inside."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from geozero.common.errors import BadRecord, InputError
from geozero.sources.readers.annotations import json_items, refuse_other_kind
from geozero.sources.readers.archives import DAMAGED
from geozero.sources.readers.splits import split_of_path
from geozero.sources.readers.tables import IMAGE, PATH, SUFFIX, Table, table_files
from geozero.sources.readers.tree import Tree

__all__ = ["IMAGE", "IMAGE_COLUMNS", "PATH", "SUFFIX", "SUFFIXES", "Table", "are_one_table", "other_delimiter"]
__all__ += ["read_rows", "row_files", "table_files", "texts_in"]

SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", SUFFIX)
MAX_LINE = 1 << 20  # characters
IMAGE_COLUMNS = (IMAGE, "file_name", "filename")  # where names of images are looked for, besides a user's own column
_DELIMITERS = ";\t|,"
_SHARD = re.compile(r"\d+|-of-|[^a-z0-9]+")
_TEXTS = ("raw", "caption", "text", "sentence", "en")  # where a struct holds a caption


def read_rows(
    tree: Tree, file: str, check: Callable[[list[str]], None], delimiter: str = ","
) -> Iterator[tuple[int, Any]]:
    """The rows of a file with their numbers from 1; one that cannot be read is a BadRecord.

    Args:
        check: is given the columns, or the fields of the first row where each row has its own; raises InputError.
        delimiter: between the columns of a CSV; a TSV has tabs.

    Raises:
        InputError: the file cannot be read as a whole.
    """
    lower = file.lower()
    if lower.endswith(SUFFIX):
        table = Table(tree, file)
        check([*table.columns, *([IMAGE] if table.image else [])])
        for number, row in table.rows():
            yield number + 1, row
        return
    if lower.endswith(".json"):
        for number, item in enumerate(json_items(tree, file), 1):
            if number == 1:
                check(_fields(item))
            yield number, item
        return
    try:
        with tree.open(file) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as text:
            if lower.endswith(".jsonl"):
                yield from _read_lines(tree, file, check, text)
            else:
                yield from _read_table(tree, file, check, text, "\t" if lower.endswith(".tsv") else delimiter)
    except UnicodeDecodeError:
        raise InputError("not UTF-8", tree.where(file), "save it as UTF-8") from None
    except BadRecord as bad:
        raise InputError(bad.reason.replace("_", " "), tree.where(file), "check the file") from None
    except DAMAGED as error:
        raise InputError(f"cannot be read: {error}", tree.where(file), "check the file") from None


def _read_lines(
    tree: Tree, file: str, check: Callable[[list[str]], None], text: io.TextIOWrapper
) -> Iterator[tuple[int, Any]]:
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
            refuse_other_kind(line.encode(errors="replace") if number == 1 else b"", tree.where(file))
            yield number, BadRecord("line_malformed", str(error)[:80])
            continue
        if number == 1:
            check(_fields(item))
        yield number, item


def _read_table(
    tree: Tree, file: str, check: Callable[[list[str]], None], text: io.TextIOWrapper, delimiter: str
) -> Iterator[tuple[int, Any]]:
    rows = csv.reader(text, delimiter=delimiter, strict=True)
    try:
        columns = [name.strip() for name in next(rows, [])]
        refuse_other_kind(delimiter.join(columns[:2]).encode(errors="replace"), tree.where(file))
        if re.fullmatch(r"(?i)sep=.?", columns[0] if columns else ""):
            raise InputError("the first line is a spreadsheet's 'sep='", tree.where(file), "remove that line")
        check(columns)
        twice = next((name for name in columns if name and columns.count(name) > 1), "")
        if twice:
            raise InputError(f"two columns are called '{twice}'", tree.where(file), "rename one of them")
        for row in rows:
            if row and len(row) != len(columns):
                yield rows.line_num, BadRecord("columns_wrong", f"{len(row)} values, {len(columns)} columns")
            elif row:
                yield rows.line_num, dict(zip(columns, row, strict=True))
    except csv.Error as error:
        raise InputError(f"line {rows.line_num}: {error}", tree.where(file), "correct the quotes") from None


def _fields(item: Any) -> list[str]:
    return list(item) if isinstance(item, dict) else []


def other_delimiter(columns: Sequence[str]) -> str:
    """The delimiter that a CSV seems to have where its first line is one column; empty where it is fine."""
    whole = columns[0] if len(columns) == 1 else ""
    best = max(_DELIMITERS, key=whole.count)
    return best if best in whole else ""


def row_files(tree: Tree, suffixes: Sequence[str]) -> list[str]:
    """The tables of a tree: in its top directory or one below it, Parquet files deeper, too."""
    near = [name for name in tree.names(suffixes=suffixes) if name.count("/") <= 1]
    return near + [name for name in table_files(tree) if SUFFIX in suffixes and name not in near]


def are_one_table(files: Sequence[str]) -> bool:
    """Whether files are the shards or the splits of one table: called alike but for numbers and words for splits."""
    bare = set()
    for file in files:
        parts = (part for part in _SHARD.split(file.lower().rpartition(".")[0]) if part)
        bare.add((" ".join(part for part in parts if split_of_path(part) is None), file.rpartition(".")[2].lower()))
    return len(bare) == 1


def texts_in(value: Any) -> list[str]:
    """The texts of a cell: one, several in a list, or those in the usual field of a struct or of several.

    Raises:
        BadRecord: something else.
    """
    if value is None:
        return []
    if isinstance(value, str):
        return [" ".join(value.split())]
    if isinstance(value, list):
        return [text for one in value for text in texts_in(one)]
    if isinstance(value, dict):
        inside = next((value[name] for name in _TEXTS if name in value), None)
        if inside is not None:
            return texts_in(inside)
    raise BadRecord("record_malformed", f"texts expected, found {type(value).__name__}")
