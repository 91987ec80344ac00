"""Tree: a data set's files, read in place from a directory or straight from an archive, and never trusted.

Members are found by listing, so no name from an annotation file ever becomes a path. Links, absolute names, names
with `..` and everything that is not a regular file are left out and listed in `Tree.ignored`.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Protocol

from geozero.errors import Ambiguous, BadRecord, InputError

MAX_MEMBERS = 5_000_000  # the largest set of the field has about 1.05 million files
MAX_IMAGE_BYTES = 512 << 20  # of one file read whole
MAX_UNPACKED_RATIO = 200  # text packs up to about 30:1, pictures hardly at all; a bomb 1,000:1
MIN_UNPACKED_BYTES = 64 << 20  # below this no ratio is suspicious
MAX_DEPTH = 4  # how far below the given root a data set's top directory is looked for
_JUNK_DIRECTORIES = ("__MACOSX", ".git", ".ipynb_checkpoints")
_JUNK_FILES = (".DS_Store", "Thumbs.db", "desktop.ini")
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError, ValueError)


class _Store(Protocol):
    """Where members lie."""

    def open(self, key: str) -> IO[bytes]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Member:
    store: _Store
    key: str
    size: int


class Tree:
    """Files by their POSIX path below a top directory. Use as a context manager, or `close` it.

    Attributes:
        label: what the user gave, for messages.
        ignored: members left out as (name, reason), shared by all sub-trees.
    """

    def __init__(self, label: str, members: dict[str, _Member], stores: list[_Store], top: str = "") -> None:
        self.label = label
        self.ignored: list[tuple[str, str]] = []
        self._members, self._stores, self._top = members, stores, top
        self._mounted: set[str] = set()

    def __enter__(self) -> Tree:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for store in self._stores:
            store.close()

    def names(self, under: str = "", suffixes: Sequence[str] = ()) -> list[str]:
        """Sorted paths of the files below a directory, relative to this tree; suffixes are compared in lower case."""
        top = self._top + (f"{under.rstrip('/')}/" if under else "")
        cut, ends = len(self._top), tuple(suffixes)
        return sorted(
            name[cut:] for name in self._members if name.startswith(top) and (not ends or name.lower().endswith(ends))
        )

    def directories(self, under: str = "") -> list[str]:
        """Sorted names of the directories that lie directly below a directory of this tree."""
        top = self._top + (f"{under.rstrip('/')}/" if under else "")
        rest = (name[len(top) :] for name in self._members if name.startswith(top))
        return sorted({name.split("/", 1)[0] for name in rest if "/" in name})

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._top + name in self._members

    def open(self, name: str) -> IO[bytes]:
        """A file of this tree, opened for reading from its start.

        Raises:
            BadRecord: there is no such file, or it cannot be opened.
        """
        member = self._members.get(self._top + name)
        if member is None:
            raise BadRecord("file_missing", name)
        try:
            return member.store.open(member.key)
        except (*DAMAGED, NotImplementedError, RuntimeError) as error:
            raise BadRecord("file_unreadable", f"{name}: {error}") from None

    def read(self, name: str, limit: int = MAX_IMAGE_BYTES) -> bytes:
        """A whole file of at most `limit` bytes.

        Raises:
            BadRecord: missing, unreadable or larger than `limit`, whatever its header says.
        """
        with self.open(name) as file:
            try:
                data = file.read(limit + 1)
            except DAMAGED as error:
                raise BadRecord("file_unreadable", f"{name}: {error}") from None
        if len(data) > limit:
            raise BadRecord("file_too_large", f"{name}: more than {limit} bytes")
        return data

    def at(self, directory: str) -> Tree:
        """The tree whose top is a directory of this one."""
        below = Tree(
            self.label, self._members, self._stores, self._top + (f"{directory.rstrip('/')}/" if directory else "")
        )
        below.ignored = self.ignored
        return below

    def with_beside(self, names: Iterable[str]) -> Tree:
        """This tree, and those of the named files that lie beside its top directory as if they lay in it."""
        above = self._top.rstrip("/").rpartition("/")[0]
        found = {self._top + name: self._members.get(f"{above}/{name}".lstrip("/")) for name in names if self._top}
        own = {name: member for name, member in self._members.items() if name.startswith(self._top)}
        more = Tree(self.label, {name: m for name, m in found.items() if m} | own, self._stores, self._top)
        more.ignored = self.ignored
        return more

    def left_out(self) -> list[tuple[str, str]]:
        """What of `ignored` belongs to this tree, or would lie outside any tree."""
        return [
            (name, reason) for name, reason in self.ignored if name.startswith(self._top) or reason == "unsafe_name"
        ]

    def where(self, name: str = "") -> str:
        """A member as a message names it: what the user gave, then the path inside."""
        return "/".join(part for part in (self.label, (self._top + name).strip("/")) if part)

    def fingerprint(self) -> str:
        """Hash of every member's path and bytes; a tree has the same one packed and unpacked. Reads every file."""
        total = hashlib.blake2b(digest_size=16)
        for name in self.names():
            total.update(name.encode() + b"\0")
            try:
                with self.open(name) as file:
                    one = hashlib.blake2b(digest_size=16)
                    while block := file.read(1 << 20):
                        one.update(block)
                    total.update(one.digest())
            except (BadRecord, *DAMAGED):
                total.update(b"unreadable")
        return total.hexdigest()

    def locate(
        self, title: str, required: Sequence[str], any_of: Sequence[str] = (), folders: Sequence[str] = ()
    ) -> Tree:
        """The directory, at most `MAX_DEPTH` levels down, that holds all of `required` and one of `any_of`.

        A directory named in `folders` comes first, then the one nearest to the top. Where nothing matches, archives
        that lie in the tree are looked into as if they were unpacked where they are.

        Raises:
            InputError: no such directory, or (Ambiguous) several on one level.
        """
        places = self._matches(required, any_of)
        if not places and self.mount_archives():
            places = self._matches(required, any_of)
        if not places:
            raise InputError(self._not_found(title, required, any_of), self.where(), self._how_to_mend())
        wanted = {folder.casefold() for folder in folders}
        named = [p for p in places if wanted & {part.casefold() for part in p.split("/")}]
        candidates = named or places
        nearest = min(_depth(p) for p in candidates)
        best = sorted(p for p in candidates if _depth(p) == nearest)
        if len(best) > 1:
            raise Ambiguous(
                f"{title} could be any of {', '.join(best[:4])}", self.where(), "give the right one as --root"
            )
        return self.at(best[0])

    def _matches(self, required: Sequence[str], any_of: Sequence[str]) -> list[str]:
        markers = {*required, *any_of}
        found: dict[str, set[str]] = defaultdict(set)
        cut = len(self._top)
        for name in self._members:
            if not name.startswith(self._top):
                continue
            parts = name[cut:].split("/")
            for depth, part in enumerate(parts[: MAX_DEPTH + 1]):
                if part in markers:
                    found["/".join(parts[:depth])].add(part)
        return [p for p, have in found.items() if have.issuperset(required) and (not any_of or have & set(any_of))]

    def mount_archives(self) -> bool:
        """Add the members of the zip and tar files near the top, each once; True where there were new ones."""
        mounted = False
        for name in self.names(suffixes=(".zip", ".tar")):
            if name.count("/") > 1 or name in self._mounted:
                continue
            self._mounted.add(name)
            with self.open(name) as file:
                path = Path(file.name) if hasattr(file, "name") and isinstance(file.name, str) else None
            if path is None or not path.is_file():
                continue
            prefix = self._top + name[: name.rfind("/") + 1]
            members, store, ignored = _list_archive(path)
            for inner, member in members.items():
                self._members.setdefault(prefix + inner, member)
            self._stores.append(store)
            self.ignored.extend((f"{name}:{inner}", reason) for inner, reason in ignored)
            mounted = True
        return mounted

    def _not_found(self, title: str, required: Sequence[str], any_of: Sequence[str]) -> str:
        looked = [f"'{m}'" for m in required]
        if any_of:
            looked.append(f"one of {', '.join(repr(m) for m in any_of[:4])}{', …' if len(any_of) > 4 else ''}")
        top = sorted({name.split("/", 1)[0] for name in self.names()})
        seen = ", ".join(top[:6]) + (", …" if len(top) > 6 else "") if top else "nothing"
        return f"no {title} found: looked for a directory with {' and '.join(looked)}; found {seen}"

    def _how_to_mend(self) -> str:
        links = [name for name, reason in self.ignored if reason == "link"]
        if links:
            return f"links are not followed, such as {links[0]}: give their target as --root"
        packed = self.names(suffixes=(".rar", ".7z"))
        if packed:
            return f"unpack {packed[0]} first: RAR and 7z cannot be read in place"
        packed = self.names(suffixes=(".tar.gz", ".tgz", ".tar.bz2", ".tar.xz"))
        if packed:
            return f"give the archive {packed[0]} itself as --root"
        return "give the directory that holds the data set, or its archive, as --root"


def _depth(directory: str) -> int:
    return directory.count("/") + 1 if directory else 0


def open_tree(root: Path | str) -> Tree:
    """The tree of a directory, or of a .zip, .tar or compressed .tar file, told by its content.

    A compressed tar is unpacked once into an unnamed temporary file (`TMPDIR`), because it has no random access.

    Raises:
        InputError: missing, empty, unreadable, damaged, another kind of archive, too many members.
    """
    root = Path(root)
    if root.is_dir():
        store = _Directory(root.resolve())
        members, ignored = store.index()
        opened: _Store = store
    elif root.is_file():
        members, opened, ignored = _list_archive(root)
    else:
        raise InputError("no such file or directory", str(root), "give the directory of the data set as --root")
    tree = Tree(str(root), members, [opened])
    tree.ignored = ignored
    if not members:
        opened.close()
        raise InputError(
            "no files there" + (f" but {len(ignored)} left out ({ignored[0][1]})" if ignored else ""),
            str(root),
            "give the directory that holds the data set as --root",
        )
    return tree


class _Directory:
    """Regular files below a directory; links and special files are left out."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def index(self) -> tuple[dict[str, _Member], list[tuple[str, str]]]:
        members: dict[str, _Member] = {}
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
                        members[name] = _Member(self, name, entry.stat(follow_symlinks=False).st_size)
                else:
                    ignored.append((name, "not_a_file"))
            _check_count(len(members), str(self._root))
        return members, ignored

    def open(self, key: str) -> IO[bytes]:
        return (self._root / key).open("rb")

    def close(self) -> None:
        pass


class _Zip:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)

    def index(self) -> tuple[dict[str, _Member], list[tuple[str, str]]]:
        members: dict[str, _Member] = {}
        ignored: list[tuple[str, str]] = []
        infos = self._zip.infolist()
        _check_count(len(infos), str(self._zip.filename))
        for info in infos:
            if info.is_dir() or _is_junk(info.filename):
                continue
            name, mode = clean_name(info.filename), info.external_attr >> 16
            reason = ""
            if name is None:
                reason = "unsafe_name"
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                reason = "link" if stat.S_ISLNK(mode) else "not_a_file"
            elif info.flag_bits & 0x1:
                reason = "encrypted"
            elif name in members:
                reason = "name_twice"
            if reason or name is None:
                ignored.append((_shown(info.filename), reason))
            else:
                members[name] = _Member(self, info.filename, info.file_size)
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

    def index(self) -> tuple[dict[str, _Member], list[tuple[str, str]]]:
        members: dict[str, _Member] = {}
        ignored: list[tuple[str, str]] = []
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            while (info := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # or it keeps every header, a kilobyte each
                if info.isdir() or _is_junk(info.name):
                    continue
                name = clean_name(info.name)
                reason = ""
                if name is None:
                    reason = "unsafe_name"
                elif info.issym() or info.islnk():
                    reason = "link"
                elif not info.isreg() or info.issparse():
                    reason = "not_a_file"
                elif name in members:
                    reason = "name_twice"
                if reason or name is None:
                    ignored.append((_shown(info.name), reason))
                else:
                    self._places[name] = (info.offset_data, info.size)
                    members[name] = _Member(self, name, info.size)
                    _check_count(len(members), self._label)
        return members, ignored

    def open(self, key: str) -> IO[bytes]:
        start, size = self._places[key]
        return io.BufferedReader(_Slice(self._file, start, size))

    def close(self) -> None:
        self._file.close()


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


def _list_archive(path: Path) -> tuple[dict[str, _Member], _Store, list[tuple[str, str]]]:
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
