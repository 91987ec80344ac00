"""Where each image of a corpus lies: an index in files of fixed-width entries, sorted by id, that all processes share.

`image-ids.npy` holds the first half of each id as a number and is memory-mapped; `image-places.npy` holds the entry
in the same row, of which one is read at a time; `image-files.arrow` lists the files, and is memory-mapped.
"""

from __future__ import annotations

import io
import os
import struct
import weakref
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from geozero.common.errors import InputError
from geozero.corpus.layout import AGAIN, IMAGE_FILES, IMAGE_IDS, IMAGE_PLACES, readable

ENTRY = np.dtype(
    [
        ("high", "<u8"),  # first and second half of the id
        ("low", "<u8"),
        ("offset", "<u8"),
        ("checksum", "<u8"),  # XXH3-64 of the image's bytes
        ("file", "<u4"),  # row of the file table
        ("length", "<u4"),
        ("width", "<u4"),
        ("height", "<u4"),
    ]
)
FILE_SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # relative to the corpus, or absolute
        pa.field("size", pa.int64(), nullable=False),
        pa.field("hash", pa.string(), nullable=False),  # BLAKE2b-128, or "" of a user's own file
    ]
)
READ_AHEAD_BYTES = 64 << 20  # of an index: 1.4 million images
_ENTRY = struct.Struct("<QQQQIIII")
_ID_LENGTH = 32
Entries = npt.NDArray[np.void]


class Place(NamedTuple):
    """A stretch of a file that is an image.

    Attributes:
        row: of the index.
        file: row of the file table.
        checksum: XXH3-64 of the bytes.
    """

    row: int
    file: int
    offset: int
    length: int
    checksum: int
    width: int
    height: int


def halves(image_id: str) -> tuple[int, int]:
    """An id as two numbers.

    Raises:
        KeyError: it is no content hash, so no corpus holds such an image.
    """
    try:
        value = int(image_id, 16)
    except ValueError:
        raise KeyError(image_id) from None
    if len(image_id) != _ID_LENGTH:
        raise KeyError(image_id)
    return value >> 64, value & (1 << 64) - 1


def packed_entry(image_id: str, file: int, offset: int, length: int, checksum: int, size: tuple[int, int]) -> bytes:
    """One entry of the index; `size` is width and height."""
    return _ENTRY.pack(*halves(image_id), offset, checksum, file, length, *size)


def write_index(directory: Path, entries: Entries, files: Sequence[tuple[str, int, str]]) -> None:
    """Write the three files of an index.

    Args:
        entries: of `ENTRY`, in any order; each id once.
        files: path, size and hash of each file.
    """
    ordered = entries[np.lexsort((entries["low"], entries["high"]))]
    np.save(directory / IMAGE_IDS, np.ascontiguousarray(ordered["high"]))
    np.save(directory / IMAGE_PLACES, ordered)
    columns = list(zip(*files, strict=True)) or [()] * len(FILE_SCHEMA)
    table = pa.table([pa.array(c, f.type) for c, f in zip(columns, FILE_SCHEMA, strict=True)], schema=FILE_SCHEMA)
    with pa.OSFile(str(directory / IMAGE_FILES), "wb") as sink, pa.ipc.new_file(sink, FILE_SCHEMA) as writer:
        writer.write_table(table.combine_chunks())


class ImageIndex:
    """`image_id` → place, for many threads and forked workers: no lock, no shared file position, nothing kept.

    A look-up is a binary search in the mapped ids (8 bytes per image) and one read of 48 bytes. Opening it reads next
    to nothing, whatever the number of images.

    Args:
        n: how many images the manifest promises.

    Raises:
        InputError: the files are damaged, or do not belong together.
    """

    def __init__(self, directory: Path, n: int) -> None:
        self._directory = directory
        ids, self._start = self._array(IMAGE_IDS, np.dtype("<u8"), n)
        mapped = np.memmap(ids, np.uint64, "r", self._start, n) if n else np.empty(0, np.uint64)
        self._ids = memoryview(mapped)  # type: ignore[arg-type]
        places, self._start = self._array(IMAGE_PLACES, ENTRY, n)
        with readable(places):
            self._places = os.open(places, os.O_RDONLY | os.O_CLOEXEC)
            if n * ENTRY.itemsize <= READ_AHEAD_BYTES:  # in one go, or each look-up in a cold index waits for the disk
                os.posix_fadvise(self._places, 0, 0, os.POSIX_FADV_WILLNEED)
        weakref.finalize(self, os.close, self._places)
        files = directory / IMAGE_FILES
        with readable(files):
            self.files = pa.ipc.open_file(pa.memory_map(str(files))).read_all()
            self.files.validate(full=True)
        self._check(files, self.files.schema == FILE_SCHEMA and not any(c.null_count for c in self.files.columns))

    def _array(self, name: str, dtype: np.dtype[Any], n: int) -> tuple[Path, int]:
        """A file of `n` entries as NumPy saves it, and where they start. Any other file is refused unparsed."""
        path, header = self._directory / name, io.BytesIO()
        described = {"descr": dtype.descr if dtype.names else dtype.str, "fortran_order": False, "shape": (n,)}
        np.lib.format.write_array_header_1_0(header, described)  # type: ignore[no-untyped-call]
        expected = header.getvalue()
        with readable(path), path.open("rb") as file:
            found = file.read(len(expected))
            size = file.seek(0, os.SEEK_END)
        self._check(path, found == expected and size == len(expected) + n * dtype.itemsize)
        return path, len(expected)

    def _check(self, path: Path, sound: bool) -> None:
        if not sound:
            raise InputError("unreadable shard: not the index of this corpus", str(path), AGAIN)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, image_id: str) -> bool:
        try:
            self.find(image_id)
        except KeyError:
            return False
        return True

    def find(self, image_id: str) -> Place:
        """Raises KeyError where the corpus holds no such image."""
        high, low = halves(image_id)
        row = bisect_left(self._ids, high)
        while row < len(self._ids) and self._ids[row] == high:
            entry = os.pread(self._places, _ENTRY.size, self._start + row * _ENTRY.size)
            _, found, offset, checksum, file, length, width, height = _ENTRY.unpack(entry)
            if found == low:
                return Place(row, file, offset, length, checksum, width, height)
            row += 1
        raise KeyError(image_id)

    def entries_of(self, image_ids: Sequence[str]) -> Entries:
        """The entries of many images, in their order; raises KeyError as `find`."""
        keys = np.array([halves(image_id) for image_id in image_ids], np.uint64).reshape(-1, 2)
        rows = np.searchsorted(np.asarray(self._ids), keys[:, 0])
        if not len(self):
            return np.array([self.find(image_id) for image_id in image_ids], ENTRY)
        mapped: Entries = np.memmap(self._directory / IMAGE_PLACES, ENTRY, "r", self._start, len(self))
        found: Entries = np.array(mapped[np.minimum(rows, len(mapped) - 1)])
        for at in np.flatnonzero((found["low"] != keys[:, 1]) | (found["high"] != keys[:, 0])):
            found[at] = mapped[self.find(image_ids[at]).row]  # ids that begin alike: hardly ever
        return found
