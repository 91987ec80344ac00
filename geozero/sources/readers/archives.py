"""Where a tree's members lie: a directory, a zip file, a tar file. Members are listed first and never trusted.

Links in archives, links that lead out of the directory, absolute names, names with `..` and everything that is not a
regular file are left out, with the reason.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from geozero.common.errors import BadRecord, InputError
from geozero.common.file_kinds import HEAD_BYTES, SPLIT, is_part, joining, kind_of
from geozero.sources.readers.archive_members import JUNK_DIRECTORIES, is_accepted, is_junk, is_text

MAX_MEMBERS = 5_000_000  # the largest set of the field has about 1.05 million files
MAX_UNPACKED_RATIO = 200  # text packs up to about 30:1, images hardly at all; a bomb 1,000:1
MIN_UNPACKED_BYTES = 64 << 20  # below this no ratio is suspicious
MAX_LINKS = 8  # that lead to one directory
_ZIP_HEADER = 30  # bytes before a member's name
_ZIP_END_BYTES = 22 + 65_535  # the end of a zip file: its record, and the longest comment
DAMAGED = (
    OSError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
    ValueError,
    struct.error,
)


Place = tuple[Path, int]  # a file and an offset
Packed = IO[bytes] | gzip.GzipFile | bz2.BZ2File | lzma.LZMAFile


class Store(Protocol):
    """Where members lie."""

    def open(self, key: str) -> IO[bytes]: ...

    def whole(self, key: str) -> IO[bytes]:
        """A member with random access: an archive that lies in the store."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Member:
    store: Store
    key: str
    size: int


class Directory:
    """Regular files below a directory. A link is followed where its target lies below the same directory or below one
    of `follow`; other links and special files are left out.
    """

    def __init__(self, root: Path, follow: Iterable[Path] = ()) -> None:
        self._root = root
        self._top = f"{root}/"  # joined as text: as paths it is felt in ingest
        self._allowed = tuple(str(path.resolve()) for path in (root, *follow, *hub_blobs(root)))

    def index(self) -> tuple[dict[str, Member], list[tuple[str, str]]]:
        members: dict[str, Member] = {}
        ignored: list[tuple[str, str]] = []
        waiting: list[tuple[str, tuple[str, ...]]] = [("", ())]  # directory, targets of the links that led to it
        while waiting:
            prefix, links = waiting.pop()
            try:
                entries = sorted(os.scandir(self._root / prefix), key=lambda e: e.name)
            except OSError as error:
                if not prefix:
                    raise InputError(f"cannot read: {error.strerror}", str(self._root)) from None
                ignored.append((prefix, f"unreadable: {error.strerror}"))
                continue
            for entry in entries:
                name, key, followed = prefix + entry.name, prefix + entry.name, links
                if not is_text(name):
                    ignored.append((name.encode("utf-8", "replace").decode(), "name_not_utf8"))
                    continue
                if entry.is_symlink():
                    key = os.path.realpath(entry.path)
                    followed = (*links, key)
                    reason = self._refused(key, os.path.realpath(self._root / prefix), links)
                    if reason:
                        ignored.append((name, reason))
                        continue
                if entry.is_dir():
                    if entry.name not in JUNK_DIRECTORIES:
                        waiting.append((name + "/", followed))
                elif entry.is_file():
                    if not is_junk(name):
                        members[name] = Member(self, key, entry.stat().st_size)
                else:
                    ignored.append((name, "not_a_file"))
            _check_count(len(members), str(self._root))
        return members, ignored

    def _refused(self, target: str, place: str, links: tuple[str, ...]) -> str:
        """Why a link is not followed; empty where it is.

        Args:
            target: what it points to, resolved.
            place: the directory that it lies in, resolved.
            links: targets of the links that led there.
        """
        if not any(_is_below(target, allowed) for allowed in self._allowed):
            return "link"
        if not os.access(target, os.F_OK):  # Path.exists would raise for a name that is too long
            return "link_broken"
        loop = _is_below(place, target) or target in links or len(links) >= MAX_LINKS
        return "link_loop" if loop else ""

    def open(self, key: str) -> IO[bytes]:
        return io.BufferedReader(io.FileIO(key if key.startswith("/") else self._top + key))

    def whole(self, key: str) -> IO[bytes]:
        return self.open(key)

    def place(self, key: str) -> Place | None:
        return self._root / key, 0

    def close(self) -> None:
        pass


def hub_blobs(root: Path) -> list[Path]:
    """Where the links of a Hugging Face cache point to, if `root` lies in one: `datasets--…/snapshots/<revision>/…`."""
    return [path / "blobs" for path in (root, *root.parents) if path.name.startswith("datasets--")]


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory.rstrip("/") + "/")


class _Zip:
    def __init__(self, file: IO[bytes], label: str) -> None:
        self._file, self._label = file, label
        self._zip = zipfile.ZipFile(file)

    def index(self) -> tuple[dict[str, Member], list[tuple[str, str]]]:
        members: dict[str, Member] = {}
        ignored: list[tuple[str, str]] = []
        infos = self._zip.infolist()
        _check_count(len(infos), self._label)
        for info in infos:
            if not info.filename or info.is_dir() or is_junk(info.filename):
                continue
            mode, refused = info.external_attr >> 16, ""
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                refused = "link" if stat.S_ISLNK(mode) else "not_a_file"
            elif info.flag_bits & 0x1:
                refused = "encrypted"
            name = is_accepted(info.filename, refused, members, ignored)
            if name is not None:
                members[name] = Member(self, info.filename, info.file_size)
        return members, ignored

    def open(self, key: str) -> IO[bytes]:
        info = self._zip.getinfo(key)
        if info.file_size > most_unpacked(info.compress_size):
            raise BadRecord("file_too_large", f"{key}: unpacks to more than {MAX_UNPACKED_RATIO} times its size")
        return self._zip.open(info)

    def whole(self, key: str) -> IO[bytes]:
        info = self._zip.getinfo(key)
        with self._zip.open(key) as packed:
            if info.compress_type != zipfile.ZIP_STORED:
                return _copied(packed, info.compress_size, f"{self._label}/{key}")
        return io.BufferedReader(_Slice(self._file, self._start(info), info.file_size))

    def place(self, key: str) -> Place | None:
        info = self._zip.getinfo(key)
        return _on_disk(self._file, self._start(info)) if info.compress_type == zipfile.ZIP_STORED else None

    def _start(self, info: zipfile.ZipInfo) -> int:
        self._file.seek(info.header_offset)
        lengths = struct.unpack("<HH", self._file.read(_ZIP_HEADER)[-4:])  # of the name and of what else follows it
        return int(info.header_offset + _ZIP_HEADER + sum(lengths))

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class _Tar:
    """An uncompressed tar file, by the offsets of its members."""

    def __init__(self, file: IO[bytes], label: str) -> None:
        self._file, self._label = file, label
        self._places: dict[str, tuple[int, int]] = {}

    def index(self) -> tuple[dict[str, Member], list[tuple[str, str]]]:
        members: dict[str, Member] = {}
        ignored: list[tuple[str, str]] = []
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it keeps every header, a kilobyte each
                if info.isdir() or is_junk(info.name):
                    continue
                refused = ""
                if info.issym() or info.islnk():
                    refused = "link"
                elif not info.isreg() or info.issparse():
                    refused = "not_a_file"
                name = is_accepted(info.name, refused, members, ignored)
                if name is not None:
                    self._places[name] = (info.offset_data, info.size)
                    members[name] = Member(self, name, info.size)
                    _check_count(len(members), self._label)
        self._file.seek(max(0, self._file.tell() - tarfile.BLOCKSIZE))
        if any(self._file.read(tarfile.BLOCKSIZE)):  # the end is marked by blocks of zeros
            raise tarfile.ReadError("it breaks off, because the mark of its end is missing")
        return members, ignored

    def open(self, key: str) -> IO[bytes]:
        start, size = self._places[key]
        return io.BufferedReader(_Slice(self._file, start, size))

    def whole(self, key: str) -> IO[bytes]:
        return self.open(key)

    def place(self, key: str) -> Place | None:
        return _on_disk(self._file, self._places[key][0])

    def close(self) -> None:
        self._file.close()


class _Slice(io.RawIOBase):
    """A stretch of a shared file; it keeps its own position, so several may be open at once."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self.file, self.start, self._at, self._end = file, start, start, start + size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: self.start, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        self._at = min(max(base + offset, self.start), self._end)
        return self._at - self.start

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self.file.seek(self._at)
        block = self.file.read(min(len(buffer), self._end - self._at))
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)


def place_of(member: Member) -> Place | None:
    """Where a member's bytes lie on disk as they are: a file, and the offset there. None where they are packed."""
    store = member.store
    return store.place(member.key) if isinstance(store, (Directory, _Zip, _Tar)) else None


def _on_disk(file: IO[bytes], offset: int) -> Place | None:
    """A place in an open archive as one of the file on disk that holds it; None for an unnamed temporary file."""
    raw = getattr(file, "raw", file)
    while isinstance(raw, _Slice):
        offset += raw.start
        raw = getattr(raw.file, "raw", raw.file)
    name = getattr(raw, "name", None)
    return (Path(name), offset) if isinstance(name, (str, Path)) else None


def list_archive(path: Path) -> tuple[dict[str, Member], Store, list[tuple[str, str]]]:
    """The members of a zip or tar file, where they lie, and what was left out.

    Raises:
        InputError: unreadable, damaged, of another kind, too many members.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", str(path)) from None
    return list_opened(file, str(path))


def list_opened(file: IO[bytes], label: str) -> tuple[dict[str, Member], Store, list[tuple[str, str]]]:
    """As `list_archive`, of a file with random access, which is closed with the store or where it fails."""
    try:
        store = _store(file, label)
        try:
            members, ignored = store.index()
        except BaseException:
            store.close()
            raise
    except BaseException as error:
        file.close()
        if isinstance(error, (*DAMAGED, NotImplementedError)):
            raise InputError(f"the archive is damaged: {error}", label, "download it again") from None
        raise
    return members, store, ignored


def _store(file: IO[bytes], label: str) -> _Zip | _Tar:
    head = file.read(HEAD_BYTES)
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    file.seek(max(0, size - _ZIP_END_BYTES))
    _, zip_end, rest = file.read().rpartition(b"PK\x05\x06")
    last_part = bool(zip_end) and rest[:2] not in (b"\0\0", b"\xff\xff")  # its number among the parts of an archive
    if last_part or is_part(label):
        raise InputError("this is " + SPLIT, label, joining(label))
    file.seek(0)
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
        return _Zip(file, label)
    if head[257:262] == b"ustar":
        return _Tar(file, label)
    if head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\x00":
        opened = gzip.open if head[:2] == b"\x1f\x8b" else bz2.open if head[:3] == b"BZh" else lzma.open
        with file, opened(file, "rb") as packed:
            return _Tar(_copied(packed, size, label), label)
    if not size:
        raise InputError("this is an empty file", label, "download it again")
    kind, hint = kind_of(head, label) or ("no zip or tar archive", "unpack it and give the directory")
    raise InputError(f"this is {kind}", label, f"{hint}; .zip, .tar and .tar.gz are read in place")


def most_unpacked(packed: int) -> int:
    """How many bytes a packed file of so many bytes may hold: beyond that it is a bomb."""
    return max(MIN_UNPACKED_BYTES, MAX_UNPACKED_RATIO * packed)


def _copied(packed: Packed, size: int, label: str) -> IO[bytes]:
    """What a compressed file holds, as an unnamed temporary file, because it has no random access.

    Args:
        size: of the compressed file, in bytes.

    Raises:
        InputError: it unpacks to suspiciously much, or there is no room.
    """
    most = most_unpacked(size)
    out = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the tree
    try:
        while block := packed.read(1 << 20):
            if out.tell() + len(block) > most:
                raise InputError(
                    f"unpacks to more than {MAX_UNPACKED_RATIO} times its size", label, "unpack it yourself"
                )
            try:
                out.write(block)
            except OSError as error:
                raise InputError(
                    f"cannot unpack: {error.strerror}", label, "set TMPDIR to a larger disk, or unpack it"
                ) from None
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out


def _check_count(count: int, label: str) -> None:
    if count > MAX_MEMBERS:
        raise InputError(f"more than {MAX_MEMBERS} files", label, "give the data set's own directory")
