"""Images that an annotation names: where they lie in a tree, and how large they are. All adapters look here."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence

from geozero.common.errors import BadRecord
from geozero.corpus.images import size_of
from geozero.sources.readers.archive_members import IMAGE_SUFFIXES, alnum_key, image_stem
from geozero.sources.readers.tree import Tree


class ImageFiles:
    """An index of the images of a tree; a name from an annotation only ever finds a listed member.

    Args:
        usual: names of the directories that the images lie in, as the data set has them.
    """

    def __init__(self, tree: Tree, usual: Sequence[str] = ()) -> None:
        self._tree, self._usual = tree, usual
        self._sizes: dict[str, tuple[int, int] | BadRecord] = {}
        self._all_mounted = False
        self._index()

    def _index(self) -> None:
        self._members = self._tree.names(suffixes=IMAGE_SUFFIXES)
        self._by_name: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for member in self._members:
            self._by_name[member.rpartition("/")[2]].append(member)
            self._by_stem[image_stem(member)].append(member)
        self._folded: tuple[dict[str, list[str]], ...] = ()  # made where a name is not found as it is written

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __contains__(self, member: object) -> bool:
        return isinstance(member, str) and member in self._by_name.get(member.rpartition("/")[2], ())

    def are_there(self) -> bool:
        """Whether there is a usual directory, or an image at the top."""
        usual = set(map(alnum_key, self._usual))
        folders = {alnum_key(name) for name in self._tree.directories()}
        return bool(usual & folders or self._in_place(self._members, ()))

    def find(self, name: str, near: Sequence[str] = (), place: str = "") -> str:
        """The member that an annotation means by `name`, which may have directories in front, or another suffix.

        Letters' case and the way in which accents are written, which other file systems and archives change, do not
        matter. Of several with that file name the one is meant whose directories agree with `name`, or in whose
        directory the others' directories lie. With `near`, only images below a directory whose name begins with one of
        these are looked at, by letters and digits alone; so too with the usual directories, or else images at the top.
        Where there is none, archives that lie there are looked into.

        Args:
            place: the directory that `name` is relative to, if it is there.

        Raises:
            BadRecord: `image_missing`, or `image_ambiguous`.
        """
        if place and f"{place}/{name}" in self._tree:
            return f"{place}/{name}"
        if name in self._tree:
            return name
        path_parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        found = self._named(path_parts[-1], near) if path_parts else []
        while path_parts and not found and not self._all_mounted:
            self._all_mounted = not self._tree.mount_archives(near or self._usual, others=False)
            if not self._all_mounted:
                self._index()
                found = self._named(path_parts[-1], near)
        if len(found) > 1:
            agreeing = [agreement(member, path_parts) for member in found]
            found = [member for member, n in zip(found, agreeing, strict=True) if n == max(agreeing)]
            found = _above_all(found)
        if not found:
            raise BadRecord("image_missing", name[:80])
        if len(found) > 1:
            raise BadRecord("image_ambiguous", f"{name[:60]} could be {', '.join(found[:3])}")
        return found[0]

    def _named(self, name: str, near: Sequence[str]) -> list[str]:
        """Members of this file name, else of this stem; letters' case and accents apart where there are none."""
        for index, key in ((self._by_name, name), (self._by_stem, image_stem(name))):
            if found := self._in_place(index.get(key, []), near):
                return found
        if not self._folded:
            self._folded = _fold_all(self._by_name), _fold_all(self._by_stem)
        for folded, key in zip(self._folded, (name, image_stem(name)), strict=True):
            if found := self._in_place(folded.get(_fold(key), []), near):
                return found
        return []

    def _in_place(self, members: list[str], near: Sequence[str]) -> list[str]:
        if not near and not self._usual:
            return members
        beginnings = tuple(map(alnum_key, near or self._usual))
        below = [member for member in members if _lies_near(member, beginnings)]
        return below or ([] if near else [member for member in members if "/" not in member])

    def size(self, member: str) -> tuple[int, int]:
        """Width and height of an image in pixels, from its header; each is read once.

        Raises:
            BadRecord: missing, or no image.
        """
        known = self._sizes.get(member)
        if known is None:
            try:
                known = size_of(self._tree.read(member))
            except BadRecord as bad:
                known = BadRecord(bad.reason.replace("file_", "image_"), bad.detail)
            self._sizes[member] = known
        if isinstance(known, BadRecord):
            raise BadRecord(known.reason, known.detail)
        return known


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _fold_all(index: dict[str, list[str]]) -> dict[str, list[str]]:
    folded: dict[str, list[str]] = defaultdict(list)
    for name, members in index.items():
        folded[_fold(name)] += members
    return folded


def _lies_near(member: str, beginnings: tuple[str, ...]) -> bool:
    return any(alnum_key(part).startswith(beginnings) for part in member.split("/")[:-1])


def _above_all(found: list[str]) -> list[str]:
    """The one in whose directory the others' directories lie; all, where there is none."""
    top = min(found, key=lambda member: member.count("/"))
    directory = top[: top.rfind("/") + 1]
    others = [member for member in found if member.count("/") == top.count("/")]
    return [top] if len(others) == 1 and all(member.startswith(directory) for member in found) else found


def agreement(member: str, path_parts: Sequence[str]) -> int:
    """How many of the directories in front of the file name agree, counted from the file name on."""
    agreeing = 0
    for have, want in zip(reversed(member.split("/")[:-1]), reversed(path_parts[:-1]), strict=False):
        if have.casefold() != want.casefold():
            break
        agreeing += 1
    return agreeing
