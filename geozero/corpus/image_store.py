"""The images of a corpus wherever their bytes lie: in its own tar shards, in another corpus's, in a user's files."""

from __future__ import annotations

import os
import stat
import weakref
from pathlib import Path

import xxhash

from geozero.common.errors import InputError
from geozero.corpus.image_index import ImageIndex, Place
from geozero.corpus.layout import AGAIN, file_hash
from geozero.corpus.references import References

MAX_OPEN = 128  # files that stay open; further ones are opened anew at each look


class ImageStore:
    """Reads one image at a time, for many threads and forked workers; every image is checked when it is first read.

    Args:
        directory: of the corpus.
        n: how many images its manifest promises.

    Raises:
        InputError: the index is damaged.
    """

    def __init__(self, directory: Path, n: int) -> None:
        self.index = ImageIndex(directory, n)
        self._references = References(directory)
        self._paths, self._sizes = self.index.files.column("path"), self.index.files.column("size")
        self._sound = bytearray(n)
        self._open: dict[int, int] = {}
        weakref.finalize(self, _close, self._open)

    def read(self, image_id: str) -> bytes:
        """The encoded bytes of an image.

        Raises:
            KeyError: there is no such image.
            InputError: its file is missing, damaged or not the one that the corpus was made of, or out of bounds.
        """
        place = self.index.find(image_id)
        if self._sound[place.row]:
            return self._bytes(place)
        path = self.path(place.file)  # before a size is believed
        fits = place.offset + place.length <= self._sizes[place.file].as_py()
        data = self._bytes(place) if fits else b""
        if len(data) != place.length or xxhash.xxh3_64_intdigest(data) != place.checksum:
            raise self._damaged(path, f"image {image_id} has changed")
        self._sound[place.row] = 1
        return data

    def path(self, file: int) -> str:
        """Where a file of the table lies; raises InputError as `read`."""
        if file >= len(self._paths):
            raise InputError("damaged index: an image without a file", str(self._references.corpus), AGAIN)
        return self._references.path(self._paths[file].as_py())

    def file(self, number: int) -> tuple[str, int, str]:
        """Path, size and hash ("": unknown) of a file of the table; raises InputError as `read`."""
        path, row = self.path(number), self.index.files.slice(number, 1).to_pylist()[0]
        return path, row["size"], row["hash"]

    def is_own(self, file: int) -> bool:
        """Whether a file of the table lies in the corpus's own directory."""
        return self._references.is_own(self.path(file))

    def check_file(self, file: int, newer_than: float | None = None) -> None:
        """Compare a whole file with the table: its size, and its hash if it has one.

        Args:
            newer_than: time stamp; an older file is not hashed. None: hash it in any case.

        Raises:
            InputError: it is missing or another.
        """
        handle = self._opened(file)
        try:
            touched = os.fstat(handle).st_mtime
        finally:
            if self._open.get(file) != handle:
                os.close(handle)
        expected = self.index.files.column("hash")[file].as_py()
        if expected and (newer_than is None or touched > newer_than) and file_hash(Path(self.path(file))) != expected:
            raise self._damaged(self.path(file), "it has changed")

    def _bytes(self, place: Place) -> bytes:
        handle = self._open.get(place.file)
        if handle is not None:
            return os.pread(handle, place.length, place.offset)
        handle = self._opened(place.file)
        try:
            return os.pread(handle, place.length, place.offset)
        finally:
            if self._open.get(place.file) != handle:
                os.close(handle)

    def _opened(self, file: int) -> int:
        """A file of the table, opened; it stays open while there is room."""
        path = self.path(file)
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe would wait for its writer
        except OSError as error:
            what = f"an image file cannot be read: {error.strerror}"
            raise InputError(what, path, f"{self._references.corpus} refers to it") from None
        state = os.fstat(handle)
        if not stat.S_ISREG(state.st_mode) or state.st_size != self._sizes[file].as_py():
            os.close(handle)
            raise self._damaged(path, "it has another size" if stat.S_ISREG(state.st_mode) else "it is no file")
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)  # or the system reads far more than is asked for
        if len(self._open) < MAX_OPEN and self._open.setdefault(file, handle) != handle:
            os.close(handle)  # another thread was quicker
            return self._open[file]
        return handle

    def _damaged(self, path: str, how: str) -> InputError:
        own = self._references.is_own(path)
        hint = AGAIN if own else f"{self._references.corpus} refers to it: make again what has changed"
        return InputError(f"damaged shard: {how}", path, hint)


def _close(handles: dict[int, int]) -> None:
    while handles:
        os.close(handles.popitem()[1])
