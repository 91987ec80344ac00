"""Annotation files: streamed JSON equals json.loads, malformed and hostile ones are one clear line."""

from __future__ import annotations

import io
import json
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geozero.common.errors import BadRecord, InputError
from geozero.sources.readers import annotations
from geozero.sources.readers.annotations import int_of, json_items, list_of, read_lines, read_xml, text_of
from geozero.sources.readers.archives import Member
from geozero.sources.readers.tree import Tree, open_tree

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=8,
)


class OneFile(Tree):
    """A tree that holds the given bytes under the name `f`."""

    def __init__(self, data: bytes) -> None:
        super().__init__("memory", {"f": Member(self, "f", len(data))}, [])
        self._data = data

    def open(self, name: str) -> IO[bytes]:
        return io.BytesIO(self._data)


def items(data: bytes, key: str | None = None, chunk: int = 1 << 20) -> list[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotations, "_CHUNK_BYTES", chunk)
        return list(json_items(OneFile(data), "f", key))


@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_a_streamed_list_equals_the_parsed_one(value: list[Any], chunk: int, indent: int | None, ascii_: bool) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_).encode("utf-8", "surrogatepass")
    assert items(data, chunk=chunk) == value


@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=3), st.lists(VALUES, max_size=4), st.integers(1, 9))
def test_a_streamed_key_equals_the_parsed_one(before: dict[str, Any], value: list[Any], chunk: int) -> None:
    data = json.dumps({**{f"{k}!": v for k, v in before.items()}, "images": value, "z": 1}).encode()
    assert items(data, "images", chunk) == value


@given(st.lists(VALUES, max_size=3), st.data())
def test_a_cut_list_never_passes_for_a_whole_one(value: list[Any], data: st.DataObject) -> None:
    whole = json.dumps(value).encode()
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(InputError, match="malformed annotation file"):
        items(whole[:cut], chunk=3)


@settings(max_examples=300)
@given(
    st.binary(max_size=40)
    | st.text(alphabet='[]{}",:0123456789.eE+-tfn \\u', max_size=40).map(str.encode)
    | st.lists(VALUES, max_size=2).map(lambda v: json.dumps({"images": v}).encode() + b"]")
)
def test_any_bytes_give_items_or_one_line(data: bytes) -> None:
    for key in (None, "images"):
        try:
            items(data, key, chunk=2)
        except InputError as error:
            assert "\n" not in str(error)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a list"),
        (b"{}", "not a list"),
        (b"[1 2]", "not JSON"),
        (b"[1,", "not JSON"),
        (b"[1", "the list breaks off"),
        (b"\xff\xfe[", "not UTF-8"),
        (b"[" * 100_000, "not JSON"),
        (b"[" + b"9" * 6_000 + b"]", "not JSON"),
    ],
)
def test_malformed_lists(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=f"malformed annotation file: .*{message}"):
        items(data)


def test_a_missing_key_names_the_keys_seen() -> None:
    with pytest.raises(InputError, match=r"no list 'images' \(found info, data\)"):
        items(b'{"info": {"a": 1}, "data": [1, 2]}', "images")
    with pytest.raises(InputError, match="not an object with 'images'"):
        items(b"[1]", "images")
    with pytest.raises(InputError, match="not a list"):
        items(b'{"images": 3}', "images")


def test_a_byte_order_mark_is_no_content() -> None:
    assert items(b"\xef\xbb\xbf[1]") == [1]


def test_one_item_may_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(annotations, "MAX_ITEM_CHARS", 1_000)
    with pytest.raises(InputError, match="malformed"):
        items(b'["' + b"a" * 10_000 + b'"]', chunk=100)


def test_memory_does_not_grow_with_the_list(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        path = tmp_path / f"{n}.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("f.json", json.dumps([{"id": i, "text": "x" * 900} for i in range(n)]))
        with open_tree(path) as tree:
            tracemalloc.start()
            assert sum(1 for _ in json_items(tree, "f.json")) == n
            most = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        return most

    assert peak(16_000) < 1.2 * peak(4_000) + (1 << 20)


def test_xml_is_read_and_hostile_xml_refused() -> None:
    assert read_xml(OneFile(b"<a><b>1</b></a>"), "f").findtext("b") == "1"
    bomb = '<!DOCTYPE a [<!ENTITY l0 "lol">' + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    for data in (bomb + "]><a>&l8;</a>", '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'):
        with pytest.raises(BadRecord, match="xml_unsafe"):
            read_xml(OneFile(data.encode()), "f")
    for broken in (b"", b"<a>", b"<a/><b/>", b'<?xml version="1.0" encoding="no-such"?><a/>', b"\xff\xfe"):
        with pytest.raises(BadRecord, match="xml_malformed"):
            read_xml(OneFile(broken), "f")


@given(st.binary(max_size=60) | st.text(alphabet="<>/ab&;!?-[]= \"'", max_size=60).map(str.encode))
def test_any_bytes_give_an_element_or_a_bad_record(data: bytes) -> None:
    try:
        read_xml(OneFile(data), "f")
    except BadRecord as bad:
        assert bad.reason in ("xml_malformed", "xml_unsafe")


def test_lines_and_their_numbers() -> None:
    assert read_lines(OneFile(b"\xef\xbb\xbf1\r\n\n 2 \n"), "f") == [(1, "1"), (3, "2")]
    with pytest.raises(InputError, match="not a text file"):
        read_lines(OneFile(b"\xff\xfe\x00"), "f")
    with pytest.raises(InputError, match="file missing"):
        read_lines(Tree("memory", {}, []), "f")


def test_fields_have_kinds() -> None:
    item = {"text": " a\n b ", "count": 7, "flag": True, "list": [1], "none": None}
    assert (text_of(item, "text"), text_of(item, "count")) == ("a b", "7")
    assert int_of(item, "count") == 7 and list_of(item, "list") == [1]
    for read, field in ((text_of, "flag"), (text_of, "none"), (int_of, "flag"), (int_of, "text"), (list_of, "count")):
        with pytest.raises(BadRecord, match=f"record_malformed: '{field}'"):
            read(item, field)  # type: ignore[operator]
    with pytest.raises(BadRecord, match="the item is str"):
        text_of("no object", "text")


def test_blanks_are_skipped_fast_and_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.process_time()
    assert items(b" " * (32 << 20) + b"[1," + b"\n" * (16 << 20) + b"2]") == [1, 2]
    assert time.process_time() - start < 2
    monkeypatch.setattr(annotations, "MAX_ITEM_CHARS", 1 << 20)
    with pytest.raises(InputError, match="more than 1048576 blanks in a row"):
        items(b" " * (4 << 20))


@pytest.mark.parametrize("data", [b"version https://git-lfs.github.com/spec/v1\n", b"<html><body>404"])
def test_what_stands_for_an_annotation_file_is_named(data: bytes) -> None:
    with pytest.raises(InputError, match=r"this is (a Git LFS pointer|an HTML page), not the file itself"):
        items(data)
    with pytest.raises(InputError, match=r"this is (a Git LFS pointer|an HTML page), not the file itself"):
        read_lines(OneFile(data), "f")
