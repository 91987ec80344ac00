"""Where a tree's members lie: a directory, a zip file, a tar file. Members are listed first and never trusted.

Links, absolute names, names with `..` and everything that is not a regular file are left out, with the reason.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from geozero.errors import InputError

MAX_MEMBERS = 5_000_000  # the largest set of the field has about 1.05 million files
MAX_UNPACKED_RATIO = 200  # text packs up to about 30:1, pictures hardly at all; a bomb 1,000:1
MIN_UNPACKED_BYTES = 64 << 20  # below this no ratio is suspicious
_JUNK_DIRECTORIES = ("__MACOSX", ".git", ".ipynb_checkpoints")
_JUNK_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, ValueError)


class Store(Protocol):
    """Where members lie."""

    def open(self, key: str) -> IO[bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Member:
    store: Store
    key: str
    size: int


class Directory:
    """Regular files below a directory; links and special files are left out."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def index(self) -> tuple[dict[str, Member], list[tuple[str, str]]]:
        members: dict[str, Member] = {}
        ignored: list[tuple[str, str]] = []
        waiting = [""]
        while waiting:
            prefix = waiting.pop()
            try:
                entries = sorted(os.scandir(self._root / prefix), key=lambda e: e.name)
            except OSError as error:
                if not prefix:
                    raise InputError(f"cannot read: {error.strerror}", str(self._root)) from None
                ignored.append((prefix, f"unreadable: {error.strerror}"))
                continue
            for entry in entries:
                name = prefix + entry.name
                if not _is_text(name):
                    ignored.append((name.encode("utf-8", "replace").decode(), "name_not_utf8"))
                elif entry.is_symlink():
                    ignored.append((name, "link"))
                elif entry.is_dir(follow_symlinks=False):
                    if entry.name not in _JUNK_DIRECTORIES:
                        waiting.append(name + "/")
                elif entry.is_file(follow_symlinks=False):
                    if not _is_junk(name):
                        members[name] = Member(self, name, entry.stat(follow_symlinks=False).st_size)
                else:
                    ignored.append((name, "not_a_file"))
            _check_count(len(members), str(self._root))
        return members, ignored

    def open(self, key: str) -> IO[bytes]:
        return io.BufferedReader(io.FileIO(f"{self._root}/{key}"))

    def close(self) -> None:
        pass


class _Zip:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def index(self) -> tuple[dict[str, Member], list[tuple[str, str]]]:
        members: dict[str, Member] = {}
        ignored: list[tuple[str, str]] = []
        infos = self._zip.infolist()
        _check_count(len(infos), str(self._zip.filename))
        for info in infos:
            if info.is_dir() or _is_junk(info.filename):
                continue
            mode, refused = info.external_attr >> 16, ""
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                refused = "link" if stat.S_ISLNK(mode) else "not_a_file"
            elif info.flag_bits & 0x1:
                refused = "encrypted"
            name = _taken(info.filename, refused, members, ignored)
            if name is not None:
                members[name] = Member(self, info.filename, info.file_size)
        return members, ignored

    def open(self, key: str) -> IO[bytes]:
        return self._zip.open(key)

    def close(self) -> None:
        self._zip.close()


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
                if info.isdir() or _is_junk(info.name):
                    continue
                refused = ""
                if info.issym() or info.islnk():
                    refused = "link"
                elif not info.isreg() or info.issparse():
                    refused = "not_a_file"
                name = _taken(info.name, refused, members, ignored)
                if name is not None:
                    self._places[name] = (info.offset_data, info.size)
                    members[name] = Member(self, name, info.size)
                    _check_count(len(members), self._label)
        return members, ignored

    def open(self, key: str) -> IO[bytes]:
        start, size = self._places[key]
        return io.BufferedReader(_Slice(self._file, start, size))

    def close(self) -> None:
        self._file.close()


def _taken(raw: str, refused: str, members: Mapping[str, Member], ignored: list[tuple[str, str]]) -> str | None:
    """The clean name under which a member is taken; None where it is not, and why in `ignored`."""
    name = clean_name(raw)
    reason = "unsafe_name" if name is None else refused or ("name_twice" if name in members else "")
    if reason:
        ignored.append((_shown(raw), reason))
        return None
    return name


class _Slice(io.RawIOBase):
    """A stretch of a shared file; it keeps its own position, so several may be open at once."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        self._file, self._at, self._end = file, start, start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._at)
        block = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(block)] = block
        self._at += len(block)
        return len(block)


def list_archive(path: Path) -> tuple[dict[str, Member], Store, list[tuple[str, str]]]:
    try:
        with path.open("rb") as file:
            head = file.read(262)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", str(path)) from None
    store: _Zip | _Tar | None = None
    try:
        if head[:4] in (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"):
            store = _Zip(path)
        elif head[257:262] == b"ustar":
            store = _Tar(path.open("rb"), str(path))
        elif head[:2] == b"\x1f\x8b" or head[:3] == b"BZh" or head[:6] == b"\xfd7zXZ\x00":
            store = _Tar(_unpacked(path, head), str(path))
        else:
            kind = {b"Rar!": "a RAR archive", b"7z\xbc\xaf": "a 7z archive"}.get(head[:4], "no zip or tar archive")
            raise InputError(
                f"this is {kind}", str(path), "unpack it and give the directory; .zip, .tar and .tar.gz are read"
            )
        members, ignored = store.index()
    except (*DAMAGED, NotImplementedError) as error:
        if store is not None:
            store.close()
        raise InputError(f"the archive is damaged: {error}", str(path), "download it again") from None
    return members, store, ignored


def _unpacked(path: Path, head: bytes) -> IO[bytes]:
    """The tar inside a compressed file, as an unnamed temporary file."""
    most = max(MIN_UNPACKED_BYTES, MAX_UNPACKED_RATIO * path.stat().st_size)
    opened = gzip.open if head[:2] == b"\x1f\x8b" else bz2.open if head[:3] == b"BZh" else lzma.open
    out = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the tree
    try:
        with opened(path, "rb") as packed:
            while block := packed.read(1 << 20):
                if out.tell() + len(block) > most:
                    raise InputError(
                        f"unpacks to more than {MAX_UNPACKED_RATIO} times its size", str(path), "unpack it yourself"
                    )
                try:
                    out.write(block)
                except OSError as error:
                    raise InputError(
                        f"cannot unpack: {error.strerror}", str(path), "set TMPDIR to a larger disk, or unpack it"
                    ) from None
    except BaseException:
        out.close()
        raise
    out.seek(0)
    return out


def clean_name(raw: str) -> str | None:
    """A member's name as a relative POSIX path; None for an absolute one, one with `..`, or one that is no text."""
    name = raw.replace("\\", "/")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or ".." in parts or name.startswith("/") or parts[0][1:2] == ":" or "\0" in name:
        return None
    return "/".join(parts) if _is_text(name) else None


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(name: str) -> str:
    return name.encode("utf-8", "replace").decode()[:200]


def _is_junk(name: str) -> bool:
    """What operating systems leave behind; no data set's file."""
    parts = name.split("/")
    return parts[-1] in _JUNK_FILES or parts[-1].startswith("._") or any(p in _JUNK_DIRECTORIES for p in parts[:-1])


def _check_count(count: int, label: str) -> None:
    if count > MAX_MEMBERS:
        raise InputError(f"more than {MAX_MEMBERS} files", label, "give the data set's own directory")
