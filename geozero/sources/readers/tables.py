"""Parquet files as the Hugging Face hub holds them: rows with their image inside, labels as numbers of named classes.

    image    {"bytes": …, "path": "airport_1.jpg"}, or the bytes alone, or a list of one; without bytes the path's file
    label    3, whose name stands in the schema's metadata: {"info": {"features": {"label": {"names": […]}}}}

Every other column is a value, a list or a struct. Images are read row by row, a few at a time, whatever the size of the
file; the rows themselves are read without them.
"""

from __future__ import annotations

import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from geozero.common.errors import BadRecord, InputError
from geozero.common.file_kinds import HEAD_BYTES, kind_of
from geozero.sources.readers.archives import MAX_UNPACKED_RATIO, Member, most_unpacked
from geozero.sources.readers.image_files import ImageFiles
from geozero.sources.readers.splits import split_named
from geozero.sources.readers.tree import MAX_DEPTH, MAX_IMAGE_BYTES, Tree

SUFFIX = ".parquet"
IMAGE = "image"  # under this name a row holds the member of its image, whatever the column is called
PATH = "image_path"  # … and the image's own name, where the file has it
_IMAGE_COLUMNS = ("image", "img", "jpg", "png", "tif", "picture", "pixel_values", "images")  # of plain bytes
_SHARD = re.compile(r"(.*)-(\d{4,6})-of-(\d{4,6})(\D*)")
_COPY = re.compile(r"(.*?)(?: - Copy)?(?: ?\(\d+\))?(\.\w+)")  # as browsers and desktops name a second one
_ROWS_AT_ONCE, _IMAGES_AT_ONCE = 1_024, 8
_BUFFER_BYTES = 1 << 20
_DAMAGED = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, OverflowError)


def table_files(tree: Tree) -> list[str]:
    """The Parquet files of a tree, at most `MAX_DEPTH` levels down."""
    return [name for name in tree.names(suffixes=(SUFFIX,)) if name.count("/") <= MAX_DEPTH]


def table_place(file: str) -> str:
    """The directory of a data set that a Parquet file belongs to: its own, without one for the split."""
    place = file.rpartition("/")[0]
    above, _, last = place.rpartition("/")
    return above if split_named(last) else place


def check_whole(tree: Tree, files: Sequence[str]) -> None:
    """Stop at tables that are not the shards and splits of one data set.

    Raises:
        InputError: a shard is missing, a file is the copy of another, or the files lie in several directories.
    """
    shards: dict[tuple[str, str, str], set[int]] = defaultdict(set)
    for file in files:
        if shard := _SHARD.fullmatch(file):
            before, number, total, after = shard.groups()
            shards[before, total, after].add(int(number))
        copy = _COPY.fullmatch(file)
        if copy and (original := "".join(copy.groups())) != file and original in files:
            raise InputError(f"'{file}' seems to be a copy of '{original}'", tree.where(), "remove one of them")
    for (before, total, after), numbers in shards.items():
        if missing := sorted(set(range(int(total))) - numbers):
            name = f"{before}-{missing[0]:0{len(total)}}-of-{total}{after}"
            raise InputError(
                f"{len(missing)} of {int(total)} shards are missing, such as {name}", tree.where(), "download it again"
            )
    places = sorted({table_place(file) or "." for file in files if file.lower().endswith(SUFFIX)})
    if len(places) > 1:
        raise InputError(
            f"tables of several data sets, or of several configurations of one: in {', '.join(places[:4])}",
            tree.where(),
            "give the right directory as --root",
        )


@dataclass(slots=True)
class Table:
    """One Parquet file.

    Attributes:
        image: the column of images, empty where there is none.
        names: column → the names of its classes.
        columns: the other columns.
    """

    tree: Tree
    file: str
    image: str = ""
    names: dict[str, list[str]] = field(default_factory=dict)
    columns: list[str] = field(default_factory=list)
    n_rows: int = 0
    _has_path: bool = False

    def __post_init__(self) -> None:
        """Read the schema.

        Raises:
            InputError: no Parquet file, or a damaged one.
        """
        with self._opened() as parquet:
            schema = parquet.schema_arrow
            self.n_rows = parquet.metadata.num_rows
            for column in schema:
                if not self.image and _holds_images(column):
                    self.image = column.name
                    self._has_path = pa.types.is_struct(column.type) and column.type.get_field_index("path") >= 0
                else:
                    self.columns.append(column.name)
            self.names = _class_names(schema.metadata or {})

    def rows(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """The rows with their numbers from 0: each column's value, classes by name, `image` and `image_path`.

        Raises:
            InputError: the file is damaged.
        """
        store = _Images(self) if self.image else None
        if store is not None:
            self.tree.keep(store)
        selected = [*self.columns, *([f"{self.image}.path"] if self._has_path else [])]
        number = 0
        with self._opened() as parquet:
            try:
                for batch in parquet.iter_batches(_ROWS_AT_ONCE, columns=selected):
                    listed = batch.to_pylist() if selected else [{}] * batch.num_rows
                    for row in listed:
                        inside = row.pop(self.image, None) if self._has_path else None
                        for column, names in self.names.items():
                            if column in row:
                                row[column] = _name_of(row[column], names)
                        if store is not None:
                            place = f"{self.file}/{number:08}"
                            row[IMAGE] = self.tree.add(place, Member(store, str(number), 0))
                            path = inside.get("path") if isinstance(inside, dict) else None
                            row.setdefault(PATH, path if isinstance(path, str) else "")
                        yield number, row
                        number += 1
            except _DAMAGED as error:
                raise self._damaged(error) from None

    def _opened(self) -> pq.ParquetFile:
        try:
            file = self.tree.open_whole(self.file)
            head = file.read(HEAD_BYTES)
            kind = kind_of(head)
            if kind is not None:
                raise InputError(f"this is {kind[0]}", self.tree.where(self.file), kind[1])
            file.seek(0)
            return pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
        except BadRecord as bad:
            raise InputError(bad.reason.replace("_", " "), self.tree.where(self.file), "check --root") from None
        except _DAMAGED as error:
            raise self._damaged(error) from None

    def _damaged(self, error: Exception) -> InputError:
        what = str(error).strip().partition("\n")[0][:120]
        return InputError(f"no Parquet file, or a damaged one: {what}", self.tree.where(self.file), "download it again")


def sound_tables(tree: Tree) -> Iterator[Table]:
    """The Parquet files of a tree that can be read; messages name the others."""
    for file in table_files(tree):
        try:
            yield Table(tree, file)
        except InputError as error:
            tree.pass_over(file, error)


class _Images:
    """The images of a table as members of its tree; rows are best asked for in their order."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._parquet: pq.ParquetFile | None = None
        self._rows: Iterator[Any] = iter(())
        self._next = 0
        self._files: ImageFiles | None = None

    def open(self, key: str) -> IO[bytes]:
        return io.BytesIO(self._bytes(int(key)))

    def whole(self, key: str) -> IO[bytes]:
        return self.open(key)

    def close(self) -> None:
        if self._parquet is not None:
            self._parquet.close()

    def _bytes(self, number: int) -> bytes:
        try:
            if number < self._next or self._parquet is None or not self._is_near(number):
                self._start_at(number)
            value: Any = None
            while self._next <= number:
                value = next(self._rows)
                self._next += 1
            value = value.as_py()
        except (*_DAMAGED, StopIteration) as error:
            self._next = self._table.n_rows + 1  # start anew
            raise BadRecord("file_unreadable", f"row {number}: {error}"[:200]) from None
        if isinstance(value, list):
            if len(value) != 1:
                raise BadRecord("file_missing", f"row {number} holds {len(value)} images, expected one")
            value = value[0]
        data = value.get("bytes") if isinstance(value, dict) else value
        if data is None and isinstance(value, dict) and isinstance(value.get("path"), str):
            tree = self._table.tree
            self._files = self._files or ImageFiles(tree)
            return tree.read(self._files.find(value["path"], place=self._table.file.rpartition("/")[0]))
        if not isinstance(data, bytes):
            raise BadRecord("file_missing", f"row {number} holds no image")
        if len(data) > MAX_IMAGE_BYTES:
            raise BadRecord("file_too_large", f"row {number}: more than {MAX_IMAGE_BYTES} bytes")
        return data

    def _is_near(self, number: int) -> bool:
        """Whether reading on is no dearer than to look the row group up."""
        return number - self._next <= _IMAGES_AT_ONCE or self._group(number)[0] == self._group(self._next)[0]

    def _group(self, number: int) -> tuple[int, int]:
        """The row group of a row, and the number of its first row."""
        assert self._parquet is not None
        first = 0
        for group in range(self._parquet.num_row_groups):
            rows = self._parquet.metadata.row_group(group).num_rows
            if number < first + rows:
                return group, first
            first += rows
        return self._parquet.num_row_groups, first

    def _start_at(self, number: int) -> None:
        if self._parquet is None:
            self._parquet = self._table._opened()
        group, self._next = self._group(number)
        self._rows = self._read_from(group)

    def _read_from(self, group: int) -> Iterator[Any]:
        assert self._parquet is not None
        for one in range(group, self._parquet.num_row_groups):
            about = self._parquet.metadata.row_group(one)
            columns = [about.column(k) for k in range(about.num_columns)]
            own = [c for c in columns if c.path_in_schema.split(".")[0] == self._table.image]
            if any(c.total_uncompressed_size > most_unpacked(c.total_compressed_size) for c in own):
                raise ValueError(f"unpacks to more than {MAX_UNPACKED_RATIO} times its size")
            for batch in self._parquet.iter_batches(_IMAGES_AT_ONCE, row_groups=[one], columns=[self._table.image]):
                yield from batch.column(0)


def _holds_images(column: pa.Field) -> bool:
    """Whether a column holds encoded images: a struct with bytes, or bytes under an image's name, or lists of these."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_struct(kind):
        at = kind.get_field_index("bytes")
        return at >= 0 and _is_binary(kind.field(at).type)
    return _is_binary(kind) and column.name.lower() in _IMAGE_COLUMNS


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _class_names(metadata: dict[bytes, bytes]) -> dict[str, list[str]]:
    """Column → names of its classes, as the schema's metadata give them."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {name: about.get("names") for name, about in features.items() if isinstance(about, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {name: names for name, names in found.items() if isinstance(names, list) and all(map(_is_text, names))}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _name_of(value: Any, names: list[str]) -> Any:
    """The name of a class, or of each of several; None for a number without one, such as the -1 of unlabelled rows."""
    if isinstance(value, list):
        return [_name_of(one, names) for one in value]
    if isinstance(value, int):
        return names[value] if 0 <= value < len(names) else None
    return value
