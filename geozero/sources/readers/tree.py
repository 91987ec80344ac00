"""Tree: a data set's files, read in place from a directory or straight from an archive, and never trusted.

Members are found by listing, so no name from an annotation file ever becomes a path. Links, absolute names, names
with `..` and everything that is not a regular file are left out and listed in `Tree.ignored`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO

from geozero.common.errors import Ambiguous, BadRecord, InputError, Missing
from geozero.sources.readers.archives import DAMAGED, Directory, Member, Store, list_archive, list_opened, unpacking

MAX_IMAGE_BYTES = 512 << 20  # of one file read whole
MAX_DEPTH = 4  # how far below the given root a data set's top directory is looked for


class Tree:
    """Files by their POSIX path below a top directory. Use as a context manager, or `close` it.

    Attributes:
        label: what the user gave, for messages.
        ignored: members left out as (name, reason), shared by all sub-trees.
    """

    def __init__(self, label: str, members: dict[str, Member], stores: list[Store], top: str = "") -> None:
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
            BadRecord: missing, unreadable or larger than `limit`, by what is listed or by what is there.
        """
        with self.open(name) as file:
            size = self._members[self._top + name].size
            try:
                data = file.read(size + 1) if size <= limit else b""  # room is made for all that is asked for
                if len(data) > size:  # the listing said less than there is
                    data += file.read(limit + 1 - len(data))
            except DAMAGED as error:
                raise BadRecord("file_unreadable", f"{name}: {error}") from None
        if max(size, len(data)) > limit:
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

    def fingerprint(
        self, names: Iterable[str] | None = None, hash_of: Callable[[str], str | None] = lambda name: None
    ) -> str:
        """Hash of every file's path and bytes; a tree has the same one packed and unpacked.

        Args:
            names: the files, sorted; all that there are now, if left out.
            hash_of: the content hash (`geozero.corpus.sample.digest`) of a file that was read before; the others are
                read.
        """
        total = hashlib.blake2b(digest_size=16)
        for name in self.names() if names is None else names:
            total.update(name.encode() + b"\0")
            try:
                total.update(bytes.fromhex(hash_of(name) or self._hash(name)))
            except (BadRecord, *DAMAGED):
                total.update(b"unreadable")
        return total.hexdigest()

    def _hash(self, name: str) -> str:
        with self.open(name) as file:
            one = hashlib.blake2b(digest_size=16)
            while block := file.read(1 << 20):
                one.update(block)
        return one.hexdigest()

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
            raise Missing(self._not_found(title, required, any_of), self.where(), self._how_to_fix())
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
        """Add the members of the zip and tar files near the top, each once; True where there were new ones.

        Such a file may itself lie in an archive; one that is packed there is unpacked into a temporary file.

        Raises:
            InputError: one of them is damaged.
        """
        mounted = False
        for name in self.names(suffixes=(".zip", ".tar")):
            if name.count("/") > 1 or name in self._mounted:
                continue
            self._mounted.add(name)
            member = self._members[self._top + name]
            try:
                file = member.store.whole(member.key)
            except (*DAMAGED, NotImplementedError, RuntimeError) as error:
                raise InputError(f"cannot be read: {error}", self.where(name), "download it again") from None
            prefix = self._top + name[: name.rfind("/") + 1]
            members, store, ignored = list_opened(file, self.where(name))
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

    def _how_to_fix(self) -> str:
        links = [name for name, reason in self.ignored if reason == "link"]
        if links:
            return f"links are not followed, such as {links[0]}: give their target as --root"
        packed = self.names(suffixes=(".rar", ".7z"))
        if packed:
            return f"RAR and 7z cannot be read in place: {unpacking(self.where(packed[0]))}"
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
        store = Directory(root.resolve())
        members, ignored = store.index()
        opened: Store = store
    elif root.is_file():
        members, opened, ignored = list_archive(root)
    else:
        raise Missing("no such file or directory", str(root), "give the directory of the data set as --root")
    tree = Tree(str(root), members, [opened])
    tree.ignored = ignored
    if not members:
        opened.close()
        raise Missing(
            "no files there" + (f" but {len(ignored)} left out ({ignored[0][1]})" if ignored else ""),
            str(root),
            "give the directory that holds the data set as --root",
        )
    return tree
