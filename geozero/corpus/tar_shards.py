"""Image shards as tar files, which tar and WebDataset read too: `<image_id>.jpg` or `.png`, one member per image."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import IO

_BLOCK = tarfile.BLOCKSIZE
_PNG = b"\x89PNG"


class TarShards:
    """Writes `images-00000.tar`, `images-00001.tar`, …; the same images give the same bytes.

    Args:
        directory: where to write.
        shard_bytes: a shard ends where it reaches this size.
    """

    def __init__(self, directory: Path, shard_bytes: int) -> None:
        self._directory, self._shard_bytes = directory, shard_bytes
        self._file: IO[bytes] | None = None
        self._at = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self.finished: dict[str, tuple[int, str]] = {}  # name → size and hash

    @property
    def name(self) -> str:
        """Of the shard that the next image goes to."""
        return f"images-{len(self.finished):05d}.tar"

    def add(self, image_id: str, data: bytes) -> tuple[str, int]:
        """Append an image; the name of its shard and the offset of its bytes there."""
        if self._file is None:
            self._file = (self._directory / self.name).open("wb")
        name = self.name
        header = _header(f"{image_id}.{'png' if data[:4] == _PNG else 'jpg'}".encode(), len(data))
        offset = self._at + len(header)
        self._write(b"".join((header, data, bytes(-len(data) % _BLOCK))))
        if self._at >= self._shard_bytes:
            self.close()
        return name, offset

    def close(self) -> None:
        """End the shard, if one is open."""
        if self._file is not None:
            self._write(bytes(2 * _BLOCK))
            file, self._file = self._file, None
            file.close()
            self.finished[f"images-{len(self.finished):05d}.tar"] = (self._at, self._hash.hexdigest())
            self._at, self._hash = 0, hashlib.blake2b(digest_size=16)

    def abandon(self) -> None:
        """Close the file as it is."""
        if self._file is not None:
            file, self._file = self._file, None
            file.close()

    def _write(self, data: bytes) -> None:
        assert self._file is not None
        self._file.write(data)
        self._hash.update(data)
        self._at += len(data)


def _header(name: bytes, size: int) -> bytes:
    """As `tarfile.TarInfo.tobuf` writes it for a short name and a size below 8 GB, in a tenth of the time."""
    digits = b"%011o" % size
    checksum = _EMPTY_SUM + sum(name) + sum(digits) - sum(_EMPTY[_SIZE])
    header = bytearray(_EMPTY)
    header[: len(name)], header[_SIZE], header[_CHECKSUM] = name, digits, b"%06o" % checksum
    return bytes(header)


_SIZE, _CHECKSUM = slice(124, 135), slice(148, 154)  # fields of a header
_EMPTY = tarfile.TarInfo("").tobuf(tarfile.USTAR_FORMAT)
_EMPTY_SUM = int(_EMPTY[_CHECKSUM], 8)
