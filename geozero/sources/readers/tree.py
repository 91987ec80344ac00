"""Tree: a data set's files, read in place from a directory or straight from an archive, and never trusted.

Members are found by listing, so no name from an annotation file ever becomes a path. Links that lead out of the given
directory, absolute names, names with `..` and everything that is not a regular file are left out and listed in
`Tree.ignored`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from geozero.common.errors import Ambiguous, BadRecord, InputError, Missing
from geozero.common.file_kinds import kind_of_name
from geozero.sources.readers.archive_members import alnum_key
from geozero.sources.readers.archives import (
    DAMAGED,
    Directory,
    Member,
    Place,
    Store,
    list_archive,
    list_opened,
    place_of,
)

MAX_IMAGE_BYTES = 512 << 20  # of one file read whole
MAX_DEPTH = 4  # how far below the given root a data set's top directory is looked for
READ_IN_PLACE = (".zip", ".tar")
UNPACKED_FIRST = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz", ".tbz2")  # into a temporary file


@dataclass(slots=True)
class _State:
    """What a tree and its sub-trees share besides their members."""

    ignored: list[tuple[str, str]] = field(default_factory=list)
    mounted: set[str] = field(default_factory=set)  # archives that were looked into
    unreadable: dict[str, InputError] = field(default_factory=dict)  # … and could not be read
    notes: dict[str, str] = field(default_factory=dict)
    archives: dict[Store, str] = field(default_factory=dict)  # what was opened → the file of the given directory


class Tree:
    """Files by their POSIX path below a top directory. Use as a context manager, or `close` it.

    Attributes:
        label: what the user gave, for messages.
        ignored: members left out as (name, reason), shared by all sub-trees.
    """

    def __init__(
        self,
        label: str,
        members: dict[str, Member],
        stores: list[Store],
        top: str = "",
        state: _State | None = None,
    ) -> None:
        self.label, self._members, self._stores, self._top = label, members, stores, top
        self._state = state or _State()

    @property
    def notes(self) -> dict[str, str]:
        """What a reader found out about the whole data set, for the manifest, such as the rule of its splits."""
        return self._state.notes

    @property
    def ignored(self) -> list[tuple[str, str]]:
        return self._state.ignored

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

    def directory(self, *usual: str) -> str:
        """The directory at the top with the first of these names that there is, letters' case and separators apart;
        the first name where there is none."""
        there = {alnum_key(name): name for name in self.directories()} | {name: name for name in self.directories()}
        return next((there[key] for name in usual for key in (name, alnum_key(name)) if key in there), usual[0])

    def unopened(self) -> list[str]:
        """Archives in the top directory or above it that were not looked into, as paths of this tree."""
        archives = self.beside(READ_IN_PLACE + UNPACKED_FIRST)
        return [name for name in archives if self._full(name) not in self._state.mounted]

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._full(name) in self._members

    def _full(self, name: str) -> str:
        """The path below the given root; `../`, which only `beside` gives, leads up."""
        top = self._top
        while name.startswith("../") and top:
            top, name = top[: top.rstrip("/").rfind("/") + 1], name[3:]
        return top + name

    def open(self, name: str) -> IO[bytes]:
        """A file of this tree, opened for reading from its start.

        Raises:
            BadRecord: there is no such file, or it cannot be opened.
        """
        return self._opened(name, whole=False)

    def open_whole(self, name: str) -> IO[bytes]:
        """As `open`, with random access: a file that is packed in an archive is unpacked into a temporary one."""
        return self._opened(name, whole=True)

    def _opened(self, name: str, whole: bool) -> IO[bytes]:
        member = self._members.get(self._full(name))
        if member is None:
            raise BadRecord("file_missing", name)
        try:
            return member.store.whole(member.key) if whole else member.store.open(member.key)
        except (*DAMAGED, NotImplementedError, RuntimeError) as error:
            raise BadRecord("file_unreadable", f"{name}: {error}") from None

    def read(self, name: str, limit: int = MAX_IMAGE_BYTES) -> bytes:
        """A whole file of at most `limit` bytes.

        Raises:
            BadRecord: missing, unreadable or larger than `limit`, by what is listed or by what is there.
        """
        with self.open(name) as file:
            size = self._members[self._full(name)].size
            try:
                data = file.read(size + 1) if size <= limit else b""  # room is made for all that is asked for
                if len(data) > size:  # the listing said less than there is
                    data += file.read(limit + 1 - len(data))
            except DAMAGED as error:
                raise BadRecord("file_unreadable", f"{name}: {error}") from None
        if max(size, len(data)) > limit:
            raise BadRecord("file_too_large", f"{name}: more than {limit} bytes")
        return data

    def place(self, name: str) -> Place | None:
        """The file on disk that holds a file of this tree as it is, and the offset there; None where it is packed."""
        member = self._members.get(self._top + name)
        try:
            return place_of(member) if member else None
        except (*DAMAGED, NotImplementedError, RuntimeError):
            return None

    def add(self, name: str, member: Member) -> str:
        """Add a member that a file of this tree holds, under a path below that file's; returns the path."""
        self._members.setdefault(self._top + name, member)
        return name

    def keep(self, store: Store) -> None:
        """Close a store together with this tree."""
        self._stores.append(store)

    def at(self, directory: str) -> Tree:
        """The tree whose top is a directory of this one."""
        return Tree(
            self.label,
            self._members,
            self._stores,
            self._top + (f"{directory.rstrip('/')}/" if directory else ""),
            self._state,
        )

    def beside(self, suffixes: Sequence[str]) -> list[str]:
        """Files with these suffixes in the top directory and in each one above it, the nearest first, as paths of this
        tree (`../` for each level up)."""
        found = []
        top, up = self._top, ""
        while True:
            found += sorted(
                up + name[len(top) :]
                for name in self._members
                if name.startswith(top) and "/" not in name[len(top) :] and name.lower().endswith(tuple(suffixes))
            )
            if not top:
                return found
            top, up = top[: top.rstrip("/").rfind("/") + 1], up + "../"

    def files(self) -> set[str]:
        """The files below the given directory that hold this tree: its own, the archives, lists in the directories
        above; none if an archive was given."""
        members = [member for name, member in self._members.items() if name.startswith(self._top)]
        above = (self._members[self._full(name)] for name in self.beside((".txt", ".csv")))
        plain = {member.key for member in (*members, *above) if isinstance(member.store, Directory)}
        archives = self._state.archives
        return plain | {archives[store] for store in {member.store for member in members} if store in archives}

    def left_out(self) -> list[tuple[str, str]]:
        """What of `ignored` belongs to this tree, or would lie outside any tree; archives in it that are unreadable."""
        archives = [(name, f"unreadable: {error.what}") for name, error in self._state.unreadable.items()]
        return [
            (name, reason)
            for name, reason in (*self.ignored, *archives)
            if name.startswith(self._top) or reason == "unsafe_name"
        ]

    def where(self, name: str = "") -> str:
        """A member as a message names it: what the user gave, then the path inside."""
        return "/".join(part for part in (self.label, self._full(name).strip("/")) if part)

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
        """The directory, at most `MAX_DEPTH` levels down, that holds all of `required` and one of `any_of`, letters'
        case apart.

        A directory named in `folders` comes first, then the one nearest to the top. Where nothing matches, archives
        that lie in the tree are looked into as if they were unpacked where they are.

        Raises:
            InputError: no such directory, or (Ambiguous) several on one level.
        """
        places = self._matches(required, any_of)
        while not places and self.mount_archives((title, *folders)):
            places = self._matches(required, any_of)
        if not places:
            looked = [f"'{marker}'" for marker in required]
            if any_of:
                looked.append(f"one of {', '.join(map(repr, any_of[:4]))}{', …' if len(any_of) > 4 else ''}")
            raise self.absent(title, f"looked for a directory with {' and '.join(looked)}", folders)
        usual = {folder.casefold() for folder in folders}
        named = [p for p in places if usual & {part.casefold() for part in p.split("/")}]
        candidates = named or places
        nearest = min(_depth(p) for p in candidates)
        best = sorted(p for p in candidates if _depth(p) == nearest)
        if len(best) > 1:
            raise Ambiguous(
                f"{title} could be any of {', '.join(best[:4])}", self.where(), "give the right one as --root"
            )
        return self.at(best[0])

    def _matches(self, required: Sequence[str], any_of: Sequence[str]) -> list[str]:
        needed, one_of = {name.casefold() for name in required}, {name.casefold() for name in any_of}
        found: dict[str, set[str]] = defaultdict(set)
        cut = len(self._top)
        for name in self._members:
            if not name.startswith(self._top):
                continue
            parts = name[cut:].split("/")
            for depth, part in enumerate(parts[: MAX_DEPTH + 1]):
                if part.casefold() in needed or part.casefold() in one_of:
                    found["/".join(parts[:depth])].add(part.casefold())
        return [p for p, have in found.items() if have >= needed and (not one_of or have & one_of)]

    def mount_archives(self, like: Iterable[str] = (), others: bool = True) -> bool:
        """Add the members of archives near the top, each once: at the first call those of zip and tar files, at each
        later one those of a compressed tar file, which is unpacked into a temporary file. One that cannot be read is
        passed over; messages name it.

        Such a file may itself lie in an archive; one that is packed there is unpacked into a temporary file, too.

        Args:
            like: names of the data set; a compressed tar file that is called like one of them comes first.
            others: compressed tar files of other names are looked into, too.

        Returns:
            Whether an archive was looked into; there may be more of them then.
        """
        suffixes = READ_IN_PLACE + UNPACKED_FIRST
        waiting = [n for n in self.names(suffixes=suffixes) if n.count("/") <= 1]
        waiting = [n for n in waiting if self._top + n not in self._state.mounted]
        now = [n for n in waiting if n.lower().endswith(READ_IN_PLACE)]
        if not now:
            named = [n for n in waiting if _is_like(n, like)]
            now = (named or waiting if others else named)[:1]
        for name in now:
            self._mount(name)
        return bool(now)

    def pass_over(self, name: str, error: InputError) -> None:
        """Leave out a file that cannot be read; messages name it, and so does what is left out."""
        self._state.unreadable[self._top + name] = error

    def _mount(self, name: str) -> None:
        self._state.mounted.add(self._top + name)
        try:
            members, store, ignored = list_opened(self.open_whole(name), self.where(name))
        except BadRecord as bad:
            self.pass_over(name, InputError(f"cannot be read: {bad.detail}", self.where(name), "download it again"))
        except InputError as error:
            self.pass_over(name, error)
        else:
            self.keep(store)
            held = self._members[self._top + name]
            self._state.archives[store] = self._state.archives.get(held.store, held.key)
            prefix = name[: name.rfind("/") + 1]
            for inner, member in members.items():
                self.add(prefix + inner, member)
            self.ignored.extend(
                (f"{self._top}{name}:{inner}", reason)
                if reason == "unsafe_name"
                else (f"{self._top}{prefix}{inner}", f"{reason}: in {name}")
                for inner, reason in ignored
            )

    def absent(self, title: str, looked: str, like: Iterable[str] = ()) -> InputError:
        """The error of a data set that is not there: what was looked for and found, and the likely reason.

        It is Missing, but not where an archive cannot be read, which may hold it.

        Args:
            looked: what was looked for, as the message says it.
            like: names of the data set.
        """
        top = sorted({name.split("/", 1)[0] for name in self.names()})
        seen = ", ".join(top[:6]) + (", …" if len(top) > 6 else "") if top else "nothing"
        what = f"no {title} found: {looked}; found {seen}"
        unreadable = {n: e for n, e in self._state.unreadable.items() if n.startswith(self._top)}
        for name in sorted(unreadable, key=lambda name: not _is_like(name, (title, *like)))[:1]:
            return InputError(f"{what}; {name}: {unreadable[name].what}", self.where(), unreadable[name].hint)
        for name in self.names():
            if name.count("/") <= 1 and (kind := kind_of_name(self.where(name))):
                return Missing(f"{what}; {name} is {kind[0]}", self.where(), kind[1])
        return Missing(what, self.where(), self._how_to_fix())

    def _how_to_fix(self) -> str:
        locked = [name for name, reason in self.ignored if reason.startswith("encrypted")]
        if locked:
            return (
                f"files are encrypted, such as {locked[0][:80]}: unpack them with their password and give the directory"
            )
        links = [name for name, reason in self.ignored if reason.partition(":")[0] == "link"]
        if links:
            return (
                f"links are not followed, such as {links[0]}, where they lead out of the directory: give their target "
                "as --root, or the directory that holds it as --follow"
            )
        return "give the directory that holds the data set, or its archive, as --root"


def _is_like(name: str, like: Iterable[str]) -> bool:
    """Whether an archive is called like one of these names, by letters and digits."""
    own = alnum_key(name.rpartition("/")[2].split(".")[0])
    keys = [alnum_key(other) for other in like]
    return any(key and own and (key in own or own in key) for key in keys)


def _depth(directory: str) -> int:
    return directory.count("/") + 1 if directory else 0


def open_tree(root: Path | str, follow: Iterable[Path] = ()) -> Tree:
    """The tree of a directory, of a .zip, .tar or compressed .tar file, told by its content, or of one Parquet file.

    A compressed tar is unpacked once into an unnamed temporary file (`TMPDIR`), because it has no random access.

    Args:
        follow: directories into which symbolic links may lead, besides `root` itself.

    Raises:
        InputError: missing, empty, unreadable, damaged, another kind of archive, too many members.
    """
    root = Path(root)
    if root.is_dir():
        store = Directory(root.resolve(), follow)
        members, ignored = store.index()
        opened: Store = store
    elif root.is_file() and root.suffix.lower() == ".parquet":
        opened, ignored = Directory(root.resolve().parent), []
        members = {root.name: Member(opened, root.resolve().name, root.stat().st_size)}
    elif root.is_file():
        members, opened, ignored = list_archive(root)
    else:
        raise Missing("no such file or directory", str(root), "give the directory of the data set as --root")
    if not members:
        opened.close()
        raise Missing(
            "no files there" + (f" but {len(ignored)} left out ({ignored[0][1]})" if ignored else ""),
            str(root),
            "give the directory that holds the data set as --root",
        )
    return Tree(str(root), members, [opened], state=_State(ignored))
