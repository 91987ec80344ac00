"""Safe reading of annotation files: JSON lists item by item in bounded memory, XML without entities, text lines."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from geozero.common.errors import BadRecord, InputError
from geozero.common.file_kinds import HEAD_BYTES, kind_of
from geozero.sources.readers.archives import DAMAGED
from geozero.sources.readers.tree import Tree

MAX_ITEM_CHARS = 64 << 20  # of one JSON item; the largest of the field are dialogues of some 100 kB
MAX_XML_BYTES = 16 << 20
MAX_LINES_BYTES = 256 << 20
_CHUNK_BYTES = 1 << 20
_NO_SPACE = re.compile(r"[^ \t\r\n]")
_LONGEST_TAIL = 3  # "1e+" reads as the number 1 while its exponent is still to come


def json_items(tree: Tree, name: str, key: str | None = None) -> Iterator[Any]:
    """Stream the items of a JSON list: the whole file's, or the one under `key` of the object that the file holds.

    Raises:
        InputError: missing or damaged file, not JSON, no such list.
    """
    where = tree.where(name)
    try:
        file = tree.open(name)
    except BadRecord as bad:
        raise _needed(bad, where) from None
    with file:
        reader = _JsonReader(file, where)
        if key is not None:
            reader.enter(key)
        yield from reader.items()


def json_groups(tree: Tree, name: str) -> Iterator[tuple[str, Any]]:
    """Stream the items of an object of lists, such as `{"airplane": [{…}, …], …}`, each with the name of its list.

    Raises:
        InputError: as `json_items`.
    """
    where = tree.where(name)
    try:
        file = tree.open(name)
    except BadRecord as bad:
        raise _needed(bad, where) from None
    with file:
        yield from _JsonReader(file, where).groups()


def _needed(bad: BadRecord, where: str) -> InputError:
    detail = bad.detail.rpartition(": ")[2]
    why = f": {detail}" if detail and bad.reason != "file_missing" else ""
    return InputError(bad.reason.replace("_", " ") + why, where, "the data set needs this file")


class _JsonReader:
    """Decodes one value after the other from a growing window of the text."""

    def __init__(self, file: IO[bytes], where: str) -> None:
        self._file, self._where = file, where
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._json = json.JSONDecoder()
        self._text, self._at, self._ended, self._head = "", 0, False, b""

    def enter(self, key: str) -> None:
        """Go to the value of `key` in the object at the top."""
        seen: list[str] = []
        if self._next() != "{":
            raise self._bad(f"not an object with '{key}'")
        self._at += 1
        while self._next() != "}":
            name = self._value()
            if not isinstance(name, str) or self._next() != ":":
                raise self._bad("not JSON")
            self._at += 1
            if name == key:
                return
            seen.append(name[:40])
            if self._next() == "[":  # may be long: never whole in memory
                for _ in self.items():
                    pass
            else:
                self._value()
            if self._next() == ",":
                self._at += 1
            elif self._next() != "}":
                raise self._bad("not JSON")
        raise self._bad(f"no list '{key}' (found {', '.join(seen[:6]) or 'nothing'})")

    def groups(self) -> Iterator[tuple[str, Any]]:
        """The items of all lists of the object that comes next, with their names."""
        if self._next() != "{":
            raise self._bad("not an object of lists")
        self._at += 1
        while (mark := self._next()) != "}":
            name = self._value()
            if not isinstance(name, str) or self._next() != ":":
                raise self._bad("not JSON")
            self._at += 1
            for item in self.items():
                yield name, item
            mark = self._next()
            if mark == ",":
                self._at += 1
            elif mark != "}":
                raise self._bad("the object breaks off" if not mark else "not JSON")

    def items(self) -> Iterator[Any]:
        """The items of the list that comes next."""
        if self._next() != "[":
            raise self._bad("not a list")
        self._at += 1
        if self._next() == "]":
            self._at += 1
            return
        while True:
            yield self._value()
            mark = self._next()
            self._at += 1
            if mark == "]":
                return
            if mark != ",":
                raise self._bad("the list breaks off" if not mark else "not JSON")

    def _next(self) -> str:
        """The next character that is no white space; empty at the end of the file."""
        blanks = 0
        while True:
            found = _NO_SPACE.search(self._text, self._at)
            if found is not None:
                self._at = found.start()
                return found[0]
            blanks += len(self._text) - self._at
            self._at = len(self._text)
            if blanks > MAX_ITEM_CHARS:
                raise self._bad(f"more than {MAX_ITEM_CHARS} blanks in a row")
            if not self._more(_CHUNK_BYTES):
                return ""

    def _value(self) -> Any:
        self._next()
        while True:
            pending = len(self._text) - self._at
            try:
                value, end = self._json.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                # cut off by the window, or really wrong: only more text can tell
                if isinstance(error, RecursionError) or pending > MAX_ITEM_CHARS or not self._more(pending):
                    raise self._bad(f"not JSON: {error}"[:120]) from None
                continue
            if end + _LONGEST_TAIL > len(self._text) and self._more(_CHUNK_BYTES):
                continue  # a number may go on beyond the window
            self._at = end
            return value

    def _more(self, wanted: int) -> bool:
        """Drop what is read and take in more text; doubling keeps long items cheap. False at the end of the file."""
        while not self._ended:
            try:
                block = self._file.read(max(wanted, _CHUNK_BYTES))
                self._head = self._head or block[:HEAD_BYTES]
                text = self._utf8.decode(block, final=not block)
            except UnicodeDecodeError:
                raise self._bad("not UTF-8") from None
            except DAMAGED as error:
                raise self._bad(f"cannot be read: {error}") from None
            self._ended = not block
            if text:
                self._text, self._at = self._text[self._at :] + text, 0
                return True
        return False

    def _bad(self, what: str) -> InputError:
        kind = kind_of(self._head)
        if kind is not None:
            return InputError(f"malformed annotation file: this is {kind[0]}", self._where, kind[1])
        return InputError(f"malformed annotation file: {what}", self._where, "download it again")


def read_xml(tree: Tree, name: str) -> Element:
    """The root element of an XML file; entities and external references are refused.

    Raises:
        BadRecord: missing, too large, not well formed, or holding an entity declaration.
    """
    data = tree.read(name, MAX_XML_BYTES)
    try:
        root: Element = fromstring(data)
    except DefusedXmlException as error:
        raise BadRecord("xml_unsafe", f"{name}: {type(error).__name__}") from None
    except (ParseError, LookupError, ValueError) as error:
        kind = kind_of(data[:HEAD_BYTES])
        raise BadRecord("xml_malformed", f"{name}: {kind[0] if kind else error}") from None
    return root


def read_lines(tree: Tree, name: str) -> list[tuple[int, str]]:
    """The lines of a text file that are not blank, stripped, with their numbers from 1.

    Raises:
        InputError: missing, too large, or not UTF-8.
    """
    try:
        text = tree.read(name, MAX_LINES_BYTES).decode("utf-8-sig")
    except BadRecord as bad:
        raise _needed(bad, tree.where(name)) from None
    except UnicodeDecodeError:
        raise InputError("not a text file", tree.where(name), "download it again") from None
    refuse_other_kind(text[:HEAD_BYTES].encode(), tree.where(name))
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]


def refuse_other_kind(head: bytes, where: str) -> None:
    """Raise InputError for a file whose first bytes say that it is no annotation file but what stands for one."""
    kind = kind_of(head)
    if kind is not None:
        raise InputError(f"this is {kind[0]}", where, kind[1])


def text_of(item: Any, field: str) -> str:
    """The text of a field, white space collapsed; whole numbers become text.

    Raises:
        BadRecord: `item` is no object, the field is missing, or neither text nor a whole number.
    """
    value = _field(item, field)
    if isinstance(value, str):
        return " ".join(value.split())
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise BadRecord("record_malformed", f"'{field}' is {_kind(value)}, expected text")


def int_of(item: Any, field: str) -> int:
    """The whole number of a field.

    Raises:
        BadRecord: as `text_of`, or not a whole number.
    """
    value = _field(item, field)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadRecord("record_malformed", f"'{field}' is {_kind(value)}, expected a whole number")


def list_of(item: Any, field: str) -> list[Any]:
    """The list of a field.

    Raises:
        BadRecord: as `text_of`, or not a list.
    """
    value = _field(item, field)
    if isinstance(value, list):
        return value
    raise BadRecord("record_malformed", f"'{field}' is {_kind(value)}, expected a list")


def size_of(item: Any, width: str = "width", height: str = "height") -> tuple[int, int] | None:
    """Width and height that an item gives its image, as numbers or as texts; None where they are no whole numbers above
    0."""
    wide, high = (_whole(_field(item, side)) for side in (width, height))
    return (wide, high) if wide > 0 and high > 0 else None


def _whole(value: Any) -> int:
    """A whole number that may be written as a float or a text; 0 for anything else."""
    if isinstance(value, str) and re.fullmatch(r"\s*\d{1,9}(\.0*)?\s*", value, re.ASCII):
        value = float(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else 0
    return value if type(value) is int else 0


def _field(item: Any, field: str) -> Any:
    if not isinstance(item, dict):
        raise BadRecord("record_malformed", f"the item is {_kind(item)}, expected an object")
    return item.get(field)


def _kind(value: Any) -> str:
    return "missing" if value is None else type(value).__name__
